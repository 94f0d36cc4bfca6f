"""Makes ``values.json``: events as Confluent's own Python serializers write them, with their schemas, ids and GUIDs.

Run it where ``confluent-kafka[avro,protobuf,json,schemaregistry]`` and ``grpcio-tools`` are installed; the tests only
read what it wrote. ``--check`` compares instead of writing::

    python tests/golden/make.py [--check]

The registry is the serializers' own ``mock://``. It draws GUIDs at random; here they are drawn from a fixed seed, so
that two runs give the same bytes.
"""

from __future__ import annotations

import datetime
import decimal
import importlib.metadata
import json
import random
import struct
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient, header_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_tools import protoc

FOLDER = Path(__file__).resolve().parent
SCHEMAS = FOLDER / "schemas"
VALUES = FOLDER / "values.json"
TOPIC = "loans.events"
WRITTEN_BY = ("confluent-kafka", "fastavro", "protobuf", "jsonschema", "orjson")

UTC = datetime.UTC
SEEN = datetime.datetime(2026, 11, 24, 10, 0, 0, 123456, tzinfo=UTC)
SEEN_NS = 1_795_514_400_123_456_789
PIXELS = struct.pack("<4f", 0.0, 0.25, 0.5, 1.0)

TYPICAL: dict[str, Any] = {
    "event_id": "loan-1",
    "occurred_at": SEEN.replace(microsecond=123000),
    "features": {
        "amount": 12500.5,
        "ratio": 0.25,
        "rate": 4.125,
        "count": 3,
        "total": 9_007_199_254_740_993,
        "flag": True,
        "note": "Zürich – 借款",
        "channel": "BRANCH",
        "income": 4200.0,
        "mixed": "text",
        "price": decimal.Decimal("1234567.89"),
        "fee": decimal.Decimal("-12.3456"),
        "born": datetime.date(1969, 7, 20),
        "opens": datetime.time(9, 30, 0, 125000),
        "closes": datetime.time(17, 45, 30, 123456),
        "seen_ms": SEEN.replace(microsecond=123000),
        "seen_us": SEEN,
        "seen_ns": SEEN_NS,
        "local": datetime.datetime(2026, 11, 24, 11, 0, 0, 123456),
        "token": uuid.UUID("0f8fad5b-d9cb-469f-a165-70867728950e"),
        "digest": b"\xde\xad\xbe\xef",
        "pixels": PIXELS,
        "embedding": [0.5, -1.5, 2.0],
        "grid": [[1.0, 2.0], [3.0, 4.0]],
        "tags": ["new", "online"],
        "scores": {"bureau": 0.75, "internal": 0.5},
        "home": {"city": "Bern", "latitude": 46.948, "longitude": 7.447},
        "work": {"city": "Thun", "latitude": 46.758, "longitude": 7.628},
    },
}
LEAST: dict[str, Any] = {
    "event_id": "loan-2",
    "occurred_at": datetime.datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=UTC),
    "features": {
        "amount": -0.0,
        "ratio": float("inf"),
        "rate": float("nan"),
        "count": -(2**31),
        "total": -(2**63),
        "flag": False,
        "note": "",
        "channel": "WEB",
        "income": None,
        "mixed": None,
        "price": decimal.Decimal("-0.01"),
        "fee": decimal.Decimal("0"),
        "born": datetime.date(1970, 1, 1),
        "opens": datetime.time(0),
        "closes": datetime.time(0),
        "seen_ms": datetime.datetime(1, 1, 1, tzinfo=UTC),
        "seen_us": datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        "seen_ns": -1,
        "local": datetime.datetime(1970, 1, 1),
        "token": uuid.UUID(int=0),
        "digest": bytes(4),
        "pixels": b"",
        "embedding": [],
        "grid": [],
        "tags": [],
        "scores": {},
        "home": {"city": "", "latitude": 0.0, "longitude": 0.0},
        "work": None,
    },
}
PROTO_TYPICAL: dict[str, Any] = {
    "eventId": "loan-1",
    "occurredAt": "2026-11-24T10:00:00.123Z",
    "features": {
        "amount": 12500.5,
        "ratio": 0.25,
        "rate": 4.125,
        "count": 3,
        "total": "9007199254740993",
        "huge": "18446744073709551615",
        "signed": "-9223372036854775808",
        "fixed": 4294967295,
        "shifted": "-2",
        "flag": True,
        "note": "Zürich – 借款",
        "channel": "BRANCH",
        "income": 4200.0,
        "mixedText": "text",
        "wrapped": 0.0,
        "wrappedText": "",
        "seen": "2026-11-24T10:00:00.123456789Z",
        "waited": "90.5s",
        "extra": {"codes": [1.0, None, True, "gold"]},  # the order of several keys is not the same in each run
        "price": {"value": "B1vNFQ==", "precision": 9, "scale": 2},
        "born": {"year": 1969, "month": 7, "day": 20},
        "pixels": "AAAAAAAAgD4AAAA/AACAPw==",
        "embedding": [0.5, -1.5, 2.0],
        "unpacked": [1.0, 2.0],
        "counts": ["1", "-1", "9223372036854775807"],
        "tags": ["new", "online"],
        "scores": {"bureau": 0.75},
        "home": {"city": "Bern", "latitude": 46.948, "longitude": 7.447},
        "work": {"city": "Thun", "latitude": 46.758, "longitude": 7.628},
        "items": [{"name": "car", "price": 9000.0}, {"name": "roof box", "price": 300.0}],
    },
}
PROTO_LEAST: dict[str, Any] = {"eventId": "loan-2", "features": {"ratio": "-Infinity", "rate": "NaN"}}


