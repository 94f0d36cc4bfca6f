"""Protobuf schemas: proto2, editions, indexes, bounds, and schemas that cannot be used."""

from __future__ import annotations

import numpy as np
import pytest

from failsoft.schemas.features.paths import Absent
from failsoft.schemas.formats.protobuf import MOST_MEMORY, compile_protobuf
from failsoft.schemas.formats.protobuf_wire import MOST_FIELDS
from failsoft.schemas.formats.reader import Undecodable, Want, WantedFields
from failsoft.schemas.formats.registered import Unusable
from tests.protobuf_schemas import EVENT, descriptors, message, reader, registered

N, S = Want.NUMBER, Want.STRING


def test_map_entries_are_not_counted_among_messages() -> None:
    """Java's serializer does not count a map's entry type among nested messages. Python's does; both are read."""
    text = 'syntax = "proto3"; message A { map<string, int32> m = 1; message B { string id = 1; } }'
    made = reader(WantedFields("id"), text)
    assert [made.value(indexes + b"\n\1x") for indexes in (b"\4\0\0", b"\4\0\2")] == [{"id": "x"}] * 2


def test_strings_of_proto2_are_checked_too() -> None:
    """protobuf does not check them: a wanted one that is not UTF-8 makes its event malformed."""
    text = 'syntax = "proto2"; message E { optional string id = 1; optional F features = 2; optional string x = 3; }'
    text += " message F { optional string s = 1; required int32 r = 2; }"
    made = reader(WantedFields("id", None, "features", (("s", S), ("r", N))), text)
    bad_feature, bad_id = b"\0\x0a\1a\x12\3\x0a\1\xff", b"\0\x0a\1\xff"
    decoded = made.read([b"\0\x0a\1a\x12\3\x0a\1b", bad_feature, bad_id, b"\0\x0a\5", b"\0\x0a\1c\x1a\1\xff"])
    assert list(decoded.kept) == [0, 4] and decoded.rows.column("id") == ["a", "c"]
    assert decoded.bad[1] == "not a E: features.s: invalid UTF-8 at byte 7"
    assert decoded.bad[2] == "not a E: id: invalid UTF-8 at byte 2"
    assert decoded.bad[3].startswith("not a E: id: ")
    assert decoded.rows.feature("r") == [Absent("missing"), Absent("missing")]


def test_editions_are_read() -> None:
    """A schema of an edition has presence unless it says otherwise."""
    text = 'edition = "2023"; message E { string id = 1; double a = 2; '
    text += "double b = 3 [features.field_presence = IMPLICIT]; }"
    rows = reader(WantedFields("id", None, "", (("a", N), ("b", N))), text).read([b"\0\x0a\1x"]).rows
    assert (rows.column("id"), rows.feature("a"), rows.feature("b")) == (["x"], [Absent("missing")], [0.0])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('syntax = "proto3"; message Node { Node next = 1; }', "the schema is recursive: Node contains itself"),
        (
            'syntax = "proto3"; message A { B b = 1; } message B { map<string, A> a = 1; }',
            "the schema is recursive: A contains itself",
        ),
        ('syntax = "proto3"; enum E { X = 0; }', "the schema has no message"),
        (
            'syntax = "proto3"; '
            + " ".join(f"message M{i} {{ M{i + 1} m = 1; }}" for i in range(64))
            + "message M64 { M65 m = 1; } message M65 { }",
            None,
        ),
    ],
)
def test_a_schema_that_cannot_be_used_says_why(text: str, why: str | None) -> None:
    """A schema without a message to read is refused; one bad message among good ones is bad by itself."""
    if why is not None:
        with pytest.raises(Unusable) as raised:
            compile_protobuf(registered(text), descriptors(text), WantedFields())
        assert str(raised.value) == why
        return
    made = reader(WantedFields(), text)
    assert made.read([b"\0"]).bad == {0: "messages are nested deeper than 64 levels"}
    assert made.read([b"\2\4"]).bad == {}


def test_descriptors_that_are_none() -> None:
    """Whatever the bytes are, they are refused in words."""
    raw = descriptors(EVENT)
    for bad in (b"", b"\xff", raw[:-7], raw[100:], b"\0" * 20_000_000):
        with pytest.raises(Unusable):
            compile_protobuf(registered(EVENT), bad, WantedFields())


