"""One lane: the loop that takes, scores and hands in for commit the records of one partition index.

A lane goes on while its batches commit: what it scores joins the next transaction, up to the records of one batch.
A batch that must not be in flight beside another one (crash markers, a record that runs alone) waits for its turn. See
docs/decisions/0017-one-transaction.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

import structlog
from aiokafka import TopicPartition

from failsoft.models.answers.last_known import LastKnown
from failsoft.schemas.record import Record
from failsoft.topics.routing import Verdicts, route
from failsoft.workers.execution.batch_size import BatchSize
from failsoft.workers.lanes.committer import Committer, Unit
from failsoft.workers.lanes.crash_marks import BatchMode, CrashMarker, CrashTracker
from failsoft.workers.lanes.deps import Deps
from failsoft.workers.lanes.inbox import Inbox
from failsoft.workers.lanes.redriven import RedrivenLetters
from failsoft.workers.lanes.retry_schedule import RetrySchedule
from failsoft.workers.lanes.run_calls import run_calls
from failsoft.workers.lanes.scored_batch import ScoredBatch
from failsoft.workers.lanes.stage import Stage
from failsoft.workers.lanes.start_offsets import StartOffset
from failsoft.workers.lanes.trouble import trouble_of
from failsoft.workers.scoring.plan import Call, CallResult
from failsoft.workers.scoring.score import score

log = structlog.get_logger("failsoft.lane")

KEPT_MS = 1_000
"""Milliseconds for which records of a rung that are not due yet stay in memory. Under steady traffic a rung becomes due
all the time, and each fetch of it would return the records after it again."""


class Lane:
    """Partition ``index`` of every topic that the pipeline reads.

    ``run`` returns after ``close`` was called. It raises LaneTrouble for a fault of one of its partitions, when all it
    had handed in is committed; another lane may then take its place. Any other error must end the worker: the next
    owner starts from the last commit.

    Args:
        index: the partition index.
        partitions: the lane's partitions.
        inbox: what was fetched of them.
        committer: commits the lane's batches together with those of other lanes.
        start: gives the offsets from which the partitions are read, once no transaction can change them any more.
        deps: what the lanes share.

    Attributes:
        stage: what the lane is doing now.
        ladder: its partitions of the rungs and of the replay topic.
        since: when the stage, or its current call of a model, began (monotonic seconds).
    """

    def __init__(
        self,
        index: int,
        partitions: Iterable[TopicPartition],
        inbox: Inbox,
        committer: Committer,
        start: Callable[[Iterable[TopicPartition]], Awaitable[Mapping[TopicPartition, StartOffset]]],
        deps: Deps,
    ) -> None:
        self.index = index
        self.stage = Stage.OPENING
        self.since = deps.clock()
        self.inbox = inbox
        self._d = deps
        self._committer = committer
        self._start = start
        tps = list(partitions)
        self.ladder = {tp for tp in tps if tp.topic in deps.plan.rungs or tp.topic == deps.plan.replay}
        self._live = [tp for tp in tps if tp not in self.ladder]
        self._schedule = RetrySchedule(self.ladder, deps.plan.rungs)
        self._committed: dict[TopicPartition, int] = {}
        self._handed: dict[TopicPartition, int] = {}  # like _committed, but already when a batch is handed in
        self._pending: deque[Unit] = deque()  # handed in, and not committed
        self._batch_size = BatchSize()
        self._crashes: CrashTracker[TopicPartition] = CrashTracker()
        self._redriven = RedrivenLetters(deps.names, deps.make_letters(), self._now_ms)
        self._known: LastKnown | None = None
        self._closing = self._is_open = False
        self._opening: asyncio.Future[None] | None = None

    @property
    def overdue(self) -> Mapping[str, int]:
        """When the first record of each waiting rung is due (epoch ms), by topic."""
        return self._schedule.overdue

    @property
    def committed(self) -> Mapping[TopicPartition, int]:
        """The committed offset of each partition. Empty until the lane is open."""
        return self._committed

    @property
    def live_bytes(self) -> int:
        """Bytes that were fetched of this lane's live partitions and not taken yet."""
        return sum(map(self.inbox.size, self._live))

    def lag(self, ends: Mapping[TopicPartition, int]) -> Mapping[str, int]:
        """Records of each rung that are not read yet, by topic, given the end offsets. Transaction markers count."""
        return self._schedule.lag(ends)

    async def run(self) -> None:
        """Open the lane, then take, score and hand in batch after batch until ``close`` is called."""
        try:
            await self._open_unless_closed()
            while not self._closing:
                await self._run_batch()
        except Exception as e:
            if (trouble := trouble_of(e)) is None:
                raise
            await self._end(Stage.STOPPED)
            raise trouble from e
        await self._end(Stage.CLOSED)

    async def _end(self, stage: Stage) -> None:
        """Wait until all that was handed in is committed, and fetch no more."""
        await self._wait_for_commit()
        self.inbox.close()
        self._enter(stage)

    def has_passed(self, tp: TopicPartition, offset: int | None) -> bool:
        """Whether the lane is open and reads ``tp``, beyond ``offset`` if that is given and something is there."""
        return self._is_open and self.inbox.has_passed(tp, offset)

    async def _run_batch(self) -> None:
        """Take one batch and hand it in. A method of its own: a waiting lane keeps no records in its variables."""
        taken = await self._take()
        records = sum(map(len, taken.values()))
        self._d.in_flight.enter(records)
        try:
            if taken:
                await self._process(taken)
        finally:
            self._d.in_flight.leave(records)

    def close(self) -> None:
        """Stop opening, or waiting. ``run`` finishes and commits a batch that it has begun to score; one that it has
        taken and not begun is left to the next owner.
        """
        self._closing = True
        if self._opening is not None:
            self._opening.cancel()
        self.inbox.wake()

    # --- open -----------------------------------------------------------------------------------------------------

    async def _open_unless_closed(self) -> None:
        """Open the lane, or give up when it is closed before it is open."""
        if self._closing:
            return
        self._opening = asyncio.ensure_future(self._open())
        try:
            await self._opening
        except asyncio.CancelledError:
            if not (self._closing and self._opening.cancelled()):
                raise
        except Exception as e:
            if not self._closing:
                raise
            log.info("a lane was closed while it opened", lane=self.index, error=str(e))
        finally:
            self._opening = None

    async def _open(self) -> None:
        """Read the committed offsets, and the crash markers beside them; restore what must be known; then fetch.

        The offsets come first and are stable: the previous owner can commit no more in its old generation, and a
        transaction that it left open has ended.
        """
        start = await self._start([*self._live, *self.ladder])
        self._known = await self._d.make_known(self.index)
        for tp, (offset, metadata) in start.items():
            if mark := self._crashes.opened(tp, offset, metadata):
                log.warning("records are suspected", lane=self.index, topic=tp.topic, at=offset, mark=str(mark))
            self._committed[tp] = self._handed[tp] = offset
            self._schedule.opened(tp, offset)
            self.inbox.seek(tp, offset)
        self._is_open = True
        # Where none is committed, commit the start: tools that measure a group's lag know no other partitions.
        if fresh := {tp: (offset, "") for tp, (offset, metadata) in start.items() if metadata is None}:
            self._pending.append(Unit(self.index, (), fresh, 0, self._pending.popleft))
            self._committer.hand(self._pending[-1])
        log.info("lane open", lane=self.index)

    # --- take -----------------------------------------------------------------------------------------------------

    async def _take(self) -> dict[TopicPartition, list[Record]]:
        """The next records to score, by partition, in offset order. Empty when the lane was closed."""
        while not self._closing:
            await self._wait_for_room()  # here, since records arrive while the lane waits below
            if self._closing:
                break  # nothing would wake it from the wait below any more
            self._enter(Stage.FETCHING)
            readable, wait = self._readable()
            limit = self._batch_size.next(self._d.plan, self._d.registry)
            chosen = self._crashes.choose(readable)
            if chosen:  # a suspected partition is read by itself, in small batches
                readable, limit = [chosen[0]], min(chosen[1], limit)
            taken = self.inbox.take(readable, limit)
            due = {tp: self._due_now(tp, batch) if tp in self.ladder else batch for tp, batch in taken.items()}
            for tp in readable:
                if tp in self.ladder and tp not in taken and self.inbox.caught_up(tp):
                    self._schedule.drained(tp, self.inbox.highwater(tp))
            if any(due.values()):
                return {tp: batch for tp, batch in due.items() if batch}
            if chosen and not taken and self.inbox.caught_up(chosen[0]):
                self._crashes.gone(chosen[0])  # the suspected records do not exist any more
            elif not taken:
                await self.inbox.wait(wait)
        return {}

    def _readable(self) -> tuple[list[TopicPartition], float | None]:
        """The partitions to take records from, and for how long the lane may wait for records (seconds)."""
        now_ms = self._now_ms()
        waiting = self._schedule.waits(now_ms, self.inbox.highwater)
        registry, asked = self._d.registry, self._d.plan.asked
        # For each model, even if fewer must answer: a breaker asks for probes only when it knows of waiting retries.
        for model in asked if waiting else ():
            registry.request_probes(model)
        may_retry = [registry.may_retry(model) for model in asked]
        ladder = self._schedule.readable(now_ms, self._d.clock(), sum(may_retry) >= self._d.plan.quorum)
        self.inbox.resume(*ladder.resume)
        self.inbox.pause(*ladder.pause)
        return [*self._live, *ladder.partitions], ladder.wait_seconds

    def _due_now(self, tp: TopicPartition, taken: list[Record]) -> list[Record]:
        """The taken records of a rung (or of replay) that are due. The others are taken again when they are due.

        Until then they stay in memory if that is soon, else they are fetched again: a rung may hold millions.
        """
        now_ms = self._now_ms()
        due = self._schedule.take(tp, taken, now_ms)
        if due.hold_at is not None:
            if self.overdue[tp.topic] - now_ms <= KEPT_MS:
                self.inbox.put_back(tp, taken[due.count :])
            else:
                self.inbox.seek(tp, due.hold_at)
                self.inbox.pause(tp)
        return taken[: due.count]

    # --- score and hand in ----------------------------------------------------------------------------------------

    async def _process(self, taken: Mapping[TopicPartition, list[Record]]) -> None:
        """Score one batch and hand it in. A suspected record waits until no other lane of the worker runs a batch."""
        began = self._d.clock()
        mode = self._crashes.mode({tp: batch[-1].offset for tp, batch in taken.items()})
        if mode.marks:
            await self._wait_for_commit()
        self._enter(Stage.WAITING)
        await self._d.exclusive.acquire(mode.alone)
        if self._closing:  # the next owner takes these records again: a drain does not wait for turns
            self._d.exclusive.release(mode.alone)
            return
        try:
            batch = await self._settle(taken, mode, min(self.inbox.oldest, began))
        except BaseException:
            self._d.exclusive.release(mode.alone)
            raise
        self._hand_in(batch)
        # Adapt the share of the ladder and the size of the next batch to the time that this one took.
        now = self._d.clock()
        self._schedule.spent(len(batch.records), batch.retries, now - began, now)
        if len(batch.records) == sum(batch.counts.values()):  # else the time is that of a search for dead letters
            self._batch_size.adapt(len(batch.records), now - began)
        if mode.marks:
            await self._wait_for_commit()

    async def _settle(
        self, taken: Mapping[TopicPartition, list[Record]], mode: BatchMode[TopicPartition], arrived: float
    ) -> ScoredBatch:
        """Mark and score one batch."""
        records = [record for batch in taken.values() for record in batch]
        # 1. Take out dead letters that another tool sent back: they go on as replays. It may fail, which is no crash.
        d, diverted = self._d, await self._redriven.divert(records)
        kept, poison = diverted.kept, mode.poison if diverted.kept else None
        # 2. Write the crash markers: if the worker crashes from here on, the next owner reads them. Score the others.
        await self._mark(mode.marks)
        self._enter(Stage.SCORING)
        readers, now_ms, u = await d.schemas.readers(kept), int(d.latest() * 1000), d.draws(len(kept))
        steps = score(kept, d.plan, d.registry, self._known, now_ms, u, poison, readers, d.schemas.registry_open)
        scored = await run_calls(steps, partial(d.calls.run, lane=self.index), self._on_result)
        diverted.join(scored)
        # 3. A record that ran alone is no longer in flight: a commit that fails must not count as its crash.
        if mode.alone:
            await self._mark(self._crashes.ran(mode))
        retries = sum(len(batch) for tp, batch in taken.items() if tp in self.ladder)
        offsets = self._offsets(kept, scored.held, len(records))
        counts = {tp: len(batch) for tp, batch in taken.items()}
        wrote = {tp: self.inbox.highwater(tp) for tp in self.ladder if d.names.delay_of(tp.topic) in scored.retried}
        return ScoredBatch(kept, scored, mode, counts, retries, offsets, arrived, wrote)

    def _on_result(self, call: Call, result: CallResult) -> None:
        self._d.on_result(call, result)
        self.since = self._d.clock()  # each call has its own deadline, so the watchdog times each call by itself

    def _offsets(self, records: Sequence[Record], held: set[int], taken: int) -> dict[TopicPartition, int]:
        """The offsets to commit: those that the batch of ``taken`` records, of which ``records`` were scored, advances.

        Held rows are the last ones of their topics in the batch. The lane seeks back to the first of them, so that they
        are fetched again later.

        The offset is the inbox's position and not the last record's offset plus one, which may be that of a transaction
        marker. Committed there, it goes out of range when retention empties an unused rung, and never recovers.
        """
        for topic, offset in {records[row].topic: records[row].offset for row in sorted(held, reverse=True)}.items():
            tp = TopicPartition(topic, self.index)
            self.inbox.seek(tp, offset)
            self._schedule.held(tp)
        if len(held) == taken:
            return {}
        positions = {tp: self.inbox.position(tp) for tp in self._handed}
        return {tp: position for tp, position in positions.items() if position != self._handed[tp]}

    # --- commit ---------------------------------------------------------------------------------------------------

    async def _mark(self, marks: Mapping[TopicPartition, CrashMarker]) -> None:
        """Commit the same offsets again, with crash markers as metadata. The next owner reads them if this worker
        crashes during the run. A worker that lost its partitions cannot write them.
        """
        if marks:
            self._enter(Stage.COMMITTING)
            offsets = {tp: (self._committed[tp], str(mark)) for tp, mark in marks.items()}
            unit = Unit(self.index, (), offsets, 0, lambda: None)
            self._committer.hand(unit)
            await unit.done

    def _hand_in(self, batch: ScoredBatch) -> None:
        """Hand in outputs, and offsets with their metadata, if there is anything to commit.

        A batch that is held as a whole commits too, if it has crash markers to replace.
        """
        if not batch.offsets and not batch.mode.marks:
            self._d.exclusive.release(batch.mode.alone)
            return
        rows = route(batch.scored.verdicts, self._d.names, self._d.answer_schema)
        replays = {TopicPartition(self._d.names.replay, p): r for p, r in batch.scored.verdicts.replays.items()}
        # What is only needed to score: it would stay in memory, several times what was fetched, until the commit.
        batch.scored.events.features = []
        batch.scored.verdicts = Verdicts()
        offsets = self._crashes.offset_metadata(batch.mode, self._committed, batch.offsets)
        unit = Unit(self.index, rows, offsets, len(batch.records), partial(self._on_commit, batch), replays)
        self._handed.update(batch.offsets)
        self._pending.append(unit)
        self._committer.hand(unit)

    def _on_commit(self, batch: ScoredBatch) -> None:
        """The batch is committed: remember its answers and report it."""
        d = self._d
        self._pending.popleft()  # now, since an idle lane would keep its records and answers in memory
        d.exclusive.release(batch.mode.alone)
        if not batch.offsets:
            return
        self._committed.update(batch.offsets)
        self._schedule.committed(batch.offsets, batch.wrote)
        if self._known is not None:
            now = d.wall()
            for keys, predictions, version in batch.scored.known:
                self._known.remember(keys, predictions, d.plan.primary, version, now)
        d.reporter.committed(batch.records, batch.scored, batch.arrived)
        # A batch with held rows is fetched again, so none of it counts as passed.
        for tp in batch.mode.marks if not batch.scored.held else ():
            done = self._schedule.is_held(tp) or self.inbox.caught_up(tp)
            self._crashes.passed(tp, batch.counts[tp], done)

    async def _wait_for_room(self) -> None:
        """Wait while as many records as a batch may have wait for the next transaction, or while all lanes have enough.
        Records are to be taken in the same turn of the event loop.
        """
        waiting = [unit for unit in self._pending if not unit.begun.done()]
        if sum(unit.records for unit in waiting) >= self._batch_size.limit:
            self._enter(Stage.COMMITTING)
            await waiting[-1].begun
        while not (self._committer.has_room and self._d.in_flight.are_few):
            self._enter(Stage.WAITING)
            await self._committer.wait_for_room()
            await self._d.in_flight.wait_for_few()

    async def _wait_for_commit(self) -> None:
        """Wait until all that was handed in is committed."""
        if self._pending:
            self._enter(Stage.COMMITTING)
            await self._pending[-1].done

    def _now_ms(self) -> int:
        return int(self._d.wall() * 1000)

    def _enter(self, stage: Stage) -> None:
        self.stage = stage
        self.since = self._d.clock()
