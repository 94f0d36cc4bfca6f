"""The topics of a run: the input, filled once, and an output for each program with the broker's timestamps."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping

from confluent_kafka import Consumer, ConsumerGroupState, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from benchmarks.events import events

PARTITIONS = 4
"""Partitions of each topic, where the run does not say otherwise."""

STAMPED = {"message.timestamp.type": "LogAppendTime"}
"""The broker records when an answer arrived. So all programs share one clock, and no reader competes with them."""

_NOT_YET = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError._WAIT_COORD,
)

ADMIN_WITHIN = 30.0
"""Seconds for an admin call; a loaded machine takes one or two."""


class Cluster:
    """A Kafka, with the operations that the benchmark needs.

    Attributes:
        bootstrap: its address.
        partitions: the number of partitions of each topic.
    """

    def __init__(self, bootstrap: str, partitions: int = PARTITIONS) -> None:
        self.bootstrap = bootstrap
        self.partitions = partitions
        # No log lines: the broker ends before its clients do.
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})

    def create(self, topic: str, stamped: bool = False) -> None:
        """Creates a topic; ``stamped``: with the broker's timestamps. Returns when a client can use it."""
        new = NewTopic(topic, self.partitions, 1, config=STAMPED if stamped else {})
        for done in self.admin.create_topics([new], operation_timeout=ADMIN_WITHIN).values():
            done.result(ADMIN_WITHIN)
        self._until_led(topic)

    def stamp(self, topic: str) -> None:
        """Sets the broker's timestamps on an existing topic."""
        ((key, value),) = STAMPED.items()
        entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        for done in self.admin.incremental_alter_configs([resource]).values():
            done.result(ADMIN_WITHIN)

    def delete(self, prefix: str) -> None:
        """Deletes the topics with this prefix, so that the next run finds only the input."""
        doomed = [name for name in self.admin.list_topics(timeout=ADMIN_WITHIN).topics if name.startswith(prefix)]
        if doomed:
            for done in self.admin.delete_topics(doomed, operation_timeout=ADMIN_WITHIN).values():
                try:
                    done.result(ADMIN_WITHIN)
                except KafkaException as error:
                    # The list may still contain a topic that was just deleted.
                    if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                        raise

    def fill(self, topic: str, n: int, made: Callable[[int], Iterator[tuple[bytes, bytes]]] = events) -> None:
        """Writes ``n`` events, spread over partitions by their keys. Raises KafkaException if one is not accepted."""
        self._fill(self._filler({}), topic, made(n), n)
        if self.written(topic) != n:
            raise KafkaException(f"{topic} holds {self.written(topic):,} of {n:,} events")

    def write(self, topic: str, key: bytes, value: bytes) -> None:
        """Writes one record. Raises KafkaException if it is not accepted."""
        self._fill(self._filler({}), topic, iter([(key, value)]), 1)

    def fill_at_once(self, topic: str, n: int) -> float:
        """Writes ``n`` events in one transaction. Returns when read_committed readers could see them (epoch seconds):
        all at one moment, however long the writing took. Each partition gets a marker too. Raises KafkaException.
        """
        producer = self._filler({"transactional.id": f"{topic}-fill"})
        producer.init_transactions(ADMIN_WITHIN)
        producer.begin_transaction()
        self._fill(producer, topic, events(n), n)
        producer.commit_transaction(ADMIN_WITHIN)
        return time.time()

    def _filler(self, more: Mapping[str, str]) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "linger.ms": 20,
                "batch.size": 900_000,
                "queue.buffering.max.messages": 100_000,
                "log_level": 0,
                **more,
            }
        )

    def _fill(self, producer: Producer, topic: str, made: Iterator[tuple[bytes, bytes]], n: int) -> None:
        print(f"publishing {n:,} events …", file=sys.stderr)
        refused: list[str] = []

        def delivered(error: object, _message: object) -> None:
            if error is not None:
                refused.append(str(error))

        for i, (key, value) in enumerate(made):
            while True:
                try:
                    producer.produce(topic, value, key, on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.1)
            if i % 1000 == 0:
                producer.poll(0)
        producer.flush()
        if refused:
            raise KafkaException(f"{topic} refused {len(refused):,} of {n:,} events: {refused[0]}")

    def written(self, topic: str) -> int:
        """The offsets used in all partitions; transaction markers count too."""
        wanted = {tp: OffsetSpec.latest() for tp in self._partitions_of(topic)}

        def ends() -> int:
            found = self.admin.list_offsets(wanted, request_timeout=ADMIN_WITHIN)
            return sum(int(end.result(ADMIN_WITHIN).offset) for end in found.values())

        return _patiently(ends)

    def committed(self, group: str, topic: str) -> int:
        """The number of records of ``topic`` that the group has committed."""
        wanted = self._partitions_of(topic)
        reader = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group, "log_level": 0})
        try:
            return _patiently(lambda: sum(max(0, tp.offset) for tp in reader.committed(wanted, timeout=ADMIN_WITHIN)))
        finally:
            reader.close()

    def until_joined(self, group: str, n: int, within: float) -> None:
        """Waits until ``n`` members of ``group`` have partitions. Raises RuntimeError if that takes longer than
        ``within``.
        """
        deadline = time.monotonic() + within
        while True:
            found = self.admin.describe_consumer_groups([group])[group].result(ADMIN_WITHIN)
            busy = sum(1 for member in found.members if member.assignment.topic_partitions)
            if busy == n and found.state is ConsumerGroupState.STABLE:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{busy} of {n} workers joined within {within:.0f} s")
            time.sleep(0.1)

    def assignment(self, topic: str) -> list[TopicPartition]:
        """Every partition of ``topic``, from its beginning."""
        return [TopicPartition(topic, p, 0) for p in range(self.partitions)]

    def _partitions_of(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, p) for p in range(self.partitions)]

    def _until_led(self, topic: str) -> None:
        deadline = time.monotonic() + ADMIN_WITHIN
        while True:
            found = self.admin.list_topics(topic, timeout=ADMIN_WITHIN).topics[topic]
            if len(found.partitions) == self.partitions and all(p.leader >= 0 for p in found.partitions.values()):
                return
            if time.monotonic() > deadline:
                raise KafkaException(f"{topic} has no leaders after {ADMIN_WITHIN:.0f} s")
            time.sleep(0.05)


def _patiently(ask: Callable[[], int]) -> int:
    """Calls ``ask`` again while a new topic or group is not known everywhere. Raises KafkaException after a while."""
    deadline = time.monotonic() + ADMIN_WITHIN
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in _NOT_YET or time.monotonic() > deadline:
                raise
        time.sleep(0.05)
