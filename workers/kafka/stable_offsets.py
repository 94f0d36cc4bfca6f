"""Reads a group's committed offsets, apart from those that an open transaction may still change (KIP-447)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Set

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient

from failsoft.workers.kafka import requests
from failsoft.workers.kafka.partition_errors import partition_error
from failsoft.workers.kafka.request_errors import Code, Remedy
from failsoft.workers.kafka.request_loop import CoordinatorKind, RequestLoop, RequestRefused, Sleep
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
) -> tuple[Mapping[TopicPartition, Offset], Set[TopicPartition]]:
    """The committed offset and its metadata for each partition that has a final one, and the partitions whose offset is
    not final. A partition without a committed offset is in neither.

    An offset is not final while the last owner's transaction with it is open. It is then committed or aborted, at the
    latest when it times out: ask again. A coordinator that moves, loads or is away is asked until it answers. There
    is no bound in time: a lane that is closed no longer waits. An error is never taken for "no offset": a lane would
    begin at the start of its topic and answer every event a second time (docs/decisions/0008-leaderless-markers.md).

    Args:
        client: a bootstrapped client.
        group: the consumer group.
        partitions: the partitions that were read.
        require_stable: tell offsets that are not final. Without it, the offsets before the open transactions are
            returned.
        sleep: waits for some seconds between two tries.

    Raises:
        TopicAuthorizationFailedError: for a topic that may not be seen (``partition_error``).
        RequestRefused: for another error that no retry can mend, such as a group that may not be read.
        AnswerIncomplete: if the response lacks a partition.
    """
    if not partitions:
        return {}, set()
    request = requests.offset_fetch(group, partitions, require_stable)
    try:
        response = await RequestLoop(client, sleep).ask(request, CoordinatorKind.GROUP, group, accept=Remedy.UNSTABLE)
    except RequestRefused as e:
        if e.code == Code.TOPIC_AUTHORIZATION_FAILED and e.partition is not None:
            raise partition_error(e.code, e.partition) from e
        raise
    stable: dict[TopicPartition, Offset] = {}
    unstable: set[TopicPartition] = set()
    for topic, found, _ in response.topics:
        for partition, offset, _, metadata, code, _ in found:
            if code == Code.UNSTABLE_OFFSET_COMMIT:
                unstable.add(TopicPartition(topic, partition))
            elif offset != NONE_COMMITTED:
                stable[TopicPartition(topic, partition)] = offset, metadata or ""
    return stable, unstable
