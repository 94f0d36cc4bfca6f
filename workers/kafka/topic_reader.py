"""Reading a topic without a group: the committed records of all its partitions, from where to where."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from failsoft.topics import admin
from failsoft.workers.settings import Settings

AT_ONCE = 2_000
"""Records of one fetch: enough for speed, few enough to show progress and to stay small."""


class NoSuchTopic(Exception):
    """The topic is not there; the message says how to create it. Exit code 1."""


async def partitions(pipeline: Settings, topic: str) -> int:
    """How many partitions ``topic`` has. Raises NoSuchTopic or KafkaUnreachable."""
    async with admin.connect(pipeline.connection()) as client:
        (found,) = await client.describe_topics([topic])
        if found["error_code"] or not found["partitions"]:
            raise NoSuchTopic(f"{topic}: no such topic; create the pipeline's with: failsoft topics apply")
        return len(found["partitions"])


@asynccontextmanager
async def reader(pipeline: Settings, topic: str) -> AsyncIterator[Reader]:
    """All partitions of ``topic``, read committed. Raises NoSuchTopic or KafkaUnreachable."""
    count = await partitions(pipeline, topic)
    consumer = AIOKafkaConsumer(
        **pipeline.connection(),
        client_id="failsoft",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",  # what retention removes while it is read is no error
        isolation_level="read_committed",
        max_partition_fetch_bytes=4 * 1_048_576,
    )
    await consumer.start()
    try:
        found = [TopicPartition(topic, i) for i in range(count)]
        consumer.assign(found)
        yield Reader(consumer, found)
    finally:
        await consumer.stop()


@dataclass(frozen=True, slots=True)
class Reader:
    """A consumer with all partitions of a topic assigned."""

    consumer: AIOKafkaConsumer
    assigned: list[TopicPartition]

    async def bounds(self) -> Mapping[TopicPartition, tuple[int, int]]:
        """(first, end) offset of each partition; the end is that of what is committed now."""
        begin = await self.consumer.beginning_offsets(self.assigned)
        end = await self.consumer.end_offsets(self.assigned)
        return {tp: (begin[tp], end[tp]) for tp in self.assigned}

    async def until(self, bounds: Mapping[TopicPartition, tuple[int, int]]) -> AsyncGenerator[list[Any], None]:
        """Every record within ``bounds``, a list at a time, in order within each partition. Then the reader is used up.

        A partition is done when its position is at the end, not when its last record was seen: what stands there may
        be a transaction's marker, or aborted.
        """
        left = {tp: end for tp, (begin, end) in bounds.items() if begin < end}
        if left:
            self.consumer.assign(list(left))
        for tp in left:
            self.consumer.seek(tp, bounds[tp][0])
        while left:
            fetched = await self.consumer.getmany(*left, timeout_ms=200, max_records=AT_ONCE)
            found = [r for tp, records in fetched.items() for r in records if r.offset < left[tp]]
            if found:
                yield found
            for tp in list(left):
                if await self.consumer.position(tp) >= left[tp]:
                    del left[tp]

    async def follow(self, from_beginning: bool) -> AsyncGenerator[list[Any], None]:
        """What is there (if wanted) and what comes, without end."""
        if from_beginning:
            await self.consumer.seek_to_beginning(*self.assigned)
        else:
            await self.consumer.seek_to_end(*self.assigned)
        while True:
            fetched = await self.consumer.getmany(timeout_ms=1000, max_records=AT_ONCE)
            found = [r for records in fetched.values() for r in records]
            if found:
                yield found
