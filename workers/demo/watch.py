"""Reads the demo's topics: live, for the table, and whole, for the summary. Committed records only, and no memory of
the worker's.
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

LOOK = 0.3
"""Seconds between two looks at the group's offsets, a request a partition: as often as a table is worth reading."""


class Watch:
    """Follows the pipeline's own topics into ``tallies``, its breakers' table into ``fleet`` and its versions' into
    ``moves``, while ``run`` runs.
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
        """Until cancelled. Raises what aiokafka raises."""
        async with AsyncExitStack() as stack:
            reader = _reader(self._connection)
            group = AIOKafkaConsumer(**self._connection, group_id=self._group, enable_auto_commit=False)
            for consumer in (reader, group):
                stack.push_async_callback(consumer.stop)
                await consumer.start()
            reader.assign(self._all)
            await reader.seek_to_beginning()
            clock = asyncio.get_running_loop().time
            look_at = clock()
            while True:
                for tp, records in (await reader.getmany(timeout_ms=100, max_records=2000)).items():
                    fold = self._folds.get(tp, self.tallies.fold)
                    for record in records:
                        fold(record)
                if clock() >= look_at:
                    await self._look(group)
                    look_at = clock() + LOOK

    async def _look(self, group: AIOKafkaConsumer) -> None:
        """What of the ladder the workers have dealt with. The consumer asks for the group's offsets without joining."""
        for tp in self._ladder:
            offset = await group.committed(tp)
            if offset is not None:
                self.tallies.committed(tp.topic, tp.partition, offset)


async def read_all(pipeline: Settings, topics: Sequence[str]) -> list[Record]:
    """Every committed record of ``topics``, in the order of each partition, up to their ends of this moment."""
    records: list[Record] = []
    for topic in topics:
        async with topic_reader.reader(pipeline, topic) as reader:
            async for found in reader.until(await reader.bounds()):
                records += found
    return records


def _reader(connection: Mapping[str, Any]) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        **connection,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    )


SOON = 2.0
"""Seconds to wait for an answer: the server is on this machine, and has a thread of its own."""


@dataclass(frozen=True, slots=True)
class Breakers:
    """One worker's: states by ``model@version``, and how often each moved, by (``model@version``, from, to)."""

    states: dict[str, str] = field(default_factory=dict)
    moves: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def opened(self, key: str) -> int:
        """How often the breaker of ``key`` opened."""
        return sum(n for (moved, _, to), n in self.moves.items() if (moved, to) == (key, "open"))


def read(page: str) -> Breakers:
    """The breakers on a page of Prometheus's text format."""
    found = Breakers()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "failsoft_breaker_state" and sample.value == 1:
                found.states[f"{labels['model']}@{labels['version']}"] = labels["state"]
            elif sample.name == "failsoft_breaker_transitions_total" and sample.value:
                key = f"{labels['model']}@{labels['version']}"
                found.moves[key, labels["from"], labels["to"]] = int(sample.value)
    return found


async def scrape(address: str) -> Breakers:
    """The breakers of the worker whose HTTP server is at ``address``. Raises OSError when it does not answer."""

    def get() -> str:
        with urllib.request.urlopen(f"{address}/metrics", timeout=SOON) as answer:
            return str(answer.read().decode())

    return read(await asyncio.to_thread(get))
