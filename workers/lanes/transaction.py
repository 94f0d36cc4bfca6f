"""One commit of a lane: writes outputs, offsets and the offsets' metadata in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from failsoft.topics.routing import OutgoingRecord
from failsoft.workers.kafka.produce_batches import BATCH_BYTES, Batch, compressed_batch, pack

COMMIT_TIMEOUT = 20.0
"""The longest time from begin to commit, in seconds; the lane applies it. The broker aborts the
transaction after 15 s, so waiting much longer is useless. Without a bound, a commit can hang for ever when a
coordinator leaves (aiokafka #1145)."""


OffsetAndMetadata = tuple[int, str]
"""An offset and its metadata. The metadata is "" or a crash marker (failsoft.workers.lanes.crash_marks)."""


async def commit(
    producer: AIOKafkaProducer,
    consumer: AIOKafkaConsumer,
    group: str | None,
    index: int,
    routed: Sequence[tuple[str, list[OutgoingRecord]]],
    offsets: dict[TopicPartition, OffsetAndMetadata],
    now_ms: int,
) -> None:
    """Write records and offsets. Any error of aiokafka is raised.

    With a group, both are written in one transaction. With ``group`` None (at least once), the consumer commits the
    offsets after all records are written.

    Args:
        producer: the lane's producer.
        consumer: the consumer that commits the offsets if there is no transaction.
        group: the consumer group of the offsets, or None.
        index: the partition that the records are written to.
        routed: topics, each with its records.
        offsets: the offsets to commit, with their metadata.
        now_ms: the timestamp of the written records (epoch milliseconds).
    """
    if group is not None:
        await producer.begin_transaction()
    futures = []
    for topic, rows in routed:
        for batch in pack(producer.create_batch, rows, now_ms, lambda: _squeezed(group is not None)):
            futures.append(await producer.send_batch(batch, topic, partition=index))
    # Await every future before the offsets: aiokafka commits a transaction although a batch in it failed.
    await asyncio.gather(*futures)
    if group is not None:
        await producer.send_offsets_to_transaction(offsets, group)
        await producer.commit_transaction()
    else:
        await consumer.commit(offsets)


def _squeezed(transactional: bool) -> Batch:
    return compressed_batch(BATCH_BYTES, transactional)
