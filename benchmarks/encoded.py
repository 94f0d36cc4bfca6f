"""The benchmark's events as Avro and as Protobuf: their schemas, and their bytes in Confluent's wire format."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

from benchmarks.events import FEATURES, rows
from failsoft.schemas.formats.registered import Registered, SchemaType

AVRO, PROTOBUF = "avro", "protobuf"
ID = {AVRO: 41, PROTOBUF: 42}
"""The registry's id of each schema."""

TIME = "2026-11-24T10:00:00.123Z"

AVRO_SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Event",
    "namespace": "benchmark",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "occurred_at", "type": "string"},
        {
            "name": "features",
            "type": {
                "type": "record",
                "name": "Features",
                "fields": [{"name": name, "type": "double"} for name in FEATURES],
            },
        },
    ],
}

PROTOBUF_SCHEMA = f"""\
syntax = "proto3";
package benchmark;

message Event {{
  string event_id = 1;
  string occurred_at = 2;
  Features features = 3;
}}

message Features {{
{"".join(f"  double {name} = {i};{chr(10)}" for i, name in enumerate(FEATURES, 1))}}}
"""


def registered(format: str) -> Registered:
    """The schema of a format, as a registry has it."""
    if format == AVRO:
        return Registered(ID[AVRO], SchemaType.AVRO, json.dumps(AVRO_SCHEMA))
    return Registered(ID[PROTOBUF], SchemaType.PROTOBUF, PROTOBUF_SCHEMA)


def framing(format: str) -> bytes:
    """What is before each event: the magic byte and the id, and of Protobuf one byte that stands for message 0."""
    return b"\0" + ID[format].to_bytes(4, "big") + (b"\0" if format == PROTOBUF else b"")


def event_class() -> Any:
    """The class of the Protobuf messages, made without protoc."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="benchmark", syntax="proto3")
    features = file.message_type.add(name="Features")
    for i, name in enumerate(FEATURES, 1):
        features.field.add(name=name, number=i, type=field.TYPE_DOUBLE, label=field.LABEL_OPTIONAL)
    event = file.message_type.add(name="Event")
    event.field.add(name="event_id", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    event.field.add(name="occurred_at", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    event.field.add(
        name="features", number=3, type=field.TYPE_MESSAGE, label=field.LABEL_OPTIONAL, type_name=".benchmark.Features"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("benchmark.Event"))


def _bodies() -> Iterator[tuple[str, dict[str, Any]]]:
    """The events without end: the same numbers as in JSON."""
    texts = [[float(f"{x:.6f}") for x in row] for row in rows().tolist()]
    i = 0
    while True:
        features = dict(zip(FEATURES, texts[i % len(texts)], strict=True))
        event_id = f"evt-{i:011d}"
        yield event_id, {"event_id": event_id, "occurred_at": TIME, "features": features}
        i += 1


def avro_events(n: int) -> Iterator[tuple[bytes, bytes]]:
    """``n`` events as (key, value)."""
    from fastavro import parse_schema, schemaless_writer

    schema, head = parse_schema(AVRO_SCHEMA), framing(AVRO)
    for _, (event_id, body) in zip(range(n), _bodies(), strict=False):
        out = io.BytesIO()
        schemaless_writer(out, schema, body)
        yield event_id.encode(), head + out.getvalue()


def protobuf_events(n: int) -> Iterator[tuple[bytes, bytes]]:
    """``n`` events as (key, value)."""
    event, head = event_class(), framing(PROTOBUF)
    for _, (event_id, body) in zip(range(n), _bodies(), strict=False):
        yield event_id.encode(), head + event(**body).SerializeToString()
