"""Topics created and verified on a real Kafka broker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from failsoft.topics import admin
from failsoft.topics.admin import KafkaUnreachable, TopologyRefused
from failsoft.topics.layout import HEADROOM, Wanted
from failsoft.topics.names import Names
from tests.kafka import Broker, create_topic

ANSWERS_WITHIN = 30.0
"""Seconds. Generous, so that a busy machine does not fail the test."""


def wanted(name: str, partitions: int = 2, inputs: tuple[str, ...] = (".events",)) -> Wanted:
    """The topology of a pipeline with two rungs; ``inputs`` are suffixes of its name."""
    return Wanted(Names(name), [name + i for i in inputs], [("5s", 5.0), ("1m", 60.0)], partitions)


def to(kafka: Broker) -> dict[str, Any]:
    return {"bootstrap_servers": kafka.bootstrap}


def create(kafka: Broker, name: str, partitions: int = 2, **configs: str) -> None:
    """Creates a topic with another client library; ``max_message_bytes`` stands for max.message.bytes."""
    create_topic(kafka.bootstrap, name, partitions, {k.replace("_", "."): v for k, v in configs.items()})


def partition_counts(kafka: Broker, prefix: str) -> Mapping[str, int]:
    """The partition counts of a pipeline's topics, as another client library reads them."""
    topics = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=ANSWERS_WITHIN).topics
    return {n: len(t.partitions) for n, t in topics.items() if n.startswith(prefix)}


def config_of(kafka: Broker, topic: str) -> Mapping[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    client = AdminClient({"bootstrap.servers": kafka.bootstrap})  # a variable: its results fail once it is collected
    found = client.describe_configs([resource])[resource].result(ANSWERS_WITHIN)
    return {k: e.value for k, e in found.items()}


async def test_apply_creates_what_is_missing_once(kafka: Broker, name: str) -> None:
    """The first apply creates every topic, the second none; then a worker may start."""
    topology, created = await admin.apply(to(kafka), wanted(name))
    assert set(created) == {t.name for t in topology.topics}
    assert partition_counts(kafka, name) == {t.name: t.partitions for t in topology.topics}
    assert len(created) == 11
    again, none = await admin.apply(to(kafka), wanted(name))
    assert none == []
    assert again.partitions == topology.partitions == 2
    assert (await admin.verify(to(kafka), wanted(name))).existing == again.existing


async def test_a_topics_settings_are_those_of_the_table(kafka: Broker, name: str) -> None:
    """The broker has every setting of the table, as another client reads it."""
    topology, _ = await admin.apply(to(kafka), wanted(name))
    for topic in topology.topics:
        assert topic.configs.items() <= config_of(kafka, topic.name).items(), topic.name


async def test_the_inputs_that_exist_decide(kafka: Broker, name: str) -> None:
    """Partition count and record size follow the user's existing input topic, not the pipeline file."""
    create(kafka, f"{name}.events", partitions=3, max_message_bytes="3000000")
    topology, created = await admin.apply(to(kafka), wanted(name, partitions=8, inputs=(".events", ".more")))
    counts = partition_counts(kafka, name)
    assert f"{name}.events" not in created
    assert topology.partitions == counts[f"{name}.more"] == counts[f"{name}.retry.5s"] == counts[f"{name}.scored"] == 3
    assert config_of(kafka, f"{name}.dead")["max.message.bytes"] == str(3_000_000 + HEADROOM)


async def test_apply_refuses_before_it_creates(kafka: Broker, name: str) -> None:
    """apply names every problem, and creates nothing until they are repaired."""
    create(kafka, f"{name}.events", partitions=2)
    create(kafka, f"{name}.dead", partitions=3, cleanup_policy="compact")
    with pytest.raises(TopologyRefused) as refused:
        await admin.apply(to(kafka), wanted(name))
    problems = "\n".join(refused.value.problems)
    assert f"{name}.events: has 2 partitions, another topic of the pipeline 3" in problems
    assert "cleanup.policy is 'compact'" in problems
    assert set(partition_counts(kafka, name)) == {f"{name}.events", f"{name}.dead"}


async def test_dead_letters_kept_longer_have_replays_kept_as_long(kafka: Broker, name: str) -> None:
    """A replay topic is created with the longer retention that an operator gave the dead letters."""
    ninety_days = str(90 * 86_400_000)
    create(kafka, f"{name}.dead", retention_ms=ninety_days, max_message_bytes="2000000")
    await admin.apply(to(kafka), wanted(name))
    assert config_of(kafka, f"{name}.replay")["retention.ms"] == ninety_days


async def test_verify_names_each_missing_topic_and_the_cure(kafka: Broker, name: str) -> None:
    """verify names each missing topic and the command that creates it, and creates nothing itself."""
    create(kafka, f"{name}.events")
    with pytest.raises(TopologyRefused) as refused:
        await admin.verify(to(kafka), wanted(name))
    assert len(refused.value.problems) == 10
    assert all("failsoft topics apply" in line for line in refused.value.problems)
    assert set(partition_counts(kafka, name)) == {f"{name}.events"}


async def test_two_applies_at_once_do_no_harm(kafka: Broker, name: str) -> None:
    """Two applies at the same time both succeed and return the same topology."""
    both = await asyncio.gather(*(admin.apply(to(kafka), wanted(name)) for _ in range(2)))
    (first, _), (second, _) = both
    assert first.topics == second.topics
    assert partition_counts(kafka, name) == {t.name: t.partitions for t in first.topics}


async def test_more_copies_than_brokers_are_refused(kafka: Broker, name: str) -> None:
    """A replication factor above the number of brokers is refused with the broker's own reason."""
    w = wanted(name)
    with pytest.raises(TopologyRefused, match=r"not created: .*replication") as refused:
        await admin.apply(to(kafka), Wanted(w.names, w.inputs, w.delays, w.partitions, replication=99))
    assert len(refused.value.problems) == 11
    assert partition_counts(kafka, name) == {}


async def test_nobody_listening_is_unreachable(name: str) -> None:
    """An address where nothing listens raises KafkaUnreachable with the address."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(KafkaUnreachable, match=f"no Kafka answers at {address}"):
            await admin.verify({"bootstrap_servers": address}, wanted(name), within=0.5)


async def test_a_server_that_never_answers_is_unreachable(name: str) -> None:
    """A server that accepts connections and never answers raises KafkaUnreachable within the limit."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(KafkaUnreachable, match=f"no Kafka answers at {address}"):
            await admin.verify({"bootstrap_servers": address}, wanted(name), within=0.5)


async def test_a_broker_that_goes_in_the_middle_is_unreachable(kafka: Broker, name: str) -> None:
    """Each client error after the broker has stopped becomes KafkaUnreachable."""
    await admin.apply(to(kafka), wanted(name))
    try:
        with pytest.raises(KafkaUnreachable, match=f"Kafka at {kafka.bootstrap} stopped answering"):
            async with admin.connect(to(kafka)) as client:
                await admin.describe(client, wanted(name))
                await asyncio.to_thread(kafka.kill)
                await admin.describe(client, wanted(name))
    finally:
        await asyncio.to_thread(kafka.start)
    assert (await admin.verify(to(kafka), wanted(name))).partitions == 2
