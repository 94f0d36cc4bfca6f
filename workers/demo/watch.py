"""Reads the demo's topics: live for the table, and completely for the summary.

It reads committed records only and shares no state with the workers. It also reads the workers' metrics.
"""

from __future__ import annotations

import asyncio
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from failsoft.schemas.record import Record
from failsoft.workers.demo.breaker_history import BreakerHistory
from failsoft.workers.demo.tally import Tallies
from failsoft.workers.demo.version_history import VersionHistory
from failsoft.workers.kafka import topic_reader
from failsoft.workers.settings import Settings

READ_EVERY = 0.3
"""Seconds between two reads of the group's offsets (one request for each partition): about as often as the table is
updated."""


class Watch:
    """Follows the pipeline's topics while ``run`` runs.

    ``tallies`` has the counts of the pipeline's own topics, ``fleet`` the fleet's breakers, and ``moves`` its versions.
    """

    def __init__(self, pipeline: Settings, partitions: int) -> None:
        names = pipeline.names
        self.tallies, self.fleet, self.moves = Tallies(names), BreakerHistory(), VersionHistory()
        self._connection = pipeline.connection()
        self._group = names.group
        rungs = [names.retry(delay) for delay, _ in pipeline.retry.rungs]
        self._ladder = [TopicPartition(topic, i) for topic in rungs for i in range(partitions)]
        self._all = [TopicPartition(t, i) for t in (names.scored, names.dead, names.replay) for i in range(partitions)]
        self._folds: dict[TopicPartition, Callable[[Record], None]] = {
            TopicPartition(names.breakers_changelog, 0): self.fleet.fold,
            TopicPartition(names.rollouts_changelog, 0): self.moves.fold,
        }
        self._all += [*self._ladder, *self._folds]

    async def run(self) -> None:
        """Reads until cancelled. Raises KafkaError."""
        async with AsyncExitStack() as stack:
            reader = _reader(self._connection)
            group = AIOKafkaConsumer(**self._connection, group_id=self._group, enable_auto_commit=False)
            for consumer in (reader, group):
                stack.push_async_callback(consumer.stop)
                await consumer.start()
            reader.assign(self._all)
            await reader.seek_to_beginning()
            clock = asyncio.get_running_loop().time
            next_read = clock()
            while True:
                for tp, records in (await reader.getmany(timeout_ms=100, max_records=2000)).items():
                    fold = self._folds.get(tp, self.tallies.fold)
                    for record in records:
                        fold(record)
                if clock() >= next_read:
                    await self._read_offsets(group)
                    next_read = clock() + READ_EVERY

    async def _read_offsets(self, group: AIOKafkaConsumer) -> None:
        """Reads the offsets on the ladder that the workers have committed, without joining their group."""
        for tp in self._ladder:
            offset = await group.committed(tp)
            if offset is not None:
                self.tallies.committed(tp.topic, tp.partition, offset)


async def read_all(pipeline: Settings, topics: Sequence[str]) -> list[Record]:
    """All committed records of ``topics`` up to their current ends, in the order of each partition."""
    records: list[Record] = []
    for topic in topics:
        async with topic_reader.reader(pipeline, topic) as reader:
            async for batch in reader.until(await reader.bounds()):
                records += batch
    return records


def _reader(connection: Mapping[str, Any]) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        **connection,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    )


SCRAPE_WITHIN = 2.0
"""Timeout of a scrape in seconds: the server is on this machine and has its own thread."""


@dataclass(frozen=True, slots=True)
class Breakers:
    """The breakers of one worker.

    Attributes:
        states: the state by ``model@version``.
        moves: the number of changes by (``model@version``, from, to).
    """

    states: dict[str, str] = field(default_factory=dict)
    moves: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def opened(self, key: str) -> int:
        """How often the breaker of ``key`` opened."""
        return sum(n for (moved, _, to), n in self.moves.items() if (moved, to) == (key, "open"))


def read(page: str) -> Breakers:
    """Parses the breakers from a page in Prometheus's text format."""
    breakers = Breakers()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "failsoft_breaker_state" and sample.value == 1:
                breakers.states[f"{labels['model']}@{labels['version']}"] = labels["state"]
            elif sample.name == "failsoft_breaker_transitions_total" and sample.value:
                key = f"{labels['model']}@{labels['version']}"
                breakers.moves[key, labels["from"], labels["to"]] = int(sample.value)
    return breakers


async def scrape(address: str) -> Breakers:
    """Reads the breakers of the worker whose HTTP server is at ``address``. Raises OSError if it does not answer."""

    def get() -> str:
        with urllib.request.urlopen(f"{address}/metrics", timeout=SCRAPE_WITHIN) as answer:
            return str(answer.read().decode())

    return read(await asyncio.to_thread(get))
