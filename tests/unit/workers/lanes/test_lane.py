"""A lane against a consumer made of lists: which records it holds, from where it reads on, and how it is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from failsoft.topics.names import Names
from failsoft.workers.lanes.exclusive import ExclusiveLock
from failsoft.workers.lanes.lane import Deps, Lane
from failsoft.workers.lanes.retry_schedule import LEAST_WAIT_MS
from tests.kafka import eventually
from tests.kit import INPUT, NOW_MS, REPLAY, RUNGS, FakeBoard, Rec, events, fine, plan, waiting

RUNG = TopicPartition("loans.retry.5s", 0)
TPS = [TopicPartition(t, 0) for t in (INPUT, REPLAY, *RUNGS)]


class Log(dict[TopicPartition, list[Any]]):
    """A consumer over partitions that are lists of records; None is a transaction marker. ``stored`` has the group's
    committed offsets and their metadata.
    """

    def __init__(
        self,
        given: Mapping[TopicPartition, list[Any]],
        stored: Mapping[TopicPartition, tuple[int, str | None]] | None = None,
    ) -> None:
        super().__init__({tp: given.get(tp, []) for tp in TPS})
        self.at = dict.fromkeys(TPS, 0)
        self.paused: set[TopicPartition] = set()
        self.stored = stored or {}
        self._coordinator = SimpleNamespace(fetch_committed_offsets=self._stored)

    async def _stored(self, tps: list[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        return {tp: OffsetAndMetadata(*self.stored[tp]) for tp in tps if tp in self.stored}

    async def beginning_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(tps, 0)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.at[tp] = offset

    async def position(self, tp: TopicPartition) -> int:
        return self.at[tp]

    def highwater(self, tp: TopicPartition) -> int:
        return len(self[tp])

    def pause(self, *tps: TopicPartition) -> None:
        self.paused |= {*tps}

    def resume(self, *tps: TopicPartition) -> None:
        self.paused -= {*tps}

    async def getmany(self, *tps: TopicPartition, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        found = {tp: [r for r in self[tp][self.at[tp] :] if r] for tp in tps if tp not in self.paused}
        self.at |= {tp: len(self[tp]) for tp in found}
        if not any(found.values()):
            await asyncio.sleep(3600)
        return {tp: records for tp, records in found.items() if records}


class Ledger:
    """A producer that keeps the committed offsets and their metadata. ``offsets`` are those of batches, ``notes`` those
    of all commits, also of crash markers. With ``opens`` False it never starts.
    """

    def __init__(self, opens: bool = True) -> None:
        self.opens = opens
        self.offsets: list[dict[TopicPartition, int]] = []
        self.notes: list[dict[TopicPartition, tuple[int, str]]] = []
        self.starting = self.stopped = False

    async def start(self) -> None:
        self.starting = True
        if not self.opens:
            await asyncio.sleep(3600)

    async def stop(self) -> None:
        self.stopped = True

    async def partitions_for(self, topic: str) -> set[int]:
        return {0}

    async def begin_transaction(self) -> None: ...

    def create_batch(self) -> Any:
        builder = SimpleNamespace(append=lambda *row: row, size=lambda: 10)
        return SimpleNamespace(_builder=builder, close=lambda: None)

    async def send_batch(self, batch: Any, topic: str, partition: int) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def send_offsets_to_transaction(self, offsets: dict[TopicPartition, tuple[int, str]], group: str) -> None:
        self.notes.append(dict(offsets))
        if not any("among" in metadata or "alone" in metadata for _, metadata in offsets.values()):
            self.offsets.append({tp: at for tp, (at, _) in offsets.items()})

    async def commit_transaction(self) -> None: ...


def lane(log: Log, ledger: Ledger) -> Lane:
    async def make_known(_: int) -> None:
        return None

    async def run(call: Any) -> Any:
        return fine(call)

    registry = FakeBoard()
    deps = SimpleNamespace(
        names=Names("loans"),
        plan=plan(),
        registry=SimpleNamespace(
            serving=registry.serving,
            admit=registry.admit,
            report=registry.report,
            may_retry=lambda model: True,
            request_probes=lambda model: None,
        ),
        runner=SimpleNamespace(run=run),
        reporter=SimpleNamespace(idle=lambda: None, committed=lambda *_: None),
        make_producer=lambda index: ledger,
        make_known=make_known,
        on_result=lambda call, result: None,
        exactly_once=True,
        wall=lambda: NOW_MS / 1000,
        clock=lambda: 0.0,
        draws=lambda n: np.full(n, 0.5),
        exclusive=ExclusiveLock(),
    )
    return Lane(0, TPS, cast(Any, log), cast(Deps, deps))


async def test_offsets_are_committed_past_a_transactions_marker() -> None:
    """A committed offset at a marker goes out of range when retention empties the rung, although no record is lost."""
    log = Log({RUNG: [waiting(offset=0), waiting(offset=1), None], TopicPartition(REPLAY, 0): [None, None]})
    ledger = Ledger()
    tested = lane(log, ledger)
    running = asyncio.create_task(tested.run())
    await eventually(lambda: ledger.offsets, 10, "a commit")
    tested.close()
    await running
    assert ledger.offsets == [{RUNG: 3, TopicPartition(REPLAY, 0): 2}]


async def test_a_record_that_is_not_due_is_neither_scored_nor_committed() -> None:
    """The rung is read on from its first record that is not due."""
    log = Log({RUNG: [waiting(offset=0), waiting(offset=1, due_ms=NOW_MS + 500), waiting(offset=2), None]})
    ledger = Ledger()
    tested = lane(log, ledger)
    running = asyncio.create_task(tested.run())
    await eventually(lambda: ledger.offsets, 10, "a commit")
    tested.close()
    await running
    assert ledger.offsets == [{RUNG: 1}]
    assert log.paused == {RUNG} and tested.overdue == {RUNG.topic: NOW_MS + 500}


async def test_a_rung_is_not_fetched_again_at_once() -> None:
    """If a record is due each millisecond, each fetch would also return all records that wait after it."""
    log = Log({RUNG: [waiting(offset=0), waiting(offset=1, due_ms=NOW_MS + 1), None]})
    ledger = Ledger()
    tested = lane(log, ledger)
    running = asyncio.create_task(tested.run())
    await eventually(lambda: ledger.offsets, 10, "a commit")
    tested.close()
    await running
    assert tested.overdue == {RUNG.topic: NOW_MS + LEAST_WAIT_MS}


async def test_any_number_of_forged_due_times_are_skipped_and_the_first_true_one_holds() -> None:
    """Records with a forged due time go to the dead letters. A recursive version failed at a thousand of them, at every
    restart.
    """
    forged = [waiting(offset=i, due_ms=NOW_MS + 10**10) for i in range(3000)]
    log = Log({RUNG: [*forged, waiting(offset=3000), waiting(offset=3001, due_ms=NOW_MS + 1)]})
    ledger = Ledger()
    tested = lane(log, ledger)
    running = asyncio.create_task(tested.run())
    await eventually(lambda: ledger.offsets, 10, "a commit")
    tested.close()
    await running
    assert ledger.offsets == [{RUNG: 3001}]


async def test_a_lane_that_is_opening_can_be_closed() -> None:
    """A rebalance or SIGTERM does not wait for a broker that does not answer."""
    ledger = Ledger(opens=False)
    log = Log({TopicPartition(INPUT, 0): cast(list[Rec], events(1))})
    tested = lane(log, ledger)
    running = asyncio.create_task(tested.run())
    await eventually(lambda: ledger.starting, 10, "the lane to be opening")
    tested.close()
    await asyncio.wait_for(running, 10)
    await tested.stop()
    assert ledger.stopped and ledger.offsets == []


async def test_a_lane_that_was_closed_before_it_ran_does_nothing() -> None:
    """It is not opened, so it fences no other owner."""
    ledger = Ledger()
    tested = lane(Log({TopicPartition(INPUT, 0): cast(list[Rec], events(1))}), ledger)
    tested.close()
    await asyncio.wait_for(tested.run(), 10)
    assert ledger.offsets == []
