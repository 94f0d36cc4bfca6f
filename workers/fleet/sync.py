"""The sync of this worker with the fleet: applies the fleet's rows and sends reports. Scoring waits for neither."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError
from mode import Service

from failsoft.schemas.backoff import doubled
from failsoft.schemas.fleet.breaker import Alert, BreakerRow
from failsoft.schemas.fleet.rollout import RolloutRow
from failsoft.schemas.wire import Malformed
from failsoft.workers.fleet.control_plane import ControlPlane
from failsoft.workers.kafka.clock_probe import ClockProbe
from failsoft.workers.serving.registry import ServingRegistry
from failsoft.workers.serving.version_switch import Versions
from failsoft.workers.telemetry.metrics import Metrics

log = structlog.get_logger("failsoft.sync")

TableRow = TypeVar("TableRow", BreakerRow, RolloutRow)

POLL_EVERY = 0.1
"""Seconds between two checks of the table when no row is announced, as after a rebalance."""

REPORT_EVERY = 0.05
"""Seconds between two checks for something to report, when there is no news."""

COLLECT = 0.005
"""Seconds in which news that arrive together are collected into one round."""

SEND_WITHIN = 5.0
"""Timeout of one round of reports, in seconds. Reports are totals, so the next round replaces one that was lost."""

TOPIC_CHECK_EVERY = 5.0
"""Seconds between two checks that the topic of reports exists."""

RIGHTS_CHECK_EVERY = 30.0
"""Seconds between two checks of the control plane's rights while it runs: a few small requests a worker."""

REPORT_TROUBLE_EVERY = 30.0
"""Seconds between two lines about the same trouble with reports, which are tried every second."""

START_WITHIN = 60.0
"""Seconds for the control plane to join its group and read its tables; after them it is replaced by a new one."""

BACKOFF = (1.0, 30.0)
"""Back-off in seconds before a control plane that ended is started again: first and longest wait."""

TABLE_WITHIN = 15.0
"""Seconds that a starting worker waits for the table before its local breakers decide on retries too. Without the wait,
a worker that starts during an outage would use up an attempt of each waiting retry before it learns of the outage."""

MOST_ALERTS = 1_000
"""Alerts of this worker that may wait for a broker; the oldest are dropped. The log and the metrics have them too."""

CLOSE_WITHIN = 1.0
"""Timeout for closing a producer of reports, in seconds. The next producer sends its unsent totals again."""

STOP_WITHIN = 5.0
"""Timeout for stopping a control plane, in seconds; it may still be starting."""


