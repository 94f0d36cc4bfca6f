"""Ends a worker after a fatal error, and says which right was missing if that is the cause."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable

import structlog

from failsoft.schemas.config.refusal import Refused
from failsoft.topics.rights import Use
from failsoft.workers.kafka import access
from failsoft.workers.settings import Settings

log = structlog.get_logger("failsoft.app")

HARD_END = 5.0
"""Seconds after which a crashing worker exits even if cleanup is not done; leaving the group takes one second."""

REFUSED = 3
"""The exit code of a worker whose settings are refused; the supervisor does not start it again."""

EXPLAIN_WITHIN = 2.0
"""Seconds for asking the brokers which right is missing. With the second for leaving they stay below HARD_END."""


def die(
    leave: Callable[[], Awaitable[None]], error: BaseException, mend: Callable[[BaseException], Awaitable[str | None]]
) -> asyncio.Task[None]:
    """Leaves the group, for at most a second, and ends the process: crash-only is the recovery path.

    Its exit code is 3 for a setting that the broker refuses, which no restart can mend; else 1.

    leave: leaves the group.
    mend: what mends an error that has its cause outside of the worker, or None.
    Returns the task, which a caller must keep.
    """
    refused = isinstance(error, Refused)
    text = str(error) if refused else f"{type(error).__name__}: {error}"
    log.critical("worker stops after a fatal error", error=text, exc_info=None if refused else error)
    code = REFUSED if refused else 1
    # Leaving the group awaits cancelled tasks, which may never end.
    hard = threading.Timer(HARD_END, os._exit, (code,))
    hard.daemon = True
    hard.start()

    async def end() -> None:
        try:
            if (found := await mend(error)) is not None:
                log.critical("what mends it", mend=found.splitlines())
            await leave()
        finally:
            os._exit(code)

    return asyncio.get_running_loop().create_task(end())


async def missing_rights(pipeline: Settings, error: BaseException) -> str | None:
    """The rights whose lack has caused ``error``, a line for each with the command that grants it; None for others."""
    try:
        refusal = await asyncio.wait_for(access.explain(pipeline, Use.WORKER, error), EXPLAIN_WITHIN)
    except TimeoutError:
        return None  # the error itself says what was refused
    return str(refusal) if refusal else None