def payment(number: int, **features: Any) -> dict[str, Any]:
    """A small event that all three formats have."""
    at = f"2026-11-24T10:00:0{number}Z"
    return {"event_id": f"payment-{number}", "occurred_at": at, "features": features}


PAYMENTS = [payment(1, a=1.5, b=2.5), payment(2, a=-3.0, b=0.0)]
CHANGED = {**payment(3, a=4.5, c=7), "currency": "CHF"}
TEXT = Schema((SCHEMAS / "payment.schema.json").read_text(), "JSON")


def main() -> int:
    """Writes the file, or compares it; returns 1 if it differs."""
    drawn = random.Random(14)
    with mock.patch("uuid.uuid4", lambda: uuid.UUID(int=drawn.getrandbits(128), version=4)):
        made = json.dumps(everything(), ensure_ascii=False, indent=1) + "\n"
    if "--check" in sys.argv[1:]:
        same = VALUES.read_text("utf-8") == made
        print("the same" if same else "values.json differs from what the serializers write now", file=sys.stderr)
        return 0 if same else 1
    VALUES.write_text(made, "utf-8")
    return 0


def everything() -> dict[str, Any]:
    """The file's content."""
    registry = SchemaRegistryClient.new_client({"url": "mock://golden"})
    with tempfile.TemporaryDirectory() as folder:
        events = [*_avro(registry), *_protobuf(registry, Path(folder)), *_json(registry)]
    return {
        "written_by": {name: importlib.metadata.version(name) for name in WRITTEN_BY},
        "schemas": _SEEN,
        "events": events,
    }


_SEEN: list[dict[str, Any]] = []
"""Each schema that was registered: type, id, GUID, text and references."""


def _avro(registry: SchemaRegistryClient) -> Iterator[dict[str, Any]]:
    place = Schema((SCHEMAS / "place.avsc").read_text(), "AVRO")
    registry.register_schema("shop.common.Place", place)
    loan = Schema(
        (SCHEMAS / "loan.avsc").read_text(), "AVRO", [SchemaReference("shop.common.Place", "shop.common.Place", 1)]
    )
    kinds = [
        ("loan.avsc", loan, [TYPICAL, LEAST]),
        ("payment.avsc", Schema((SCHEMAS / "payment.avsc").read_text(), "AVRO"), PAYMENTS),
        ("payment-2.avsc", Schema((SCHEMAS / "payment-2.avsc").read_text(), "AVRO"), [CHANGED]),
    ]
    for file, schema, events in kinds:
        references = ["place.avsc:shop.common.Place"] if schema is loan else []
        for framing, conf in FRAMINGS.items():
            write = AvroSerializer(registry, schema, conf=conf)
            for event in events:
                yield _event(registry, "AVRO", file, framing, write, event, references)


