"""Between this worker and the fleet: rows are absorbed, reports sent, and scoring waits for neither."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError
from mode import Service

from failsoft.schemas.fleet.breaker import BreakerRow
from failsoft.schemas.fleet.rollout import RolloutRow
from failsoft.schemas.wire import Malformed
from failsoft.workers.fleet.control_plane import ControlPlane
from failsoft.workers.serving.registry import ServingRegistry
from failsoft.workers.serving.version_switch import Versions
from failsoft.workers.telemetry.metrics import Metrics

log = structlog.get_logger("failsoft.exchange")

Row = TypeVar("Row", BreakerRow, RolloutRow)

LOOK = 0.02
"""Seconds between two looks at the table, when it does not say by itself that a row came, and half of those between two
looks for something to say: a look costs microseconds."""

SENT_WITHIN = 5.0
"""Seconds for one round of reports. They are totals: what is given up is said again, and better, by the next."""

TOPIC_LOOK = 5.0
"""Seconds between two looks whether the topic of reports is there."""

START_WITHIN = 60.0
"""Seconds for the control plane to join its group and read its table, before it is made anew."""

BACKOFF = (1.0, 30.0)
"""Seconds before a control plane that ended is made anew: the first time, and at most."""

GIVEN_UP_AFTER = 15.0
"""Seconds without the table after a start; then this worker's own breakers decide on the ladder too. Until then it
waits: whoever starts in an outage would burn an attempt of each waiting retry before he had heard of it."""

CLOSE_WITHIN = 1.0
"""Seconds for a producer of reports to end: what it still holds is told again by the next."""

STOP_WITHIN = 5.0
"""Seconds for a control plane to end; it may be in the middle of its start."""


class Sync(Service):  # type: ignore[misc]
    """Runs a control plane, makes it anew when it ends, and carries news between its tables, the board and versions."""

    def __init__(
        self,
        make_plane: Callable[[], ControlPlane],
        make_producer: Callable[[], AIOKafkaProducer],
        outcomes: str,
        registry: ServingRegistry,
        versions: Versions,
        metrics: Metrics,
    ) -> None:
        super().__init__()
        self._make_plane, self._make_producer, self._outcomes = make_plane, make_producer, outcomes
        self._registry, self._versions, self._metrics = registry, versions, metrics
        self._plane: ControlPlane | None = None
        self._seen: dict[tuple[str, str], dict[str, Any]] = {}
        self._news, self._row_came = asyncio.Event(), asyncio.Event()
        self._topic_there, self._topic_gone = asyncio.Event(), asyncio.Event()
        registry.on_news = versions.on_news = self._news.set

    def not_ready(self) -> str | None:
        """Is it unknown yet what the fleet knows? Not for ever: a table that does not come is given up on."""
        return None if self._registry.knows_fleet else "the fleet's breakers are not read yet"

    @property
    def up(self) -> bool:
        """Are the fleet's breakers being read?"""
        return self._plane is not None and self._plane.ready

    @Service.task  # type: ignore[untyped-decorator]
    async def _run_plane(self) -> None:
        wait = BACKOFF[0]
        while not self.should_stop:
            await self._topic_there.wait()
            plane = self._plane = self._make_plane()
            plane.on_row = self._row_came.set
            try:
                await asyncio.wait_for(plane.app.start(), START_WITHIN)
                wait = BACKOFF[0]
                why: object = await self._end_of(plane)
            except Exception as e:  # noqa: BLE001 - whatever it is, events are scored without it
                why = e
            if self.should_stop:
                return
            self._plane = None
            log.error("the control plane ended; breakers are this worker's own until it is back", error=repr(why))
            await self._end(plane)
            await self.sleep(wait)
            wait = min(2 * wait, BACKOFF[1])

    async def _end_of(self, plane: ControlPlane) -> object:
        """Why it has ended, or is to be ended: Faust does not find a topic again that was deleted and made anew."""
        ended = asyncio.ensure_future(plane.app.wait_until_stopped())
        missing = asyncio.ensure_future(self._topic_gone.wait())
        await asyncio.wait({ended, missing}, return_when=asyncio.FIRST_COMPLETED)
        missing.cancel()
        if not ended.done():
            ended.cancel()
            return f"the topic {self._outcomes} is gone"
        return plane.app.crash_reason

    def _topic_is(self, there: bool) -> None:
        yes, no = (self._topic_there, self._topic_gone) if there else (self._topic_gone, self._topic_there)
        yes.set()
        no.clear()

    @Service.task  # type: ignore[untyped-decorator]
    async def _sync_loop(self) -> None:
        up, given_up = False, asyncio.get_running_loop().time() + GIVEN_UP_AFTER
        while not self.should_stop:
            if not self._registry.knows_fleet and asyncio.get_running_loop().time() > given_up:
                log.warning("the fleet's breakers are given up on for now", after=GIVEN_UP_AFTER)
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
                await asyncio.wait_for(self._row_came.wait(), LOOK)

    def _absorb(self) -> None:
        assert self._plane is not None
        for row in self._new("breakers", self._plane.breakers(), BreakerRow):
            self._registry.absorb(row)
        for rollout in self._new("rollouts", self._plane.rollouts(), RolloutRow):
            self._versions.absorb(rollout)

    def _new(self, table: str, rows: Mapping[str, dict[str, Any]], kind: type[Row]) -> Iterator[Row]:
        """The rows that are not the ones seen before."""
        for key, value in list(rows.items()):
            if value is self._seen.get((table, key)):
                continue
            self._seen[table, key] = value
            self._news.set()
            try:
                yield kind.from_dict(value)
            except Malformed as e:
                log.error("a row cannot be read", table=table, key=key, error=str(e))

    @Service.task  # type: ignore[untyped-decorator]
    async def _report(self) -> None:
        """Reports go on a producer of their own, whatever Faust is doing."""
        producer: AIOKafkaProducer | None = None
        looked = 0.0
        try:
            while not self.should_stop:
                await self._something_to_say()
                now = asyncio.get_running_loop().time()
                said = [(r.key, r.to_bytes()) for r in self._registry.reports()]
                if not self.up:
                    said = []  # the answer would not be seen; but whoever asks in vain for long goes alone
                else:
                    said += [(p.model, p.to_bytes()) for p in self._versions.heartbeats()]
                try:
                    if producer is None or now - looked > TOPIC_LOOK:
                        producer, looked = producer or await self._connected(), now
                        await asyncio.wait_for(producer.partitions_for(self._outcomes), SENT_WITHIN)
                        self._topic_is(there=True)
                    sent = [
                        await producer.send(self._outcomes, key=key.encode(), value=value, partition=0)
                        for key, value in said
                    ]
                    if sent:
                        await asyncio.wait_for(asyncio.gather(*sent), SENT_WITHIN)
                except (KafkaError, TimeoutError) as e:
                    log.warning("the fleet does not hear this worker", error=repr(e))
                    if isinstance(e, UnknownTopicOrPartitionError):
                        self._topic_is(there=False)
                    if producer is not None:
                        await self._close(producer)
                        producer = None
                    await self.sleep(BACKOFF[0])
        finally:
            if producer is not None:
                await self._close(producer)

    async def _connected(self) -> AIOKafkaProducer:
        producer = self._make_producer()
        try:
            await asyncio.wait_for(producer.start(), SENT_WITHIN)
        except BaseException:
            await self._close(producer)
            raise
        return producer

    async def _something_to_say(self) -> None:
        try:
            await asyncio.wait_for(self._news.wait(), LOOK * 2)
        except TimeoutError:
            return
        self._news.clear()  # not before: what came while others were sent waits no longer
        await asyncio.sleep(LOOK / 4)  # what comes together goes together

    async def _close(self, producer: AIOKafkaProducer) -> None:
        await _give_up(producer.stop(), CLOSE_WITHIN, "a producer of reports")

    async def _end(self, plane: ControlPlane) -> None:
        await _give_up(plane.end(), STOP_WITHIN, "a control plane")

    async def on_stop(self) -> None:
        """The fleet's other workers take over what this one owned."""
        plane, self._plane = self._plane, None
        if plane is not None:
            await self._end(plane)


async def _give_up(ending: Coroutine[Any, Any, None], within: float, what: str) -> None:
    """Awaits ``ending`` for so many seconds, in a task of its own: what it raises or cancels is not this worker's end,
    and what does not end by itself need not heed a cancellation either.
    """
    task = asyncio.ensure_future(ending)
    await asyncio.wait({task}, timeout=within)
    if not task.done():
        task.cancel()
    elif not task.cancelled() and (error := task.exception()) is not None:
        log.warning(f"{what} did not end cleanly", error=repr(error))
