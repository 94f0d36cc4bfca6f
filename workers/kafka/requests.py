"""The requests of the transactional client, each in the version that it needs, and the error codes in a response."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.produce import ProduceRequest_v8
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest_v0,
    AddPartitionsToTxnRequest_v0,
    EndTxnRequest_v0,
)

from failsoft.workers.kafka.member import GroupMember
from failsoft.workers.kafka.protocol import (
    END,
    ApiVersionsRequest_v3,
    EndTxnRequest_v5,
    IncrementalAlterConfigsRequest_v1,
    InitProducerIdRequest_v3,
    MetadataRequest_v10,
    OffsetCommitRequest_v8,
    OffsetFetchRequest_v7,
    ProduceRequest_v12,
    TxnOffsetCommitRequest_v3,
    TxnOffsetCommitRequest_v5,
)

ACKS_ALL = -1
"""A batch is acknowledged when all replicas in sync have it. An idempotent producer needs this."""

NO_PRODUCER = (-1, -1)
"""The producer id and epoch of InitProducerId for a producer that has none yet."""

NO_LEADER_EPOCH = -1

TOPIC_RESOURCE, SET = 2, 0
"""Kafka's numbers of a topic's settings and of the operation that sets one."""

Producer = tuple[int, int]
"""A producer's id and epoch."""

Offset = tuple[int, str]
"""A committed offset and its metadata."""


@dataclass(frozen=True, slots=True)
class OneVersion:
    """A request in the only version that will do. aiokafka's own requests take the newest version they know.

    Attributes:
        name: Kafka's name of the request, for ``request_errors`` and messages.
        struct: the request.
        partitions: the partitions that the response must name.
    """

    name: str
    struct: Any
    partitions: frozenset[TopicPartition] = frozenset()

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> Any:
        """The request for a connection. Called by aiokafka with the broker's versions by API key.

        Raises IncompatibleBrokerVersion if the broker does not know this version.
        """
        key, version = self.struct.API_KEY, self.struct.API_VERSION
        low, high = versions.get(key, (0, -1))
        if not low <= version <= high:
            raise IncompatibleBrokerVersion(f"{self.name} v{version} is needed, and the broker has v{low} to v{high}")
        return self.struct


def init_producer_id(transactional_id: str | None, timeout_ms: int, replaces: Producer) -> OneVersion:
    """A producer id, or a new epoch of the one in ``replaces`` (id, epoch): refused if that is not the present one."""
    struct = InitProducerIdRequest_v3(transactional_id, timeout_ms, *replaces, END)
    return OneVersion("InitProducerId", struct)


def add_partitions(transactional_id: str, producer: Producer, partitions: Collection[TopicPartition]) -> OneVersion:
    """Adds partitions to the transaction."""
    topics = by_topics((p, p.partition) for p in partitions)
    struct = AddPartitionsToTxnRequest_v0(transactional_id, *producer, topics)
    return OneVersion("AddPartitionsToTxn", struct, frozenset(partitions))


def add_offsets(transactional_id: str, producer: Producer, group: str) -> OneVersion:
    """Adds a group's offsets to the transaction."""
    return OneVersion("AddOffsetsToTxn", AddOffsetsToTxnRequest_v0(transactional_id, *producer, group))


def produce(
    transactional_id: str | None, timeout_ms: int, batches: Mapping[TopicPartition, bytes], adds: bool
) -> OneVersion:
    """One batch for each partition. ``timeout_ms``: how long the leader waits for its replicas, in milliseconds.
    ``adds``: the broker adds the partitions to the transaction (v12).
    """
    if adds:
        flexible = [(t, rows, END) for t, rows in by_topics((p, (p.partition, b, END)) for p, b in batches.items())]
        struct = ProduceRequest_v12(transactional_id, ACKS_ALL, timeout_ms, flexible, END)
    else:
        topics = by_topics((p, (p.partition, b)) for p, b in batches.items())
        struct = ProduceRequest_v8(transactional_id, ACKS_ALL, timeout_ms, topics)
    return OneVersion("Produce", struct, frozenset(batches))


