"""Where lanes begin: one request for all lanes, and no lane waits for the unstable offsets of another."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Set

import pytest
from aiokafka import TopicPartition

from failsoft.workers.kafka.partition_errors import TOPIC_AUTHORIZATION_FAILED, partition_error
from failsoft.workers.lanes import start_offsets as module
from failsoft.workers.lanes.start_offsets import OffsetAndMetadata, StartOffsets
from failsoft.workers.lanes.trouble import Cause, trouble_of
from tests.kafka import eventually

A, B, NEW = TopicPartition("in", 0), TopicPartition("in", 1), TopicPartition("in", 2)


class Group:
    """A group with committed offsets of A and B; ``unstable`` ones have an open transaction."""

    def __init__(self) -> None:
        self.unstable: set[TopicPartition] = set()
        self.asked: list[Set[TopicPartition]] = []
        self.error: Exception | None = None

    async def committed(
        self, tps: Set[TopicPartition]
    ) -> tuple[Mapping[TopicPartition, OffsetAndMetadata], Set[TopicPartition]]:
        self.asked.append(tps)
        if self.error is not None:
            raise self.error
        stable = {tp: at for tp, at in {A: (5, "mark"), B: (7, "")}.items() if tp in tps - self.unstable}
        return stable, self.unstable & tps

    async def earliest(self, tps: Set[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(tps, 3)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_AFTER", 0.001)


async def test_lanes_that_open_together_ask_together() -> None:
    """200 lanes are one request. What was never committed begins at the first offset there is."""
    group = Group()
    start = StartOffsets(group.committed, group.earliest)
    found = await asyncio.wait_for(asyncio.gather(start.of([A]), start.of([B, NEW])), 10)
    assert found == [{A: (5, "mark")}, {B: (7, ""), NEW: (3, None)}] and group.asked == [{A, B, NEW}]


async def test_a_lane_whose_offsets_are_unstable_holds_up_no_other() -> None:
    """A dead worker's open transaction may still commit: its lanes wait until it has ended, the others open."""
    group = Group()
    group.unstable = {B}
    start = StartOffsets(group.committed, group.earliest)
    first, second = asyncio.create_task(start.of([A])), asyncio.create_task(start.of([B]))
    assert await asyncio.wait_for(first, 10) == {A: (5, "mark")}
    await eventually(lambda: len(group.asked) > 3, 10, "more requests")
    assert not second.done() and group.asked[-1] == {B}
    group.unstable.clear()
    assert await asyncio.wait_for(second, 10) == {B: (7, "")}


async def test_a_lane_that_was_closed_is_not_asked_for() -> None:
    """And the requests end with the last lane."""
    group = Group()
    group.unstable = {A}
    start = StartOffsets(group.committed, group.earliest)
    opening = asyncio.create_task(start.of([A]))
    await eventually(lambda: group.asked, 10, "a request")
    opening.cancel()
    await eventually(lambda: start._task is None, 10, "the end of the requests")


async def test_a_lane_that_comes_during_a_request_is_not_answered_by_it() -> None:
    """The request did not ask for its partitions: it would be taken for one that was never committed."""
    group = Group()
    asked, answer = asyncio.Event(), asyncio.Event()

    async def committed(
        tps: Set[TopicPartition],
    ) -> tuple[Mapping[TopicPartition, OffsetAndMetadata], Set[TopicPartition]]:
        asked.set()
        await answer.wait()
        return await group.committed(tps)

    start = StartOffsets(committed, group.earliest)
    first = asyncio.create_task(start.of([A]))
    await asyncio.wait_for(asked.wait(), 10)
    second = asyncio.create_task(start.of([B]))
    await eventually(lambda: len(start._asked) == 2, 10, "the second lane waiting")
    answer.set()
    assert await asyncio.wait_for(asyncio.gather(first, second), 10) == [{A: (5, "mark")}, {B: (7, "")}]
    assert group.asked == [{A}, {B}]


async def test_an_error_reaches_every_lane() -> None:
    """It ends the worker: offsets are never guessed."""
    group = Group()
    group.error = OSError("not authorized")
    start = StartOffsets(group.committed, group.earliest)
    found = await asyncio.gather(start.of([A]), start.of([B]), return_exceptions=True)
    assert [str(e) for e in found] == ["not authorized"] * 2


async def test_a_refused_topic_is_the_trouble_of_each_lane() -> None:
    """The answer to all lanes names one partition of it; each lane has its own, and stops and opens alone."""
    group = Group()
    group.error = partition_error(TOPIC_AUTHORIZATION_FAILED, A)
    start = StartOffsets(group.committed, group.earliest)
    found = await asyncio.gather(start.of([A]), start.of([B]), return_exceptions=True)
    troubles = [trouble_of(e) for e in found if isinstance(e, Exception)]
    assert [(t.cause, t.tp) for t in troubles if t] == [(Cause.NOT_AUTHORIZED, A), (Cause.NOT_AUTHORIZED, B)]