class Sync(Service):  # type: ignore[misc]
    """Runs a control plane, replaces it when it ends, and passes changes between its tables and this worker's registry
    and versions.

    lacks: the rights of the control plane that this worker lacks, a line for each. It may raise KafkaError.
    """

    def __init__(
        self,
        make_plane: Callable[[], ControlPlane],
        make_producer: Callable[[], AIOKafkaProducer],
        outcomes: str,
        alerts: str,
        registry: ServingRegistry,
        versions: Versions,
        metrics: Metrics,
        lacks: Callable[[], Awaitable[Sequence[str]]],
        probe: ClockProbe,
    ) -> None:
        super().__init__()
        self._lacks = lacks
        self._probe = probe
        self._make_plane, self._make_producer = make_plane, make_producer
        self._outcomes, self._alerts_topic = outcomes, alerts
        self._registry, self._versions, self._metrics = registry, versions, metrics
        metrics.set("failsoft_control_plane_up", 0.0)  # also when it never comes up
        self._plane: ControlPlane | None = None
        self._report_trouble, self._reported_at = "", -math.inf
        self._refused = asyncio.Event()  # a report was refused: a right is missing
        self._seen: dict[tuple[str, str], dict[str, Any]] = {}
        self._news, self._row_came = asyncio.Event(), asyncio.Event()
        self._alerts: deque[Alert] = deque(maxlen=MOST_ALERTS)
        self._topic_there, self._topic_gone = asyncio.Event(), asyncio.Event()
        registry.on_news = versions.on_news = self._news.set

    def alert(self, alert: Alert) -> None:
        """Send an alert of this worker. It is sent again until it is written, so it may be written twice."""
        self._alerts.append(alert)
        self._news.set()

    def not_ready(self) -> str | None:
        """Why the worker is not ready, or None. A table that cannot be read counts for ``TABLE_WITHIN`` only."""
        return None if self._registry.knows_fleet else "the fleet's breakers are not read yet"

    @property
    def up(self) -> bool:
        """Is the control plane running, with its tables read?"""
        return self._plane is not None and self._plane.ready

    @Service.task  # type: ignore[untyped-decorator]
    async def _run_plane(self) -> None:
        ended = 0
        while not self.should_stop:
            if lacking := await self._lacking():
                log.error("the control plane is not started; local breakers decide", lacking=lacking)
                self._registry.knows_fleet = True  # a grant may take days, and scoring does not wait
                await self.sleep(doubled(*BACKOFF, ended))
                ended += 1
                continue
            await self._topic_there.wait()
            plane = self._plane = self._make_plane()
            plane.on_row = self._row_came.set
            try:
                await asyncio.wait_for(plane.app.start(), START_WITHIN)
                ended = 0
                why: object = await self._wait_for_end(plane)
            except Exception as e:  # noqa: BLE001 - events are scored without it, so no error may end the worker
                why = e
            if self.should_stop:
                return
            self._plane = None
            log.error("the control plane ended; local breakers decide until it is back", error=repr(why))
            await self._end(plane)
            await self.sleep(doubled(*BACKOFF, ended))
            ended += 1

    async def _wait_for_end(self, plane: ControlPlane) -> object:
        """Waits until the plane ends, its topic is gone or a right is taken away; returns why. Faust never finds a
        re-created topic again, and says nothing about rights, so such a plane must be replaced.
        """
        ended = asyncio.ensure_future(plane.app.wait_until_stopped())
        missing = asyncio.ensure_future(self._topic_gone.wait())
        refused = asyncio.ensure_future(self._right_gone())
        first = {ended, missing, refused}
        try:
            done, _ = await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in first:
                each.cancel()
        if ended in done:
            return plane.app.crash_reason
        return refused.result() if refused in done else f"the topic {self._outcomes} does not exist any more"

    async def _right_gone(self) -> str:
        """Waits until a right of the control plane is missing; returns which."""
        while not (lacking := await self._lacking()):
            self._refused.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._refused.wait(), RIGHTS_CHECK_EVERY)
        return lacking[0]

    async def _lacking(self) -> Sequence[str]:
        """The rights that are missing; none while the brokers cannot tell, because the plane's own errors say more."""
        try:
            return await self._lacks()
        except KafkaError as e:
            log.info("the control plane's rights cannot be checked now", why=repr(e))
            return ()

    def _topic_is(self, there: bool) -> None:
        yes, no = (self._topic_there, self._topic_gone) if there else (self._topic_gone, self._topic_there)
        yes.set()
        no.clear()

    @Service.task  # type: ignore[untyped-decorator]
    async def _sync_loop(self) -> None:
        up, given_up = False, asyncio.get_running_loop().time() + TABLE_WITHIN
        while not self.should_stop:
            if not self._registry.knows_fleet and asyncio.get_running_loop().time() > given_up:
                log.warning("the fleet's breakers could not be read in time; local breakers decide", after=TABLE_WITHIN)
                self._registry.knows_fleet = True
            if self.up is not up:
                up = self.up
                self._metrics.set("failsoft_control_plane_up", float(up))
                log.info("the fleet's breakers are read" if up else "the fleet's breakers are not read")
            self._row_came.clear()
            if up:
                self._absorb()
                self._registry.knows_fleet = True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._row_came.wait(), POLL_EVERY)

    def _absorb(self) -> None:
        assert self._plane is not None
        for row in self._new("breakers", self._plane.breakers(), BreakerRow):
            self._registry.absorb(row)
        for rollout in self._new("rollouts", self._plane.rollouts(), RolloutRow):
            self._versions.absorb(rollout)

    def _new(self, table: str, rows: Mapping[str, dict[str, Any]], kind: type[TableRow]) -> Iterator[TableRow]:
        """The rows that changed since the last call."""
        for key, value in list(rows.items()):
            if value is self._seen.get((table, key)):
                continue
            self._seen[table, key] = value
            self._news.set()
            try:
                yield kind.from_dict(value)
            except Malformed as e:
                log.error("a table row cannot be read", table=table, key=key, error=str(e))

    @Service.task  # type: ignore[untyped-decorator]
    async def _report(self) -> None:
        """Sends reports on a producer of their own, so that they do not depend on Faust."""
        producer: AIOKafkaProducer | None = None
        checked = 0.0
        try:
            while not self.should_stop:
                await self._something_to_report()
                now = asyncio.get_running_loop().time()
                messages = [(r.key, r.to_bytes()) for r in self._registry.reports()]
                if not self.up:
                    # The answer could not be read. The reports were still taken from the registry: a local breaker
                    # whose requests for probes stay unanswered becomes autonomous.
                    messages = []
                else:
                    messages += [(h.model, h.to_bytes()) for h in self._versions.heartbeats()]
                try:
                    if producer is None or now - checked > TOPIC_CHECK_EVERY:
                        producer, checked = producer or await self._connect(), now
                        await asyncio.wait_for(producer.partitions_for(self._outcomes), SEND_WITHIN)
                        self._topic_is(there=True)
                    if self._probe.due:
                        await asyncio.wait_for(self._probe.measure(producer), SEND_WITHIN)
                    await asyncio.wait_for(self._send(producer, messages), SEND_WITHIN)
                except (KafkaError, TimeoutError) as e:
                    self._note_report_trouble(repr(e))
                    if isinstance(e, TopicAuthorizationFailedError):
                        self._refused.set()
                    if isinstance(e, UnknownTopicOrPartitionError):
                        self._topic_is(there=False)
                    if producer is not None:
                        await self._close(producer)
                        producer = None
                    await self.sleep(BACKOFF[0])
        finally:
            if producer is not None:
                await self._close(producer)

    async def _send(self, producer: AIOKafkaProducer, messages: Sequence[tuple[str, bytes]]) -> None:
        alerts = [(alert.name, alert.to_bytes()) for alert in self._alerts]
        sent = [
            await producer.send(topic, key=key.encode(), value=value, partition=0)
            for topic, found in ((self._outcomes, messages), (self._alerts_topic, alerts))
            for key, value in found
        ]
        await asyncio.gather(*sent)
        for _ in alerts:
            self._alerts.popleft()

    def _note_report_trouble(self, trouble: str) -> None:
        """Logs why reports are not sent: news at once, and the same again every REPORT_TROUBLE_EVERY seconds."""
        now = asyncio.get_running_loop().time()
        if trouble != self._report_trouble or now - self._reported_at >= REPORT_TROUBLE_EVERY:
            self._report_trouble, self._reported_at = trouble, now
            log.warning("reports of this worker could not be sent", error=trouble)

    async def _connect(self) -> AIOKafkaProducer:
        producer = self._make_producer()
        try:
            await asyncio.wait_for(producer.start(), SEND_WITHIN)
        except BaseException:
            await self._close(producer)
            raise
        return producer

    async def _something_to_report(self) -> None:
        try:
            await asyncio.wait_for(self._news.wait(), REPORT_EVERY)
        except TimeoutError:
            return
        # Cleared only here: news that arrived while reports were being sent must not wait for the next check.
        self._news.clear()
        await asyncio.sleep(COLLECT)

    async def _close(self, producer: AIOKafkaProducer) -> None:
        await _stop_within(producer.stop(), CLOSE_WITHIN, "a producer of reports")

    async def _end(self, plane: ControlPlane) -> None:
        await _stop_within(plane.end(), STOP_WITHIN, "a control plane")

    async def on_stop(self) -> None:
        """Stops the control plane; another worker becomes the owner."""
        plane, self._plane = self._plane, None
        if plane is not None:
            await self._end(plane)


async def _stop_within(ending: Coroutine[Any, Any, None], within: float, name: str) -> None:
    """Awaits ``ending`` for at most ``within`` seconds, in a task of its own.

    Its error or cancellation must not end this worker. If it does not end in time, it is cancelled but not awaited,
    because it may ignore the cancellation.
    """
    task = asyncio.ensure_future(ending)
    await asyncio.wait({task}, timeout=within)
    if not task.done():
        task.cancel()
    elif not task.cancelled() and (error := task.exception()) is not None:
        log.warning(f"{name} did not stop cleanly", error=repr(error))