def txn_offset_commit(
    transactional_id: str,
    producer: Producer,
    member: GroupMember,
    offsets: Mapping[TopicPartition, Offset],
    adds: bool,
) -> OneVersion:
    """A group's offsets in the transaction.

    ``adds``: the broker adds the group to the transaction (v5).
    """
    kind = TxnOffsetCommitRequest_v5 if adds else TxnOffsetCommitRequest_v3
    who = (member.generation, member.member_id, member.instance_id)
    struct = kind(transactional_id, member.group, *producer, *who, _offsets(offsets), END)
    return OneVersion("TxnOffsetCommit", struct, frozenset(offsets))


def offset_commit(member: GroupMember, offsets: Mapping[TopicPartition, Offset]) -> OneVersion:
    """A group's offsets without a transaction."""
    who = (member.group, member.generation, member.member_id, member.instance_id)
    return OneVersion("OffsetCommit", OffsetCommitRequest_v8(*who, _offsets(offsets), END), frozenset(offsets))


def end_transaction(transactional_id: str, producer: Producer, bumps: bool) -> OneVersion:
    """Commits the transaction. ``bumps``: the producer's epoch ends with it (v5)."""
    if bumps:
        return OneVersion("EndTxn", EndTxnRequest_v5(transactional_id, *producer, True, END))
    return OneVersion("EndTxn", EndTxnRequest_v0(transactional_id, *producer, True))


def offset_fetch(group: str, partitions: Collection[TopicPartition], require_stable: bool) -> OneVersion:
    """The group's committed offsets of some partitions."""
    topics = [(topic, numbers, END) for topic, numbers in by_topics((p, p.partition) for p in partitions)]
    struct = OffsetFetchRequest_v7(group, topics, require_stable, END)
    return OneVersion("OffsetFetch", struct, frozenset(partitions))


def all_offsets(group: str) -> OneVersion:
    """All committed offsets of the group."""
    return OneVersion("OffsetFetch", OffsetFetchRequest_v7(group, None, False, END))


def api_versions() -> OneVersion:
    """The versions of a broker and the features of its cluster."""
    return OneVersion("ApiVersions", ApiVersionsRequest_v3("failsoft", "1", END))


def metadata(topics: Collection[str]) -> OneVersion:
    """The partitions and the ids of some topics; none is created."""
    struct = MetadataRequest_v10([(0, 0, topic, END) for topic in topics], False, False, False, END)
    return OneVersion("Metadata", struct)


def alter_topics(settings: Mapping[str, Mapping[str, str]]) -> OneVersion:
    """Sets the settings of topics, by topic; their other settings stay."""
    rows = [
        (TOPIC_RESOURCE, topic, [(key, SET, value, END) for key, value in changed.items()], END)
        for topic, changed in settings.items()
    ]
    return OneVersion("IncrementalAlterConfigs", IncrementalAlterConfigsRequest_v1(rows, False, END))


def _offsets(offsets: Mapping[TopicPartition, Offset]) -> list[Any]:
    rows = ((p, (p.partition, offset, NO_LEADER_EPOCH, text, END)) for p, (offset, text) in offsets.items())
    return [(topic, partitions, END) for topic, partitions in by_topics(rows)]


def by_topics(rows: Iterable[tuple[TopicPartition, Any]]) -> list[tuple[str, Sequence[Any]]]:
    """The second halves of ``rows``, in a list for each topic."""
    found: dict[str, list[Any]] = {}
    for partition, row in rows:
        found.setdefault(partition.topic, []).append(row)
    return list(found.items())


def error_codes(response: Any) -> Iterator[tuple[int, TopicPartition | None, str]]:
    """Each error code of a response, with its partition and Kafka's message.

    The partition is None for the code of a whole response. A code is 0 where there is no error.
    """
    if hasattr(response, "error_code"):
        yield response.error_code, None, ""
    topics = getattr(response, "topics", None) or getattr(response, "errors", None) or ()
    at = _code_index(response)
    for topic, partitions, *_ in topics:
        for fields in partitions:
            message = _produce_message(fields) if response.API_KEY == ProduceRequest_v8.API_KEY else ""
            yield fields[at], TopicPartition(topic, fields[0]), message


def _produce_message(fields: Sequence[Any]) -> str:
    """Kafka's message about a batch, and the one about its first record that was refused."""
    records, batch = fields[5], fields[6]
    record = next((message for _, message, *_ in records or () if message), "")
    return ": ".join(filter(None, (batch, record)))


def _code_index(response: Any) -> int:
    return 4 if response.API_KEY == OffsetFetchRequest_v7.API_KEY else 1
