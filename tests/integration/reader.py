"""Reads topics as a careful consumer does: confluent-kafka, ``isolation.level=read_committed``, from the beginning."""

from __future__ import annotations

import io
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

Header = tuple[str, bytes | None]
Place = tuple[str, int, int]
"""Topic, partition and offset of an event on an input topic."""

SCORED = Path(__file__).resolve().parents[2] / "schemas" / "published" / "scored.avsc"

UNCOMMITTED = "read_uncommitted"

_NO_LEADER = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART)


def watermarks(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """A partition's first offset and end offset. Retries up to 30 s: a new partition may have no leader yet."""
    deadline = time.monotonic() + 30
    while True:
        try:
            first, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
            return first, end
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Seen:
    """A record as stored on a topic; ``headers`` are in order and include duplicates."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]

    @property
    def place(self) -> Place:
        return self.topic, self.partition, self.offset

    def header(self, name: str) -> str | None:
        """The text of a control header; None unless the header occurs exactly once."""
        found = [v for k, v in self.headers if k == name]
        return (found[0] or b"").decode() if len(found) == 1 else None

    def number(self, name: str) -> int:
        return int(self.header(name) or "")

    @property
    def is_avro(self) -> bool:
        """Whether the value is in Confluent's wire format."""
        return (self.value or b"").startswith(b"\0")

    def answer(self) -> dict[str, Any]:
        """The value of a scored record, in JSON or by the published schema of answers in Avro."""
        if not self.is_avro:
            return dict(json.loads(self.value or b""))
        return dict(fastavro.schemaless_reader(io.BytesIO((self.value or b"")[5:]), _scored(), None))


@cache
def _scored() -> Any:
    return fastavro.parse_schema(json.loads(SCORED.read_text()))


@dataclass
class Reader:
    """Reads several topics from their beginning; each poll adds to ``records``."""

    bootstrap: str
    topics: Sequence[str]
    partitions: int
    records: dict[str, list[Seen]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._all = {(t, p) for t in self.topics for p in range(self.partitions)}
        self._ended: set[tuple[str | None, int | None]] = set()
        self._ends: dict[tuple[str, int], int] = {}
        self._consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": f"verifier-{uuid.uuid4()}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 50,
                "reconnect.backoff.max.ms": 500,
                "log_level": 2,
            }
        )
        self._consumer.assign([TopicPartition(t, p, OFFSET_BEGINNING) for t, p in sorted(self._all)])

    def close(self) -> None:
        self._consumer.close()

    def until(self, fact: Callable[[], object], timeout: float, what: str) -> None:
        """Reads until ``fact`` holds. Raises AssertionError after ``timeout`` seconds, with the counts read so far."""
        deadline = time.monotonic() + timeout
        while not fact():
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"waited {timeout:g} s for {what}; read so far: {self.counts()}; "
                    f"behind the last record read: {self._behind()}"
                )
            self._poll()

    def _behind(self) -> dict[str, int]:
        """Offsets behind the last record read, by partition: markers, or records hidden by an open transaction."""
        last = {(r.topic, r.partition): r.offset for records in self.records.values() for r in records}
        found: dict[str, int] = {}
        for topic, partition in sorted(self._all):
            _, high = watermarks(self._consumer, topic, partition)
            found[f"{topic}-{partition}"] = high - last.get((topic, partition), -1) - 1
        return {place: n for place, n in found.items() if n > 1}

    def to_the_end(self, timeout: float = 60.0) -> None:
        """Reads every topic to its present end offset, so that a duplicate already written is read too.

        This is the end of the log. A broker first reports a transaction as committed and then writes its markers,
        partition by partition. So a committed reader may not be able to read up to that end yet.
        """
        self._ended.clear()
        self._ends = self._ends_now()
        after = dict.fromkeys(self._all, OFFSET_BEGINNING)
        for records in self.records.values():
            after.update({(r.topic, r.partition): r.offset + 1 for r in records})
        # Assign again: the consumer reports the end of a partition only once, when it reaches it.
        self._consumer.assign([TopicPartition(t, p, offset) for (t, p), offset in sorted(after.items())])
        self.until(lambda: self._ended >= self._all, timeout, "the end of every topic")

    def _ends_now(self) -> dict[tuple[str, int], int]:
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "ends", "isolation.level": UNCOMMITTED})
        try:
            return {(t, p): watermarks(consumer, t, p)[1] for t, p in self._all}
        finally:
            consumer.close()

    def counts(self) -> dict[str, int]:
        return {topic: len(self.records[topic]) for topic in self.topics}

    def _poll(self) -> None:
        for message in self._consumer.consume(2000, timeout=0.05):
            error, where = message.error(), (message.topic(), message.partition())
            if error is None:
                self._ended.discard(where)
                self.records[str(where[0])].append(_seen(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                if (message.offset() or 0) >= self._ends.get((str(where[0]), where[1] or 0), 0):
                    self._ended.add(where)
            elif not error.retriable() and error.code() not in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
                raise AssertionError(f"reading {where} failed: {error}")


def _seen(m: Message) -> Seen:
    headers = m.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    return Seen(
        str(m.topic()),
        m.partition() or 0,
        m.offset() or 0,
        m.timestamp()[1],
        m.key(),  # type: ignore[arg-type]
        m.value(),
        tuple((k, v.encode() if isinstance(v, str) else v) for k, v in pairs),
    )
