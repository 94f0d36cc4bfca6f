"""Values of Protobuf schemas: what each type gives, what a bad value says, and schemas that cannot be used."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from failsoft.schemas.features.paths import Absent
from failsoft.schemas.formats.protobuf import compile_protobuf
from failsoft.schemas.formats.reader import Undecodable, Want, WantedFields
from failsoft.schemas.formats.registered import SchemaType
from failsoft.schemas.times import time, unreadable
from tests import golden
from tests.protobuf_schemas import descriptors, message, reader, value

N, INT, S, T, BOOL, TENSOR = Want.NUMBER, Want.INTEGER, Want.STRING, Want.TIME, Want.BOOL, Want.TENSOR


def wanted(*fields: tuple[str, Want]) -> WantedFields:
    """The event's id and time, and these features."""
    return WantedFields("id", "at", "features", fields)


def feature(fields: dict[str, Any], path: str, want: Want) -> Any:
    """What is read of an event with these features."""
    decoded = reader(wanted((path, want))).read([value("shop.Event", {"id": "e", "features": fields})])
    assert decoded.bad == {} and list(decoded.kept) == [0]
    (found,) = decoded.rows.feature(path)
    return found


@pytest.mark.parametrize(
    ("fields", "path", "want", "found"),
    [
        ({"amount": 2.5}, "amount", N, 2.5),
        ({}, "amount", N, 0.0),  # no presence: what is not on the wire is the default
        ({"ratio": 0.1}, "ratio", N, float(np.float32(0.1))),
        ({"amount": "-Infinity"}, "amount", N, -math.inf),
        ({"count": str(-(2**63))}, "count", INT, -(2**63)),
        ({"flag": True}, "flag", BOOL, True),
        ({"note": "Zürich"}, "note", S, "Zürich"),
        ({"channel": "SHOP"}, "channel", S, "SHOP"),
        ({"channel": "SHOP"}, "channel", N, 2),
        ({"channels": ["SHOP", "WEB"]}, "channels", TENSOR, [2, 1]),
        ({"income": 0.0}, "income", N, 0.0),
        ({"number": "0"}, "number", INT, 0),
        ({"text": ""}, "text", S, ""),
        ({"wrapped": 0.0}, "wrapped", N, 0.0),
        ({"wrappedBytes": "AAE="}, "wrapped_bytes", TENSOR, b"\0\1"),
        ({"seen": "2026-11-24T10:00:00.123456789Z"}, "seen", S, "2026-11-24T10:00:00.123456789Z"),
        ({"seen": "0001-01-01T00:00:00Z"}, "seen", T, "0001-01-01T00:00:00Z"),
        ({"seen": "1969-12-31T23:59:59.999Z"}, "seen", S, "1969-12-31T23:59:59.999Z"),
        ({"seen": "9999-12-31T23:59:59.000001Z"}, "seen", S, "9999-12-31T23:59:59.000001Z"),
        ({"seen": "2026-11-24T10:00:00.5Z"}, "seen.nanos", INT, 500_000_000),
        ({"waited": "90.5s"}, "waited", N, 90.5),
        ({"waited": "-3s"}, "waited", INT, -3),
        ({"waited": "-0.25s"}, "waited", S, "-0.250s"),
        ({"price": {"value": "B1vNFQ==", "scale": 2}}, "price", N, 1234567.89),
        ({"price": {"value": "B1vNFQ==", "scale": 2}}, "price", S, "1234567.89"),
        ({"price": {"value": "B1vNFQ==", "scale": 2}}, "price", INT, 1234567.89),
        ({"price": {"value": "/w==", "scale": 2}}, "price", S, "-0.01"),
        ({"price": {"value": "ZA==", "scale": 2}}, "price", INT, 1),
        ({"price": {"value": "Bw==", "scale": -3}}, "price", INT, 7000),
        ({"price": {"value": "Bw==", "scale": -3}}, "price", S, "7000"),
        ({"price": {"value": "Bw==", "scale": 2**31 - 1}}, "price", N, 0.0),
        ({"price": {"value": "Bw==", "scale": -(2**31)}}, "price", N, math.inf),
        ({"price": {}}, "price", N, 0.0),
        ({"fee": {"value": "-1.25e1"}}, "fee", N, -12.5),
        ({"fee": {"value": "-1.250"}}, "fee", S, "-1.250"),
        ({"fee": {"value": "5E2"}}, "fee", INT, 500),
        ({"fee": {"value": "-0.5"}}, "fee", S, "-0.5"),
        ({"born": {"year": 1969, "month": 7, "day": 20}}, "born", N, -165),
        ({"born": {"year": 1969, "month": 7, "day": 20}}, "born", S, "1969-07-20"),
        ({"born": {"year": 1969, "month": 7, "day": 20}}, "born", T, "1969-07-20T00:00:00Z"),
        ({"born": {"year": 2026}}, "born", T, "not a date: year 2026, month 0, day 0"),  # no time: counted and said
        ({"opens": {"hours": 9, "minutes": 30, "nanos": 5000}}, "opens", S, "09:30:00.000005"),
        ({"pixels": "AAE="}, "pixels", TENSOR, b"\0\1"),
        ({"vector": [0.5, -1.5]}, "vector", TENSOR, [0.5, -1.5]),
        ({}, "vector", TENSOR, []),
        ({"scores": {"a.b": 1.5}}, "scores.a.b", N, 1.5),
        ({"items": {"7": {"price": 2.5}}}, "items.7.price", N, 2.5),
        ({"items": {"7": {}}}, "items.7.price", N, 0.0),  # not on the wire, as 0 is: no different in a map
        ({"items": {"7": {"deep": {"level": 0}}}}, "items.7.deep.level", INT, 0),
        ({"items": {"7": {"name": "x"}}}, "items.7", S, {}),
        ({"item": {"deep": {"level": -3}}}, "item.deep.level", N, -3),
        ({"item": {"name": "x"}}, "item", S, {"name": "x"}),
        ({"list": [{"name": "x"}]}, "list", S, [{"name": "x"}]),
        ({"extra": {"a": {"b": [1, None, "x", True]}}}, "extra.a.b", TENSOR, [1.0, None, "x", True]),
        ({"extra": {"a": None}}, "extra.a", N, None),
        ({"anyJson": 2.5}, "any_json", N, 2.5),
        ({"anyJson": {"a": 1}}, "any_json.a", N, 1.0),
    ],
)
def test_each_type_gives_what_is_wanted(fields: dict[str, Any], path: str, want: Want, found: Any) -> None:
    """A value is the one that JSON would give, in the form that is wanted."""
    made = feature(fields, path, want)
    assert made == found and type(made) is type(found)


