"""Who may run models in this process now: every lane at once, or one that runs a suspect, alone.

A worker that dies takes every run in it along. Were others in flight beside a record that is tried alone, one of them
might be the killer, and an innocent would be convicted in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ExclusiveLock:
    """Shared by the lanes of a worker, on one event loop. While nobody is alone it is a counter: nothing waits."""

    def __init__(self) -> None:
        self._inside = 0
        self._closed = False  # somebody is alone, or waits until those inside have left
        self._waiting: list[asyncio.Future[None]] = []

    @asynccontextmanager
    async def hold(self, alone: bool) -> AsyncIterator[None]:
        """Inside with others, or with nobody. Whoever wants to be alone is not overtaken by those who do not."""
        while self._closed:
            await self._change()
        if alone:
            self._closed = True
        try:
            while alone and self._inside:
                await self._change()
            self._inside += 1
            try:
                yield
            finally:
                self._inside -= 1
        finally:
            if alone:
                self._closed = False
            if self._waiting:
                self._wake()

    async def _change(self) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)
