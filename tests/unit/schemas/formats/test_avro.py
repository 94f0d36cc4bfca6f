"""The Avro reader: what Confluent's serializer wrote, each type as each want, and values that do not fit the schema."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from fastavro import schemaless_writer

from failsoft.schemas.features.paths import MISSING, Absent
from failsoft.schemas.features.reading import columns_of
from failsoft.schemas.features.spec import DType, FeatureType, Spec, TensorSpec
from failsoft.schemas.formats.avro import compile_avro
from failsoft.schemas.formats.reader import Decoded, SchemaReader, Undecodable, Want, WantedFields
from failsoft.schemas.formats.registered import Registered, SchemaType
from failsoft.schemas.times import time
from tests import golden

LOAN = golden.schema("loan.avsc")
LOANS = [each.payload for each in golden.events(file="loan.avsc", framing="value")]
NUMBER, STRING, TIME, TENSOR = Want.NUMBER, Want.STRING, Want.TIME, Want.TENSOR


def reader(fields: Any, *wanted: tuple[str, Want], id: str | None = None, features: str = "") -> SchemaReader:
    """A reader of a record with these fields."""
    text = json.dumps({"type": "record", "name": "E", "fields": fields})
    return compile_avro(Registered(1, SchemaType.AVRO, text), WantedFields(id, None, features, wanted))


def field(name: str, type: Any) -> dict[str, Any]:
    return {"name": name, "type": type}


def written(fields: Any, *events: dict[str, Any]) -> list[bytes]:
    """The events as fastavro writes them."""
    made = []
    for event in events:
        stream = BytesIO()
        schemaless_writer(stream, {"type": "record", "name": "E", "fields": fields}, event)
        made.append(stream.getvalue())
    return made


def zigzag(number: int) -> bytes:
    """A long as Avro has it."""
    rest, made = (number << 1) ^ (number >> 63), b""
    while rest > 127:
        made, rest = made + bytes([rest & 127 | 128]), rest >> 7
    return made + bytes([rest])


def one(type: Any, value: bytes, want: Want = NUMBER) -> Any:
    """What a record with the only field ``x`` gives for it, or why it is bad."""
    found = reader([field("x", type)], ("x", want)).read([value])
    return found.bad[0] if found.bad else found.rows.feature("x")[0]


def loans(*wanted: tuple[str, Want]) -> Decoded:
    return compile_avro(LOAN, WantedFields("event_id", "occurred_at", "features", wanted)).read(LOANS)


GOLDEN: tuple[tuple[str, Want, Sequence[Any]], ...] = (
    ("amount", NUMBER, (12500.5, -0.0)),
    ("ratio", NUMBER, (0.25, math.inf)),
    ("rate", NUMBER, (4.125, math.nan)),
    ("count", Want.INTEGER, (3, -(2**31))),
    ("total", NUMBER, (2**53 + 1, -(2**63))),
    ("flag", Want.BOOL, (True, False)),
    ("note", STRING, ("Zürich – 借款", "")),
    ("channel", STRING, ("BRANCH", "WEB")),
    ("channel", NUMBER, ("BRANCH", "WEB")),
    ("income", NUMBER, (4200.0, None)),
    ("mixed", NUMBER, ("text", None)),
    ("price", NUMBER, (1234567.89, -0.01)),
    ("price", STRING, ("1234567.89", "-0.01")),
    ("price", Want.ID, ("1234567.89", "-0.01")),
    ("price", TENSOR, (b"\x07[\xcd\x15", b"\xff")),
    ("fee", STRING, ("-12.3456", "0.0000")),
    ("fee", Want.INTEGER, (-12.3456, 0)),
    ("born", NUMBER, (-165, 0)),
    ("born", STRING, ("1969-07-20", "1970-01-01")),
    ("born", TIME, ("1969-07-20T00:00:00Z", "1970-01-01T00:00:00Z")),
    ("opens", Want.INTEGER, (34_200_125, 0)),
    ("opens", STRING, ("09:30:00.125", "00:00:00.000")),
    ("closes", STRING, ("17:45:30.123456", "00:00:00.000000")),
    ("seen_ms", TIME, ("2026-11-24T10:00:00.123Z", "0001-01-01T00:00:00.000Z")),
    ("seen_us", STRING, ("2026-11-24T10:00:00.123456Z", "9999-12-31T23:59:59.999999Z")),
    ("seen_us", NUMBER, (1_795_514_400_123_456, 253_402_300_799_999_999)),
    ("seen_ns", TIME, ("2026-11-24T10:00:00.123456789Z", "1969-12-31T23:59:59.999999999Z")),
    ("local", TIME, ("2026-11-24T11:00:00.123456", "1970-01-01T00:00:00.000000")),
    ("token", STRING, ("0f8fad5b-d9cb-469f-a165-70867728950e", "00000000-0000-0000-0000-000000000000")),
    ("digest", TENSOR, (b"\xde\xad\xbe\xef", bytes(4))),
    ("pixels", TENSOR, (np.array([0, 0.25, 0.5, 1], "<f4").tobytes(), b"")),
    ("embedding", TENSOR, ([0.5, -1.5, 2.0], [])),
    ("grid", TENSOR, ([[1.0, 2.0], [3.0, 4.0]], [])),
    ("tags", TENSOR, (["new", "online"], [])),
    ("scores.bureau", NUMBER, (0.75, Absent("scores has no 'bureau'"))),
    ("scores", NUMBER, ({"bureau": 0.75, "internal": 0.5}, {})),
    ("home.city", STRING, ("Bern", "")),
    ("work.city", STRING, ("Thun", Absent("work is null, not an object"))),
    ("work", STRING, ({}, None)),
    ("home.country", STRING, (Absent("home has no 'country'"),) * 2),
    ("tags.first", STRING, (Absent("tags is a list, not an object"),) * 2),
    ("note.x.y", STRING, (Absent("note is a string, not an object"),) * 2),
    ("nothing", NUMBER, (MISSING, MISSING)),
    ("nothing.at.all", NUMBER, (Absent("there is no 'nothing'"),) * 2),
)


@pytest.mark.parametrize(("path", "want", "expected"), GOLDEN, ids=lambda each: str(each)[:20])
def test_what_confluents_serializer_wrote(path: str, want: Want, expected: Sequence[Any]) -> None:
    """Each type gives what is wanted of it, for two events with ordinary and with extreme values."""
    found = loans((path, want))
    assert repr(tuple(found.rows.feature(path))) == repr(tuple(expected))  # repr: NaN is not equal to itself
    assert (list(found.kept), found.bad, found.rows.size) == ([0, 1], {}, 2)


def test_an_events_own_fields_and_all_features_at_once() -> None:
    """Id, time and the object with the features are columns; many wanted features do not disturb each other."""
    wanted = {path: (want, expected) for path, want, expected in GOLDEN}
    found = loans(*((path, want) for path, (want, _) in wanted.items())).rows
    assert found.column("event_id") == ["loan-1", "loan-2"]
    assert found.column("occurred_at") == ["2026-11-24T10:00:00.123Z", "1969-12-31T23:59:59.999Z"]
    assert found.column("features") == [{}, {}]
    for path, (_, expected) in wanted.items():
        assert repr(tuple(found.feature(path))) == repr(tuple(expected))


def test_numbers_are_one_array() -> None:
    """NaN stands where there is no number; one feature of another type, and there is no array."""
    paths = ["rate", "total", "income", "price", "work.latitude", "nothing", "amount"]
    found = loans(*((path, NUMBER) for path in [*paths, "note"])).rows
    expected = [[4.125, 2.0**53, 4200.0, 1234567.89, 46.758, math.nan, 12500.5]]
    expected += [[math.nan, -(2.0**63), math.nan, -0.01, math.nan, math.nan, -0.0]]
    made = found.matrix(paths)
    assert made is not None and made.flags.writeable and repr(made.tolist()) == repr(expected)
    made[:] = 0.0
    again = found.matrix(paths)
    assert again is not None and again[0, 0] == 4.125
    assert found.matrix(["rate", "note"]) is None


def test_a_whole_event_for_people() -> None:
    """JSON values: bytes as base64, decimals and times as text."""
    found = compile_avro(LOAN, WantedFields()).value(LOANS[0])
    assert json.loads(json.dumps(found)) == found
    assert (found["event_id"], found["occurred_at"]) == ("loan-1", "2026-11-24T10:00:00.123Z")
    features = found["features"]
    assert (features["digest"], features["price"], features["mixed"]) == ("3q2+7w==", "1234567.89", "text")
    assert features["scores"] == {"bureau": 0.75, "internal": 0.5} and features["work"]["city"] == "Thun"


# --- values that do not fit the schema -------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [(), tuple((path, want) for path, want, _ in GOLDEN)], ids=["nothing", "all"])
def test_a_value_cut_anywhere_is_bad_and_its_neighbours_are_not(wanted: Any) -> None:
    """Every cut, and every byte too many, also of fields that nobody wants. The reason names a place in the value."""
    whole = compile_avro(LOAN, WantedFields("event_id", None, "features", tuple(dict(wanted).items())))
    for loan in LOANS:
        odd = [*(loan[:end] for end in range(len(loan))), loan + b"\0", loan + LOANS[0]]
        found = whole.read([value for each in odd for value in (LOANS[0], each, LOANS[1])])
        assert found.rows.column("event_id") == ["loan-1", "loan-2"] * len(odd)
        assert list(found.kept) == [i for i in range(3 * len(odd)) if i % 3 != 1]
        for i, each in enumerate(odd):
            why = found.bad[3 * i + 1]
            assert why.startswith("at byte ") and len(why) < 120
            assert i % 9 or whole.read([each]).bad == {0: why}, "the same alone"
        assert whole.read(odd).bad == {i: found.bad[3 * i + 1] for i in range(len(odd))}, "a batch of nothing else"
    with pytest.raises(Undecodable, match="at byte"):
        whole.value(LOANS[0][:-1])
    assert whole.read([LOANS[0] + b"\0\0"]).bad[0].endswith("2 bytes more than the schema has")


STRINGS = {"type": "array", "items": "string"}
FLOATS = {"type": "array", "items": "float"}
LONGS = {"type": "map", "values": "long"}
ENUM = {"type": "enum", "name": "N", "symbols": ["A", "B"]}

BAD: tuple[tuple[str, Any, bytes, str], ...] = (
    (
        "length of 2^40",
        "string",
        zigzag(2**40) + b"abc",
        "at byte 0: x has a length of 1099511627776, with 3 bytes left",
    ),
    ("length of -1", "bytes", zigzag(-1), "at byte 0: x has a length of -1, with 0 bytes left"),
    (
        "least length",
        "string",
        zigzag(-(2**63)),
        "at byte 0: x has a length of -9223372036854775808, with 0 bytes left",
    ),
    ("2^40 strings", STRINGS, zigzag(2**40) + b"\2a", "at byte 8: x is cut off"),
    ("-2^40 strings", STRINGS, zigzag(-(2**40)) + zigzag(2), "at byte 7: x is cut off"),
    ("2^40 floats", FLOATS, zigzag(2**40) + bytes(8), "at byte 14: x is cut off"),
    ("2^62 floats", FLOATS, zigzag(2**62) + bytes(8), "at byte 18: x is cut off"),
    ("-2^63 longs", LONGS, zigzag(-(2**63)), "at byte 10: x is cut off"),
    ("no UTF-8", "string", b"\6a\xc3(", "at byte 0: x is not UTF-8: invalid continuation byte in its byte 1"),
    ("no UTF-8 in an array", STRINGS, b"\2\4\xc3(\0", "at byte 4: x has a value that does not fit: 'utf-8' codec"),
    ("no such symbol", ENUM, zigzag(2), "at byte 0: x: there is no symbol 2"),
    ("no symbol before the first", ENUM, zigzag(-1), "at byte 0: x: there is no symbol -1"),
    ("no such symbol in an array", {"type": "array", "items": ENUM}, b"\2\1\0", "there is no symbol -1"),
    ("-1 bytes in an array", STRINGS, b"\2\1abc", "at byte 5: x is cut off: expected -1 bytes, read 3"),
    (
        "no such branch in an array",
        {"type": "array", "items": ["null", "long"]},
        b"\2\4",
        "a type that is not in its union",
    ),
    ("no such branch", ["null", "long"], zigzag(2), "at byte 0: x: there is no type 2 in its union"),
    ("no branch before the first", ["null", "long"], zigzag(-1) + b"\2", "x: there is no type -1 in its union"),
    ("neither true nor false", "boolean", b"\2", "at byte 0: x is neither true nor false"),
    ("no int", "int", zigzag(2**31), "at byte 0: x: 2147483648 is no int of 32 bits"),
    ("over 64 bits", "long", b"\xff" * 9 + b"\2", "at byte 0: x: a number of over 64 bits"),
    ("longer than ten bytes", "long", b"\xff" * 12 + b"\1", "at byte 0: x: a number of over 64 bits"),
    ("cut number", "long", b"\xff" * 5, "at byte 0: x is cut off"),
)


@pytest.mark.parametrize(("type", "value", "why"), [each[1:] for each in BAD], ids=[each[0] for each in BAD])
@pytest.mark.parametrize("wanted", ["wanted", "not wanted"])
def test_bytes_that_do_not_fit(type: Any, value: bytes, why: str, wanted: str) -> None:
    """Lengths and counts of any size, in bounded time and memory; the reason says where, what and why."""
    if wanted == "wanted":
        assert why in one(type, value)
    elif "symbol -1" not in why or type is ENUM:  # the enums of an array that nobody wants are not looked at
        assert why in reader([field("x", type)]).read([value]).bad[0]


def test_a_name_of_nested_fields_is_in_the_reason() -> None:
    """The path leads through records and unions."""
    inner = {"type": "record", "name": "I", "fields": [field("y", "long"), field("z", ["null", "double"])]}
    made = reader([field("a", ["null", inner])], ("a.z", NUMBER))
    values = [b"\0", b"\2\2\0", b"\2\2\2" + bytes(7), b"\2"]
    found = made.read(values)
    assert found.rows.feature("a.z") == [Absent("a is null, not an object"), None]
    assert found.bad == {2: "at byte 3: a.z is cut off", 3: "at byte 1: a.y is cut off"}


def test_no_values_and_only_bad_ones() -> None:
    """Nothing is left, and that is no error."""
    made = reader([field("x", "long")], ("x", NUMBER))
    for values in ([], [b"", b"\xff"]):
        found = made.read(values)
        assert (found.rows.size, list(found.kept), sorted(found.bad)) == (0, [], list(range(len(values))))
        matrix = found.rows.matrix(["x"])
        assert list(found.rows.feature("x")) == [] and matrix is not None and matrix.shape == (0, 1)


# --- every shape of a value ------------------------------------------------------------------------------------------


def test_numbers_of_every_length() -> None:
    """From one byte to ten, alone and together in a batch."""
    numbers = [sign * (1 << bit) + step for bit in range(63) for sign in (1, -1) for step in (-1, 0, 1)]
    numbers += [2**63 - 1, -(2**63)]
    made = reader([field("x", "long")], ("x", NUMBER))
    values = [zigzag(number) for number in numbers]
    assert made.read(values).rows.feature("x") == numbers
    assert [made.read([value]).rows.feature("x")[0] for value in values] == numbers


def test_unions_of_many_types() -> None:
    """Each row has its own branch; types that are stored alike are told apart."""
    record = {"type": "record", "name": "R", "fields": [field("y", "double")]}
    other = {"type": "record", "name": "S", "fields": [field("y", "string"), field("z", "null")]}
    moment, day = {"type": "long", "logicalType": "timestamp-millis"}, {"type": "int", "logicalType": "date"}
    fields = [field("x", ["null", record, day, other, moment, "string"])]
    rows = [b"\2" + np.float64(1.5).tobytes(), b"\4\2", b"\6\2a", b"\x08\2", b"\x0a\2b", b"\0"]
    found = reader(fields, ("x", TIME), ("x.y", STRING), ("x.z", STRING)).read(rows).rows
    assert found.feature("x") == [{}, "1970-01-02T00:00:00Z", {}, "1970-01-01T00:00:00.001Z", "b", None]
    nothing = [Absent(f"x is {what}, not an object") for what in ("a number", "a number", "a string", "null")]
    assert found.feature("x.y") == [1.5, nothing[0], "a", *nothing[1:]]
    assert found.feature("x.z") == [Absent("x has no 'z'"), nothing[0], None, *nothing[1:]]
    within = reader([field("l", {"type": "array", "items": ["null", day, moment, "string"]})], ("l", STRING))
    assert within.read([b"\x08\0\2\2\4\2\6\2c\0"]).rows.feature("l") == [
        [None, "1970-01-02", "1970-01-01T00:00:00.001Z", "c"]
    ]


def test_an_event_of_several_types() -> None:
    """A topic of several records, whose schema is a union; a branch that is no record is no event."""
    a = {"type": "record", "name": "A", "fields": [field("id", "string"), field("x", "double")]}
    b = {"type": "record", "name": "B", "fields": [field("x", "long"), field("id", "string")]}
    made = compile_avro(
        Registered(1, SchemaType.AVRO, json.dumps([a, b, "string"])), WantedFields("id", None, "", (("x", NUMBER),))
    )
    found = made.read([b"\0\2a" + np.float64(1.5).tobytes(), b"\2\4\2b", b"\4\2c"])
    assert found.rows.column("id") == ["a", "b"] and found.rows.feature("x") == [1.5, 2]
    assert found.bad == {2: "at byte 1: the event is a string, not an object"}
    matrix = found.rows.matrix(["x"])
    assert matrix is not None and matrix.tolist() == [[1.5], [2.0]]


def test_arrays_of_floats_in_every_form() -> None:
    """Of one length, of several, in several blocks, with the sizes of blocks, and empty."""
    made = reader([field("x", FLOATS)], ("x", TENSOR))
    two = np.array([1.5, -2], "<f4").tobytes()
    forms = {b"\4" + two + b"\0": [1.5, -2.0], b"\0": [], b"\2" + two[:4] + b"\2" + two[4:] + b"\0": [1.5, -2.0]}
    forms |= {b"\3\x10" + two + b"\0": [1.5, -2.0], b"\2" + two[4:] + b"\0": [-2.0]}
    for values in ([*forms], [next(iter(forms))] * 3, *([each] for each in forms)):
        assert made.read(values).rows.feature("x") == [forms[value] for value in values]


def test_a_map_that_holds_the_features() -> None:
    """Features are found in it by name; names with dots are found first."""
    fields = [field("f", {"type": "map", "values": ["null", "double", "string"]})]
    values = written(fields, {"f": {"a.b": 1.5, "c": "x"}}, {"f": {"c": None}})
    made = reader(fields, ("a.b", NUMBER), ("c", STRING), features="f").read(values).rows
    assert made.feature("a.b") == [1.5, Absent("there is no 'a'")] and made.feature("c") == ["x", None]
    assert made.column("f") == [{"a.b": 1.5, "c": "x"}, {"c": None}]


def test_times_that_no_calendar_has() -> None:
    """They stay text that is no time, so that it is said; a time of day beyond 24 hours is no value."""
    moment = {"type": "long", "logicalType": "timestamp-millis"}
    for number in (2**62, 300_000_000_000_000, -(2**63), -(2**62)):
        text = one(moment, zigzag(number), TIME)
        assert isinstance(text, str) and time(text) is None
    day = {"type": "int", "logicalType": "time-millis"}
    assert one(day, zigzag(86_400_000), STRING) == Absent("86400000 is no time of day")


def test_decimals_are_rounded_correctly() -> None:
    """As Python rounds; also where digits or scale are beyond a double's. Too many digits are no value."""

    def decimal(precision: int, scale: int) -> dict[str, Any]:
        return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}

    def value(unscaled: int) -> bytes:
        raw = unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True)
        return zigzag(len(raw)) + raw

    assert one(decimal(30, 20), value(12345678901234567890123)) == 123.45678901234567890123
    assert one(decimal(400, 0), value(10**399)) == math.inf
    assert one(decimal(400, 0), value(-(10**399))) == -math.inf
    assert one(decimal(400, 400), value(-(10**30))) == -1e-370
    assert one(decimal(3, 3), value(-7), STRING) == "-0.007" and one(decimal(3, 0), value(7), STRING) == "7"
    assert one(decimal(3, 1), value(990), Want.INTEGER) == 99
    assert one(decimal(3, 1), value(1000)) == Absent("a decimal of over 3 digits")
    assert one(decimal(3, 1), zigzag(0)) == 0.0


@pytest.mark.filterwarnings("error")
def test_any_bits_of_a_float_are_a_number() -> None:
    """Also those of a signalling NaN, of which numpy warns where a type changes."""
    fields = [field("x", "float"), field("v", {"type": "array", "items": "double"})]
    rows = reader(fields, ("x", NUMBER), ("v", TENSOR)).read([b"\1\0\x80\x7f\2\1\0\0\0\0\0\xf0\x7f\0"]).rows
    found = rows.matrix(["x"])
    assert found is not None and math.isnan(found[0, 0])
    tensor = Spec("v", FeatureType.TENSOR, tensor=TensorSpec(DType.FLOAT32, (1,)))
    assert columns_of(rows, (Spec("x", FeatureType.FLOAT), tensor)).why == {
        (0, "x"): "not finite",
        (0, "v"): "NaN at [0], not finite: it takes a float32 tensor of shape [1]",
    }