@pytest.mark.parametrize(
    ("fields", "path", "want", "why"),
    [
        ({}, "income", N, "missing"),
        ({"text": "x"}, "number", N, "missing"),
        ({}, "wrapped", N, "missing"),
        ({}, "item.deep.level", N, "missing"),
        ({"item": {}}, "item.deep.level", N, "item has no 'deep'"),
        ({}, "gone", N, "missing: shop.Event.Features has no such field"),
        ({}, "item.gone", N, "item has no 'gone': shop.Event.Item has no such field"),
        ({}, "amount.x", N, "amount is a single value, not an object"),
        ({}, "list.name", S, "list is a list, not an object"),
        ({"scores": {"a": 1}}, "scores.b", N, "missing"),
        ({"scores": {"a": 1}}, "scores.a.x", N, "a is a number, not an object"),
        ({"items": {"7": {}}}, "items.8.price", N, "items has no '8'"),
        ({}, "items.8.price", N, "items has no '8'"),
        ({"items": {"7": {}}}, "items.7.deep.level", N, "items.7 has no 'deep'"),
        ({"items": {"7": {}}}, "items.7.gone", N, "items.7 has no 'gone': shop.Event.Item has no such field"),
        ({"channel": 77}, "channel", S, "77 is no value of the enum shop.Channel"),
        ({"seen": "2026-11-24T10:00:00Z"}, "seen", N, "a Timestamp, not a number: a feature of type string reads it"),
        ({"opens": {"hours": 9}}, "opens", N, "a TimeOfDay, not a number: a feature of type string reads it"),
        ({"price": {"value": "Bw==", "scale": 2**31 - 1}}, "price", S, "a decimal of scale 2147483647, beyond 1300"),
        ({"fee": {"value": "a lot"}}, "fee", N, "not a decimal"),
        ({"fee": {"value": "." * 3}}, "fee", N, "not a decimal"),
        ({"born": {"year": 2026}}, "born", S, "not a date: year 2026, month 0, day 0"),
    ],
)
def test_a_path_to_nothing_says_where_it_ends(fields: dict[str, Any], path: str, want: Want, why: str) -> None:
    """A field that is not set, or that the schema lacks, is an Absent with its reason."""
    assert feature(fields, path, want) == Absent(why)


