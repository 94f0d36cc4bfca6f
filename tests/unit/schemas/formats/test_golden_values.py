"""What Confluent's own serializers wrote is read as the same values: all types, both framings, each format alike."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest

from failsoft.schemas.features.paths import Absent
from failsoft.schemas.formats.avro import compile_avro
from failsoft.schemas.formats.protobuf import compile_protobuf
from failsoft.schemas.formats.reader import SchemaReader, Want, WantedFields
from failsoft.schemas.formats.registered import SchemaType
from failsoft.workers.schema_registry import protoc
from tests import golden

NO = object()
"""Stands for a value that is absent."""

PIXELS = b"\x00\x00\x00\x00\x00\x00\x80>\x00\x00\x00?\x00\x00\x80?"
NUMBER, INTEGER, BOOL, STRING, TENSOR, TIME = (
    Want.NUMBER,
    Want.INTEGER,
    Want.BOOL,
    Want.STRING,
    Want.TENSOR,
    Want.TIME,
)
AVRO: tuple[tuple[str, Want, Any, Any], ...] = (
    ("amount", NUMBER, 12500.5, 0.0),
    ("ratio", NUMBER, 0.25, math.inf),
    ("rate", NUMBER, 4.125, math.nan),
    ("count", INTEGER, 3, -(2**31)),
    ("total", INTEGER, 9_007_199_254_740_993, -(2**63)),
    ("flag", BOOL, True, False),
    ("note", STRING, "Zürich – 借款", ""),
    ("channel", STRING, "BRANCH", "WEB"),
    ("income", NUMBER, 4200.0, None),
    ("mixed", STRING, "text", None),
    ("price", NUMBER, 1234567.89, -0.01),
    ("price", STRING, "1234567.89", "-0.01"),
    ("fee", NUMBER, -12.3456, 0.0),
    ("fee", STRING, "-12.3456", "0.0000"),
    ("born", INTEGER, -165, 0),
    ("born", STRING, "1969-07-20", "1970-01-01"),
    ("opens", INTEGER, 34_200_125, 0),
    ("opens", STRING, "09:30:00.125", "00:00:00.000"),
    ("closes", STRING, "17:45:30.123456", "00:00:00.000000"),
    ("seen_ms", INTEGER, 1_795_514_400_123, -62_135_596_800_000),
    ("seen_ms", STRING, "2026-11-24T10:00:00.123Z", "0001-01-01T00:00:00.000Z"),
    ("seen_us", STRING, "2026-11-24T10:00:00.123456Z", "9999-12-31T23:59:59.999999Z"),
    ("seen_ns", INTEGER, 1_795_514_400_123_456_789, -1),
    ("seen_ns", STRING, "2026-11-24T10:00:00.123456789Z", "1969-12-31T23:59:59.999999999Z"),
    ("local", STRING, "2026-11-24T11:00:00.123456", "1970-01-01T00:00:00.000000"),
    ("token", STRING, "0f8fad5b-d9cb-469f-a165-70867728950e", "00000000-0000-0000-0000-000000000000"),
    ("digest", TENSOR, b"\xde\xad\xbe\xef", bytes(4)),
    ("pixels", TENSOR, PIXELS, b""),
    ("embedding", TENSOR, [0.5, -1.5, 2.0], []),
    ("grid", TENSOR, [[1.0, 2.0], [3.0, 4.0]], []),
    ("tags", TENSOR, ["new", "online"], []),
    ("scores.bureau", NUMBER, 0.75, NO),
    ("home.city", STRING, "Bern", ""),
    ("work.latitude", NUMBER, 46.758, NO),
    ("nowhere", NUMBER, NO, NO),
)
PROTOBUF: tuple[tuple[str, Want, Any, Any], ...] = (
    ("amount", NUMBER, 12500.5, 0.0),
    ("ratio", NUMBER, 0.25, -math.inf),
    ("rate", NUMBER, 4.125, math.nan),
    ("count", INTEGER, 3, 0),
    ("total", INTEGER, 9_007_199_254_740_993, 0),
    ("huge", INTEGER, 2**64 - 1, 0),
    ("signed", INTEGER, -(2**63), 0),
    ("fixed", INTEGER, 2**32 - 1, 0),
    ("shifted", INTEGER, -2, 0),
    ("flag", BOOL, True, False),
    ("note", STRING, "Zürich – 借款", ""),
    ("channel", STRING, "BRANCH", "CHANNEL_UNSPECIFIED"),
    ("channel", INTEGER, 2, 0),
    ("income", NUMBER, 4200.0, NO),
    ("mixed_number", INTEGER, NO, NO),
    ("mixed_text", STRING, "text", NO),
    ("wrapped", NUMBER, 0.0, NO),
    ("wrapped_text", STRING, "", NO),
    ("seen", STRING, "2026-11-24T10:00:00.123456789Z", NO),
    ("waited", NUMBER, 90.5, NO),
    ("price", NUMBER, 1234567.89, NO),
    ("price", STRING, "1234567.89", NO),
    ("born", INTEGER, -165, NO),
    ("born", STRING, "1969-07-20", NO),
    ("pixels", TENSOR, PIXELS, b""),
    ("embedding", TENSOR, [0.5, -1.5, 2.0], []),
    ("unpacked", TENSOR, [1.0, 2.0], []),
    ("counts", TENSOR, [1, -1, 2**63 - 1], []),
    ("tags", TENSOR, ["new", "online"], []),
    ("scores.bureau", NUMBER, 0.75, NO),
    ("home.city", STRING, "Bern", NO),
    ("nowhere", NUMBER, NO, NO),
)
NAMES = {SchemaType.AVRO: None, SchemaType.PROTOBUF: "shop.loans.Loan"}


@cache
def descriptors(file: str) -> bytes:
    """The descriptors of a schema file; protoc takes a tenth of a second."""
    return protoc.compiled(golden.schema(file))


def reader(file: str, *fields: tuple[str, Want]) -> SchemaReader:
    """A reader of the golden events of a schema file."""
    wanted = WantedFields("event_id", "occurred_at", "features", fields)
    registered = golden.schema(file)
    if registered.type is SchemaType.AVRO:
        return compile_avro(registered, wanted)
    return compile_protobuf(registered, descriptors(file), wanted)


def loans(kind: SchemaType, framing: str) -> list[bytes]:
    """The payloads of the two loans, the full one first."""
    found = golden.events(kind, framing=framing)
    return [each.payload for each in found if each.file.startswith("loan") and each.message == NAMES[kind]]


def plain(value: Any) -> Any:
    """A value that compares: NaN as text, bytes and lists as such."""
    if isinstance(value, Absent):
        return NO
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


@pytest.mark.parametrize("framing", ["value", "header"])
@pytest.mark.parametrize(
    ("file", "path", "want", "full", "least"),
    [*(("loan.avsc", *each) for each in AVRO), *(("loan.proto", *each) for each in PROTOBUF)],
)
def test_a_value_is_what_was_sent(file: str, path: str, want: Want, full: Any, least: Any, framing: str) -> None:
    """Each type of the schema, as the card may want it: an event with all fields, and one with as few as can be."""
    kind = golden.schema(file).type
    found = reader(file, (path, want)).read(loans(kind, framing))
    assert not found.bad and list(found.kept) == [0, 1]
    values = [plain(value) for value in found.rows.feature(path)]
    assert values == [plain(full), plain(least)]
    assert [type(value) for value in values] == [type(plain(full)), type(plain(least))]


@pytest.mark.parametrize("file", ["loan.avsc", "loan.proto"])
def test_id_and_time_are_read(file: str) -> None:
    """A timestamp's precision is its schema's; a time that is not set is absent."""
    rows = reader(file).read(loans(golden.schema(file).type, "value")).rows
    assert list(rows.column("event_id")) == ["loan-1", "loan-2"]
    first, second = rows.column("occurred_at")
    assert first == "2026-11-24T10:00:00.123Z"
    assert plain(second) == ("1969-12-31T23:59:59.999Z" if file == "loan.avsc" else NO)


@pytest.mark.parametrize("each", golden.events(SchemaType.PROTOBUF, framing="value"), ids=lambda each: each.message)
def test_the_message_is_the_one_that_the_indexes_name(each: golden.Golden) -> None:
    """Of the first message and of others, nested ones and those of proto2; the file alone would not tell."""
    path = "a" if each.message != "shop.loans.Loan" else "amount"
    found = reader(each.file, (path, NUMBER)).read([each.payload])
    assert not found.bad
    assert list(found.rows.column("event_id")) == [each.event]
    wanted = {"payment-1": 1.5, "payment-2": -3.0, "payment-3": 4.5, "loan-1": 12500.5, "loan-2": 0.0}
    assert list(found.rows.feature(path)) == [wanted[each.event]]


@pytest.mark.parametrize(("old", "new"), [("payment.avsc", "payment-2.avsc"), ("payment.proto", "payment-2.proto")])
def test_a_field_that_a_newer_schema_lacks_is_missing(old: str, new: str) -> None:
    """One card reads both versions: a field that a version lacks is absent, as it would be in JSON."""
    fields = (("a", NUMBER), ("b", NUMBER), ("c", INTEGER))
    first = reader(old, *fields).read([each.payload for each in golden.events(file=old, framing="value")])
    second = reader(new, *fields).read([each.payload for each in golden.events(file=new, framing="value")])
    values = {name: [plain(v) for found in (first, second) for v in found.rows.feature(name)] for name, _ in fields}
    assert values == {"a": [1.5, -3.0, 4.5], "b": [2.5, 0.0, NO], "c": [NO, NO, 7]}
