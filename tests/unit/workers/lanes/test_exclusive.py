"""The turnstile: many inside at once, or one alone."""

from __future__ import annotations

import asyncio

import pytest

from failsoft.workers.lanes.exclusive import ExclusiveLock
from tests.kafka import eventually


class Visitor:
    """Somebody who enters and stays until told to leave."""

    def __init__(self, exclusive: ExclusiveLock, alone: bool = False) -> None:
        self.inside = False
        self._leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit(exclusive, alone))

    async def _visit(self, exclusive: ExclusiveLock, alone: bool) -> None:
        async with exclusive.hold(alone):
            self.inside = True
            try:
                await self._leave.wait()
            finally:
                self.inside = False

    async def leave(self) -> None:
        self._leave.set()
        await self.task


async def _turn_around() -> None:
    """Every task that can go on has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_while_nobody_is_alone_nobody_waits() -> None:
    """Entering does not even give the event loop a turn."""
    exclusive = ExclusiveLock()
    other = Visitor(exclusive)
    await _turn_around()
    entered = exclusive.hold(False).__aenter__()
    with pytest.raises(StopIteration):
        entered.send(None)
    assert other.inside
    await other.leave()


async def test_who_is_alone_is_alone() -> None:
    """It waits until the others have left, and they wait until it has, and so does the next one to be alone."""
    exclusive = ExclusiveLock()
    first = Visitor(exclusive)
    await _turn_around()
    alone, second, later = Visitor(exclusive, alone=True), Visitor(exclusive, alone=True), Visitor(exclusive)
    await _turn_around()
    assert [v.inside for v in (first, alone, second, later)] == [True, False, False, False]
    await first.leave()
    await eventually(lambda: alone.inside, 10, "the first alone")
    assert not second.inside and not later.inside
    await alone.leave()
    await eventually(lambda: second.inside or later.inside, 10, "the next")
    assert second.inside != later.inside
    for each in (second, later) if second.inside else (later, second):
        await eventually(lambda each=each: each.inside, 10, "each in its turn")
        await each.leave()


async def test_whoever_gives_up_waiting_bars_nobody() -> None:
    """A lane that is cancelled while it waits to be alone leaves the turnstile open."""
    exclusive = ExclusiveLock()
    first = Visitor(exclusive)
    await _turn_around()
    alone, later = Visitor(exclusive, alone=True), Visitor(exclusive)
    await _turn_around()
    assert not later.inside
    alone.task.cancel()
    await eventually(lambda: later.inside, 10, "the turnstile to be open again")
    await first.leave()
    await later.leave()


async def test_an_error_inside_opens_the_gate() -> None:
    """The worker ends of it, but it may have to finish others first."""
    exclusive = ExclusiveLock()
    with pytest.raises(RuntimeError):
        async with exclusive.hold(alone=True):
            raise RuntimeError
    later = Visitor(exclusive)
    await eventually(lambda: later.inside, 10, "the turnstile to be open")
    await later.leave()
