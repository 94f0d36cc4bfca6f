"""The private names of aiokafka that the transactional client uses, each with a check that it means what we rely on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from io import BytesIO
from typing import Any

from aiokafka import client, conn
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol import api, produce, transaction, types
from aiokafka.record.memory_records import MemoryRecords


def _takes(function: Any, *names: str) -> bool:
    """Whether ``function`` has exactly these parameters."""
    return list(inspect.signature(function).parameters) == list(names)


def _fields(struct: Any, key: int, version: int, *names: str) -> bool:
    """Whether a request struct has this API key, version and these fields."""
    return bool((struct.API_KEY, struct.API_VERSION, struct.SCHEMA.names) == (key, version, names))


def _codes(kind: Any, value: Any, data: bytes) -> bool:
    """Whether a type encodes ``value`` to ``data``, and decodes it again."""
    return bool(kind.encode(value) == data and kind.decode(BytesIO(data)) == value)


def _client_has_what_the_loop_calls() -> bool:
    calls = {
        "send": ["self", "node_id", "request", "group"],
        "coordinator_lookup": None,
        "add_topic": ["self", "topic"],
    }
    calls |= {"get_random_node": ["self"], "force_metadata_update": ["self"]}
    kind = client.AIOKafkaClient
    return all(wanted is None or _takes(getattr(kind, name), *wanted) for name, wanted in calls.items()) and _takes(
        kind.coordinator_lookup, "self", "coordinator_type", "coordinator_key"
    )


def _connection_prepares() -> bool:
    """A connection calls ``request.prepare`` with its versions, and the struct's own methods after that."""
    source = inspect.getsource(conn.AIOKafkaConnection.send)
    return "request.prepare(self._versions)" in source and "request_struct.build_request_header(" in source


def _stateful_batch() -> Any:
    batch = BatchBuilder(10_000, 0, is_transactional=1)
    batch.append(timestamp=1, key=b"k", value=b"v")
    batch._set_producer_state(7, 3, 11)
    return MemoryRecords(bytes(batch._build())).next_batch()


CLIENT: dict[str, Callable[[], object]] = {
    # Sending requests: protocol.py, requests.py, request_loop.py, stable_offsets.py, transactional_producer.py.
    "aiokafka.client:AIOKafkaClient": lambda: _client_has_what_the_loop_calls() and _connection_prepares(),
    "aiokafka.protocol.api:RequestStruct": lambda: (
        _takes(api.RequestStruct.build_request_header, "self", "correlation_id", "client_id")
        and _takes(api.RequestStruct.parse_response_header, "self", "read_buffer")
        and api.RequestStruct.FLEXIBLE_VERSION is False
    ),
    "aiokafka.protocol.api:Response": lambda: "SCHEMA" in api.Response.to_object.__code__.co_names,
    "aiokafka.protocol.api:ResponseHeader_v0": lambda: (
        api.ResponseHeader_v0.decode(BytesIO(b"\0\0\0\5")).correlation_id == 5  # type: ignore[attr-defined]
    ),
    "aiokafka.protocol.types:Boolean": lambda: _codes(types.Boolean, True, b"\1"),
    "aiokafka.protocol.types:Int8": lambda: _codes(types.Int8, -1, b"\xff"),
    "aiokafka.protocol.types:Int16": lambda: _codes(types.Int16, -1, b"\xff\xff"),
    "aiokafka.protocol.types:Int32": lambda: _codes(types.Int32, 258, b"\0\0\1\2"),
    "aiokafka.protocol.types:Int64": lambda: _codes(types.Int64, 258, bytes(6) + b"\1\2"),
    "aiokafka.protocol.types:Array": lambda: _codes(types.Array(types.Int16), [1, 2], b"\0\0\0\2\0\1\0\2"),
    "aiokafka.protocol.types:Bytes": lambda: _codes(types.Bytes, b"ab", b"\0\0\0\2ab"),
    "aiokafka.protocol.types:String": lambda: (
        _codes(types.String("utf-8"), "ab", b"\0\2ab") and _codes(types.String("utf-8"), None, b"\xff\xff")
    ),
    "aiokafka.protocol.types:CompactBytes": lambda: _codes(types.CompactBytes, b"ab", b"\3ab"),
    "aiokafka.protocol.types:CompactString": lambda: (
        _codes(types.CompactString("utf-8"), "ab", b"\3ab") and _codes(types.CompactString("utf-8"), None, b"\0")
    ),
    "aiokafka.protocol.types:CompactArray": lambda: _codes(types.CompactArray(types.Int16), [1, 2], b"\3\0\1\0\2"),
    "aiokafka.protocol.types:Schema": lambda: _codes(
        types.Schema(("a", types.Int16), ("b", types.Int16)), (1, 2), b"\0\1\0\2"
    ),
    "aiokafka.protocol.types:TaggedFields": lambda: (
        _codes(types.TaggedFields, {}, b"\0") and types.TaggedFields.decode(BytesIO(b"\1\2\1x")) == {2: b"x"}
    ),
    "aiokafka.protocol.produce:ProduceRequest_v8": lambda: _fields(
        produce.ProduceRequest_v8, 0, 8, "transactional_id", "required_acks", "timeout", "topics"
    ),
    "aiokafka.protocol.transaction:AddPartitionsToTxnRequest_v0": lambda: _fields(
        transaction.AddPartitionsToTxnRequest_v0, 24, 0, "transactional_id", "producer_id", "producer_epoch", "topics"
    ),
    "aiokafka.protocol.transaction:AddOffsetsToTxnRequest_v0": lambda: _fields(
        transaction.AddOffsetsToTxnRequest_v0, 25, 0, "transactional_id", "producer_id", "producer_epoch", "group_id"
    ),
    "aiokafka.protocol.transaction:EndTxnRequest_v0": lambda: _fields(
        transaction.EndTxnRequest_v0, 26, 0, "transactional_id", "producer_id", "producer_epoch", "transaction_result"
    ),
    "aiokafka.producer.message_accumulator:BatchBuilder._set_producer_state": lambda: (
        (b := _stateful_batch()).producer_id == 7 and b.producer_epoch == 3 and b.base_sequence == 11
    ),
    "aiokafka.producer.message_accumulator:BatchBuilder._build": lambda: _stateful_batch().is_transactional is True,
}
