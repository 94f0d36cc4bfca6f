"""A real Kafka for tests, and an independent client for it: only the broker's launcher is code of this project.

The helpers block. A test that shares its event loop with a worker calls them through ``asyncio.to_thread``, and waits
with ``eventually`` rather than ``wait_for``.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import docker
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from docker.errors import DockerException
from testcontainers.core.container import DockerContainer

from failsoft.topics.embedded.broker import Embedded, free_port
from failsoft.topics.embedded.jars import KAFKA

T = TypeVar("T")
Headers = Sequence[tuple[str, bytes | None]]
Record = tuple[bytes | None, bytes | None, Headers, int | None]

POLL = 0.05
"""Seconds between two checks of a fact."""

READY_WITHIN = 120.0
"""Seconds for a Kafka to answer, with its image or jars present; three may start at once on two cores."""


class Broker(Protocol):
    """One Kafka node that tests may stop and start again with the same port and data."""

    kind: str

    @property
    def bootstrap(self) -> str: ...
    def start(self) -> object: ...
    def kill(self) -> None: ...
    def restart(self) -> object: ...
    def stop(self) -> None: ...
    def lost_markers(self) -> list[str]: ...


LOST = "likely deleted already and hence can be skipped"
"""Part of the line that Kafka logs when it loses a transaction's markers (docs/decisions/0008-leaderless-markers.md).
"""


class EmbeddedBroker(Embedded):
    """The embedded broker of ``failsoft demo``."""

    kind = "embedded"

    def __init__(self, data: Path | None = None, **options: Any) -> None:
        """``options`` are those of Embedded. FAILSOFT_TEST_KAFKA_VERSION is the version, unless they name one."""
        version = os.environ.get("FAILSOFT_TEST_KAFKA_VERSION", KAFKA)
        super().__init__(data, **{"version": version, **options})

    def start(self, within: float = READY_WITHIN) -> Self:
        return super().start(within)

    def lost_markers(self) -> list[str]:
        """The lines of this broker's log that report lost transaction markers."""
        return [line for line in self.log.read_text(errors="replace").splitlines() if LOST in line]


class ContainerBroker:
    """Apache Kafka's own image, if a Docker engine answers. The host port is fixed, so that it survives a restart."""

    kind = "testcontainers"
    image = f"apache/kafka:{KAFKA}"

    def __init__(self) -> None:
        port = free_port()
        self._container = DockerContainer(self.image).with_bind_ports(9092, port)
        self.bootstrap = f"{self._container.get_container_host_ip()}:{port}"
        replicas = {
            f"KAFKA_{name}": "1"
            for name in (
                "OFFSETS_TOPIC_REPLICATION_FACTOR",
                "TRANSACTION_STATE_LOG_REPLICATION_FACTOR",
                "TRANSACTION_STATE_LOG_MIN_ISR",
                "SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR",
                "SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR",
            )
        }
        settings = {
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_NODE_ID": "1",
            "KAFKA_LISTENERS": "PLAINTEXT://0.0.0.0:9092,CONTROLLER://localhost:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{self.bootstrap}",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
            "KAFKA_BROKER_SESSION_TIMEOUT_MS": "3000",
            "KAFKA_BROKER_HEARTBEAT_INTERVAL_MS": "500",
            "KAFKA_CONTROLLED_SHUTDOWN_ENABLE": "false",  # docs/decisions/0008-leaderless-markers.md
            **replicas,
        }
        for key, value in settings.items():
            self._container.with_env(key, value)
        self._created = False

    def start(self) -> ContainerBroker:
        if self._created:
            self._container.get_wrapped_container().start()
        else:
            self._container.start()
            self._created = True
        wait_for(lambda: _answers(self.bootstrap), READY_WITHIN, f"{self.image} to answer on {self.bootstrap}")
        return self

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()

    def restart(self) -> ContainerBroker:
        self._container.get_wrapped_container().stop(timeout=30)
        return self.start()

    def stop(self) -> None:
        if self._created:
            self._container.stop()

    def lost_markers(self) -> list[str]:
        out, err = self._container.get_logs()
        return [line for line in (out + err).decode(errors="replace").splitlines() if LOST in line]


def start_broker(data: Path | None = None) -> Broker:
    """Starts a Kafka of the kind that this machine supports. ``FAILSOFT_TEST_KAFKA=embedded`` skips the search for
    Docker.

    ``data``: the folder in which an embedded broker keeps its topics and log; None keeps nothing.
    """
    broker = ContainerBroker() if broker_kind() == ContainerBroker.kind else EmbeddedBroker(data)
    broker.start()
    return broker


