"""Which crash markers a lane writes before it runs a batch, and how it reads after it found a marker when it opened."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from failsoft.workers.lanes.crash_marks import CAREFUL
from failsoft.workers.lanes.lane import Lane
from tests.kafka import eventually
from tests.kit import INPUT, RUNGS, events, waiting
from tests.unit.workers.lanes.test_lane import RUNG, Ledger, Log, lane

LIVE = TopicPartition(INPUT, 0)
OTHER = TopicPartition(next(reversed(RUNGS)), 0)


class Backlog(Log):
    """A consumer that returns at most ``max_records``, and notes how many it returned."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sizes: list[int] = []

    async def getmany(self, *tps: TopicPartition, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        found: dict[TopicPartition, list[Any]] = {}
        for tp in tps:
            left = max_records - sum(map(len, found.values()))
            records = self[tp][self.at[tp] : self.at[tp] + left] if tp not in self.paused else []
            self.at[tp] += len(records)
            found |= {tp: records} if records else {}
        self.sizes += [sum(map(len, found.values()))] if found else []
        await asyncio.sleep(0)
        return found


class Failing(Ledger):
    """A producer whose outputs cannot be written."""

    async def send_batch(self, batch: Any, topic: str, partition: int) -> asyncio.Future[None]:
        raise OSError("no broker")


async def _ran(tested: Lane, until: Any) -> None:
    running = asyncio.create_task(tested.run())
    await eventually(until, 10, "the lane's progress")
    tested.close()
    await running


def _deps(tested: Lane) -> Any:
    return cast(Any, tested)._d


async def test_the_first_batch_is_marked_before_it_runs_and_the_commit_replaces_the_marker() -> None:
    """The marker has the same committed offset, and the end of the batch."""
    log, ledger = Log({LIVE: [*events(3)]}), Ledger()
    await _ran(lane(log, ledger), lambda: ledger.offsets)
    assert ledger.notes == [{LIVE: (0, "failsoft/1 among deaths=0 until=3 of=3")}, {LIVE: (3, "")}]


async def test_a_lane_that_has_caught_up_marks_nothing_more() -> None:
    """A marker costs a transaction, so batches on the hot path have none."""
    log, ledger = Log({LIVE: [*events(3)]}), Ledger()
    tested = lane(log, ledger)
    consumer = cast(Any, tested)._consumer
    waits = consumer.getmany

    async def fed(*tps: TopicPartition, **kwargs: Any) -> Mapping[TopicPartition, list[Any]]:
        if len(ledger.offsets) == 1 and len(log[LIVE]) == 3:
            log[LIVE] += events(2, start=3)
        return cast(Mapping[TopicPartition, list[Any]], await waits(*tps, **kwargs))

    consumer.getmany = fed
    await _ran(tested, lambda: len(ledger.offsets) == 2)
    assert ledger.notes[2:] == [{LIVE: (5, "")}]


async def test_a_lane_that_has_nothing_to_do_writes_nothing() -> None:
    """A lane without records in flight writes no marker, however often it is restarted."""
    log, ledger = Backlog({}), Ledger()
    idle: list[int] = []
    tested = lane(log, ledger)
    _deps(tested).reporter = SimpleNamespace(idle=lambda: idle.append(1))
    await _ran(tested, lambda: len(idle) > 3)
    assert ledger.notes == []


async def test_after_one_crash_only_suspected_records_are_read_in_small_batches() -> None:
    """Each batch has a marker, and each commit keeps the suspicion until the suspected records are committed. Then all
    partitions are read again.
    """
    log = Backlog({LIVE: [*events(200)], RUNG: [waiting()]}, {LIVE: (0, "failsoft/1 among deaths=0 until=100 of=100")})
    ledger = Ledger()
    await _ran(lane(log, ledger), lambda: ledger.offsets and ledger.offsets[-1].get(RUNG) == 1)
    assert log.sizes[:2] == [CAREFUL, CAREFUL] and sum(log.sizes) == 201
    assert ledger.notes[:4] == [
        {LIVE: (0, "failsoft/1 among deaths=1 until=64 of=100")},
        {LIVE: (64, "failsoft/1 suspect deaths=1 until=100 of=100")},
        {LIVE: (64, "failsoft/1 among deaths=1 until=128 of=100")},
        {LIVE: (128, "")},
    ]


async def test_after_two_crashes_each_suspected_record_is_alone_in_the_process() -> None:
    """Its marker is ALONE, then it runs, then the marker is SUSPECT, then it is committed. No other lane's batch is in
    flight meanwhile.
    """
    log = Backlog({LIVE: [*events(3)]}, {LIVE: (0, "failsoft/1 among deaths=1 until=2 of=2")})
    ledger = Ledger()
    tested = lane(log, ledger)
    seen: list[bool] = []
    exclusive, plain = _deps(tested).exclusive, _deps(tested).runner.run

    async def run(call: Any) -> Any:
        other = asyncio.create_task(exclusive.hold(False).__aenter__())
        await asyncio.sleep(0)
        seen.append(other.done())
        other.cancel()
        return await plain(call)

    _deps(tested).runner.run = run
    await _ran(tested, lambda: ledger.offsets and ledger.offsets[-1].get(LIVE) == 3)
    assert log.sizes == [1, 1, 1] and seen == [False, False, True]
    assert ledger.notes[:6] == [
        {LIVE: (0, "failsoft/1 alone deaths=2 until=1 of=2")},
        {LIVE: (0, "failsoft/1 suspect deaths=2 until=2 of=2")},
        {LIVE: (1, "failsoft/1 suspect deaths=2 until=2 of=2")},
        {LIVE: (1, "failsoft/1 alone deaths=2 until=2 of=2")},
        {LIVE: (1, "failsoft/1 suspect deaths=2 until=2 of=2")},
        {LIVE: (2, "")},
    ]


async def test_a_poison_record_is_not_run() -> None:
    """Its offset is committed, and the records after it run as usual."""
    log = Backlog({LIVE: [*events(3)]}, {LIVE: (0, "failsoft/1 again deaths=3 until=1 of=1")})
    ledger, rows = Ledger(), list[int]()
    tested = lane(log, ledger)
    plain = _deps(tested).runner.run

    async def run(call: Any) -> Any:
        rows.append(len(call))
        return await plain(call)

    _deps(tested).runner.run = run
    await _ran(tested, lambda: ledger.offsets and ledger.offsets[-1].get(LIVE) == 3)
    assert rows == [2] and ledger.notes[0] == {LIVE: (0, "failsoft/1 again deaths=4 until=1 of=1")}


async def test_a_write_that_fails_after_a_run_alone_does_not_count_as_a_crash() -> None:
    """The run is over, and the marker in Kafka was changed to SUSPECT before the commit was tried."""
    log = Backlog({LIVE: [*events(2)]}, {LIVE: (0, "failsoft/1 among deaths=1 until=2 of=2")})
    ledger = Failing()
    with pytest.raises(OSError, match="no broker"):
        await lane(log, ledger).run()
    assert ledger.notes[-1] == {LIVE: (0, "failsoft/1 suspect deaths=2 until=2 of=2")}


async def test_a_batch_that_is_held_as_a_whole_leaves_no_marker() -> None:
    """It is not in flight any more, so a later crash has nothing to do with it."""
    log, ledger = Backlog({RUNG: [waiting()]}), Ledger()
    tested = lane(log, ledger)
    _deps(tested).registry.serving = lambda model: None
    await _ran(tested, lambda: len(ledger.notes) >= 2)
    assert ledger.notes[:2] == [{RUNG: (0, "failsoft/1 among deaths=0 until=1 of=1")}, {RUNG: (0, "")}]


async def test_a_suspected_rung_that_is_held_does_not_delay_live_events() -> None:
    """While the breaker is open no rung is read, and live events are read as usual."""
    log = Backlog({LIVE: [*events(3)], RUNG: [waiting()]}, {RUNG: (0, "failsoft/1 among deaths=1 until=1 of=1")})
    ledger = Ledger()
    tested = lane(log, ledger)
    _deps(tested).registry.may_retry = lambda model: False
    await _ran(tested, lambda: ledger.offsets)
    assert ledger.notes == [{LIVE: (0, "failsoft/1 among deaths=0 until=3 of=3")}, {LIVE: (3, "")}]


async def test_a_lane_does_not_wait_for_suspected_records_that_are_gone() -> None:
    """Retention or compaction removed them. The other partitions are read as soon as a fetch returns nothing."""
    log = Backlog({OTHER: [], RUNG: [waiting()]}, {OTHER: (0, "failsoft/1 among deaths=0 until=9 of=9")})
    ledger = Ledger()
    await _ran(lane(log, ledger), lambda: ledger.offsets)
    assert ledger.offsets == [{RUNG: 1}]


async def test_metadata_of_other_programs_is_ignored() -> None:
    """A tool that resets offsets may write any metadata, or none."""
    log = Backlog({LIVE: [*events(3)]}, {LIVE: (0, "\x00{" * 100), RUNG: (0, None)})
    ledger = Ledger()
    await _ran(lane(log, ledger), lambda: ledger.offsets)
    assert log.sizes == [3] and ledger.offsets == [{LIVE: 3}]


async def test_at_least_once_the_consumer_commits_the_markers() -> None:
    """There is no transaction. The group's generation keeps a worker that lost its partitions from committing."""
    log, ledger = Log({LIVE: [*events(3)]}), Ledger()
    noted: list[Mapping[TopicPartition, tuple[int, str]]] = []

    async def commit(offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        noted.append(offsets)

    cast(Any, log).commit = commit
    tested = lane(log, ledger)
    cast(Any, tested)._d = SimpleNamespace(**vars(_deps(tested)) | {"exactly_once": False})
    await _ran(tested, lambda: len(noted) == 2)
    assert noted == [{LIVE: (0, "failsoft/1 among deaths=0 until=3 of=3")}, {LIVE: (3, "")}] and ledger.notes == []


async def test_a_batch_with_held_rows_does_not_count_as_passed() -> None:
    """It is read again, so none of its records count towards the end of watching."""
    log, ledger = Backlog({LIVE: [*events(2)], RUNG: [waiting()]}), Ledger()
    tested = lane(log, ledger)
    _deps(tested).registry.serving = lambda model: None
    passed: list[TopicPartition] = []
    cast(Any, tested)._crashes.passed = lambda tp, records, done: passed.append(tp)
    await _ran(tested, lambda: len(ledger.notes) >= 4)
    assert ledger.offsets[0][LIVE] == 2 and passed == []
