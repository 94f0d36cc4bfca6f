"""What an aiokafka consumer knows and has no public call for: offsets with their metadata, and its own failure."""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, OffsetAndMetadata, TopicPartition


async def committed(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """The group's offsets, with the metadata that ``consumer.committed`` drops. A partition without one is left out."""
    found: dict[TopicPartition, OffsetAndMetadata] = await consumer._coordinator.fetch_committed_offsets(partitions)
    return found


def still_fetches(consumer: AIOKafkaConsumer) -> bool:
    """False when its fetch task has ended. Raises the error of that task, or the one that its group gave.

    aiokafka reports these errors only to a pending fetch, so a consumer that nobody fetches from has to be asked.
    """
    fetching = consumer._fetcher.error_future
    if fetching.done():
        fetching.result()
        return False
    consumer._coordinator.check_errors()
    return True
