"""The shared and exclusive lock: many holders at once, or one alone."""

from __future__ import annotations

import asyncio

import pytest

from failsoft.workers.lanes.exclusive import ExclusiveLock
from tests.kafka import eventually


class Holder:
    """Holds the lock in a task, until ``leave`` is called."""

    def __init__(self, exclusive: ExclusiveLock, alone: bool = False) -> None:
        self.inside = False
        self._leave = asyncio.Event()
        self.task = asyncio.create_task(self._hold(exclusive, alone))

    async def _hold(self, exclusive: ExclusiveLock, alone: bool) -> None:
        await exclusive.acquire(alone)
        self.inside = True
        await self._leave.wait()
        self.inside = False
        exclusive.release(alone)

    async def leave(self) -> None:
        self._leave.set()
        await self.task


async def _run_ready_tasks() -> None:
    """Let every task that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_without_an_exclusive_holder_no_lane_waits() -> None:
    """Taking the shared lock does not even yield to the event loop."""
    exclusive = ExclusiveLock()
    other = Holder(exclusive)
    await _run_ready_tasks()
    entered = exclusive.acquire(False)
    with pytest.raises(StopIteration):
        entered.send(None)
    assert other.inside
    await other.leave()


async def test_an_exclusive_holder_is_the_only_one() -> None:
    """It waits until the others have released the lock, and later requests of both kinds wait until it is done."""
    exclusive = ExclusiveLock()
    first = Holder(exclusive)
    await _run_ready_tasks()
    alone, second, later = Holder(exclusive, alone=True), Holder(exclusive, alone=True), Holder(exclusive)
    await _run_ready_tasks()
    assert [v.inside for v in (first, alone, second, later)] == [True, False, False, False]
    await first.leave()
    await eventually(lambda: alone.inside, 10, "the first exclusive request")
    assert not second.inside and not later.inside
    await alone.leave()
    await eventually(lambda: second.inside or later.inside, 10, "the next")
    assert second.inside != later.inside
    for holder in (second, later) if second.inside else (later, second):
        await eventually(lambda holder=holder: holder.inside, 10, "each request in its turn")
        await holder.leave()


async def test_a_cancelled_exclusive_request_blocks_no_other() -> None:
    """A lane that is cancelled while it waits for the exclusive lock lets the waiting ones proceed."""
    exclusive = ExclusiveLock()
    first = Holder(exclusive)
    await _run_ready_tasks()
    alone, later = Holder(exclusive, alone=True), Holder(exclusive)
    await _run_ready_tasks()
    assert not later.inside
    alone.task.cancel()
    await eventually(lambda: later.inside, 10, "the shared request")
    await first.leave()
    await later.leave()
