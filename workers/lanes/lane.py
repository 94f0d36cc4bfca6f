"""One partition index: fetch, score, one transaction, again.

The order in ``open`` is the whole proof of exactly once: fence the previous owner first, then read the offsets that
it committed. See docs/decisions/0002-lanes.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from failsoft.models.answers.last_known import LastKnown
from failsoft.schemas.record import Record
from failsoft.topics.names import Names
from failsoft.topics.routing import Row, route
from failsoft.workers.execution.runner import Runner
from failsoft.workers.lanes.batch_size import BatchSize
from failsoft.workers.lanes.crash_marks import BatchMode, CrashMarker, CrashTracker
from failsoft.workers.lanes.exclusive import ExclusiveLock
from failsoft.workers.lanes.retry_schedule import RetrySchedule
from failsoft.workers.lanes.transaction import COMMIT_TIMEOUT, Noted, commit
from failsoft.workers.scoring.plan import Call, CallResult, Plan, Scored
from failsoft.workers.scoring.poison import PoisonRecord
from failsoft.workers.scoring.score import score
from failsoft.workers.serving.registry import ServingRegistry
from failsoft.workers.telemetry.report import Reporter

log = structlog.get_logger("failsoft.lane")

T = TypeVar("T")


class Stage(StrEnum):
    """What a lane is doing, for the watchdog."""

    OPENING = "opening"
    FETCHING = "fetching"
    SCORING = "scoring"
    COMMITTING = "committing"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Deps:
    """What all lanes of a worker share. ``wall`` is epoch seconds, ``clock`` monotonic, ``draws`` gives n uniforms."""

    names: Names
    plan: Plan
    registry: ServingRegistry
    runner: Runner
    reporter: Reporter
    make_producer: Callable[[int], AIOKafkaProducer]
    make_known: Callable[[int], Coroutine[Any, Any, LastKnown | None]]
    on_result: Callable[[Call, CallResult], None]
    exactly_once: bool
    wall: Callable[[], float]
    clock: Callable[[], float]
    draws: Callable[[int], np.ndarray[Any, np.dtype[np.float64]]]
    exclusive: ExclusiveLock = field(default_factory=ExclusiveLock)


class Lane:
    """Partition ``index`` of every topic that the pipeline reads, with one producer of its own.

    ``run`` ends when ``close`` was called, or raises whatever makes this worker unfit to go on.
    """

    def __init__(
        self, index: int, partitions: Iterable[TopicPartition], consumer: AIOKafkaConsumer, deps: Deps
    ) -> None:
        self.index = index
        self.stage = Stage.OPENING
        self.since = deps.clock()
        self._d = deps
        self._consumer = consumer
        tps = list(partitions)
        ladder = {tp for tp in tps if tp.topic in deps.plan.rungs or tp.topic == deps.plan.replay}
        self._live = [tp for tp in tps if tp not in ladder]
        self._schedule = RetrySchedule(ladder, deps.plan.rungs)
        self._committed: dict[TopicPartition, int] = {}
        self._retries = 0  # records of the batch at hand that are from the ladder
        self._batch_size = BatchSize()
        self._crashes: CrashTracker[TopicPartition] = CrashTracker()
        self._read: dict[TopicPartition, tuple[int, int]] = {}  # of the batch at hand: last offset, and how many
        self._producer: AIOKafkaProducer | None = None
        self._known: LastKnown | None = None
        self._closing = False
        self._wait_for: asyncio.Future[Any] | None = None  # what ``close`` may cancel: opening, or a fetch

    @property
    def overdue(self) -> Mapping[str, int]:
        """Rungs that wait, and when their heads are due (epoch ms)."""
        return self._schedule.overdue

    @property
    def ladder(self) -> Set[TopicPartition]:
        """The partitions of rungs and of replay."""
        return self._schedule.ladder

    def lag(self, ends: Mapping[TopicPartition, int]) -> Mapping[str, int]:
        """Records of each rung that are written and not read (markers between them counted too), by its end offset."""
        return self._schedule.lag(ends)

    async def run(self) -> None:
        """Open, then loop until closed."""
        await self._unless_closed(self._open())
        while not self._closing:
            batch = await self._take()
            if batch:
                await self._process(batch)
        self._enter(Stage.CLOSED)

    def close(self) -> None:
        """Stop opening or fetching; a batch that is being worked on is finished by ``run``."""
        self._closing = True
        if self._wait_for is not None:
            self._wait_for.cancel()  # loses nothing: what was not returned is fetched again

    async def stop(self) -> None:
        """Give up the producer. An open transaction is the next owner's to abort."""
        self._enter(Stage.CLOSED)
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await producer.stop()

    async def _unless_closed(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What ``work`` returns, or None when the lane is closed meanwhile."""
        if self._closing:
            work.close()
            return None
        waiting: asyncio.Future[T] = asyncio.ensure_future(work)
        self._wait_for = waiting
        try:
            found = await waiting
        except asyncio.CancelledError:
            if self._closing and waiting.cancelled():
                return None
            raise
        finally:
            self._wait_for = None
        return None if self._closing else found

    # --- open -----------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        self._producer = self._d.make_producer(self.index)
        await self._producer.start()  # fences the previous owner and aborts its transaction
        for topic in self._outputs():
            # a first use during an outage raises UnknownTopicOrPartition
            await self._producer.partitions_for(topic)
        await self._seek([*self._live, *sorted(self.ladder)])
        self._known = await self._d.make_known(self.index)
        if not self._closing:
            self._consumer.resume(*self._live, *self.ladder)
        log.info("lane open", lane=self.index)

    def _outputs(self) -> list[str]:
        names = self._d.names
        return [names.scored, names.dead, *(names.retry(name) for name, _ in self._d.plan.delays)]

    async def _seek(self, tps: list[TopicPartition]) -> None:
        """To the committed offsets; a partition never read before is read from its beginning (no event is skipped)."""
        found = await self._consumer._coordinator.fetch_committed_offsets(tps)  # ``committed`` drops the metadata
        for tp in tps:
            if tp in found:
                committed = found[tp].offset
                if mark := self._crashes.opened(tp, committed, found[tp].metadata):
                    log.warning("records are suspected", lane=self.index, topic=tp.topic, at=committed, mark=str(mark))
            else:
                committed = (await self._consumer.beginning_offsets([tp]))[tp]
            self._consumer.seek(tp, committed)
            self._committed[tp] = committed
            self._schedule.opened(tp, committed)

    # --- fetch ----------------------------------------------------------------------------------------------------

    async def _take(self) -> list[Record]:
        """The next records to score, in order within each partition."""
        self._enter(Stage.FETCHING)
        readable, wait = self._readable()
        limit = self._batch_size.limit
        if chosen := self._crashes.choose(readable):
            readable, limit = [chosen[0]], chosen[1]
        fetched = await self._unless_closed(
            self._consumer.getmany(*readable, timeout_ms=round(1000 * wait), max_records=limit)
        )
        if fetched is None:
            return []
        if chosen and not fetched and self._consumer.highwater(chosen[0]) is not None:  # the broker has answered
            self._crashes.gone(chosen[0])
        records: list[Record] = []
        self._read.clear()
        self._retries = 0
        for tp, found in fetched.items():
            if tp in self.ladder:
                found = self._due_now(tp, found)
                self._retries += len(found)
            records += found
            if found:
                self._read[tp] = found[-1].offset, len(found)
        if not records:
            self._d.reporter.idle()
        if len(records) < limit:
            empty = [tp for tp in readable if tp in self.ladder and not fetched.get(tp)]
            self._schedule.drained(empty, self._consumer.highwater)
        return records

    def _readable(self) -> tuple[list[TopicPartition], float]:
        """The partitions to fetch from, and for how long to wait for them (seconds)."""
        now_ms = self._now_ms()
        waiting = self._schedule.waits(now_ms, self._consumer.highwater)
        registry, asked = self._d.registry, self._d.plan.asked
        for model in asked if waiting else ():
            registry.request_probes(model)
        may = [registry.may_retry(model) for model in asked]
        ladder = self._schedule.readable(now_ms, self._d.clock(), sum(may) >= self._d.plan.quorum)
        self._consumer.resume(*ladder.resume)
        self._consumer.pause(*ladder.pause)
        return [*self._live, *ladder.partitions], ladder.wait_seconds

    def _due_now(self, tp: TopicPartition, found: Sequence[Record]) -> Sequence[Record]:
        """The records of a rung (or of replay) that may be attempted now; the rest is read again when it may."""
        taken = self._schedule.take(tp, found, self._now_ms())
        if taken.hold_at is not None:
            self._consumer.seek(tp, taken.hold_at)
            self._consumer.pause(tp)
        return found[: taken.count]

    # --- score and commit -----------------------------------------------------------------------------------------

    async def _process(self, records: list[Record]) -> None:
        started = self._d.clock()
        mode = self._crashes.mode({tp: last for tp, (last, _) in self._read.items()})
        async with self._d.exclusive.hold(mode.alone):
            await self._settle(records, mode, started)

    async def _settle(self, records: list[Record], mode: BatchMode[TopicPartition], started: float) -> None:
        d = self._d
        await self._mark(mode.marks)
        self._enter(Stage.SCORING)
        scored, inference = await self._score(records, mode.poison)
        if mode.alone:
            await self._mark(self._crashes.ran(mode))
        offsets = await self._offsets(records, scored.held)
        began = d.clock()
        if offsets or mode.marks:
            offset_metadata = self._crashes.offset_metadata(mode, self._committed, offsets)
            await self._commit(route(scored.verdicts, d.names), offset_metadata)
        if offsets:
            self._committed.update(offsets)
            wrote = [tp for tp in self.ladder if d.names.delay_of(tp.topic) in scored.retried]
            self._schedule.committed(offsets, wrote)
            if self._known is not None:
                now = d.wall()
                for keys, predictions, version in scored.known:
                    self._known.remember(keys, predictions, d.plan.primary, version, now)
            d.reporter.committed(records, scored, started, began)
            for tp in mode.marks if not scored.held else ():
                high = self._consumer.highwater(tp)
                done = self._schedule.is_held(tp) or (high is not None and high <= self._committed[tp])
                self._crashes.passed(tp, self._read[tp][1], done)
        now = d.clock()
        self._schedule.spent(len(records), self._retries, now - started, now)
        slow = min(d.plan.cards[model].breaker.slow_call for model in d.plan.asked)
        self._batch_size.adapt(len(records), inference, d.clock() - started, slow)

    async def _mark(self, marks: Mapping[TopicPartition, CrashMarker]) -> None:
        """Beside the same offsets, by the lane's own producer: what the next owner finds if this worker dies now."""
        if marks:
            await self._commit((), {tp: (self._committed[tp], str(mark)) for tp, mark in marks.items()})

    async def _score(self, records: list[Record], poison: PoisonRecord | None) -> tuple[Scored, float]:
        d = self._d
        steps = score(records, d.plan, d.registry, self._known, self._now_ms(), d.draws(len(records)), poison)
        slowest = 0.0
        try:
            call = next(steps)
            while True:
                result = await d.runner.run(call)
                d.on_result(call, result)
                self.since = d.clock()  # each call is bounded by itself
                slowest = max(slowest, result.seconds)
                call = steps.send(result)
        except StopIteration as end:
            return end.value, slowest

    async def _offsets(self, records: Sequence[Record], held: set[int]) -> dict[TopicPartition, int]:
        """Where each partition is read on from. Held rows are the tail of their topics: they are read again later.

        The consumer's position and not the last record's successor: there a transaction's marker stands, and an offset
        that stays at one is out of range, for ever, once retention has emptied a rung that nobody needed for weeks.
        """
        for topic, offset in {records[row].topic: records[row].offset for row in sorted(held, reverse=True)}.items():
            self._consumer.seek(TopicPartition(topic, self.index), offset)
        if len(held) == len(records):
            return {}
        positions = {tp: await self._consumer.position(tp) for tp in self._committed}
        return {tp: position for tp, position in positions.items() if position != self._committed[tp]}

    async def _commit(self, routed: Sequence[tuple[str, list[Row]]], offsets: Mapping[TopicPartition, Noted]) -> None:
        """Whatever is raised here ends the worker."""
        assert self._producer is not None
        self._enter(Stage.COMMITTING)
        group = self._d.names.group if self._d.exactly_once else None
        work = commit(self._producer, self._consumer, group, self.index, routed, dict(offsets), self._now_ms())
        await asyncio.wait_for(work, COMMIT_TIMEOUT)

    def _now_ms(self) -> int:
        return int(self._d.wall() * 1000)

    def _enter(self, stage: Stage) -> None:
        self.stage = stage
        self.since = self._d.clock()
