"""Reads a group's committed offsets, and waits for those that an open transaction may still change (KIP-447)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient

from failsoft.workers.kafka import requests
from failsoft.workers.kafka.request_loop import CoordinatorKind, RequestLoop, Sleep
from failsoft.workers.kafka.requests import Offset

NONE_COMMITTED = -1
"""The offset of a partition without a committed one."""


async def stable_offsets(
    client: AIOKafkaClient,
    group: str,
    partitions: Collection[TopicPartition],
    *,
    require_stable: bool = True,
    sleep: Sleep = asyncio.sleep,
) -> dict[TopicPartition, Offset]:
    """The committed offset and its metadata for each partition that has one; the others are left out.

    Returns when every offset is final: the last owner's open transaction is then committed or aborted, at the latest
    when it times out. The caller sets a bound in time, and cancels. A coordinator that moves, loads or is away is
    asked again. An error is never taken for "no offset": a lane would begin at the start of its topic and answer every
    event a second time (docs/decisions/0008-leaderless-markers.md).

    Args:
        client: a bootstrapped client.
        group: the consumer group.
        partitions: the partitions that were read.
        require_stable: wait for open transactions. Without it, the offsets before them are returned.
        sleep: waits for some seconds between two tries.

    Raises:
        RequestRefused: for an error that no retry can mend, such as a group that may not be read.
        AnswerIncomplete: if the response lacks a partition.
    """
    if not partitions:
        return {}
    request = requests.offset_fetch(group, partitions, require_stable)
    response = await RequestLoop(client, sleep).ask(request, CoordinatorKind.GROUP, group)
    return {
        TopicPartition(topic, partition): (offset, metadata or "")
        for topic, found, _ in response.topics
        for partition, offset, _, metadata, _, _ in found
        if offset != NONE_COMMITTED
    }