def test_ten_thousand_fields() -> None:
    """A schema of 10,000 fields is compiled, and few bytes that make many of its messages are refused."""
    fields = " ".join(f"double f{i} = {i + 1};" for i in range(10_000))
    text = f'syntax = "proto3"; message E {{ string id = 1; repeated W w = 2; W one = 3; }} message W {{ {fields} }}'
    made = reader(WantedFields("id", None, "one", (("f9999", N),)), text)
    good = b"\0\x0a\1a\x1a\x0b" + b"\x81\xf1\x04" + np.float64(2.5).tobytes()
    bomb = b"\0" + b"\x12\0" * 100_000
    many = b"\0\x0a\1b\x1a\0" + b"\x12\0" * 200
    decoded = made.read([good, bomb, *[many] * 20, good])
    assert decoded.bad == {1: f"its messages would take more than {MOST_MEMORY // 10**6} MB of memory"}
    assert decoded.rows.column("id") == ["a", *"b" * 20, "a"]
    assert decoded.rows.feature("f9999") == [2.5, *[0.0] * 20, 2.5]
    np.testing.assert_array_equal(decoded.rows.matrix(["f9999"]), [[2.5], *[[0]] * 20, [2.5]])
    with pytest.raises(Undecodable, match="memory"):
        made.value(bomb)


def test_a_large_value_of_a_schema_with_large_messages_is_read() -> None:
    """What its messages take is counted by the messages, and not by its packed numbers or its many small fields."""
    wide = " ".join(f"double f{i} = {i + 1};" for i in range(200))
    text = 'syntax = "proto3"; message E { repeated int32 v = 1; repeated W w = 2; repeated P p = 3; }'
    text += f" message W {{ {wide} }} message P {{ double x = 1; double y = 2; }}"
    made = reader(WantedFields(fields=(("v", Want.TENSOR),)), text)
    pixels, points = message("E", text)(v=range(150_000)), message("E", text)()
    for _ in range(45_000):
        points.p.add(x=1, y=2)
    assert min(pixels.ByteSize(), points.ByteSize()) > MOST_MEMORY / 1600
    decoded = made.read([b"\0" + each.SerializeToString() for each in (pixels, points)])
    assert decoded.bad == {} and decoded.rows.feature("v") == [list(range(150_000)), []]


def test_places_are_found_for_a_bounded_number_of_fields() -> None:
    """Of a batch of bad values with very many fields the first ones have a place, and the last ones are as bad."""
    text = 'syntax = "proto3"; message E { string id = 1; int32 n = 2; }'
    decoded = reader(WantedFields("id"), text).read([b"\0" + b"\x10\1" * (MOST_FIELDS // 4) + b"\x80"] * 6)
    assert len(decoded.bad) == 6
    assert ["at byte" in decoded.bad[row] for row in range(6)] == [True] * 3 + [False] * 3


def test_another_message_of_a_known_name_is_a_plain_message() -> None:
    """A Timestamp is one only if it has a Timestamp's fields."""
    text = 'syntax = "proto3"; package confluent.type; message E { string id = 1; Decimal d = 2; } '
    text += "message Decimal { string value = 1; }"
    made = reader(WantedFields("id", None, "", (("d", N),)), text)
    assert made.read([b"\0\x0a\1a\x12\3\x0a\1x"]).rows.feature("d") == [{"value": "x"}]
    assert message("confluent.type.Decimal", text) is not None


def test_long_names_do_not_fill_messages() -> None:
    """A message is made for each bad row of a batch. The end of its path is enough to find the place."""
    name = "a" * 10_000
    text = f'syntax = "proto3"; message {name} {{ B {name} = 1; enum {name}_E {{ A = 0; }} {name}_E e = 2; }}'
    text += f" message B {{ string {name} = 1; }}"
    made = reader(WantedFields(fields=(("e", S), ("x", N))), text)
    decoded = made.read([b"\0\x0a\3\x0a\1\xff", b"\0\x10\5"])
    assert decoded.bad[0].endswith("aa: invalid UTF-8 at byte 4") and len(decoded.bad[0]) < 500
    assert all(len(decoded.rows.feature(path)[0].why) < 500 for path in ("e", "x"))