@cache
def broker_kind() -> str:
    """ "testcontainers" when a Docker engine answers within two seconds, else "embedded"."""
    if chosen := os.environ.get("FAILSOFT_TEST_KAFKA"):
        return chosen
    try:
        client = docker.from_env(timeout=2)
        try:
            client.ping()
        finally:
            client.close()
    except (DockerException, OSError):
        return EmbeddedBroker.kind
    return ContainerBroker.kind


def wait_for(fact: Callable[[], T], timeout: float, what: str) -> T:
    """Returns the first true value of ``fact``.

    Raises AssertionError after ``timeout`` seconds, with ``what`` and the last value seen.
    """
    deadline = time.monotonic() + timeout
    while not (seen := fact()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; last seen: {seen!r}")
        time.sleep(POLL)
    return seen


async def eventually(fact: Callable[[], T | Awaitable[T]], timeout: float, what: str) -> T:
    """``wait_for`` without blocking the event loop; ``fact`` may be a coroutine function."""
    deadline = time.monotonic() + timeout
    while True:
        found = fact()
        seen: T = await found if inspect.isawaitable(found) else found
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; last seen: {seen!r}")
        await asyncio.sleep(POLL)


def create_topic(bootstrap: str, topic: str, partitions: int = 1, configs: dict[str, str] | None = None) -> None:
    """Creates ``topic`` with the cluster's default replication and returns once each partition has a leader."""
    admin = AdminClient(_client(bootstrap))
    admin.create_topics([NewTopic(topic, partitions, -1, config=configs or {})])[topic].result(timeout=30)
    wait_for(lambda: _partitions(admin, topic) == list(range(partitions)), 30, f"{partitions} leaders of {topic}")


def produce(bootstrap: str, topic: str, records: Iterable[Record]) -> None:
    """Writes (key, value, headers, partition or None) in order; returns when all records are acknowledged."""
    failures: list[KafkaError] = []
    producer = Producer(_client(bootstrap) | {"enable.idempotence": True, "linger.ms": 5})

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error)

    for key, value, headers, partition in records:
        target: dict[str, Any] = {} if partition is None else {"partition": partition}
        while True:
            try:
                producer.produce(topic, value, key, headers=list(headers), on_delivery=delivered, **target)
                break
            except BufferError:  # its queue is full: wait until it has sent some
                producer.poll(1)
    left = producer.flush(60)
    assert not failures and not left, (
        f"{topic}: {len(failures)} records refused ({failures[:1]}), {left} unacknowledged"
    )


def read_all(
    bootstrap: str, topic: str, *, until: Callable[[list[Message]], bool] | None = None, timeout: float = 30.0
) -> list[Message]:
    """The committed records of ``topic``, partition by partition in order.

    Reads from the beginning (isolation.level=read_committed) until ``until(records)`` holds **and** every partition is
    read to its end, so that a duplicate already written is included. Without ``until`` it reads to the present end. It
    waits for a topic that does not exist yet. Raises AssertionError after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    admin = AdminClient(_client(bootstrap))
    partitions = wait_for(lambda: _partitions(admin, topic), timeout, f"the topic {topic}")
    settings = {
        "group.id": f"reader-{uuid.uuid4()}",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
    }
    consumer = Consumer(_client(bootstrap) | settings)
    records: list[Message] = []
    ended: set[int] = set()
    try:
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
        while not (len(ended) == len(partitions) and (until is None or until(records))):
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"waited {timeout:g} s for {topic}: {len(records)} records read, partitions {sorted(ended)} of "
                    f"{partitions} to their end; the last: {[m.value() for m in records[-2:]]}"
                )
            for message in consumer.consume(500, timeout=POLL):
                error, partition = message.error(), message.partition()
                assert partition is not None
                if error is None:
                    records.append(message)
                    ended.discard(partition)
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add(partition)
                elif not error.retriable():
                    raise AssertionError(f"reading {topic} failed: {error}")
    finally:
        consumer.close()
    return sorted(records, key=lambda m: (m.partition() or 0, m.offset() or 0))


def _client(bootstrap: str) -> dict[str, Any]:
    # log_level 2: no log lines about a broker that a test has just killed; errors still reach the caller.
    return {"bootstrap.servers": bootstrap, "log_level": 2, "reconnect.backoff.max.ms": 500}


def _answers(bootstrap: str) -> bool:
    try:
        return bool(AdminClient(_client(bootstrap)).list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def _partitions(admin: AdminClient, topic: str) -> list[int]:
    """The partitions that have a leader; none for a topic that does not exist."""
    try:
        found = admin.list_topics(topic, timeout=5).topics[topic]
    except KafkaException:
        return []
    return sorted(p.id for p in found.partitions.values() if p.leader >= 0)