def test_a_map_of_messages_is_read_as_a_message_is() -> None:
    """What is wanted of a field in a map decides its form, keys may have dots, and neighbours have other keys."""
    text = """syntax = "proto3"; import "confluent/type/decimal.proto"; import "google/protobuf/struct.proto";
    message E { map<string, M> m = 1; map<string, google.protobuf.Struct> s = 2; enum C { A = 0; B = 1; }
    message M { confluent.type.Decimal price = 1; C c = 2; map<bool, M2> more = 3; } message M2 { int64 n = 1; } }"""
    fields = (("m.a.price", N), ("m.a.c", INT), ("m.a.b.more.true.n", INT), ("s.k.x", N))
    events: list[dict[str, Any]] = [
        {"m": {"a": {"price": {"value": "Bw==", "scale": 1}, "c": "B"}}, "s": {"k": {"x": 2}}},
        {"m": {"a.b": {"more": {"true": {"n": "5"}}}}},
        {"m": {"a": {}, "a.b": {}}},
    ]
    rows = reader(WantedFields(fields=fields), text).read([value("E", each, text=text) for each in events]).rows
    assert rows.feature("m.a.price") == [0.7, Absent("m has no 'a'"), Absent("m.a has no 'price'")]
    assert rows.feature("m.a.c") == [1, Absent("m has no 'a'"), 0]
    assert rows.feature("m.a.b.more.true.n")[1] == 5 and rows.feature("s.k.x")[0] == 2.0
    assert isinstance(rows.feature("m.a.b.more.true.n")[2], Absent)


def test_an_event_of_columns() -> None:
    """Id, time and plain numbers of a batch are read by columns, the numbers as one matrix."""
    made = reader(wanted(("amount", N), ("ratio", N), ("count", N), ("income", N)))
    events = [
        {"id": f"e{i}", "at": f"2026-11-24T10:00:0{i}Z", "features": {"amount": i, "count": i, "income": 1}}
        for i in range(3)
    ]
    decoded = made.read([value("shop.Event", each) for each in events])
    rows = decoded.rows
    assert (rows.size, list(decoded.kept), decoded.bad) == (3, [0, 1, 2], {})
    assert rows.column("id") == ["e0", "e1", "e2"]
    assert rows.column("at")[2] == "2026-11-24T10:00:02Z"
    assert set(map(type, rows.column("features"))) == {dict}
    matrix = rows.matrix(["count", "amount", "ratio"])
    assert matrix is not None and matrix.dtype == np.float64
    np.testing.assert_array_equal(matrix, [[0, 0, 0], [1, 1, 0], [2, 2, 0]])
    one = rows.matrix(["income"])
    assert one is not None and one.shape == (3, 1)


def test_a_timestamp_beyond_its_range() -> None:
    """It is no time and no text, and changes none of its neighbours."""
    made = reader(wanted(("seen", S)))
    seconds = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
    seen = b"\x5a" + bytes([len(seconds)]) + seconds
    bad = b"\0\x12" + bytes([len(seconds)]) + seconds + b"\x1a" + bytes([len(seen)]) + seen
    good = value("shop.Event", {"at": "2026-11-24T10:00:00Z", "features": {"seen": "2026-11-24T10:00:00.25Z"}})
    rows = made.read([good, bad, good]).rows
    text = "a Timestamp of 9223372036854775807 s and 0 ns"
    assert rows.column("at") == ["2026-11-24T10:00:00Z", text, "2026-11-24T10:00:00Z"]
    assert unreadable(text) is not None and time(text) is None
    good_text = "2026-11-24T10:00:00.250Z"
    assert rows.feature("seen") == [good_text, Absent(f"{text}, beyond its range"), good_text]


def test_json_that_is_not_finite_is_text_for_people() -> None:
    """A Struct may hold NaN, which JSON has not."""
    made = message("shop.Event")()
    made.features.extra.fields["a"].list_value.values.add().number_value = math.nan
    shown = reader(WantedFields()).value(b"\0" + made.SerializeToString())
    assert shown["features"]["extra"] == {"a": ["NaN"]}


