"""Where lanes begin: one request for all lanes, and no lane waits for, or fails with, the partitions of another."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Set

import pytest
from aiokafka import TopicPartition

from failsoft.schemas.rewind import Rewind
from failsoft.workers.kafka.partition_errors import TOPIC_AUTHORIZATION_FAILED, partition_error
from failsoft.workers.lanes import start_offsets as module
from failsoft.workers.lanes.standing import Memory, PartitionStanding
from failsoft.workers.lanes.start_offsets import StartOffsets
from failsoft.workers.lanes.survey import Committed, LaneStanding, Looked
from failsoft.workers.lanes.trouble import Cause, LaneTrouble, trouble_of
from tests.kafka import eventually

A, B, NEW = TopicPartition("in", 0), TopicPartition("in", 1), TopicPartition("in", 2)


class Group:
    """A group with committed offsets of A and B; ``unstable`` ones have an open transaction.

    Attributes:
        answered: the positions after what was answered, by partition.
        silent: the partitions that cannot be asked.
        refused: the trouble of lanes that cannot be told.
        opened: the lanes that began.
    """

    def __init__(self) -> None:
        self.unstable: set[TopicPartition] = set()
        self.asked: list[Set[TopicPartition]] = []
        self.offsets: dict[TopicPartition, tuple[int, str]] = {A: (5, "mark"), B: (7, "")}
        self.answered: dict[TopicPartition, int] = {}
        self.silent: set[TopicPartition] = set()
        self.refused: dict[int, LaneTrouble] = {}
        self.error: Exception | None = None
        self.opened: list[int] = []
        self.start = StartOffsets(self.committed, self.look, lambda lane, _: self.opened.append(lane))

    async def committed(self, tps: Set[TopicPartition]) -> tuple[Committed, Set[TopicPartition]]:
        self.asked.append(tps)
        if self.error is not None:
            raise self.error
        return {tp: at for tp, at in self.offsets.items() if tp in tps - self.unstable}, self.unstable & tps

    async def look(self, lanes: Mapping[int, Collection[TopicPartition]], committed: Committed) -> Looked:
        looked = Looked(refused={lane: each for lane, each in self.refused.items() if lane in lanes})
        for lane, tps in lanes.items():
            if waits := self.silent & set(tps):
                looked.waits[lane] = waits.pop()
            elif lane not in self.refused:
                looked.lanes[lane] = self._lane(tps, committed)
        return looked

    def _lane(self, tps: Collection[TopicPartition], committed: Committed) -> LaneStanding:
        standings = {}
        for tp in tps:
            known = {tp.topic: self.answered[tp]} if tp in self.answered else {}
            standings[tp] = PartitionStanding.of(tp, None, committed.get(tp), Memory(known, known), (3, 100))
        return LaneStanding(standings, Memory({}, {}), {"in": "in"})


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Group:
    monkeypatch.setattr(module, "AGAIN_AFTER", 0.001)
    return Group()


async def test_lanes_that_open_together_ask_together(group: Group) -> None:
    """200 lanes are one request. What was never committed nor answered begins at the first offset there is."""
    found = await asyncio.wait_for(asyncio.gather(*(group.start.of([tp]) for tp in (A, B, NEW))), 10)
    assert found == [{A: (5, "mark")}, {B: (7, "")}, {NEW: (3, None)}] and group.asked == [{A, B, NEW}]
    assert group.opened == [0, 1, 2]


async def test_a_lane_whose_offsets_are_unstable_holds_up_no_other(group: Group) -> None:
    """A dead worker's open transaction may still commit: its lanes wait until it has ended, the others open."""
    group.unstable = {B}
    first, second = asyncio.create_task(group.start.of([A])), asyncio.create_task(group.start.of([B]))
    assert await asyncio.wait_for(first, 10) == {A: (5, "mark")}
    await eventually(lambda: len(group.asked) > 3, 10, "more requests")
    assert not second.done() and group.asked[-1] == {B}
    group.unstable.clear()
    assert await asyncio.wait_for(second, 10) == {B: (7, "")}


