"""All committed offsets of a group, also those of topics that nobody reads any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient

from failsoft.workers.kafka import requests
from failsoft.workers.kafka.request_loop import CoordinatorKind, RequestLoop
from failsoft.workers.kafka.stable_offsets import NONE_COMMITTED


async def group_offsets(connection: Mapping[str, Any], group: str) -> dict[TopicPartition, int]:
    """The committed offsets of ``group``; those of open transactions are not among them.

    Raises aiokafka's errors, as when no broker answers, and RequestRefused for a group that may not be read.
    """
    client = AIOKafkaClient(**connection)
    try:
        await client.bootstrap()
        response = await RequestLoop(client).ask(requests.all_offsets(group), CoordinatorKind.GROUP, group)
    finally:
        await client.close()
    return {
        TopicPartition(topic, partition): offset
        for topic, found, _ in response.topics
        for partition, offset, *_ in found
        if offset != NONE_COMMITTED
    }