def test_what_is_not_set_is_nan_in_a_matrix() -> None:
    """A cell without a value has a reason, which its column gives. What is no number is in no matrix."""
    names = ("amount", "income", "wrapped", "channel", "price", "item.price", "gone")
    made = reader(wanted(*((name, N) for name in names), ("flag", BOOL), ("note", S), ("huge", INT)))
    events: list[dict[str, Any]] = [
        {"id": "a", "features": {"income": 2, "channel": "SHOP", "price": {"value": "Bw==", "scale": 1}}},
        {"id": "b", "features": {"amount": 2, "wrapped": 3, "item": {"price": 4}}},
        {"id": "c"},
    ]
    rows = made.read([value("shop.Event", each) for each in events]).rows
    matrix = rows.matrix(names)
    nan = math.nan
    expected = [[0, 2, nan, 2, 0.7, nan, nan], [2, nan, 3, 0, nan, 4, nan], [nan] * 7]
    np.testing.assert_array_equal(matrix, expected)
    both = rows.matrix(["income", "amount"])
    np.testing.assert_array_equal(both, [[2, 0], [nan, 2], [nan, nan]])
    assert rows.matrix(["flag"]) is None and rows.matrix(["amount", "note"]) is None
    assert rows.feature("income") == [2.0, Absent("missing"), Absent("missing")]
    assert rows.column("features") == [{}, {}, Absent("missing")]


def test_features_at_the_root_or_in_a_map() -> None:
    """The object with the features may be the event itself, a nested message, a map or a Struct."""
    fields = {"id": "e", "features": {"item": {"price": 2}, "scores": {"a": 3}, "extra": {"b": 4}}}
    raw = value("shop.Event", fields)
    for path, name in (("features.item", "price"), ("features.scores", "a"), ("features.extra", "b"), ("", "id")):
        rows = reader(WantedFields("id", None, path, ((name, N),))).read([raw]).rows
        assert not path or type(rows.column(path)[0]) is dict
        assert rows.feature(name) in ([2.0], [3.0], [4.0], ["e"])


def test_messages_by_their_indexes() -> None:
    """Values of several messages may be in one batch; a message that the schema lacks is bad by itself."""
    made = reader(wanted(("amount", N)))
    event = value("shop.Event", {"id": "a", "features": {"amount": 1}})
    other = value("shop.Other", {"id": "b", "features": {"amount": 2}}, b"\x02\x02")
    long = value("shop.Event", {"id": "c", "features": {"amount": 3}}, b"\x02\x00")
    decoded = made.read([event, other, b"\x02\x06", long, b"", b"\x81", b"\x01", b"\x02\x01", b"\xfe\x7f", other])
    assert list(decoded.kept) == [0, 1, 3, 9]
    assert decoded.rows.size == 4
    assert decoded.rows.column("id") == ["a", "b", "c", "b"]
    assert decoded.rows.feature("amount") == [1.0, 2.0, 3.0, 2.0]
    assert decoded.rows.column("at")[1] == Absent("missing: shop.Other has no such field")
    assert decoded.bad == {
        2: "the schema has no message of index [3]",
        4: "byte 0: cut off in the message indexes",
        5: "byte 0: cut off in the message indexes",
        6: "byte 0: -1 message indexes; there can be 1 to 64",
        7: "byte 1: the message index -1 is negative",
        8: "byte 0: 8191 message indexes; there can be 1 to 64",
    }


BROKEN = [
    (b"\x0a\x05ab", "not a shop.Event: id: a length of 5 where 2 bytes are left at byte 0"),
    (b"\x0a", "not a shop.Event: id: cut off at byte 1"),
    (b"\x0a\xff\xff\xff\xff\x07", "not a shop.Event: id: a length of 2147483647 where 0 bytes are left at byte 0"),
    (b"\x0a" + b"\xff" * 11, "not a shop.Event: id: a number of more than 5 bytes at byte 1"),
    (b"\x0a\x02a\xff", "not a shop.Event: id: invalid UTF-8 at byte 3"),
    (b"\x1a\x04\x2a\x02\xc3\x28", "not a shop.Event: features.note: invalid UTF-8 at byte 4"),
    (b"\x1a\x02\x09\x00", "not a shop.Event: features.amount: cut off at byte 2"),
    (b"\x1a\x05\x9a\x01\x02ab", "not a shop.Event: features.vector: packed numbers of 4 bytes in 2 bytes at byte 5"),
    (b"\x00", "not a shop.Event: a field of number 0 at byte 0"),
    (b"\x0f", "not a shop.Event: id: wire type 7 at byte 0"),
    (b"\x0c", "not a shop.Event: the end of a group 1 that did not begin at byte 0"),
    (b"\x0b", "not a shop.Event: id: the group 1 does not end at byte 1"),
]


