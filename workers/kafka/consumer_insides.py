"""Reads state of an aiokafka consumer that has no public call: committed offsets with metadata, and its failure."""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, OffsetAndMetadata, TopicPartition


async def committed(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """The group's committed offsets, with the metadata that ``consumer.committed`` drops.

    A partition without a committed offset is left out.
    """
    offsets: dict[TopicPartition, OffsetAndMetadata] = await consumer._coordinator.fetch_committed_offsets(partitions)
    return offsets


def still_fetches(consumer: AIOKafkaConsumer) -> bool:
    """False when the consumer's fetch task has ended. Raises the error of that task or of the group.

    aiokafka reports these errors only to a pending fetch, so a worker that does not fetch must poll for them.
    """
    fetching = consumer._fetcher.error_future
    if fetching.done():
        fetching.result()
        return False
    consumer._coordinator.check_errors()
    return True
