"""A lane by itself: which records it holds, from where it reads on, what it commits ahead, and how it is closed."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from failsoft.workers.lanes.committer import MOST_RECORDS, Unit
from failsoft.workers.lanes.lane import KEPT_MS
from failsoft.workers.lanes.records_in_flight import MOST
from failsoft.workers.lanes.retry_schedule import LEAST_WAIT_MS
from failsoft.workers.lanes.stage import Stage
from tests.kafka import eventually
from tests.kit import NOW_MS, Rec, events, waiting
from tests.lane_kit import AGAIN, LIVE, NEXT, RUNG, LaneUnderTest, Ledger


async def test_a_lane_commits_the_start_of_what_was_never_committed() -> None:
    """Tools that measure a group's lag know only partitions with a committed offset, also while a rung is held."""
    tested = LaneUnderTest(
        {LIVE: [*events(2)], RUNG: [None, waiting(offset=1, due_ms=NOW_MS + 500_000)]},
        {LIVE: (0, None), RUNG: (0, None), NEXT: (0, ""), AGAIN: (4, None)},
    )
    await tested.run(lambda: len(tested.ledger.notes) >= 2)
    assert tested.ledger.notes[0] == {LIVE: (0, ""), RUNG: (0, ""), AGAIN: (4, "")}
    assert tested.ledger.offsets[1][LIVE] == 2 and tested.lane.committed[LIVE] == 2


async def test_a_lane_that_ends_while_it_opens_leaves_no_commit_behind() -> None:
    """After the revocation nobody may commit any more."""
    tested = LaneUnderTest(stored=dict.fromkeys([LIVE, RUNG, NEXT, AGAIN], (0, None)))
    running = asyncio.create_task(tested.lane.run())
    await eventually(lambda: tested.lane.committed, 10, "the open lane")
    tested.lane.close()
    committing = asyncio.create_task(tested.committer.run())
    await asyncio.wait_for(running, 10)
    committing.cancel()
    assert len(tested.ledger.notes) == 1


async def test_offsets_are_committed_past_a_transactions_marker() -> None:
    """A committed offset at a marker goes out of range when retention empties the rung, although no record is lost."""
    tested = LaneUnderTest(
        {RUNG: [waiting(offset=0), waiting(offset=1), None], AGAIN: [None, waiting("loans.replay", 1)]}
    )
    await tested.run(lambda: tested.ledger.offsets)
    assert tested.ledger.offsets == [{RUNG: 3, AGAIN: 2}]


async def test_a_record_that_is_due_soon_is_neither_scored_nor_committed_and_stays_in_memory() -> None:
    """The rung is read on from its first record that is not due, without another fetch."""
    tested = LaneUnderTest({RUNG: [waiting(offset=0), waiting(offset=1, due_ms=NOW_MS + 500), waiting(offset=2), None]})
    await tested.run(lambda: tested.ledger.offsets)
    assert tested.ledger.offsets == [{RUNG: 1}]
    assert tested.lane.overdue == {RUNG.topic: NOW_MS + 500}


async def test_records_that_stay_in_memory_are_scored_when_they_are_due() -> None:
    """In order, and together with the marker after them."""
    rung = [waiting(offset=0), waiting(offset=1, due_ms=NOW_MS + 500), waiting(offset=2), None]
    tested = LaneUnderTest({RUNG: rung})

    def due() -> bool:
        if tested.ledger.offsets:
            tested.now = 0.6
            tested.lane.inbox.wake()
        return len(tested.ledger.offsets) == 2

    await tested.run(due)
    assert tested.ledger.offsets == [{RUNG: 1}, {RUNG: 4}] and tested.sizes == [1, 2]


async def test_a_rung_that_is_due_later_is_not_kept_in_memory() -> None:
    """A rung may hold millions of records: it is fetched again when its first one is due."""
    later = NOW_MS + KEPT_MS + 1
    tested = LaneUnderTest({RUNG: [waiting(offset=0), waiting(offset=1, due_ms=later), None]})
    await tested.run(lambda: tested.ledger.offsets)
    assert tested.ledger.offsets == [{RUNG: 1}]
    assert RUNG in tested.fetcher.paused and tested.lane.overdue == {RUNG.topic: later}


async def test_a_rung_is_not_looked_at_again_at_once() -> None:
    """If a record is due each millisecond, each look would cost as much as the whole chunk."""
    tested = LaneUnderTest({RUNG: [waiting(offset=0), waiting(offset=1, due_ms=NOW_MS + 1), None]})
    await tested.run(lambda: tested.ledger.offsets)
    assert tested.lane.overdue == {RUNG.topic: NOW_MS + LEAST_WAIT_MS}


