"""Group commit: which batches share a transaction, in what order, and what follows a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from aiokafka import TopicPartition

from failsoft.workers.kafka.member import GroupMember
from failsoft.workers.lanes import committer as module
from failsoft.workers.lanes.committer import Committer, Unit

MEMBER = GroupMember("loans", 7, "m", "w")


class Producer:
    """A producer whose commits wait for ``go``, and fail with ``error`` if it is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.began = asyncio.Event()
        self.error: Exception | None = None
        self.trouble = "Produce of out-0 refused: NOT_LEADER_OR_FOLLOWER"
        self.commits: list[tuple[list[str], dict[int, int], GroupMember]] = []

    async def commit(self, outputs: Any, offsets: Mapping[TopicPartition, tuple[int, str]], member: Any) -> None:
        self.began.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        wrote = [f"{tp.topic}-{tp.partition}: {sum(b.record_count() for b in batches)}" for tp, batches in outputs]
        self.commits.append((wrote, {tp.partition: at for tp, (at, _) in offsets.items()}, member))


def _unit(lane: int, at: int = 1, committed: Callable[[], None] = lambda: None, size: int = 10) -> Unit:
    rows = [("scored", [(b"k", b"v" * size, list[Any]())])]
    return Unit(lane, rows, {TopicPartition("in", lane): (at, "")}, 1, committed)


def _committer(producer: Producer) -> Committer:
    tested = Committer(producer, True, lambda: 9.0, lambda: 5.0, lambda _: None)
    tested.member = MEMBER
    return tested


@pytest.fixture
async def producer() -> Producer:
    return Producer()


@pytest.fixture
async def committer(producer: Producer) -> Any:
    tested = _committer(producer)
    task = asyncio.create_task(tested.run())
    yield tested
    task.cancel()


async def test_what_is_handed_in_during_a_transaction_joins_the_next_one(
    committer: Committer, producer: Producer
) -> None:
    """Three lanes' batches are two transactions: the first begins at once, and the others wait for its end together."""
    units = [_unit(i) for i in range(3)]
    committer.hand(units[0])
    await producer.began.wait()
    committer.hand(units[1])
    committer.hand(units[2])
    producer.go.set()
    await asyncio.wait_for(asyncio.gather(*(unit.done for unit in units)), 10)
    assert producer.commits == [
        (["scored-0: 1"], {0: 1}, MEMBER),
        (["scored-1: 1", "scored-2: 1"], {1: 1, 2: 1}, MEMBER),
    ]


async def test_a_transaction_takes_no_more_than_it_can_write_in_its_time(
    committer: Committer, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit over the limit is committed by itself, never left."""
    monkeypatch.setattr(module, "MOST_BYTES", 25)
    producer.go.set()
    units = [_unit(i, size=size) for i, size in enumerate((10, 10, 10, 90, 10))]
    for unit in units:
        committer.hand(unit)
    await asyncio.wait_for(asyncio.gather(*(unit.done for unit in units)), 10)
    assert [list(offsets) for _, offsets, _ in producer.commits] == [[0, 1, 2], [3], [4]]


async def test_the_batches_of_one_lane_are_written_as_one(committer: Committer, producer: Producer) -> None:
    """A Produce request has one record batch of a partition: more would be more round trips. The last offset counts."""
    first, second, third = _unit(0), _unit(1, at=5), _unit(1, at=6)
    committer.hand(first)
    await producer.began.wait()
    committer.hand(second)
    committer.hand(third)
    assert first.begun.done() and not second.begun.done()
    producer.go.set()
    await asyncio.wait_for(third.done, 10)
    assert producer.commits[1] == (["scored-1: 2"], {1: 6}, MEMBER) and second.done.done()


async def test_a_lane_is_told_of_its_commit_before_its_wait_ends(committer: Committer, producer: Producer) -> None:
    """The lane goes on with what it knows after the commit."""
    order: list[str] = []
    unit = _unit(0, committed=lambda: order.append("committed"))
    unit.done.add_done_callback(lambda _: order.append("done"))
    committer.hand(unit)
    producer.go.set()
    await unit.done
    await asyncio.sleep(0)
    assert order == ["committed", "done"]


async def test_a_failed_commit_ends_the_committer_and_completes_nothing(producer: Producer) -> None:
    """What became of the batches is not known: no later batch may be committed, and no lane may go on."""
    tested = _committer(producer)
    producer.error = OSError("no broker")
    producer.go.set()
    units = [_unit(0), _unit(1)]
    for unit in units:
        tested.hand(unit)
    with pytest.raises(OSError, match="no broker"):
        await tested.run()
    assert not any(unit.done.done() for unit in units) and producer.commits == []


async def test_a_commit_that_hangs_is_given_up(producer: Producer) -> None:
    """aiokafka can wait for ever for a coordinator that leaves."""
    tested = _committer(producer)
    tested._timeout = 0.01
    tested.hand(_unit(0))
    with pytest.raises(TimeoutError, match=r"over 0\.01 s: Produce of out-0 refused"):
        await tested.run()


async def test_nothing_is_committed_without_partitions(producer: Producer) -> None:
    """After a revocation a commit would be in nobody's name: it is refused before it reaches the broker."""
    tested = _committer(producer)
    tested.member = None
    tested.hand(_unit(0))
    with pytest.raises(RuntimeError, match="revoked"):
        await tested.run()
    assert not producer.began.is_set()


@pytest.mark.parametrize(("bound", "most"), [("MOST_BYTES", 25), ("MOST_RECORDS", 1)])
async def test_lanes_wait_for_room_behind_a_commit_that_hangs(
    committer: Committer, producer: Producer, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    """As much as one transaction may have waits for the next one, whatever the number of lanes."""
    monkeypatch.setattr(module, bound, most)
    committer.hand(_unit(0, size=30))
    await producer.began.wait()
    assert committer.has_room
    committer.hand(_unit(1, size=30))
    assert not committer.has_room
    waiting = asyncio.create_task(committer.wait_for_room())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    producer.go.set()
    await asyncio.wait_for(waiting, 10)
    assert committer.has_room
