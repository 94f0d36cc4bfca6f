"""What was fetched of one lane's partitions and not taken yet, bounded in bytes for each partition.

The fetcher hands over whatever it gets at once, so a lane that is busy holds up no fetch. A partition whose fetched
bytes reach the bound is paused, and fetched on when half of them were taken. So a slow lane stops the fetch of its own
partitions and of no others, and the memory of all inboxes is bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aiokafka import TopicPartition

from failsoft.schemas.record import Record


class FetchedChunk(Protocol):
    """The part of failsoft.workers.kafka.chunk.Chunk that the inbox uses; it is documented there."""

    @property
    def tp(self) -> TopicPartition: ...
    @property
    def position(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def exhausted(self) -> bool: ...
    @property
    def size(self) -> int: ...
    def take(self, limit: int | None) -> Sequence[Record]: ...


class Fetches(Protocol):
    """The part of failsoft.workers.kafka.fetcher.Fetcher that the inbox uses; it is documented there."""

    def read(self, tp: TopicPartition, offset: int, max_bytes: int) -> None: ...
    def pause(self, tp: TopicPartition) -> None: ...
    def resume(self, tp: TopicPartition) -> None: ...
    def forget(self, tps: Iterable[TopicPartition]) -> None: ...
    def highwater(self, tp: TopicPartition) -> int | None: ...


@dataclass(slots=True)
class _Buffer:
    """What was fetched of one partition.

    Attributes:
        end: the offset after the last chunk.
        chunks: in order, each with its time of arrival (monotonic seconds); only the first may be taken in part.
        kept: records that were put back, before the first chunk.
        size: bytes of the chunks.
        full: the fetcher is paused until half of the bytes were taken.
        paused: the fetcher is paused by the lane.
    """

    end: int
    chunks: deque[tuple[FetchedChunk, float]] = field(default_factory=deque)
    kept: list[Record] = field(default_factory=list)
    size: int = 0
    full: bool = False
    paused: bool = False

    @property
    def position(self) -> int:
        if self.kept:
            return self.kept[0].offset
        return self.chunks[0][0].position if self.chunks else self.end


class Inbox:
    """The fetched records of one lane, in offset order within each partition.

    A partition is closed until ``seek`` opens it. ``bounds`` has the bytes of each partition at which it is paused, and
    ``clock`` is monotonic seconds.

    Attributes:
        oldest: when the oldest of the last taken chunks arrived (monotonic seconds).
    """

    def __init__(self, fetcher: Fetches, bounds: Mapping[TopicPartition, int], clock: Callable[[], float]) -> None:
        self._fetcher = fetcher
        self._bounds = bounds
        self._clock = clock
        self._buffers: dict[TopicPartition, _Buffer] = {}
        self._ready: dict[TopicPartition, None] = {}  # partitions with something to take, in turn
        self._error: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None
        self.oldest = 0.0

    # --- the fetcher's side ---------------------------------------------------------------------------------------

    def offer(self, chunk: FetchedChunk) -> None:
        """Take over a fetched chunk, and wake the lane."""
        buffer = self._buffers.get(chunk.tp)
        if buffer is None:
            return
        buffer.chunks.append((chunk, self._clock()))
        buffer.size += chunk.size
        buffer.end = chunk.end
        if buffer.size >= self._bounds[chunk.tp] and not buffer.full:
            buffer.full = True
            self._fetcher.pause(chunk.tp)
        self._ready[chunk.tp] = None
        self.wake()

    def fail(self, error: Exception) -> None:
        """A partition cannot be fetched any more: the lane's next ``take`` raises ``error``."""
        self._error = error
        self.wake()

    # --- the lane's side ------------------------------------------------------------------------------------------

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Read ``tp`` from ``offset`` on. What was fetched of it is dropped."""
        before = self._buffers.get(tp)
        self._buffers[tp] = _Buffer(offset, paused=before is not None and before.paused)
        self._ready.pop(tp, None)
        self._fetcher.read(tp, offset, self._bounds[tp] // 2)
        if self._buffers[tp].paused:
            self._fetcher.pause(tp)

    def pause(self, *tps: TopicPartition) -> None:
        """Fetch no more of ``tps`` until ``resume``. What was fetched already stays."""
        for tp in tps:
            self._buffers[tp].paused = True
            self._fetcher.pause(tp)

    def resume(self, *tps: TopicPartition) -> None:
        """Fetch ``tps`` again."""
        for tp in tps:
            buffer = self._buffers[tp]
            buffer.paused = False
            if not buffer.full:
                self._fetcher.resume(tp)

    def take(self, readable: Collection[TopicPartition], limit: int) -> Mapping[TopicPartition, list[Record]]:
        """At most ``limit`` records of the ``readable`` partitions, which take turns: one that has more comes last.

        Raises the error of a partition that cannot be fetched or read.
        """
        if self._error is not None:
            raise self._error
        taken: dict[TopicPartition, list[Record]] = {}
        self.oldest = self._clock()
        for tp in [tp for tp in self._ready if tp in readable]:
            buffer = self._buffers[tp]
            if records := self._take(tp, buffer, limit):
                taken[tp] = records
                limit -= len(records)
            del self._ready[tp]
            if buffer.chunks or buffer.kept:
                self._ready[tp] = None
            if not limit:
                break
        return taken

    def put_back(self, tp: TopicPartition, records: list[Record]) -> None:
        """Give back the last records that were taken of ``tp``: the next ``take`` returns them first."""
        if records:
            buffer = self._buffers[tp]
            buffer.kept = records + buffer.kept
            self._ready[tp] = None

    def position(self, tp: TopicPartition) -> int:
        """The next offset of ``tp`` that was not taken. Beyond markers and aborted records after the last one taken."""
        return self._buffers[tp].position

    def size(self, tp: TopicPartition) -> int:
        """Bytes that were fetched of ``tp`` and not taken yet."""
        buffer = self._buffers.get(tp)
        return 0 if buffer is None else buffer.size

    def caught_up(self, tp: TopicPartition) -> bool:
        """Whether everything before the end offset that the broker last reported was taken."""
        high = self._fetcher.highwater(tp)
        return high is not None and self.position(tp) >= high

    def has_passed(self, tp: TopicPartition, offset: int | None) -> bool:
        """Whether ``tp`` is read beyond ``offset``, or has nothing there; without an offset, whether it is read. A
        partition that is paused is not fetched, so nothing is wrong with it now.
        """
        if (buffer := self._buffers.get(tp)) is None:
            return False
        if offset is None:
            return buffer.paused or self._fetcher.highwater(tp) is not None
        return buffer.paused or buffer.position > offset or self.caught_up(tp)

    def highwater(self, tp: TopicPartition) -> int | None:
        """The end offset of ``tp``, or None while no response of the broker has contained it."""
        return self._fetcher.highwater(tp)

    async def wait(self, seconds: float | None) -> None:
        """Wait until something arrived, ``wake`` was called or ``seconds`` have passed."""
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self.wake)
        try:
            await self._waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """End a ``wait``."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def close(self) -> None:
        """Stop fetching, and drop what was fetched."""
        self._fetcher.forget(list(self._buffers))
        self._buffers.clear()
        self._ready.clear()

    def _take(self, tp: TopicPartition, buffer: _Buffer, limit: int) -> list[Record]:
        """At most ``limit`` records of one partition. Lets the fetcher go on when half of the bytes were taken."""
        records, buffer.kept = buffer.kept[:limit], buffer.kept[limit:]
        while buffer.chunks and not buffer.kept:
            chunk, arrived = buffer.chunks[0]
            if len(records) < limit:
                records += chunk.take(limit - len(records))
                self.oldest = min(self.oldest, arrived)
            if not chunk.exhausted:
                break
            buffer.chunks.popleft()
            buffer.size -= chunk.size
        if buffer.full and 2 * buffer.size <= self._bounds[tp]:
            buffer.full = False
            if not buffer.paused:
                self._fetcher.resume(tp)
        return records
