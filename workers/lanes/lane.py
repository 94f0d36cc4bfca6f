"""One lane: the loop that fetches, scores and commits the records of one partition index.

Exactly once rests on the order of steps in ``_open``: first fence the previous owner, then read the offsets that it
committed. Offsets read before the fence may be older than its last commit. See docs/decisions/0002-lanes.md.
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
from failsoft.topics.routing import OutgoingRecord, route
from failsoft.workers.execution.runner import Runner
from failsoft.workers.kafka.consumer_insides import committed as committed_offsets
from failsoft.workers.lanes.batch_size import BatchSize
from failsoft.workers.lanes.crash_marks import BatchMode, CrashMarker, CrashTracker
from failsoft.workers.lanes.exclusive import ExclusiveLock
from failsoft.workers.lanes.retry_schedule import RetrySchedule
from failsoft.workers.lanes.transaction import COMMIT_TIMEOUT, OffsetAndMetadata, commit
from failsoft.workers.scoring.plan import Call, CallResult, Plan, Scored
from failsoft.workers.scoring.poison import PoisonRecord
from failsoft.workers.scoring.score import score
from failsoft.workers.serving.registry import ServingRegistry
from failsoft.workers.telemetry.report import Reporter

log = structlog.get_logger("failsoft.lane")

T = TypeVar("T")


class Stage(StrEnum):
    """What a lane is doing now. The watchdog reads it."""

    OPENING = "opening"
    FETCHING = "fetching"
    SCORING = "scoring"
    COMMITTING = "committing"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Deps:
    """What all lanes of a worker share.

    Attributes:
        names: the pipeline's topic, group and transaction names.
        plan: the pipeline's models, fallback chain and ladder.
        registry: the versions that serve here, and their breakers.
        runner: runs the calls to models.
        reporter: writes metrics and failure logs of each committed batch.
        make_producer: makes the producer of a lane, by its index.
        make_known: restores the answers for ``last_known`` of a lane; None if the chain has no such link.
        on_result: called with each call and its result.
        exactly_once: commit in transactions; else at least once.
        wall: the wall clock (epoch seconds).
        clock: the monotonic clock (seconds).
        draws: gives n uniform random draws in [0, 1).
        exclusive: the lock with which a lane runs a batch alone in the process.
    """

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

    ``run`` returns after ``close`` was called. Any error that it raises must end the worker: the next owner starts
    from the last commit.

    Attributes:
        index: the partition index.
        stage: what the lane is doing now.
        since: when the stage, or its current call of a model, began (monotonic seconds).
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
        self._retries = 0  # records of the current batch that come from the ladder
        self._batch_size = BatchSize()
        self._crashes: CrashTracker[TopicPartition] = CrashTracker()
        self._fetched: dict[TopicPartition, tuple[int, int]] = {}  # the current batch: last offset, number of records
        self._producer: AIOKafkaProducer | None = None
        self._known: LastKnown | None = None
        self._closing = False
        self._cancellable: asyncio.Future[Any] | None = None  # opening or a fetch, which ``close`` cancels

    @property
    def overdue(self) -> Mapping[str, int]:
        """When the first record of each waiting rung is due (epoch ms), by topic."""
        return self._schedule.overdue

    @property
    def ladder(self) -> Set[TopicPartition]:
        """This lane's partitions of the rungs and of the replay topic."""
        return self._schedule.ladder

    def lag(self, ends: Mapping[TopicPartition, int]) -> Mapping[str, int]:
        """Records of each rung that are not read yet, by topic, given the end offsets. Transaction markers count."""
        return self._schedule.lag(ends)

    async def run(self) -> None:
        """Open the lane, then fetch, score and commit batch after batch until ``close`` is called."""
        await self._unless_closed(self._open())
        while not self._closing:
            batch = await self._take()
            if batch:
                await self._process(batch)
        self._enter(Stage.CLOSED)

    def close(self) -> None:
        """Stop opening or fetching. ``run`` finishes and commits a batch that it has already fetched."""
        self._closing = True
        if self._cancellable is not None:
            self._cancellable.cancel()  # loses nothing: records that were not returned are fetched again

    async def stop(self) -> None:
        """Stop the producer. The next owner aborts a transaction that is still open when it fences this producer."""
        self._enter(Stage.CLOSED)
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await producer.stop()

    async def _unless_closed(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of ``work``, or None when the lane is closed before ``work`` ends."""
        if self._closing:
            work.close()
            return None
        waiting: asyncio.Future[T] = asyncio.ensure_future(work)
        self._cancellable = waiting
        try:
            result = await waiting
        except asyncio.CancelledError:
            if self._closing and waiting.cancelled():
                return None
            raise
        finally:
            self._cancellable = None
        return None if self._closing else result

    # --- open -----------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        self._producer = self._d.make_producer(self.index)
        await self._producer.start()  # fences the previous owner and aborts its open transaction
        for topic in self._outputs():
            # Loads the topic's metadata now: a first use during an outage raises UnknownTopicOrPartition.
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
        """Seek each partition to its committed offset, and read the crash marker beside it.

        A partition without a committed offset is read from its beginning, so that no event is skipped.
        """
        offsets = await committed_offsets(self._consumer, tps)
        for tp in tps:
            if tp in offsets:
                committed = offsets[tp].offset
                if mark := self._crashes.opened(tp, committed, offsets[tp].metadata):
                    log.warning("records are suspected", lane=self.index, topic=tp.topic, at=committed, mark=str(mark))
            else:
                committed = (await self._consumer.beginning_offsets([tp]))[tp]
            self._consumer.seek(tp, committed)
            self._committed[tp] = committed
            self._schedule.opened(tp, committed)

    # --- fetch ----------------------------------------------------------------------------------------------------

    async def _take(self) -> list[Record]:
        """Fetch the next records to score, in offset order within each partition. Empty if there are none."""
        self._enter(Stage.FETCHING)
        readable, wait = self._readable()
        limit = self._batch_size.limit
        if chosen := self._crashes.choose(readable):  # a suspected partition is read by itself, in small batches
            readable, limit = [chosen[0]], chosen[1]
        fetched = await self._unless_closed(
            self._consumer.getmany(*readable, timeout_ms=round(1000 * wait), max_records=limit)
        )
        if fetched is None:
            return []
        # The broker answered and returned nothing: the suspected records do not exist any more.
        if chosen and not fetched and self._consumer.highwater(chosen[0]) is not None:
            self._crashes.gone(chosen[0])
        records: list[Record] = []
        self._fetched.clear()
        self._retries = 0
        for tp, batch in fetched.items():
            if tp in self.ladder:
                batch = self._due_now(tp, batch)
                self._retries += len(batch)
            records += batch
            if batch:
                self._fetched[tp] = batch[-1].offset, len(batch)
        if not records:
            self._d.reporter.idle()
        if len(records) < limit:  # else a partition may be missing only because the batch was full
            empty = [tp for tp in readable if tp in self.ladder and not fetched.get(tp)]
            self._schedule.drained(empty, self._consumer.highwater)
        return records

    def _readable(self) -> tuple[list[TopicPartition], float]:
        """The partitions to fetch from, and for how long the fetch may wait for records (seconds)."""
        now_ms = self._now_ms()
        waiting = self._schedule.waits(now_ms, self._consumer.highwater)
        registry, asked = self._d.registry, self._d.plan.asked
        # For each model, even if fewer must answer: a breaker asks for probes only when it knows of waiting retries.
        for model in asked if waiting else ():
            registry.request_probes(model)
        may_retry = [registry.may_retry(model) for model in asked]
        ladder = self._schedule.readable(now_ms, self._d.clock(), sum(may_retry) >= self._d.plan.quorum)
        self._consumer.resume(*ladder.resume)
        self._consumer.pause(*ladder.pause)
        return [*self._live, *ladder.partitions], ladder.wait_seconds

    def _due_now(self, tp: TopicPartition, fetched: Sequence[Record]) -> Sequence[Record]:
        """The fetched records of a rung (or of replay) that are due. The others are fetched again when they are due."""
        taken = self._schedule.take(tp, fetched, self._now_ms())
        if taken.hold_at is not None:
            self._consumer.seek(tp, taken.hold_at)
            self._consumer.pause(tp)
        return fetched[: taken.count]

    # --- score and commit -----------------------------------------------------------------------------------------

    async def _process(self, records: list[Record]) -> None:
        """Score and commit one batch. A suspected record waits until no other lane of the worker runs a batch."""
        started = self._d.clock()
        mode = self._crashes.mode({tp: last for tp, (last, _) in self._fetched.items()})
        async with self._d.exclusive.hold(mode.alone):
            await self._settle(records, mode, started)

    async def _settle(self, records: list[Record], mode: BatchMode[TopicPartition], started: float) -> None:
        """Mark, score and commit one batch, and record what was done."""
        d = self._d
        # 1. Write the crash markers. If the worker crashes from here on, the next owner reads them.
        await self._mark(mode.marks)
        # 2. Score.
        self._enter(Stage.SCORING)
        scored, inference = await self._score(records, mode.poison)
        # 3. A record that ran alone is no longer in flight: a commit that fails must not count as its crash.
        if mode.alone:
            await self._mark(self._crashes.ran(mode))
        # 4. Commit outputs and offsets. A batch that is held as a whole commits too, to replace its markers.
        offsets = await self._offsets(records, scored.held)
        began = d.clock()
        if offsets or mode.marks:
            offset_metadata = self._crashes.offset_metadata(mode, self._committed, offsets)
            await self._commit(route(scored.verdicts, d.names), offset_metadata)
        # 5. Only now, after the commit: remember the answers and report the batch.
        if offsets:
            self._committed.update(offsets)
            wrote = [tp for tp in self.ladder if d.names.delay_of(tp.topic) in scored.retried]
            self._schedule.committed(offsets, wrote)
            if self._known is not None:
                now = d.wall()
                for keys, predictions, version in scored.known:
                    self._known.remember(keys, predictions, d.plan.primary, version, now)
            d.reporter.committed(records, scored, started, began)
            # A batch with held rows is fetched again, so none of it counts as passed.
            for tp in mode.marks if not scored.held else ():
                high = self._consumer.highwater(tp)
                done = self._schedule.is_held(tp) or (high is not None and high <= self._committed[tp])
                self._crashes.passed(tp, self._fetched[tp][1], done)
        # 6. Adapt the share of the ladder and the size of the next batch to the time that this one took.
        now = d.clock()
        self._schedule.spent(len(records), self._retries, now - started, now)
        slow = min(d.plan.cards[model].breaker.slow_call for model in d.plan.asked)
        self._batch_size.adapt(len(records), inference, d.clock() - started, slow)

    async def _mark(self, marks: Mapping[TopicPartition, CrashMarker]) -> None:
        """Commit the same offsets again, with crash markers as metadata. The next owner reads them if this worker
        crashes during the run. A lane that was fenced cannot write them.
        """
        if marks:
            await self._commit((), {tp: (self._committed[tp], str(mark)) for tp, mark in marks.items()})

    async def _score(self, records: list[Record], poison: PoisonRecord | None) -> tuple[Scored, float]:
        """Run the calls that ``score`` yields. Returns the verdicts, and how long the slowest call took (seconds)."""
        d = self._d
        steps = score(records, d.plan, d.registry, self._known, self._now_ms(), d.draws(len(records)), poison)
        slowest = 0.0
        try:
            call = next(steps)
            while True:
                result = await d.runner.run(call)
                d.on_result(call, result)
                self.since = d.clock()  # each call has its own deadline, so the watchdog times each call by itself
                slowest = max(slowest, result.seconds)
                call = steps.send(result)
        except StopIteration as end:
            return end.value, slowest

    async def _offsets(self, records: Sequence[Record], held: set[int]) -> dict[TopicPartition, int]:
        """The offsets to commit: those that the batch advances, by partition.

        Held rows are the last ones of their topics in the batch. The lane seeks back to the first of them, so that they
        are fetched again later.

        The offset is the consumer's position and not the last record's offset plus one. The next
        offset may be that of a transaction marker. Committed there, it goes out of range when retention empties an
        unused rung, and never recovers.
        """
        for topic, offset in {records[row].topic: records[row].offset for row in sorted(held, reverse=True)}.items():
            self._consumer.seek(TopicPartition(topic, self.index), offset)
        if len(held) == len(records):
            return {}
        positions = {tp: await self._consumer.position(tp) for tp in self._committed}
        return {tp: position for tp, position in positions.items() if position != self._committed[tp]}

    async def _commit(
        self, routed: Sequence[tuple[str, list[OutgoingRecord]]], offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> None:
        """Write outputs and offsets in one transaction. Any error ends the worker: the outcome is not known then."""
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
