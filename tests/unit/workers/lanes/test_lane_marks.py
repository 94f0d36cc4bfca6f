"""Which crash markers a lane writes before it runs a batch, and how it reads after it found a marker when it opened."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from failsoft.workers.lanes.crash_marks import CAREFUL
from tests.kit import events, waiting
from tests.lane_kit import LIVE, RUNG, LaneUnderTest, Ledger
from tests.lane_kit import NEXT as OTHER


class Failing(Ledger):
    """A producer whose outputs cannot be written."""

    async def commit(self, outputs: Any, offsets: Mapping[TopicPartition, tuple[int, str]], member: Any) -> None:
        if outputs:
            raise OSError("no broker")
        await super().commit(outputs, offsets, member)


async def test_the_first_batch_is_marked_before_it_runs_and_the_commit_replaces_the_marker() -> None:
    """The marker has the same committed offset, and the end of the batch."""
    tested = LaneUnderTest({LIVE: [*events(3)]})
    await tested.run(lambda: tested.ledger.offsets)
    assert tested.ledger.notes == [{LIVE: (0, "failsoft/1 among deaths=0 until=3 of=3")}, {LIVE: (3, "")}]


async def test_a_lane_that_has_caught_up_marks_nothing_more() -> None:
    """A marker costs a transaction, so batches on the hot path have none."""
    tested = LaneUnderTest({LIVE: [*events(3)]})

    def fed() -> bool:
        if len(tested.ledger.offsets) == 1 and len(tested.fetcher[LIVE]) == 3:
            tested.fetcher[LIVE] += events(2, start=3)
            tested.fetcher.fetch(LIVE)
        return len(tested.ledger.offsets) == 2

    await tested.run(fed)
    assert tested.ledger.notes[2:] == [{LIVE: (5, "")}]


async def test_a_lane_that_has_nothing_to_do_writes_nothing() -> None:
    """A lane without records in flight writes no marker, however often it looks."""
    tested = LaneUnderTest()
    looked: list[int] = []
    tested.deps.registry.may_retry = lambda model: bool(looked.append(1)) or True

    def again() -> bool:
        tested.lane.inbox.wake()
        return len(looked) > 3

    await tested.run(again)
    assert tested.ledger.notes == []


async def test_after_one_crash_only_suspected_records_are_read_in_small_batches() -> None:
    """Each batch has a marker, and each commit keeps the suspicion until the suspected records are committed. Then all
    partitions are read again.
    """
    marked = {LIVE: (0, "failsoft/1 among deaths=0 until=100 of=100")}
    tested = LaneUnderTest({LIVE: [*events(200)], RUNG: [waiting()]}, marked)
    await tested.run(lambda: tested.ledger.offsets and tested.ledger.offsets[-1].get(RUNG) == 1)
    assert tested.sizes[:2] == [CAREFUL, CAREFUL] and sum(tested.sizes) == 201
    assert tested.ledger.notes[:4] == [
        {LIVE: (0, "failsoft/1 among deaths=1 until=64 of=100")},
        {LIVE: (64, "failsoft/1 suspect deaths=1 until=100 of=100")},
        {LIVE: (64, "failsoft/1 among deaths=1 until=128 of=100")},
        {LIVE: (128, "")},
    ]


async def test_after_two_crashes_each_suspected_record_is_alone_in_the_process() -> None:
    """Its marker is ALONE, then it runs, then the marker is SUSPECT, then it is committed. No other lane's batch is in
    flight meanwhile.
    """
    tested = LaneUnderTest({LIVE: [*events(3)]}, {LIVE: (0, "failsoft/1 among deaths=1 until=2 of=2")})
    seen: list[bool] = []
    exclusive, plain = tested.deps.exclusive, tested.deps.calls.run

    async def run(call: Any, lane: int) -> Any:
        other = asyncio.create_task(exclusive.acquire(False))
        await asyncio.sleep(0)
        seen.append(other.done())
        if other.done():
            exclusive.release(False)
        other.cancel()
        return await plain(call, lane)

    tested.deps.calls.run = run
    await tested.run(lambda: tested.ledger.offsets and tested.ledger.offsets[-1].get(LIVE) == 3)
    assert tested.sizes == [1, 1, 1] and seen == [False, False, True]
    assert tested.ledger.notes[:6] == [
        {LIVE: (0, "failsoft/1 alone deaths=2 until=1 of=2")},
        {LIVE: (0, "failsoft/1 suspect deaths=2 until=2 of=2")},
        {LIVE: (1, "failsoft/1 suspect deaths=2 until=2 of=2")},
        {LIVE: (1, "failsoft/1 alone deaths=2 until=2 of=2")},
        {LIVE: (1, "failsoft/1 suspect deaths=2 until=2 of=2")},
        {LIVE: (2, "")},
    ]


async def test_a_poison_record_is_not_run() -> None:
    """Its offset is committed, and the records after it run as usual."""
    tested = LaneUnderTest({LIVE: [*events(3)]}, {LIVE: (0, "failsoft/1 again deaths=3 until=1 of=1")})
    rows: list[int] = []
    plain = tested.deps.calls.run

    async def run(call: Any, lane: int) -> Any:
        rows.append(len(call))
        return await plain(call, lane)

    tested.deps.calls.run = run
    await tested.run(lambda: tested.ledger.offsets and tested.ledger.offsets[-1].get(LIVE) == 3)
    assert rows == [2] and tested.ledger.notes[0] == {LIVE: (0, "failsoft/1 again deaths=4 until=1 of=1")}


async def test_a_write_that_fails_after_a_run_alone_does_not_count_as_a_crash() -> None:
    """The run is over, and the marker in Kafka was changed to SUSPECT before the commit was tried."""
    marked = {LIVE: (0, "failsoft/1 among deaths=1 until=2 of=2")}
    tested = LaneUnderTest({LIVE: [*events(2)]}, marked, Failing())
    with pytest.raises(OSError, match="no broker"):
        await tested.run(lambda: False)
    assert tested.ledger.notes[-1] == {LIVE: (0, "failsoft/1 suspect deaths=2 until=2 of=2")}


async def test_a_batch_that_is_held_as_a_whole_leaves_no_marker() -> None:
    """It is not in flight any more, so a later crash has nothing to do with it."""
    tested = LaneUnderTest({RUNG: [waiting()]})
    tested.deps.registry.serving = lambda model: None
    await tested.run(lambda: len(tested.ledger.notes) >= 2)
    assert tested.ledger.notes[:2] == [{RUNG: (0, "failsoft/1 among deaths=0 until=1 of=1")}, {RUNG: (0, "")}]


async def test_a_suspected_rung_that_is_held_does_not_delay_live_events() -> None:
    """While the breaker is open no rung is read, and live events are read as usual."""
    marked = {RUNG: (0, "failsoft/1 among deaths=1 until=1 of=1")}
    tested = LaneUnderTest({LIVE: [*events(3)], RUNG: [waiting()]}, marked)
    tested.deps.registry.may_retry = lambda model: False
    await tested.run(lambda: tested.ledger.offsets)
    assert tested.ledger.notes == [{LIVE: (0, "failsoft/1 among deaths=0 until=3 of=3")}, {LIVE: (3, "")}]


async def test_a_lane_does_not_wait_for_suspected_records_that_are_gone() -> None:
    """Retention or compaction removed them. The other partitions are read as soon as a fetch returns nothing."""
    marked = {OTHER: (0, "failsoft/1 among deaths=0 until=9 of=9")}
    tested = LaneUnderTest({OTHER: [], RUNG: [waiting()]}, marked)
    await tested.run(lambda: tested.ledger.offsets)
    assert tested.ledger.offsets == [{RUNG: 1}]


async def test_metadata_of_other_programs_is_ignored() -> None:
    """A tool that resets offsets may write any metadata."""
    tested = LaneUnderTest({LIVE: [*events(3)]}, {LIVE: (0, "\x00{" * 100), RUNG: (0, "")})
    await tested.run(lambda: tested.ledger.offsets)
    assert tested.sizes == [3] and tested.ledger.offsets == [{LIVE: 3}]


async def test_a_batch_with_held_rows_does_not_count_as_passed() -> None:
    """It is read again, so none of its records count towards the end of watching."""
    tested = LaneUnderTest({LIVE: [*events(2)], RUNG: [waiting()]})
    tested.deps.registry.serving = lambda model: None
    passed: list[TopicPartition] = []
    cast(Any, tested.lane)._crashes.passed = lambda tp, records, done: passed.append(tp)
    await tested.run(lambda: len(tested.ledger.notes) >= 4)
    assert tested.ledger.offsets[0][LIVE] == 2 and passed == []
