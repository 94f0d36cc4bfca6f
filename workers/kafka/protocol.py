"""Requests and responses of Kafka that aiokafka lacks. ``requests.py`` fills them.

The field lists follow Kafka's own message definitions (clients/src/main/resources/common/message). A version is named
because of what it can do: TxnOffsetCommit from v3 and OffsetCommit from v7 carry the group's generation, OffsetFetch
from v7 does not return offsets that a transaction may still change, InitProducerId from v3 names the epoch that it
replaces, Metadata from v10 has the ids of topics, and Produce v12, TxnOffsetCommit v5 and EndTxn v5 belong to
transactions v2 (KIP-890).
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from aiokafka.protocol.api import RequestStruct, Response, ResponseHeader_v0
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

TRANSACTION_VERSION = "transaction.version"
"""The cluster's feature that says which transactions it has; 2 is KIP-890."""

TEXT = CompactString("utf-8")
TAGS = ("tags", TaggedFields)
END: dict[int, bytes] = {}
"""No tagged fields: the end of each structure in a flexible version."""


def by_topic(*partition: Any) -> Any:
    """An array of topics, each with an array of partitions that have the given fields, or are of one given type."""
    return CompactArray(("topic", TEXT), ("partitions", CompactArray(*partition)), TAGS)


PARTITION_ERRORS = by_topic(("partition", Int32), ("error_code", Int16), TAGS)
OFFSETS = by_topic(("partition", Int32), ("offset", Int64), ("leader_epoch", Int32), ("metadata", TEXT), TAGS)


class InitProducerIdResponse_v3(Response):  # type: ignore[misc]
    """The producer's id and its new epoch."""

    API_KEY, API_VERSION = 22, 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32), ("error_code", Int16), ("producer_id", Int64), ("producer_epoch", Int16), TAGS
    )


class InitProducerIdRequest_v3(RequestStruct):  # type: ignore[misc]
    """Asks for a producer id, or for a new epoch of one. Kafka 2.5."""

    API_KEY, API_VERSION = 22, 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = InitProducerIdResponse_v3
    SCHEMA = Schema(
        ("transactional_id", TEXT),
        ("transaction_timeout_ms", Int32),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        TAGS,
    )


class ProduceResponse_v12(Response):  # type: ignore[misc]
    """The errors of the batches, by partition."""

    API_KEY, API_VERSION = 0, 12
    SCHEMA = Schema(
        (
            "topics",
            by_topic(
                ("partition", Int32),
                ("error_code", Int16),
                ("offset", Int64),
                ("timestamp", Int64),
                ("log_start_offset", Int64),
                ("record_errors", CompactArray(("batch_index", Int32), ("error_message", TEXT), TAGS)),
                ("error_message", TEXT),
                TAGS,
            ),
        ),
        ("throttle_time_ms", Int32),
        TAGS,
    )


class ProduceRequest_v12(RequestStruct):  # type: ignore[misc]
    """Writes batches, and adds their partitions to the transaction. Kafka 4.0."""

    API_KEY, API_VERSION = 0, 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = ProduceResponse_v12
    SCHEMA = Schema(
        ("transactional_id", TEXT),
        ("required_acks", Int16),
        ("timeout", Int32),
        ("topics", by_topic(("partition", Int32), ("messages", CompactBytes), TAGS)),
        TAGS,
    )


class TxnOffsetCommitResponse_v3(Response):  # type: ignore[misc]
    """The errors of the offsets, by partition."""

    API_KEY, API_VERSION = 28, 3
    SCHEMA = Schema(("throttle_time_ms", Int32), ("topics", PARTITION_ERRORS), TAGS)


class TxnOffsetCommitRequest_v3(RequestStruct):  # type: ignore[misc]
    """Offsets of a transaction, with the generation of the member that commits them (KIP-447). Kafka 2.5."""

    API_KEY, API_VERSION = 28, 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = TxnOffsetCommitResponse_v3
    SCHEMA = Schema(
        ("transactional_id", TEXT),
        ("group", TEXT),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("generation", Int32),
        ("member_id", TEXT),
        ("instance_id", TEXT),
        ("topics", OFFSETS),
        TAGS,
    )


class TxnOffsetCommitResponse_v5(TxnOffsetCommitResponse_v3):
    """The same fields."""

    API_VERSION = 5


class TxnOffsetCommitRequest_v5(TxnOffsetCommitRequest_v3):
    """The same fields; the broker adds the group to the transaction. Kafka 4.0."""

    API_VERSION = 5
    RESPONSE_TYPE = TxnOffsetCommitResponse_v5


class OffsetCommitResponse_v8(Response):  # type: ignore[misc]
    """The errors of the offsets, by partition."""

    API_KEY, API_VERSION = 8, 8
    SCHEMA = TxnOffsetCommitResponse_v3.SCHEMA


class OffsetCommitRequest_v8(RequestStruct):  # type: ignore[misc]
    """Offsets outside a transaction, with the generation of the member that commits them. Kafka 2.4."""

    API_KEY, API_VERSION = 8, 8
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = OffsetCommitResponse_v8
    SCHEMA = Schema(
        ("group", TEXT), ("generation", Int32), ("member_id", TEXT), ("instance_id", TEXT), ("topics", OFFSETS), TAGS
    )