@pytest.mark.parametrize(("raw", "why"), BROKEN)
def test_a_broken_value_says_where(raw: bytes, why: str) -> None:
    """The reason has the field's path and the offset in the message. Neighbours are read."""
    made = reader(wanted(("amount", N)))
    good = value("shop.Event", {"id": "a"})
    decoded = made.read([good, b"\0" + raw, good])
    assert decoded.bad == {1: why}
    assert list(decoded.kept) == [0, 2] and decoded.rows.column("id") == ["a", "a"]
    with pytest.raises(Undecodable, match=r"not a shop\.Event"):
        made.value(b"\0" + raw)


def test_every_cut_of_a_value() -> None:
    """A value that is cut off is bad, or is a shorter message; it never raises."""
    (loan,) = golden.events(SchemaType.PROTOBUF, "loan.proto", "value")[:1]
    schema = golden.schema("loan.proto")
    made = compile_protobuf(schema, descriptors(schema.text, *schema.references), WantedFields("event_id"))
    cuts = [loan.payload[:end] for end in range(len(loan.payload))]
    decoded = made.read([*cuts, loan.payload])
    assert set(decoded.kept).isdisjoint(decoded.bad) and len(decoded.kept) + len(decoded.bad) == len(cuts) + 1
    assert all("at byte" in why or "cut off" in why for why in decoded.bad.values())
    assert decoded.rows.column("event_id")[-1] == "loan-1"
    assert len(decoded.bad) > len(cuts) * 0.9


def test_unknown_fields_and_groups_are_ignored() -> None:
    """A newer schema's fields are none of ours, nor fields whose wire type is another."""
    made = reader(wanted(("amount", N)))
    raw = value("shop.Event", {"id": "a"}) + b"\xa2\x06\x03abc" + b"\xa3\x06\x08\x01\xa4\x06" + b"\x08\x07"
    decoded = made.read([raw])
    assert decoded.bad == {} and decoded.rows.column("id") == ["a"]


@pytest.mark.parametrize("event", golden.events(SchemaType.PROTOBUF), ids=lambda each: f"{each.event} {each.framing}")
def test_confluents_own_bytes(event: golden.Golden) -> None:
    """What Confluent's serializer wrote is read, in both framings, also groups and required fields of proto2."""
    schema = golden.schema(event.file)
    names = ("a", "b") if "loans.Loan" not in str(event.message) else ("amount", "rate", "scores.bureau", "home.city")
    want = WantedFields("event_id", "occurred_at", "features", tuple((name, N) for name in names))
    made = compile_protobuf(schema, descriptors(schema.text, *schema.references), want)
    decoded = made.read([event.payload])
    assert decoded.bad == {} and decoded.rows.column("event_id") == [event.event]
    assert type(decoded.rows.column("features")[0]) is dict
    shown = made.value(event.payload)
    assert shown["event_id"] == event.event
    json.dumps(shown, allow_nan=False)
    found = [decoded.rows.feature(name)[0] for name in names]
    expected = {
        "loan-1": [12500.5, 4.125, 0.75, "Bern"],
        "payment-1": [1.5, 2.5],
        "payment-2": [-3.0, 7.5 if event.file == "legacy.proto" else 0.0],
        "payment-3": [4.5, Absent("missing: shop.payments.Payment.Features has no such field")],
    }
    if event.event == "payment-2" and event.file == "legacy.proto":
        assert found == [-3.0, Absent("missing")]  # proto2: not set is not set, whatever its default
    elif event.event in expected:
        assert found == expected[event.event]


def test_a_value_for_people() -> None:
    """All fields are shown, by their names in the schema, as JSON that any parser reads."""
    fields = {
        "id": "e",
        "at": "2026-11-24T10:00:00Z",
        "features": {
            "amount": "NaN",
            "extra": {"a": [1]},
            "pixels": "AAE=",
            "channel": "WEB",
            "items": {"7": {"name": "x"}},
            "text": "t",
        },
    }
    shown = reader(WantedFields()).value(value("shop.Event", fields))
    json.dumps(shown, allow_nan=False)
    assert (shown["id"], shown["at"]) == ("e", "2026-11-24T10:00:00Z")
    features = shown["features"]
    assert (features["amount"], features["pixels"], features["channel"]) == ("NaN", "AAE=", "WEB")
    assert features["items"] == {"7": {"name": "x", "price": 0.0}}
    assert (features["text"], features["count"], features["vector"]) == ("t", 0, [])
    assert {"income", "number", "wrapped", "item"}.isdisjoint(features)
