"""A shared and exclusive lock on running models in this worker: all lanes at once, or one lane alone.

A lane runs a suspected record alone. If another lane's batch were in flight too and crashed the worker, the suspected
record would be taken for the cause and dead-lettered as poison.
"""

from __future__ import annotations

import asyncio


class ExclusiveLock:
    """The lock that all lanes of a worker share, on one event loop. Lanes wait only for one
    that runs alone, or that waits to.
    """

    def __init__(self) -> None:
        self._inside = 0  # lanes that hold the lock
        self._closed = False  # a lane holds the lock exclusively, or waits for the others to release it
        self._waiting: list[asyncio.Future[None]] = []

    async def acquire(self, alone: bool) -> None:
        """Take the lock: exclusively if ``alone``, else shared. Each ``acquire`` needs its ``release``, by any task.

        A waiting exclusive request comes before later shared ones, which wait until it is done.
        """
        while self._closed:
            await self._wait_for_change()
        if alone:
            self._closed = True
            try:
                while self._inside:
                    await self._wait_for_change()
            except BaseException:
                self._open_again()
                raise
        self._inside += 1

    def release(self, alone: bool) -> None:
        """Give the lock back, taken with the same ``alone``."""
        self._inside -= 1
        if alone:
            self._open_again()
        elif not self._inside:
            self._wake()

    def _open_again(self) -> None:
        self._closed = False
        self._wake()

    async def _wait_for_change(self) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
