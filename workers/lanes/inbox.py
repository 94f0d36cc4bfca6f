"""What was fetched of one lane's partitions and not taken yet: at most one chunk of each partition.

The fetcher fetches a partition again only when the inbox has handed out all of its chunk. So a slow lane stops the
fetch of its own partitions and of no others, and the memory of all inboxes is bounded by the size of a chunk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
    def exhausted(self) -> bool: ...
    def take(self, limit: int | None) -> Sequence[Record]: ...


class Fetches(Protocol):
    """The part of failsoft.workers.kafka.fetcher.Fetcher that the inbox uses; it is documented there."""

    def read(self, tp: TopicPartition, offset: int) -> None: ...
    def pause(self, tp: TopicPartition) -> None: ...
    def resume(self, tp: TopicPartition) -> None: ...
    def forget(self, tps: Iterable[TopicPartition]) -> None: ...
    def highwater(self, tp: TopicPartition) -> int | None: ...


class Inbox:
    """The fetched records of one lane, in offset order within each partition.

    A partition is closed until ``seek`` opens it. ``clock`` is monotonic seconds.

    Attributes:
        oldest: when the oldest of the last taken chunks arrived (monotonic seconds).
    """

    def __init__(self, fetcher: Fetches, clock: Callable[[], float]) -> None:
        self._fetcher = fetcher
        self._clock = clock
        self._chunks: dict[TopicPartition, FetchedChunk] = {}
        self._arrived: dict[TopicPartition, float] = {}
        self._kept: dict[TopicPartition, list[Record]] = {}  # taken, put back, and before the rest of the chunk
        self._at: dict[TopicPartition, int] = {}  # the next offset of a partition without a chunk
        self._paused: set[TopicPartition] = set()
        self._error: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None
        self.oldest = 0.0

    # --- the fetcher's side ---------------------------------------------------------------------------------------

    def offer(self, chunk: FetchedChunk) -> None:
        """Take over a fetched chunk, and wake the lane."""
        if chunk.tp in self._at:
            self._chunks[chunk.tp] = chunk
            self._arrived[chunk.tp] = self._clock()
            self.wake()

    def fail(self, error: Exception) -> None:
        """A partition cannot be fetched any more: the lane's next ``take`` raises ``error``."""
        self._error = error
        self.wake()

    # --- the lane's side ------------------------------------------------------------------------------------------

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Read ``tp`` from ``offset`` on. What was fetched of it is dropped."""
        self._drop(tp)
        self._at[tp] = offset
        self._fetcher.read(tp, offset)
        if tp in self._paused:
            self._fetcher.pause(tp)

    def pause(self, *tps: TopicPartition) -> None:
        """Fetch no more of ``tps`` until ``resume``. What was fetched already stays."""
        for tp in tps:
            if tp not in self._paused:
                self._paused.add(tp)
                self._fetcher.pause(tp)

    def resume(self, *tps: TopicPartition) -> None:
        """Fetch ``tps`` again."""
        for tp in tps:
            if tp in self._paused:
                self._paused.discard(tp)
                if tp not in self._chunks:
                    self._fetcher.resume(tp)

    def take(self, readable: Collection[TopicPartition], limit: int) -> Mapping[TopicPartition, list[Record]]:
        """At most ``limit`` records of the ``readable`` partitions; those that arrived first come first.

        Raises the error of a partition that cannot be fetched or read.
        """
        if self._error is not None:
            raise self._error
        taken: dict[TopicPartition, list[Record]] = {}
        for tp in [tp for tp in self._chunks if tp in readable]:
            records = self._take(tp, limit)
            if records:
                self.oldest = min(self.oldest, self._arrived[tp]) if taken else self._arrived[tp]
                taken[tp] = records
                limit -= len(records)
            self._release(tp)
            if not limit:
                break
        return taken

    def put_back(self, tp: TopicPartition, records: list[Record]) -> None:
        """Give back the last records that were taken of ``tp``: the next ``take`` returns them first."""
        if not records:
            return
        self._kept[tp] = records + self._kept.get(tp, [])
        if tp not in self._chunks:  # it was taken to its end, and may be fetched again already
            self._fetcher.pause(tp)
            self._chunks[tp] = _Nothing(tp, self._at[tp])

    def position(self, tp: TopicPartition) -> int:
        """The next offset of ``tp`` that was not taken. Beyond markers and aborted records after the last one taken."""
        if kept := self._kept.get(tp):
            return kept[0].offset
        chunk = self._chunks.get(tp)
        return self._at[tp] if chunk is None else chunk.position

    def caught_up(self, tp: TopicPartition) -> bool:
        """Whether everything before the end offset that the broker last reported was taken."""
        high = self._fetcher.highwater(tp)
        return high is not None and self.position(tp) >= high

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
        self._fetcher.forget(list(self._at))
        for tp in list(self._at):
            self._drop(tp)
        self._at.clear()

    def _take(self, tp: TopicPartition, limit: int) -> list[Record]:
        kept = self._kept.pop(tp, [])
        if len(kept) > limit:
            self._kept[tp] = kept[limit:]
            return kept[:limit]
        if len(kept) < limit:
            kept += self._chunks[tp].take(limit - len(kept))
        return kept

    def _release(self, tp: TopicPartition) -> None:
        """Let the fetcher go on with ``tp`` when its chunk was taken to its end."""
        chunk = self._chunks[tp]
        if tp not in self._kept and chunk.exhausted:
            self._at[tp] = chunk.position
            del self._chunks[tp]
            if tp not in self._paused:
                self._fetcher.resume(tp)

    def _drop(self, tp: TopicPartition) -> None:
        self._chunks.pop(tp, None)
        self._kept.pop(tp, None)


class _Nothing:
    """The rest of a chunk that was taken to its end, behind records that were put back."""

    def __init__(self, tp: TopicPartition, position: int) -> None:
        self.tp, self.position, self.exhausted = tp, position, True

    def take(self, limit: int | None) -> list[Record]:
        return []
