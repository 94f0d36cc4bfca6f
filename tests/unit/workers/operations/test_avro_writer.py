"""JSON values written as Avro: what the library reads back, and the refusals."""

from __future__ import annotations

import io
import json
import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import pytest

from failsoft.schemas.formats.registered import Reference, Registered, SchemaType, Unusable
from failsoft.workers.operations.avro_scalars import Unwritable
from failsoft.workers.operations.avro_writer import AvroWriter


def _record(**types: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": name, "type": t} for name, t in types.items()]}


def _writer(schema: Any, *references: Any) -> AvroWriter:
    found = tuple(Reference(each["name"], json.dumps(each)) for each in references)
    return AvroWriter(Registered(1, SchemaType.AVRO, json.dumps(schema), found))


def _read(schema: Any, raw: bytes) -> Any:
    stream = io.BytesIO(raw)
    found = fastavro.schemaless_reader(stream, fastavro.parse_schema(schema), None)
    assert not stream.read()
    return found


def _of(logical: str, carrier: str, **more: Any) -> dict[str, Any]:
    return {"type": carrier, "logicalType": logical, **more}


MOMENT = datetime(2026, 1, 31, 12, 30, 0, 250_000, UTC)
E = {"type": "enum", "name": "E", "symbols": ["a", "b"]}
GOOD: list[tuple[Any, Any, Any]] = [
    ("int", -(2**31), -(2**31)),
    ("long", "9223372036854775807", 2**63 - 1),
    ("long", 3.0, 3),
    ("float", 0.5, 0.5),
    ("double", 2**53, 2.0**53),
    ("double", "-Infinity", -math.inf),
    ("boolean", True, True),
    ("string", "é", "é"),
    ("bytes", "AAE=", b"\0\1"),
    ("null", None, None),
    ({"type": "fixed", "name": "F", "size": 2}, "AAE=", b"\0\1"),
    (E, "b", "b"),
    ({"type": "array", "items": ["null", "int"]}, [1, None], [1, None]),
    ({"type": "map", "values": "double"}, {"a": 1}, {"a": 1.0}),
    ({"type": "map", "values": "double"}, {}, {}),
    (["null", "string", "bytes"], "AAE=", "AAE="),
    (["bytes", "string"], "AAE=", "AAE="),
    (["null", _of("timestamp-millis", "long"), "double"], 0.5, 0.5),
    (["null", E, _record(x="int") | {"name": "I"}], {"x": 3}, {"x": 3}),
    (["null", "double"], None, None),
    (_of("timestamp-millis", "long"), "2026-01-31T12:30:00.2509Z", MOMENT),
    (_of("timestamp-millis", "long"), MOMENT.timestamp() * 1000, MOMENT),
    (_of("timestamp-micros", "long"), "2026-01-31T14:30:00.25+02:00", MOMENT),
    (_of("timestamp-nanos", "long"), "2026-01-31T12:30:00.250000007Z", 1769862600250000007),
    (_of("local-timestamp-millis", "long"), "2026-01-31T12:30:00.25", MOMENT.replace(tzinfo=None)),
    (_of("date", "int"), "2026-01-31", date(2026, 1, 31)),
    (_of("date", "int"), -1, date(1969, 12, 31)),
    (_of("time-micros", "long"), "12:30:00.25", time(12, 30, 0, 250_000)),
    (_of("uuid", "string"), "00000000-0000-4000-8000-00000000000A", UUID("00000000-0000-4000-8000-00000000000a")),
    (
        _of("decimal", "bytes", precision=30, scale=2),
        "1234567890123456789012345678.5",
        Decimal("1234567890123456789012345678.50"),
    ),
    (_of("decimal", "bytes", precision=5, scale=2), -1.28, Decimal("-1.28")),
    (_of("decimal", "bytes", precision=5, scale=0), -128, Decimal(-128)),
    (_of("decimal", "fixed", precision=5, scale=2, size=4, name="D"), 0.1, Decimal("0.10")),
    (_of("unknown", "string"), "x", "x"),
]


@pytest.mark.parametrize(("schema", "value", "read"), GOOD)
def test_the_library_reads_what_is_written(schema: Any, value: Any, read: Any) -> None:
    """Each type, with the JSON values that stand for it."""
    record = _record(x=schema)
    assert _read(record, _writer(record).write({"x": value})) == {"x": read}


def test_fields_that_are_left_out_have_their_defaults() -> None:
    """Bytes of a default are text, a union's default is of its first branch, and without one null may stand in."""
    fields = [
        {"name": "a", "type": "bytes", "default": "\xff\0"},
        {"name": "b", "type": ["long", "null"], "default": 7},
        {"name": "c", "type": ["null", "long"]},
        {"name": "d", "type": _record(x="int") | {"name": "D"}, "default": {"x": 3}},
        {"name": "e", "type": {"type": "array", "items": "bytes"}, "default": ["\x01"]},
        {"name": "f", "type": ["bytes", "string"], "default": "\xfe"},
    ]
    schema = {"type": "record", "name": "R", "fields": fields}
    found = _read(schema, _writer(schema).write({}))
    assert found == {"a": b"\xff\0", "b": 7, "c": None, "d": {"x": 3}, "e": [b"\1"], "f": b"\xfe"}


def test_named_types_are_used_again() -> None:
    """Within a schema, from a schema that it refers to, and within themselves."""
    tree = {"type": "record", "name": "Tree", "fields": [{"name": "left", "type": ["null", "Tree"]}]}
    value = {"left": {"left": {"left": None}}}
    assert _read(tree, _writer(tree).write(value)) == value
    card = _record(limit="double") | {"name": "Card"}
    twice = _record(a=card, b="Card")
    assert _writer(_record(a="Card", b="Card"), card).write({"a": {"limit": 1}, "b": {"limit": 2}}) == _writer(
        twice
    ).write({"a": {"limit": 1}, "b": {"limit": 2}})


DEEP = _record(inner=_record(x="int", other=["null", "string"]) | {"name": "I"}, many={"type": "array", "items": "int"})


@pytest.mark.parametrize(
    ("schema", "value", "words"),
    [
        (DEEP, 5, "the event: 5, and the schema wants an object"),
        (DEEP, {"inner": {"x": "a"}}, "inner.x: 'a', and the schema wants a whole number of 32 bits (int)"),
        (DEEP, {"inner": {"x": 2**31}}, "inner.x: 2147483648, and the schema wants a whole number of 32 bits"),
        (DEEP, {"inner": {"x": True}}, "inner.x: true, and"),
        (DEEP, {"inner": {"x": 1}}, "many: missing, and it has no default in the schema"),
        (DEEP, {"inner": {"x": 1}, "many": [1, None]}, "many.[1]: null, and the schema wants a whole number"),
        (DEEP, {"inner": {"x": 1, "othr": 1}}, "inner.othr: the schema has no such field (did you mean 'other'?)"),
        (DEEP, {"inner": {"x": 1, "other": 17}}, "inner.other: 17, and the schema wants a string"),
        (_record(x=["int", "string"]), {"x": []}, "x: a list, and the schema wants one of int, string"),
        (_record(x=["int", "string"]), {"x": None}, "x: null, and the schema wants one of int, string"),
        (_record(x=E), {"x": "A"}, "x: 'A', and the schema wants one of a, b"),
        (_record(x="float"), {"x": 1e300}, "x: 1e+300, and the schema wants a number (float)"),
        (_record(x="double"), {"x": 10**400}, "and the schema wants a number (double)"),
        (_record(x="bytes"), {"x": "not base64"}, "x: 'not base64', and the schema wants bytes, as base64"),
        (_record(x={"type": "fixed", "name": "F", "size": 3}), {"x": "AAE="}, "x: base64 of 2 bytes, and"),
        (_record(x=_of("timestamp-millis", "long")), {"x": "soon"}, "a time in ISO 8601, or millis since 1970"),
        (_record(x=_of("timestamp-nanos", "long")), {"x": "3000-01-01"}, "a whole number of 64 bits"),
        (_record(x=_of("date", "int")), {"x": "2026-02-30"}, "a date, such as 2026-01-31"),
        (_record(x=_of("uuid", "string")), {"x": "7"}, "a UUID"),
        (_record(x=_of("decimal", "bytes", precision=4, scale=2)), {"x": 1.005}, "4 digits, 2 of them after the point"),
        (_record(x=_of("decimal", "bytes", precision=4, scale=2)), {"x": 100}, "4 digits, 2 of them after the point"),
    ],
)
def test_what_does_not_fit_is_refused(schema: Any, value: Any, words: str) -> None:
    """The message names the field, what was found, and what would be right."""
    with pytest.raises(Unwritable) as refused:
        _writer(schema).write(value)
    assert words in str(refused.value)


@pytest.mark.parametrize("schema", [{"type": "record"}, 5, {"type": "array", "items": "Nothing"}])
def test_a_schema_that_is_not_valid_is_unusable(schema: Any) -> None:
    """The message has the library's words."""
    with pytest.raises(Unusable, match="not a valid Avro schema"):
        _writer(schema)
