"""Watches every connection that a client of this process opens: says why it fails, and counts by cause.

aiokafka logs such an error at most, tries again for ever, and keeps the cause to itself: a worker whose password was
changed looked like one without work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from aiokafka import client
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError

from failsoft.topics.connection import diagnosis
from failsoft.topics.connection.causes import PASSING, VAGUE, Finding, Obstacle

log = logging.getLogger(__name__)

QUIET = 5.0
"""Seconds of failures before the first line about a cause that also a broker's restart has."""

EVERY = 30.0
"""Seconds between two lines about one address."""

_RESTART = "a worker reads passwords when it starts: start it again with the new one, or restore the old one"


class ConnectionWatch:
    """Opens connections for aiokafka's clients, and keeps an account of those that fail.

    Args:
        connection: the options of the pipeline's clients.
        count: called with the cause of each failed connection.
        clock: the monotonic clock (seconds).
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        count: Callable[[Obstacle], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = {key: value for key, value in connection.items() if key != "bootstrap_servers"}
        self._count, self._clock = count, clock
        self._failing: dict[tuple[str, int], _Failing] = {}
        self._looking: set[asyncio.Task[None]] = set()

    def install(self) -> None:
        """From now on all clients of this process, also Faust's, connect by this object."""
        client.create_conn = self.create

    async def create(self, host: str, port: int, **options: Any) -> Any:
        """What aiokafka calls for a connection, with the same arguments and errors."""
        try:
            connection = await create_conn(host, port, **options)
        except (TimeoutError, OSError, KafkaError) as error:
            self._failed(host, port, error)
            raise
        except (ValueError, AssertionError, EOFError) as error:
            # What answers does not speak Kafka's protocol. aiokafka's tasks would end with such an error, unnoticed.
            self._failed(host, port, error)
            raise KafkaConnectionError(f"{host}:{port}: {error}") from error
        failing = self._failing.pop((host, port), None)
        if failing is not None and failing.logged is not None:
            log.info("connected to %s:%d again after %.0f s", host, port, self._clock() - failing.since)
        return connection

    def _failed(self, host: str, port: int, error: BaseException) -> None:
        now = self._clock()
        failing = self._failing.setdefault((host, port), _Failing(now))
        found = diagnosis.quick(host, port, error, self._options)
        if found.cause not in VAGUE:
            failing.found = found
        elif failing.found is None:
            failing.found = found
            task = asyncio.get_running_loop().create_task(self._look(host, port, error, failing))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)
        assert failing.found is not None
        self._count(failing.found.cause)
        self._note(failing, now)

    async def _look(self, host: str, port: int, error: BaseException, failing: _Failing) -> None:
        """Look at a listener once more, beside the client, which goes on trying."""
        failing.found = await diagnosis.explain(host, port, error, self._options)

    def _note(self, failing: _Failing, now: float) -> None:
        found = failing.found
        assert found is not None
        patience = QUIET if found.cause in PASSING | VAGUE else 0.0
        said = failing.logged is not None and found.cause is failing.said and now - failing.logged < EVERY
        if said or now - failing.since < patience:
            return
        failing.logged, failing.said = now, found.cause
        mend = (
            f"; {_RESTART}" if found.cause is Obstacle.LOGIN_REFUSED and "sasl_plain_password" in self._options else ""
        )
        log.error("no connection to Kafka for %.0f s (%s): %s%s", now - failing.since, found.cause, found.text, mend)


class _Failing:
    """An address whose connections fail.

    Attributes:
        since: when the first one failed.
        logged: when a line was last logged; None before the first.
        said: the cause in that line. Another cause is logged at once: a broker restarts, and then refuses the login.
        found: why they fail.
    """

    def __init__(self, since: float) -> None:
        self.since = since
        self.logged: float | None = None
        self.said: Obstacle | None = None
        self.found: Finding | None = None
