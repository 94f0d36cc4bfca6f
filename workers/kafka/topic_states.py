"""The topics as they are now: their partitions and ids."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion

from failsoft.workers.kafka import requests
from failsoft.workers.kafka.partition_errors import UNKNOWN_TOPIC_OR_PARTITION
from failsoft.workers.kafka.request_loop import ANY, RequestLoop
from failsoft.workers.kafka.topic_ids import id_text

AGAIN_AFTER = 0.2
"""Seconds until another broker is asked, when one did not answer or did not know what another one has shown."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic.

    Attributes:
        partitions: how many it has.
        id: its id, as Kafka's own tools write it, which is another one when the topic was deleted and made anew. None
            on brokers without: before Kafka 2.8.
        refused: Kafka's error code, such as that of a topic that may not be seen; 0 is none.
    """

    partitions: int
    id: str | None
    refused: int = 0


async def topic_states(client: AIOKafkaClient, topics: Collection[str]) -> Mapping[str, TopicState]:
    """The state of each of ``topics`` that exists. Asks until a broker answers; the caller sets the bound. The client's
    metadata have the partitions afterwards.

    A broker may not know a new topic, new partitions or a deletion for some milliseconds.
    """
    loop = RequestLoop(client)
    while True:
        try:
            response = await loop.send(client.get_random_node(), requests.metadata(topics), ANY)
        except IncompatibleBrokerVersion:
            return await _without_ids(client, topics)
        if response is not None:
            break
        await asyncio.sleep(AGAIN_AFTER)
    found = {
        topic: TopicState(len(partitions), id_text(high, low), 0 if partitions else code)
        for code, topic, high, low, _, partitions, *_ in response.topics
        if code != UNKNOWN_TOPIC_OR_PARTITION
    }
    known = client.cluster.partitions_for_topic
    if any(state.partitions > len(known(topic) or ()) for topic, state in found.items()):
        # The client's own metadata may be minutes old, and nobody else would look for the leader of a new partition.
        for topic in topics:
            client.add_topic(topic)
        await client.force_metadata_update()
    return found


async def _without_ids(client: AIOKafkaClient, topics: Collection[str]) -> Mapping[str, TopicState]:
    for topic in topics:
        client.add_topic(topic)
    await client.force_metadata_update()
    counts = {topic: len(client.cluster.partitions_for_topic(topic) or ()) for topic in topics}
    return {topic: TopicState(count, None) for topic, count in counts.items() if count}
