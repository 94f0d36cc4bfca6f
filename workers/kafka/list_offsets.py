"""The first and the end offsets of partitions, asked of their leaders."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Literal

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError
from aiokafka.protocol.offset import OffsetRequest

from failsoft.workers.kafka.partition_errors import PASSING, TOPIC_AUTHORIZATION_FAILED, partition_error
from failsoft.workers.kafka.trouble_log import TroubleLog

RETRY_AFTER = 0.1
"""Seconds until a leader that failed is asked again, after new metadata."""

_TIMESTAMPS = {"latest": -1, "earliest": -2}


async def list_offsets(
    client: AIOKafkaClient,
    partitions: Iterable[TopicPartition],
    which: Literal["earliest", "latest"],
    *,
    read_committed: bool = True,
    retry_after: float = RETRY_AFTER,
    clock: Callable[[], float] = time.monotonic,
) -> dict[TopicPartition, int]:
    """The first or the end offset of each partition. Asks until all are known: the caller bounds the time. The log says
    what it waits for (``TroubleLog``).

    Args:
        client: a client that is connected to the cluster.
        partitions: the partitions to ask for.
        which: the first offset that is kept, or the offset after the last record.
        read_committed: the latest is the last stable offset, up to which committed records can be read.
        retry_after: seconds until a leader that failed is asked again.
        clock: the monotonic clock (seconds).

    Raises:
        KafkaError: for an error that does not pass, such as a lack of authorization.
    """
    left = dict.fromkeys(partitions)
    found: dict[TopicPartition, int] = {}
    trouble = TroubleLog(clock)
    while left:
        by_leader: dict[int, list[TopicPartition]] = {}
        for tp in left:
            leader = client.cluster.leader_for_partition(tp)
            if leader is None:
                client.add_topic(tp.topic)
            elif leader != -1:
                by_leader.setdefault(leader, []).append(tp)
        asked = (_of(client, node, tps, _TIMESTAMPS[which], read_committed) for node, tps in by_leader.items())
        why = ""
        for answer, reason in await asyncio.gather(*asked):
            found |= answer
            why = reason or why
        for tp in found:
            left.pop(tp, None)
        if left:
            tp = next(iter(left))
            trouble.note(f"the {which} offset of {tp.topic}-{tp.partition}: {why or 'it has no leader'}")
            await client.force_metadata_update()
            for tp in left:
                if tp.topic in client.cluster.unauthorized_topics:
                    raise partition_error(TOPIC_AUTHORIZATION_FAILED, tp)
            if any(client.cluster.leader_for_partition(tp) in (None, -1, *by_leader) for tp in left):
                await asyncio.sleep(retry_after)  # the new metadata names no other broker to ask
    return found


async def _of(
    client: AIOKafkaClient, node: int, tps: list[TopicPartition], timestamp: int, read_committed: bool
) -> tuple[dict[TopicPartition, int], str]:
    """The offsets that one broker knows now, without those for which it is the wrong one, or not ready; and why."""
    topics: dict[str, list[tuple[int, int]]] = {}
    for tp in tps:
        topics.setdefault(tp.topic, []).append((tp.partition, timestamp))
    request = OffsetRequest(-1, int(read_committed), list(topics.items()))
    try:
        answer = await client.send(node, request)
    except IncompatibleBrokerVersion:
        raise
    except KafkaError as error:  # no connection, or no answer: such errors pass
        return {}, f"node {node}: no answer ({error!r})"
    found: dict[TopicPartition, int] = {}
    why = ""
    for topic, parts in answer.topics:
        for partition, code, _timestamp, offset in parts:
            tp = TopicPartition(topic, partition)
            if not code:
                found[tp] = offset
            elif code not in PASSING:
                raise partition_error(code, tp)
            else:
                why = f"node {node}: Kafka's error code {code}"
    return found, why
