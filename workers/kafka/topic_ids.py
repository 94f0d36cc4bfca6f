"""The ids of topics. A topic that was deleted and made anew has the same name and another id."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Collection, Mapping

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, UnknownTopicOrPartitionError, for_code

from failsoft.workers.kafka import requests

_UNKNOWN = UnknownTopicOrPartitionError.errno


async def topic_ids(client: AIOKafkaClient, topics: Collection[str]) -> Mapping[str, str | None]:
    """The id of each of ``topics`` that exists, as Kafka's own tools write it (22 characters of base64).

    The id is None on brokers that have none: before Kafka 2.8, or while the cluster's ``inter.broker.protocol.version``
    is older. A broker may not know a new topic, or a deletion, for some milliseconds.

    Raises:
        KafkaError: the broker did not answer, or refused (TopicAuthorizationFailedError).
    """
    if not topics:
        return {}
    try:
        response = await client.send(client.get_random_node(), requests.metadata(topics))
    except IncompatibleBrokerVersion:
        return dict.fromkeys(topics)
    found: dict[str, str | None] = {}
    for code, topic, high, low, *_ in response.topics:
        if code == _UNKNOWN:
            continue
        if code:
            raise for_code(code)(topic)
        found[topic] = id_text(high, low)
    return found


def id_text(high: int, low: int) -> str | None:
    """The id of two numbers in base64, or None for the id of 16 zero bytes, which stands for none."""
    raw = high.to_bytes(8, "big", signed=True) + low.to_bytes(8, "big", signed=True)
    return urlsafe_b64encode(raw).rstrip(b"=").decode() if any(raw) else None