def _protobuf(registry: SchemaRegistryClient, folder: Path) -> Iterator[dict[str, Any]]:
    kinds = [
        ("loan.proto", "shop.loans.Loan", [PROTO_TYPICAL, PROTO_LEAST]),
        ("loan.proto", "shop.loans.Refund", PAYMENTS),
        ("loan.proto", "shop.loans.Refund.Partial", PAYMENTS[:1]),
        ("payment.proto", "shop.payments.Payment", PAYMENTS),
        ("payment-2.proto", "shop.payments.Payment", [CHANGED]),
        ("legacy.proto", "shop.legacy.Payment", [payment(1, a=1.5, b=2.5), payment(2, a=-3.0)]),
    ]
    for file, name, events in kinds:
        references = ["shop/place.proto:shop/place.proto"] if file == "loan.proto" else []
        message = message_factory.GetMessageClass(_pool(folder, file).FindMessageTypeByName(name))
        for framing, conf in FRAMINGS.items():
            write = ProtobufSerializer(message, registry, conf=conf)
            for event in events:
                sent = json_format.ParseDict(event, message())
                yield _event(registry, "PROTOBUF", file, framing, write, sent, references, name)


def _json(registry: SchemaRegistryClient) -> Iterator[dict[str, Any]]:
    for framing, conf in FRAMINGS.items():
        write = JSONSerializer(TEXT, registry, conf=conf)
        for event in [*PAYMENTS, payment(4, a=1.0, b=None)]:
            yield _event(registry, "JSON", "payment.schema.json", framing, write, event, [])


FRAMINGS: dict[str, dict[str, Any]] = {
    "value": {},
    "header": {"schema.id.serializer": header_schema_id_serializer},
}


def _event(
    registry: SchemaRegistryClient,
    type_: str,
    file: str,
    framing: str,
    write: Any,
    event: Any,
    references: list[str],
    message: str | None = None,
) -> dict[str, Any]:
    """One event as it lies in Kafka: its value and its headers in hexadecimal."""
    context = SerializationContext(f"{TOPIC}.{file}", MessageField.VALUE, headers=[])
    value = write(event, context)
    found = registry.get_latest_version(f"{TOPIC}.{file}-value")
    if all(each["id"] != found.schema_id for each in _SEEN):
        others = [each.partition(":") for each in references]
        _SEEN.append(
            {
                "type": type_,
                "file": file,
                "id": found.schema_id,
                "guid": found.guid,
                "schema": (SCHEMAS / file).read_text(),
                "references": [{"name": name, "schema": (SCHEMAS / path).read_text()} for path, _, name in others],
            }
        )
    identity = event["event_id"] if isinstance(event, dict) else event.event_id
    return {
        "event": identity,
        "type": type_,
        "file": file,
        **({"message": message} if message else {}),
        "id": found.schema_id,
        "framing": framing,
        "headers": [[key, content.hex()] for key, content in context.headers],
        "value": value.hex(),
    }


def _pool(folder: Path, file: str) -> descriptor_pool.DescriptorPool:
    """The descriptors of a ``.proto`` file and of all that it imports."""
    out = folder / "out.bin"
    include = Path(protoc.__file__).parent / "_proto"
    types = str(importlib.metadata.distribution("googleapis-common-protos").locate_file("."))
    text = folder / "confluent" / "type" / "decimal.proto"
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text(
        'syntax = "proto3";\npackage confluent.type;\n'
        "message Decimal {\n  bytes value = 1;\n  uint32 precision = 2;\n  int32 scale = 3;\n}\n"
    )
    paths = [f"--proto_path={path}" for path in (SCHEMAS, folder, include, types)]
    if protoc.main(["protoc", *paths, "--include_imports", f"--descriptor_set_out={out}", file]) != 0:
        raise SystemExit(f"{file} was not compiled")
    pool = descriptor_pool.DescriptorPool()
    for each in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.AddSerializedFile(each.SerializeToString())
    return pool


if __name__ == "__main__":
    sys.exit(main())