async def test_a_lane_whose_partition_has_no_leader_holds_up_no_other(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for a while, since an election is short, and then stops alone."""
    group.silent = {B}
    first, second = asyncio.create_task(group.start.of([A])), asyncio.create_task(group.start.of([B]))
    assert await asyncio.wait_for(first, 10) == {A: (5, "mark")} and not second.done()
    monkeypatch.setattr(module, "NO_ANSWER_AFTER", 0.0)
    with pytest.raises(LaneTrouble) as stopped:
        await asyncio.wait_for(second, 10)
    assert (stopped.value.cause, stopped.value.tp) == (Cause.NO_LEADER, B)
    group.silent = set()
    assert await asyncio.wait_for(group.start.of([B]), 10) == {B: (7, "")}


@pytest.mark.parametrize(
    ("lane", "answered", "cause"),
    [(NEW, 30, Cause.OFFSETS_MISSING), (B, 30, Cause.OFFSETS_BEHIND), (NEW, 2, Cause.OUT_OF_RANGE)],
)
async def test_a_lane_that_would_answer_again_or_skip_stops_alone(
    group: Group, lane: TopicPartition, answered: int, cause: Cause
) -> None:
    """It names the place and the commands; the other lane opens."""
    group.answered[lane] = answered
    fine, stopped = await asyncio.gather(group.start.of([A]), group.start.of([lane]), return_exceptions=True)
    assert fine == {A: (5, "mark")} and isinstance(stopped, LaneTrouble)
    assert (stopped.cause, stopped.tp) == (cause, lane) and "failsoft offsets" in stopped.mend
    assert group.opened == [0]


async def test_a_partition_that_is_refused_stops_its_lane_alone(group: Group) -> None:
    """For example a lack of authorization."""
    group.refused[1] = LaneTrouble(Cause.NOT_AUTHORIZED, B, None, "may not be read", "grant it")
    fine, stopped = await asyncio.gather(group.start.of([A]), group.start.of([B]), return_exceptions=True)
    assert fine == {A: (5, "mark")} and stopped is group.refused[1]


async def test_a_rewound_partition_is_read_from_where_it_was_put(group: Group) -> None:
    """The lane gets its crash marker without the permission."""
    group.answered[B] = 30
    group.offsets[B] = 7, Rewind("x", 30).beside("mark")
    assert await asyncio.wait_for(group.start.of([B]), 10) == {B: (7, "mark")}


async def test_a_lane_that_was_closed_is_not_asked_for(group: Group) -> None:
    """And the requests end with the last lane."""
    group.unstable = {A}
    opening = asyncio.create_task(group.start.of([A]))
    await eventually(lambda: group.asked, 10, "a request")
    opening.cancel()
    await eventually(lambda: group.start._task is None, 10, "the end of the requests")


async def test_a_lane_that_comes_during_a_request_is_not_answered_by_it(group: Group) -> None:
    """The request did not ask for its partitions: it would be taken for one that was never committed."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def committed(tps: Set[TopicPartition]) -> tuple[Committed, Set[TopicPartition]]:
        asked.set()
        await answer.wait()
        return await group.committed(tps)

    start = StartOffsets(committed, group.look, lambda *_: None)
    first = asyncio.create_task(start.of([A]))
    await asyncio.wait_for(asked.wait(), 10)
    second = asyncio.create_task(start.of([B]))
    await eventually(lambda: len(start._asked) == 2, 10, "the second lane waiting")
    answer.set()
    assert await asyncio.wait_for(asyncio.gather(first, second), 10) == [{A: (5, "mark")}, {B: (7, "")}]
    assert group.asked == [{A}, {B}]


async def test_a_refused_topic_is_the_trouble_of_each_lane(group: Group) -> None:
    """The answer to all lanes names one partition of it; each lane has its own, and stops and opens alone."""
    group.error = partition_error(TOPIC_AUTHORIZATION_FAILED, A)
    found = await asyncio.gather(group.start.of([A]), group.start.of([B]), return_exceptions=True)
    troubles = [trouble_of(e) for e in found if isinstance(e, Exception)]
    assert [(t.cause, t.tp) for t in troubles if t] == [(Cause.NOT_AUTHORIZED, A), (Cause.NOT_AUTHORIZED, B)]


async def test_an_error_reaches_every_lane(group: Group) -> None:
    """It ends the worker: offsets are never guessed."""
    group.error = OSError("not authorized")
    found = await asyncio.gather(group.start.of([A]), group.start.of([B]), return_exceptions=True)
    assert [str(e) for e in found] == ["not authorized"] * 2
