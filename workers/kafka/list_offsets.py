"""The first and the end offsets of partitions, asked of their leaders."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
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


Which = Literal["earliest", "latest"] | int
"""The first offset that is kept, the offset after the last record, or the first record at or after a time (epoch
milliseconds)."""


async def list_offsets(
    client: AIOKafkaClient,
    partitions: Iterable[TopicPartition],
    which: Which,
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
        which: which offset. -1 is the answer for a time after the last record.
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
        leaders, _ = by_leader(client, left)
        asked = (ask(client, node, tps, which, read_committed) for node, tps in leaders.items())
        why = ""
        for answer in await asyncio.gather(*asked):
            for error in answer.refused.values():
                raise error
            found |= answer.found
            why = answer.why or why
        for tp in found:
            left.pop(tp, None)
        if left:
            tp = next(iter(left))
            trouble.note(f"the {which} offset of {tp.topic}-{tp.partition}: {why or 'it has no leader'}")
            await client.force_metadata_update()
            for tp in left:
                if tp.topic in client.cluster.unauthorized_topics:
                    raise partition_error(TOPIC_AUTHORIZATION_FAILED, tp)
            if any(client.cluster.leader_for_partition(tp) in (None, -1, *leaders) for tp in left):
                await asyncio.sleep(retry_after)  # the new metadata names no other broker to ask
    return found


@dataclass(slots=True)
class OffsetsAnswer:
    """What brokers answered once.

    Attributes:
        found: the offsets.
        refused: the errors of partitions that do not pass.
        why: why a partition is in neither: its broker is away, or not ready.
    """

    found: dict[TopicPartition, int] = field(default_factory=dict)
    refused: dict[TopicPartition, KafkaError] = field(default_factory=dict)
    why: str = ""


def by_leader(
    client: AIOKafkaClient, partitions: Iterable[TopicPartition]
) -> tuple[dict[int, list[TopicPartition]], list[TopicPartition]]:
    """The partitions by the node that leads them, and those without a known leader."""
    leaders: dict[int, list[TopicPartition]] = {}
    leaderless: list[TopicPartition] = []
    for tp in partitions:
        leader = client.cluster.leader_for_partition(tp)
        if leader is None:
            client.add_topic(tp.topic)
        if leader in (None, -1):
            leaderless.append(tp)
        else:
            leaders.setdefault(leader, []).append(tp)
    return leaders, leaderless


async def ask(
    client: AIOKafkaClient, node: int, tps: Iterable[TopicPartition], which: Which, read_committed: bool
) -> OffsetsAnswer:
    """The offsets that one broker knows now, without those for which it is the wrong one, or not ready."""
    timestamp = which if isinstance(which, int) else _TIMESTAMPS[which]
    topics: dict[str, list[tuple[int, int]]] = {}
    for tp in tps:
        topics.setdefault(tp.topic, []).append((tp.partition, timestamp))
    request = OffsetRequest(-1, int(read_committed), list(topics.items()))
    answer = OffsetsAnswer()
    try:
        response = await client.send(node, request)
    except IncompatibleBrokerVersion:
        raise
    except KafkaError as error:  # no connection, or no answer: such errors pass
        answer.why = f"node {node}: no answer ({error!r})"
        return answer
    for topic, parts in response.topics:
        for partition, code, _timestamp, offset in parts:
            tp = TopicPartition(topic, partition)
            if not code:
                answer.found[tp] = offset
            elif code not in PASSING:
                answer.refused[tp] = partition_error(code, tp)
            else:
                answer.why = f"node {node}: Kafka's error code {code}"
    return answer