async def test_any_number_of_forged_due_times_are_skipped_and_the_first_true_one_holds() -> None:
    """Records with a forged due time go to the dead letters. A recursive version failed at a thousand of them, at every
    restart.
    """
    forged = [waiting(offset=i, due_ms=NOW_MS + 10**10) for i in range(3000)]
    tested = LaneUnderTest({RUNG: [*forged, waiting(offset=3000), waiting(offset=3001, due_ms=NOW_MS + 1)]})
    await tested.run(lambda: sum(tested.sizes) == 3001 and tested.ledger.offsets[-1] == {RUNG: 3001})


class Slow(Ledger):
    """A producer whose commits wait for ``go``."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.began = 0

    async def commit(self, outputs: Any, offsets: Mapping[TopicPartition, tuple[int, str]], member: Any) -> None:
        if not any("among" in metadata for _, metadata in offsets.values()):
            self.began += 1
            await self.go.wait()
        await super().commit(outputs, offsets, member)


def _one_by_one(ledger: Ledger) -> LaneUnderTest:
    """A lane with three events, which it takes one by one. It is not watched, so that it may score ahead."""
    tested = LaneUnderTest({LIVE: [*events(3)]}, ledger=ledger)
    tested.lane._crashes.passed(LIVE, 0, True)
    cast(Any, tested.lane)._batch_size = SimpleNamespace(limit=1, next=lambda *_: 1, adapt=lambda *_: None)
    return tested


async def test_a_lane_scores_one_batch_ahead_of_its_commit_and_no_further() -> None:
    """The second batch waits, scored, while the first one commits; the third is not taken. They commit in order."""
    ledger = Slow()
    tested = _one_by_one(ledger)

    async def facts() -> None:
        await eventually(lambda: len(tested.sizes) == 2 and tested.lane.stage is Stage.COMMITTING, 10, "two batches")
        assert ledger.began == 1 and ledger.offsets == []
        ledger.go.set()

    checking = asyncio.create_task(facts())
    await tested.run(lambda: ledger.offsets and ledger.offsets[-1] == {LIVE: 3})
    await checking
    assert ledger.offsets == [{LIVE: 1}, {LIVE: 2}, {LIVE: 3}]


async def test_small_batches_are_scored_at_once_and_join_the_next_transaction() -> None:
    """In light traffic an event waits for the transaction that is committing and for nothing else."""
    ledger = Slow()
    tested = LaneUnderTest(ledger=ledger)
    tested.lane._crashes.passed(LIVE, 0, True)

    async def facts() -> None:
        for i in range(4):
            tested.fetcher[LIVE] += events(1, start=i)
            tested.fetcher.fetch(LIVE)
            await eventually(lambda i=i: len(tested.sizes) == i + 1, 10, "a batch")
        assert ledger.began == 1 and tested.lane.stage is Stage.FETCHING
        ledger.go.set()

    checking = asyncio.create_task(facts())
    await tested.run(lambda: ledger.offsets and ledger.offsets[-1] == {LIVE: 4})
    await checking
    assert ledger.offsets == [{LIVE: 1}, {LIVE: 4}] and tested.sizes == [1, 1, 1, 1]


async def test_a_lane_that_is_closed_commits_what_it_has_taken() -> None:
    """A rebalance or SIGTERM waits for the batch that commits and for the one that is scored."""
    ledger = Slow()
    tested = _one_by_one(ledger)
    running, committing = asyncio.create_task(tested.lane.run()), asyncio.create_task(tested.committer.run())
    await eventually(lambda: len(tested.sizes) == 2, 10, "two batches")
    tested.lane.close()
    assert not running.done()
    ledger.go.set()
    await asyncio.wait_for(running, 10)
    committing.cancel()
    assert ledger.offsets == [{LIVE: 1}, {LIVE: 2}] and tested.lane.stage is Stage.CLOSED


class Weak(Rec):
    """A record that may have weak references, which tell whether it is still in memory."""


async def test_an_idle_lane_keeps_nothing_of_what_it_has_committed() -> None:
    """Two hundred lanes with a thousand records and answers each would have as many in memory as in a backlog."""
    tested = LaneUnderTest({LIVE: [*events(1)]})
    tested.fetcher[LIVE][0] = Weak(**asdict(tested.fetcher[LIVE][0]))
    record = weakref.ref(tested.fetcher[LIVE][0])
    kept = []

    def idle() -> bool:
        if tested.ledger.offsets and tested.lane.stage is Stage.FETCHING:
            tested.fetcher[LIVE][0] = None
            kept.append(record())
        return bool(kept)

    await tested.run(idle)
    assert kept == [None]


async def test_lanes_take_no_records_while_enough_are_in_flight() -> None:
    """Also a lane that already waited for records: they arrive while the others have enough."""
    tested = LaneUnderTest()
    tested.deps.in_flight.enter(MOST)

    async def facts() -> None:
        await eventually(lambda: tested.lane.stage is Stage.WAITING, 10, "a lane that waits")
        tested.fetcher[LIVE] += events(1)
        tested.fetcher.fetch(LIVE)
        for _ in range(10):
            await asyncio.sleep(0)
        assert tested.sizes == []
        tested.deps.in_flight.leave(MOST)

    checking = asyncio.create_task(facts())
    await tested.run(lambda: tested.ledger.offsets)
    await checking
    assert tested.sizes == [1]


@pytest.mark.parametrize("wait", ["few", "room", "begun"])
async def test_a_lane_that_is_closed_while_it_waits_for_the_others_ends(wait: str) -> None:
    """A drain or a revocation: no chunk reaches the lane any more, so it must not wait for one once it may go on."""
    ledger = Slow()
    tested = _one_by_one(ledger) if wait == "begun" else LaneUnderTest(ledger=ledger)
    committing = asyncio.create_task(tested.committer.run())
    if wait == "few":
        tested.deps.in_flight.enter(MOST)
    elif wait == "room":
        tested.committer.hand(Unit(1, (), {}, MOST_RECORDS, lambda: None))
        await eventually(lambda: ledger.began, 10, "the other lane's transaction")
        tested.committer.hand(Unit(1, (), {}, MOST_RECORDS, lambda: None))
    running = asyncio.create_task(tested.lane.run())
    stages = (Stage.WAITING, Stage.COMMITTING)
    ready = 2 if wait == "begun" else 0
    await eventually(lambda: tested.lane.stage in stages and len(tested.sizes) == ready, 10, "the wait")
    for buffer in tested.lane.inbox._buffers.values():
        buffer.chunks.clear()  # nothing more is there to take
    tested.lane.close()
    ledger.go.set()
    if wait == "few":
        tested.deps.in_flight.leave(MOST)
    await asyncio.wait_for(running, 10)
    committing.cancel()
    assert tested.lane.stage is Stage.CLOSED


async def test_records_of_the_ladder_do_not_count_as_fetched() -> None:
    """They may wait for their time for long, and would stop the fetch of live events as long."""
    tested = LaneUnderTest({LIVE: [*events(3)], RUNG: [waiting(offset=0), waiting(offset=1)]})
    tested.open()
    assert tested.lane.live_bytes == tested.lane.inbox.size(LIVE) == 300
    assert tested.lane.inbox.size(RUNG) == 200
    tested.lane.inbox.take([LIVE], 3)
    assert tested.lane.live_bytes == 0


async def test_a_partition_that_cannot_be_read_ends_the_lane() -> None:
    """The error ends the worker. The next owner starts from the last commit."""
    tested = LaneUnderTest({LIVE: [*events(1)]})
    tested.lane.inbox.fail(OSError("out of range"))
    with pytest.raises(OSError, match="out of range"):
        await tested.run(lambda: False)


async def test_a_lane_that_is_opening_can_be_closed() -> None:
    """A rebalance or SIGTERM does not wait for a broker that does not answer."""
    asked = asyncio.Event()

    async def never(*_: Any) -> Any:
        asked.set()
        await asyncio.sleep(3600)

    tested = LaneUnderTest({LIVE: [*events(1)]})
    tested.lane._start = never
    running = asyncio.create_task(tested.lane.run())
    await asked.wait()
    tested.lane.close()
    await asyncio.wait_for(running, 10)
    assert tested.ledger.offsets == []


async def test_a_lane_that_was_closed_before_it_ran_does_nothing() -> None:
    """It is not opened."""
    tested = LaneUnderTest({LIVE: [*events(1)]})
    tested.lane.close()
    await asyncio.wait_for(tested.lane.run(), 10)
    assert tested.ledger.offsets == [] and tested.lane.stage is Stage.CLOSED
