"""A failing network for tests: TCP proxies on a thread of their own, between workers and a broker.

A proxy imitates what a network does to a connection. It delays it, refuses it, resets it, or passes nothing while both
ends believe that it is open: a half-open connection, as behind a dead router or a firewall that lost its state.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from tests.answers import Frames, RequestFault, Trap, Traps, answers, correlation

HOST = "127.0.0.1"

CHUNK = 65_536
"""Bytes read at once."""

UNDERWAY = 64
"""Chunks under way in one direction: what a slow network holds before the sender has to wait."""

WITHIN = 30.0
"""Seconds for an operation on the proxy's thread; it takes milliseconds."""


_Treat = Callable[[bytes], tuple[int, float]]
"""How often a message is passed on, and how late (seconds)."""


class Way(StrEnum):
    """How the proxy treats bytes and new connections."""

    OPEN = "open"
    CUT = "cut"  # the proxy does not listen: new connections are refused
    SILENT = "silent"  # connections are accepted, and all bytes are dropped


class Proxy:
    """A proxy on ``port`` for a server on ``target``; use as ``with Proxy(port, target):``.

    Connections that met a silence stay silent for ever, even after ``heal``, and neither end is notified. ``traps``
    catches single requests; with it, all that passes must be Kafka's protocol.
    """

    def __init__(self, port: int, target: int, traps: Traps | None = None) -> None:
        self.port = port
        self._target = target
        self._traps = traps
        self._latency = 0.0
        self._way = Way.OPEN
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{port}", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WITHIN)
        self._loop.close()

    # --- what a test does to it ---

    @property
    def connections(self) -> int:
        """The number of open connections, silent ones included."""
        return len(self._links)

    def latency(self, seconds: float) -> None:
        """Delays each chunk in each direction by ``seconds``; a round trip takes twice as long."""
        self._latency = seconds

    def cut(self) -> None:
        """Ends every connection and refuses new ones."""
        self._do(self._cut())

    def reset(self) -> None:
        """Ends every connection with a TCP reset; new ones are accepted."""
        self._do(self._reset())

    def silence(self) -> None:
        """Keeps connections open, old and new, while nothing passes: half-open connections."""
        self._do(self._silence())

    def heal(self) -> None:
        """Lets new connections pass; connections that were silent stay so."""
        self._do(self._heal())

    # --- on its thread ---

    def deliver_later(self, request: bytes, seconds: float) -> None:
        """Delivers a request on a connection of its own after ``seconds``, and drops its answer."""
        task = self._loop.create_task(self._deliver_alone(request, seconds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver_alone(self, request: bytes, seconds: float) -> None:
        await asyncio.sleep(seconds)
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(HOST, self._target)
            writer.write(request)
            await reader.readexactly(4)
            writer.close()

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        done: Future[None] = asyncio.run_coroutine_threadsafe(what, self._loop)
        done.result(WITHIN)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, self.port)

    async def _silence(self) -> None:
        self._way = Way.SILENT
        for link in self._links:
            link.silent = True

    async def _heal(self) -> None:
        self._way = Way.OPEN
        if self._server is None:
            await self._listen()

    async def _cut(self) -> None:
        self._way = Way.CUT
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._reset()

    async def _reset(self) -> None:
        for link in list(self._links):
            link.abort()

    async def _end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link = _Link(self, writer, silent=self._way is Way.SILENT)
        self._links.add(link)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await link.carry(reader, self._target)
        finally:
            link.close()
            self._links.discard(link)
            self._tasks.discard(task)


class _Link:
    """One connection through a proxy, in both directions."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, silent: bool) -> None:
        self.silent = silent
        self._proxy = proxy
        self._writers = [client]
        self._caught: dict[bytes, Trap] = {}  # by the correlation of the request that fell into it
        self._dropped: set[bytes] = set()  # the correlations whose next answer is dropped

    async def carry(self, reader: asyncio.StreamReader, target: int) -> None:
        """Passes bytes until either end closes the connection, or ``abort``."""
        if self.silent:
            while await reader.read(CHUNK):
                pass
            return
        back, forth = await asyncio.open_connection(HOST, target)
        self._writers.append(forth)
        ways = [self._pump(reader, forth, self._ask), self._pump(back, self._writers[0], self._answer)]
        await _first(*ways)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, treat: _Treat) -> None:
        underway: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(UNDERWAY)
        await _first(self._take(reader, underway, treat), self._deliver(underway, writer))

    async def _take(
        self, reader: asyncio.StreamReader, underway: asyncio.Queue[tuple[float, bytes]], treat: _Treat
    ) -> None:
        frames = Frames() if self._proxy._traps is not None else None
        while chunk := await reader.read(CHUNK):
            for frame in frames.cut(chunk) if frames is not None else [chunk]:
                copies, late = treat(frame) if frames is not None else (1, 0.0)
                if not self.silent:
                    await underway.put((time.monotonic() + self._proxy._latency + late, frame * copies))
        if self.silent:
            await asyncio.Event().wait()  # its end is not heard of either
        await underway.join()

    async def _deliver(self, underway: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, chunk = await underway.get()
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if not self.silent:
                writer.write(chunk)
                await writer.drain()
            underway.task_done()

    def _ask(self, request: bytes) -> tuple[int, float]:
        """How often a request is passed on, and how late (seconds)."""
        assert self._proxy._traps is not None
        trap = self._proxy._traps.catch(request)
        if trap is None:
            return 1, 0.0
        if trap.fault is RequestFault.STALE:
            self._proxy.deliver_later(request, trap.seconds)
            self.abort()
            return 0, 0.0
        self._caught[correlation(request)] = trap
        return (2 if trap.fault is RequestFault.SENT_TWICE else 1), 0.0

    def _answer(self, answer: bytes) -> tuple[int, float]:
        """How often an answer is passed on, and how late (seconds)."""
        number = answers(answer)
        if number in self._dropped:
            self._dropped.discard(number)
            return 0, 0.0
        trap = self._caught.pop(number, None)
        match trap and trap.fault:
            case RequestFault.LOST:
                self.abort()
                return 0, 0.0
            case RequestFault.SILENT:
                self.silent = True
            case RequestFault.SENT_TWICE:
                self._dropped.add(number)
            case RequestFault.ANSWERED_TWICE:
                return 2, 0.0
            case RequestFault.LATE:
                assert trap is not None
                return 1, trap.seconds
        return 1, 0.0

    def close(self) -> None:
        """Closes both ends in order."""
        for writer in self._writers:
            writer.close()

    def abort(self) -> None:
        """Resets both ends."""
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            if sock is not None and not writer.is_closing():
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


async def _first(*work: Coroutine[Any, Any, None]) -> None:
    """Waits until the first of them ends, then cancels the others. Raises what the first one raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
