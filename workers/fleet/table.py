"""Reads a Faust table without Faust: its changelog topic, read to the current end at each refresh."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from failsoft.workers.kafka import topic_reader
from failsoft.workers.settings import Settings

POLL_EVERY = 0.1
"""Seconds between two reads of a changelog. An owner answers within tens of milliseconds, and an operator waits."""

OnProgress = Callable[[int, int], None]
"""Called with the number of offsets read so far and the total."""


@asynccontextmanager
async def changelog(pipeline: Settings, topic: str) -> AsyncIterator[Changelog]:
    """Opens the table whose changelog is ``topic``; reads nothing yet. Raises NoSuchTopic or KafkaUnreachable."""
    async with topic_reader.reader(pipeline, topic) as reader:
        yield Changelog(reader)


@dataclass(slots=True)
class Changelog:
    """A reader of a changelog, and the latest value of each key. Callers parse only these."""

    reader: topic_reader.Reader
    _latest: dict[bytes | None, bytes | None] = field(default_factory=dict)
    _after: int = 0

    async def refresh(self, on_progress: OnProgress = lambda done, total: None) -> Mapping[bytes | None, bytes | None]:
        """Reads to the topic's current end; returns the latest raw value by key, None for a deleted key."""
        bounds = {tp: (max(begin, self._after), end) for tp, (begin, end) in (await self.reader.bounds()).items()}
        total, done = sum(end - begin for begin, end in bounds.values()), 0
        async with aclosing(self.reader.until(bounds)) as batches:
            async for records in batches:
                self._latest.update((r.key, r.value) for r in records)
                done += len(records)
                on_progress(done, total)
        self._after = max((end for _, end in bounds.values()), default=0)  # the topic has one partition
        return self._latest
