"""The topics as they are now: counts, ids and refusals; and the client knows the partitions afterwards."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import IncompatibleBrokerVersion, RequestTimedOutError

from failsoft.workers.kafka import topic_states as module
from failsoft.workers.kafka.topic_states import TopicState, topic_states

ID = (1, 2)
TEXT = "AAAAAAAAAAEAAAAAAAAAAg"


class MetadataClient:
    """Answers a metadata request with ``topics``, after ``lost`` requests without an answer."""

    def __init__(self, topics: list[Any], lost: int = 0, known: int = 2, old: bool = False) -> None:
        self.topics, self.lost, self.old = topics, lost, old
        self.updates: list[str] = []
        self.cluster = SimpleNamespace(partitions_for_topic=lambda topic: set(range(known)))

    def get_random_node(self) -> int:
        return 1

    async def send(self, node: int, request: Any, *, group: Any) -> Any:
        if self.old:
            raise IncompatibleBrokerVersion
        if self.lost:
            self.lost -= 1
            raise RequestTimedOutError
        return SimpleNamespace(topics=self.topics)

    def add_topic(self, topic: str) -> None:
        self.updates.append(topic)

    async def force_metadata_update(self) -> None:
        self.updates.append("now")


def _row(topic: str, partitions: int, code: int = 0, id_: tuple[int, int] = ID) -> tuple[Any, ...]:
    return (code, topic, *id_, False, [()] * partitions, 0, {})


async def test_what_a_broker_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another broker is asked when one does not answer. A topic that does not exist is left out."""
    monkeypatch.setattr(module, "AGAIN_AFTER", 0.0)
    rows = [_row("a", 2), _row("gone", 0, 3), _row("hidden", 0, 29, (0, 0)), _row("electing", 2, 5)]
    client = MetadataClient(rows, lost=2)
    assert await topic_states(cast(Any, client), ["a", "gone", "hidden", "electing"]) == {
        "a": TopicState(2, TEXT),
        "hidden": TopicState(0, None, 29),
        "electing": TopicState(2, TEXT),
    }
    assert client.lost == 0 and not client.updates


async def test_new_partitions_are_in_the_clients_metadata_afterwards() -> None:
    """Whoever asks for their offsets next needs their leaders, and the client looks by itself every five minutes."""
    client = MetadataClient([_row("a", 3)])
    assert await topic_states(cast(Any, client), ["a"]) == {"a": TopicState(3, TEXT)}
    assert client.updates == ["a", "now"]


async def test_brokers_without_ids_tell_their_counts() -> None:
    """Before Kafka 2.8 aiokafka's own request is all there is."""
    client = MetadataClient([], known=3, old=True)
    assert await topic_states(cast(Any, client), ["a"]) == {"a": TopicState(3, None)}
    assert client.updates == ["a", "now"]
