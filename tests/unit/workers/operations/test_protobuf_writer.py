"""JSON values written as Protobuf messages: what the reader gives back, and the refusals."""

from __future__ import annotations

from typing import Any

import pytest

from failsoft.schemas.formats.protobuf import compile_protobuf
from failsoft.schemas.formats.reader import SchemaReader, WantedFields
from failsoft.schemas.formats.registered import Registered, SchemaType
from failsoft.workers.operations.avro_scalars import Unwritable
from failsoft.workers.operations.protobuf_tree import chosen, messages
from failsoft.workers.operations.protobuf_writer import ProtobufWriter, indexes
from failsoft.workers.schema_registry.protoc import compiled

PROTO = """
syntax = "proto3";
import "confluent/type/decimal.proto";
import "google/type/decimal.proto";
import "google/type/date.proto";
message First {
  message A { message B { double x = 1; } }
  message Other { double x = 1; }
}
message Event {
  string id = 1;
  confluent.type.Decimal price = 2;
  repeated google.type.Decimal parts = 3;
  google.type.Date bought_on = 4;
  map<string, Inner> inner = 5;
  uint32 count = 6;
  Inner one = 7;
  message Inner { confluent.type.Decimal price = 1; Inner again = 2; }
}
"""


@pytest.fixture(scope="module")
def descriptors() -> bytes:
    """The descriptors of PROTO."""
    return compiled(Registered(1, SchemaType.PROTOBUF, PROTO))


def _writer(descriptors: bytes) -> ProtobufWriter:
    return ProtobufWriter(chosen(messages(descriptors), "Event"))


def test_a_decimal_and_a_date_may_be_plain(descriptors: bytes) -> None:
    """Also in lists, maps and messages, under both spellings of a name; as messages they stay what they are."""
    value: dict[str, Any] = {
        "id": "e",
        "price": "-12.50",
        "parts": [0.1, {"value": "3"}, "1e2"],
        "boughtOn": "2026-01-31",
        "inner": {"k": {"price": 7}},
        "one": {"again": {"price": {"value": "AQ==", "scale": 1}}},
    }
    flat = PROTO.replace("Inner again = 2;", "string more = 2;")  # readers refuse messages that hold themselves
    registered = Registered(1, SchemaType.PROTOBUF, flat)
    reader: SchemaReader = compile_protobuf(registered, compiled(registered), WantedFields())
    told = reader.value(_writer(descriptors).write({**value, "one": {"price": {"value": "AQ==", "scale": 1}}}))
    assert told["price"] == "-12.50" and told["parts"] == ["0.1", "3", "100"] and told["bought_on"] == "2026-01-31"
    assert told["inner"]["k"]["price"] == "7" and told["one"]["price"] == "0.1"
    assert _writer(descriptors).write(value)[:2] == b"\2\2"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "the event is not an object"),
        ({"nme": 1}, 'no field named "nme"'),
        ({"count": -1}, "count"),
        ({"price": "much"}, "'much' is not a decimal number, such as 12.50"),
        ({"bought_on": "soon"}, "'soon' is not a date, such as 2026-01-31"),
        ({"parts": 5}, "parts"),
    ],
)
def test_what_does_not_fit_is_refused(descriptors: bytes, value: Any, words: str) -> None:
    """The message names the field or the value."""
    with pytest.raises(Unwritable) as refused:
        _writer(descriptors).write(value)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("name", "raw"),
    [("First", b"\0"), ("Event", b"\2\2"), ("First.Other", b"\4\0\2"), ("First.A.B", b"\6\0\0\0")],
)
def test_indexes_are_confluents(descriptors: bytes, name: str, raw: bytes) -> None:
    """How many, and each from the outermost message to the message; the first of a file is one zero byte."""
    assert indexes(chosen(messages(descriptors), name)) == raw
