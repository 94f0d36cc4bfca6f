"""A Faust table from outside of Faust: its changelog, read to its end as often as wanted, and orders to its owner."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from failsoft.workers.kafka import topic_reader
from failsoft.workers.settings import Settings

LOOK_AGAIN = 0.1
"""Seconds between two looks at a changelog: an owner obeys within tens of milliseconds, and people wait."""

OnProgress = Callable[[int, int], None]
"""Told how many offsets of how many were read."""


@asynccontextmanager
async def changelog(pipeline: Settings, topic: str) -> AsyncIterator[Changelog]:
    """The table whose changelog is ``topic``; nothing is read yet. Raises NoSuchTopic or KafkaUnreachable."""
    async with topic_reader.reader(pipeline, topic) as reader:
        yield Changelog(reader)


@dataclass(slots=True)
class Changelog:
    """A reader of a changelog, and the last value of each key so far: only those are ever parsed."""

    reader: topic_reader.Reader
    _latest: dict[bytes | None, bytes | None] = field(default_factory=dict)
    _after: int = 0

    async def refresh(self, on_progress: OnProgress = lambda done, total: None) -> Mapping[bytes | None, bytes | None]:
        """The values as they are now, None for what was deleted: it reads on to the end that the topic has now."""
        bounds = {tp: (max(begin, self._after), end) for tp, (begin, end) in (await self.reader.bounds()).items()}
        total, done = sum(end - begin for begin, end in bounds.values()), 0
        async with aclosing(self.reader.until(bounds)) as batches:
            async for records in batches:
                self._latest.update((r.key, r.value) for r in records)
                done += len(records)
                on_progress(done, total)
        self._after = max((end for _, end in bounds.values()), default=0)  # the topic has one partition
        return self._latest
