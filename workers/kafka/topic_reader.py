"""Reads the committed records of all partitions of a topic, without a consumer group."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError, for_code

from failsoft.topics import admin
from failsoft.workers.kafka import fetch_records
from failsoft.workers.kafka.topic_ids import topic_ids
from failsoft.workers.settings import Settings

AT_ONCE = 2_000
"""The most records of one fetch: enough for speed, few enough to show progress and to use little memory."""


class NoSuchTopic(Exception):
    """The topic does not exist. The message has the command that creates it. Exit code 1."""


async def partitions(pipeline: Settings, topic: str) -> int:
    """The number of partitions of ``topic``. Raises NoSuchTopic or KafkaUnreachable; TopicAuthorizationFailedError for
    a topic that the client may not see, whether it exists or not.
    """
    async with admin.connect(pipeline.connection()) as client:
        (description,) = await client.describe_topics([topic])
        if for_code(description["error_code"]) is TopicAuthorizationFailedError:
            raise TopicAuthorizationFailedError(topic)
        if description["error_code"] or not description["partitions"]:
            raise _missing(topic)
        return len(description["partitions"])


def _missing(topic: str) -> NoSuchTopic:
    return NoSuchTopic(f"{topic}: no such topic; create the pipeline's topics with: failsoft topics apply")


@asynccontextmanager
async def reader(pipeline: Settings, topic: str) -> AsyncIterator[Reader]:
    """A Reader of all partitions of ``topic``, which reads committed records only. Raises NoSuchTopic or
    KafkaUnreachable.
    """
    count = await partitions(pipeline, topic)
    fetch_records.install()
    consumer = AIOKafkaConsumer(
        **pipeline.connection(),
        client_id="failsoft",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",  # retention may remove records while they are read: go on with the oldest left
        isolation_level="read_committed",
        max_partition_fetch_bytes=4 * 1_048_576,
    )
    await consumer.start()
    try:
        assigned = [TopicPartition(topic, i) for i in range(count)]
        consumer.assign(assigned)
        ids = await topic_ids(consumer._client, [topic])
        if topic not in ids:
            raise _missing(topic)
        yield Reader(consumer, assigned, ids[topic])
    finally:
        await consumer.stop()


@dataclass(frozen=True, slots=True)
class Reader:
    """A consumer with all partitions of a topic assigned.

    Attributes:
        consumer: the started consumer.
        assigned: the topic's partitions.
        topic_id: the topic's id; None on brokers that give topics none.
    """

    consumer: AIOKafkaConsumer
    assigned: list[TopicPartition]
    topic_id: str | None

    async def bounds(self) -> Mapping[TopicPartition, tuple[int, int]]:
        """The (first, end) offsets of each partition; the end is that of the records committed now."""
        begin = await self.consumer.beginning_offsets(self.assigned)
        end = await self.consumer.end_offsets(self.assigned)
        return {tp: (begin[tp], end[tp]) for tp in self.assigned}

    async def until(self, bounds: Mapping[TopicPartition, tuple[int, int]]) -> AsyncGenerator[list[Any], None]:
        """Every record within ``bounds``, in lists, in order within each partition. The reader cannot be used again.

        A partition is complete when the consumer's position reaches its end, not when a last record was read: the last
        offsets may be a transaction's marker or aborted records.
        """
        left = {tp: end for tp, (begin, end) in bounds.items() if begin < end}
        if left:
            self.consumer.assign(list(left))
        for tp in left:
            self.consumer.seek(tp, bounds[tp][0])
        while left:
            fetched = await self.consumer.getmany(*left, timeout_ms=200, max_records=AT_ONCE)
            batch = [r for tp, records in fetched.items() for r in records if r.offset < left[tp]]
            if batch:
                yield batch
            for tp in list(left):
                if await self.consumer.position(tp) >= left[tp]:
                    del left[tp]

    async def follow(self, from_beginning: bool) -> AsyncGenerator[list[Any], None]:
        """Every new record, in lists, without end. With ``from_beginning``, the records already there come first."""
        if from_beginning:
            await self.consumer.seek_to_beginning(*self.assigned)
        else:
            await self.consumer.seek_to_end(*self.assigned)
        while True:
            fetched = await self.consumer.getmany(timeout_ms=1000, max_records=AT_ONCE)
            batch = [r for records in fetched.values() for r in records]
            if batch:
                yield batch
