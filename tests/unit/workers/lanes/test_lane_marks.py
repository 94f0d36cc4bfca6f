"""What a lane writes beside its offsets before it runs a batch, and how it reads after it found a mark there."""

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
    """A consumer that returns no more than it is asked for, and notes how much that was."""

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
    await eventually(until, 10, "the lane to have got so far")
    tested.close()
    await running


def _deps(tested: Lane) -> Any:
    return cast(Any, tested)._d


async def test_the_first_batch_is_marked_before_it_runs_and_the_commit_replaces_the_mark() -> None:
    """What the next owner would find: the same offset, and how far the batch reaches."""
    log, ledger = Log({LIVE: [*events(3)]}), Ledger()
    await _ran(lane(log, ledger), lambda: ledger.offsets)
    assert ledger.notes == [{LIVE: (0, "failsoft/1 among deaths=0 until=3 of=3")}, {LIVE: (3, "")}]


async def test_a_lane_that_has_caught_up_marks_nothing_more() -> None:
    """Marks cost a transaction: the hot path has none."""
    log, ledger = Log({LIVE: [*events(3)]}), Ledger()
    tested = lane(log, ledger)
    consumer = cast(Any, tested)._consumer
    waits = consumer.getmany

    async def fed(*tps: TopicPartition, **how: Any) -> Mapping[TopicPartition, list[Any]]:
        if len(ledger.offsets) == 1 and len(log[LIVE]) == 3:
            log[LIVE] += events(2, start=3)
        return cast(Mapping[TopicPartition, list[Any]], await waits(*tps, **how))

    consumer.getmany = fed
    await _ran(tested, lambda: len(ledger.offsets) == 2)
    assert ledger.notes[2:] == [{LIVE: (5, "")}]


async def test_a_lane_that_has_nothing_to_do_writes_nothing() -> None:
    """However often it is restarted: it was not in flight with anything."""
    log, ledger = Backlog({}), Ledger()
    idle: list[int] = []
    tested = lane(log, ledger)
    _deps(tested).reporter = SimpleNamespace(idle=lambda: idle.append(1))
    await _ran(tested, lambda: len(idle) > 3)
    assert ledger.notes == []


async def test_after_one_death_the_suspects_are_read_in_small_batches_and_nothing_beside_them() -> None:
    """Each is marked, and the suspicion stands beside each offset until they are behind; then all is read as ever."""
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


async def test_after_two_deaths_each_record_is_alone_in_the_process() -> None:
    """Marked as alone, run, a suspect again, committed; and another lane's batch is not in flight meanwhile."""
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


async def test_a_convict_is_not_run() -> None:
    """It is committed past; whoever stands behind it is run as ever."""
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


async def test_a_write_that_fails_after_a_run_alone_convicts_nobody() -> None:
    """The run is over, and what stands in Kafka says so before the commit is tried."""
    log = Backlog({LIVE: [*events(2)]}, {LIVE: (0, "failsoft/1 among deaths=1 until=2 of=2")})
    ledger = Failing()
    with pytest.raises(OSError, match="no broker"):
        await lane(log, ledger).run()
    assert ledger.notes[-1] == {LIVE: (0, "failsoft/1 suspect deaths=2 until=2 of=2")}


async def test_a_batch_that_is_held_whole_leaves_no_mark() -> None:
    """It was not in flight, or is not any more: a later death is not its."""
    log, ledger = Backlog({RUNG: [waiting()]}), Ledger()
    tested = lane(log, ledger)
    _deps(tested).registry.serving = lambda model: None
    await _ran(tested, lambda: len(ledger.notes) >= 2)
    assert ledger.notes[:2] == [{RUNG: (0, "failsoft/1 among deaths=0 until=1 of=1")}, {RUNG: (0, "")}]


async def test_a_suspected_rung_that_is_held_keeps_no_live_event_waiting() -> None:
    """While the breaker is open nothing of the ladder is read, and live events are read as ever."""
    log = Backlog({LIVE: [*events(3)], RUNG: [waiting()]}, {RUNG: (0, "failsoft/1 among deaths=1 until=1 of=1")})
    ledger = Ledger()
    tested = lane(log, ledger)
    _deps(tested).registry.may_retry = lambda model: False
    await _ran(tested, lambda: ledger.offsets)
    assert ledger.notes == [{LIVE: (0, "failsoft/1 among deaths=0 until=3 of=3")}, {LIVE: (3, "")}]


async def test_suspects_that_are_gone_are_not_waited_for() -> None:
    """Retention or compaction took them; the other partitions are read as soon as that is seen."""
    log = Backlog({OTHER: [], RUNG: [waiting()]}, {OTHER: (0, "failsoft/1 among deaths=0 until=9 of=9")})
    ledger = Ledger()
    await _ran(lane(log, ledger), lambda: ledger.offsets)
    assert ledger.offsets == [{RUNG: 1}]


async def test_metadata_of_others_means_nothing() -> None:
    """A tool that resets offsets may write what it likes, or nothing at all."""
    log = Backlog({LIVE: [*events(3)]}, {LIVE: (0, "\x00{" * 100), RUNG: (0, None)})
    ledger = Ledger()
    await _ran(lane(log, ledger), lambda: ledger.offsets)
    assert log.sizes == [3] and ledger.offsets == [{LIVE: 3}]


async def test_at_least_once_marks_by_the_consumer() -> None:
    """There is no transaction; the group's generation keeps a zombie out."""
    log, ledger = Log({LIVE: [*events(3)]}), Ledger()
    noted: list[Mapping[TopicPartition, tuple[int, str]]] = []

    async def commit(offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        noted.append(offsets)

    cast(Any, log).commit = commit
    tested = lane(log, ledger)
    cast(Any, tested)._d = SimpleNamespace(**vars(_deps(tested)) | {"exactly_once": False})
    await _ran(tested, lambda: len(noted) == 2)
    assert noted == [{LIVE: (0, "failsoft/1 among deaths=0 until=3 of=3")}, {LIVE: (3, "")}] and ledger.notes == []


async def test_what_is_held_is_not_behind() -> None:
    """It is read again, so it does not count towards the end of the watch, nor does what was read with it."""
    log, ledger = Backlog({LIVE: [*events(2)], RUNG: [waiting()]}), Ledger()
    tested = lane(log, ledger)
    _deps(tested).registry.serving = lambda model: None
    passed: list[TopicPartition] = []
    cast(Any, tested)._crashes.passed = lambda tp, records, done: passed.append(tp)
    await _ran(tested, lambda: len(ledger.notes) >= 4)
    assert ledger.offsets[0][LIVE] == 2 and passed == []