class OffsetFetchResponse_v7(Response):  # type: ignore[misc]
    """Committed offsets, each with its metadata and error, and an error of the whole response."""

    API_KEY, API_VERSION = 9, 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            by_topic(
                ("partition", Int32),
                ("offset", Int64),
                ("leader_epoch", Int32),
                ("metadata", TEXT),
                ("error_code", Int16),
                TAGS,
            ),
        ),
        ("error_code", Int16),
        TAGS,
    )


class OffsetFetchRequest_v7(RequestStruct):  # type: ignore[misc]
    """Asks for committed offsets, if wanted only for those that no open transaction may change. Kafka 2.5."""

    API_KEY, API_VERSION = 9, 7
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = OffsetFetchResponse_v7
    SCHEMA = Schema(
        ("group", TEXT),
        ("topics", by_topic(Int32)),
        ("require_stable", Boolean),
        TAGS,
    )


class MetadataResponse_v10(Response):  # type: ignore[misc]
    """The brokers and the topics. A topic's id has 16 bytes, read here as two numbers; both are 0 if it has none."""

    API_KEY, API_VERSION = 3, 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", CompactArray(("node_id", Int32), ("host", TEXT), ("port", Int32), ("rack", TEXT), TAGS)),
        ("cluster_id", TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", TEXT),
                ("id_high", Int64),
                ("id_low", Int64),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                TAGS,
            ),
        ),
        ("cluster_authorized_operations", Int32),
        TAGS,
    )


class MetadataRequest_v10(RequestStruct):  # type: ignore[misc]
    """Asks for topics by name. Kafka 2.8."""

    API_KEY, API_VERSION = 3, 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = MetadataResponse_v10
    SCHEMA = Schema(
        ("topics", CompactArray(("id_high", Int64), ("id_low", Int64), ("topic", TEXT), TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        TAGS,
    )


class EndTxnResponse_v5(Response):  # type: ignore[misc]
    """The producer id and epoch of the next transaction."""

    API_KEY, API_VERSION = 26, 5
    SCHEMA = InitProducerIdResponse_v3.SCHEMA


class EndTxnRequest_v5(RequestStruct):  # type: ignore[misc]
    """Ends a transaction and the producer's epoch with it. Kafka 4.0."""

    API_KEY, API_VERSION = 26, 5
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = EndTxnResponse_v5
    SCHEMA = Schema(
        ("transactional_id", TEXT), ("producer_id", Int64), ("producer_epoch", Int16), ("committed", Boolean), TAGS
    )


class ApiVersionsResponse_v3(Response):  # type: ignore[misc]
    """The broker's request versions; the cluster's features are among the tagged fields."""

    API_KEY, API_VERSION = 18, 3
    SCHEMA = Schema(
        ("error_code", Int16),
        ("api_versions", CompactArray(("api_key", Int16), ("min_version", Int16), ("max_version", Int16), TAGS)),
        ("throttle_time_ms", Int32),
        TAGS,
    )


class ApiVersionsRequest_v3(RequestStruct):  # type: ignore[misc]
    """Asks a broker what it and its cluster can do. Kafka 2.4."""

    API_KEY, API_VERSION = 18, 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = ApiVersionsResponse_v3
    SCHEMA = Schema(("client_software_name", TEXT), ("client_software_version", TEXT), TAGS)

    def parse_response_header(self, read_buffer: BytesIO) -> Any:
        """Always the first header, so that a client can read the response before it knows the broker's versions."""
        return ResponseHeader_v0.decode(read_buffer)


class IncrementalAlterConfigsResponse_v1(Response):  # type: ignore[misc]
    """The errors of the changes, by resource."""

    API_KEY, API_VERSION = 44, 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "responses",
            CompactArray(
                ("error_code", Int16), ("error_message", TEXT), ("resource_type", Int8), ("resource_name", TEXT), TAGS
            ),
        ),
        TAGS,
    )


class IncrementalAlterConfigsRequest_v1(RequestStruct):  # type: ignore[misc]
    """Changes some settings of a resource, and leaves the others. Kafka 2.4."""

    API_KEY, API_VERSION = 44, 1
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = IncrementalAlterConfigsResponse_v1
    SCHEMA = Schema(
        (
            "resources",
            CompactArray(
                ("resource_type", Int8),
                ("resource_name", TEXT),
                ("configs", CompactArray(("name", TEXT), ("operation", Int8), ("value", TEXT), TAGS)),
                TAGS,
            ),
        ),
        ("validate_only", Boolean),
        TAGS,
    )


FINALIZED_FEATURES = 2
"""The tag of the cluster's features in ApiVersionsResponse."""
_FEATURES = CompactArray(("name", TEXT), ("max_level", Int16), ("min_level", Int16), TAGS)


def transaction_version(response: Any) -> int:
    """The cluster's ``transaction.version`` from an ApiVersionsResponse_v3; 0 for a cluster without this feature."""
    features = _FEATURES.decode(BytesIO(response.tags.get(FINALIZED_FEATURES, b"\x01"))) or []
    return max((level for name, level, *_ in features if name == TRANSACTION_VERSION), default=0)
