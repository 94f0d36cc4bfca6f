"""Events that schemas are needed for: decoded a schema at a time, and each bad one alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from failsoft.schemas.decoding import best_id, decode
from failsoft.schemas.event import MAX_ID, Envelope, Events, Readers, iso, origin_of
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns, columns_in
from failsoft.schemas.features.spec import DType, FeatureType, Spec, TensorSpec
from failsoft.schemas.features.table import FeatureTable
from failsoft.schemas.formats.avro import compile_avro
from failsoft.schemas.formats.framing import HEADER
from failsoft.schemas.formats.reader import SchemaReader, Want, WantedFields
from failsoft.schemas.formats.registered import SchemaType
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.schemas.record import Origin
from failsoft.schemas.unwrapping import schema_refs
from tests import golden
from tests.kit import INPUT, NOW_MS, Rec, objects
from tests.schema_readers import FakeReader, encoded

ENVELOPE = Envelope(id="id", time="at", format=WireFormat.AVRO, max_bytes=2000)
AT = "2018-10-30T18:00:00Z"
ORIGIN_AT = iso(NOW_MS - 1000)
DOWN = Failure(Kind.DEPENDENCY, "schema id 9: the registry does not answer")
X = Spec("x", FeatureType.FLOAT)


def _value(n: int, **changes: Any) -> dict[str, Any]:
    return {"id": f"e{n}", "at": AT, "features": {"x": float(n)}} | changes


def _events(n: int = 4, id: int = 7) -> list[Rec]:
    return [Rec(offset=i, value=encoded(id, _value(i))) for i in range(n)]


def _decode(records: list[Rec], readers: Readers | None = None, envelope: Envelope = ENVELOPE) -> Events:
    return decode(records, {}, envelope, {7: FakeReader(), 9: DOWN} if readers is None else readers)


def _columns(events: Events, rows: list[int], *specs: Spec) -> Columns:
    assert isinstance(events.features, FeatureTable)
    return columns_in(events.features, rows, specs or (X,))


def test_the_events_of_a_schema_are_read_at_once() -> None:
    """One call of the reader gives the ids, the times and a matrix of the features."""
    reader = FakeReader()
    batch = _decode(_events(), {7: reader})
    assert reader.batches == [4] and batch.failures == {} and batch.untimed == {}
    assert batch.ids == ["e0", "e1", "e2", "e3"] and batch.times == [AT] * 4
    made = _columns(batch, [0, 1, 2, 3])
    assert made.matrix is not None and made.matrix.tolist() == [[0.0], [1.0], [2.0], [3.0]]
    assert _columns(batch, [3, 1]).matrix.tolist() == [[3.0], [1.0]]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("record", "kind", "why"),
    [
        (Rec(value=b"\0\0\0\0\7rubbish"), Kind.MALFORMED, "schema id 7: at byte 7: cut off"),
        (Rec(value=b"\0\0\0\0\7"), Kind.MALFORMED, "schema id 7: at byte 0: cut off"),
        (Rec(value=b"\0\0\0"), Kind.MALFORMED, "the value has only the bytes 00 00 00, not with Confluent's framing"),
        (Rec(value=b'{"id": "e"}'), Kind.MALFORMED, "JSON, which [input] format"),
        (Rec(value=None), Kind.MALFORMED, "the value is null (a tombstone)"),
        (Rec(value=bytes(2001)), Kind.MALFORMED, "2001 bytes, over the limit of 2000"),
        (Rec(value=encoded(9, _value(1))), DOWN.kind, DOWN.message),
        (Rec(value=encoded(8, _value(1))), Kind.MALFORMED, "schema id 8, but there is no [schema_registry] url"),
        (Rec(value=b"", headers=[(HEADER, b"\3")]), Kind.MALFORMED, f"the header {HEADER} has only the bytes 03"),
        (
            Rec(value=encoded(7, _value(1, id=True))),
            Kind.MALFORMED,
            "id is true; an id is a string or a 64-bit integer",
        ),
        (Rec(value=encoded(7, _value(1, id="x" * (MAX_ID + 1)))), Kind.MALFORMED, "the id has 1025 characters"),
        (
            Rec(value=encoded(7, _value(1, features=None))),
            Kind.MALFORMED,
            "features is null; it must hold the features",
        ),
        (Rec(value=encoded(7, {"id": "e"})), Kind.MALFORMED, "features is missing; it must hold the features"),
    ],
)
def test_a_bad_event_is_alone(record: Rec, kind: Kind, why: str) -> None:
    """Its failure says what is wrong, and its neighbours are what they are without it."""
    events = _events(3)
    plain, mixed = _decode(events), _decode([events[0], record, *events[1:]])
    assert list(mixed.failures) == [1] and mixed.failures[1].kind is kind and why in mixed.failures[1].message
    good = [0, 2, 3]
    assert ([mixed.ids[i] for i in good], [mixed.times[i] for i in good]) == (plain.ids, plain.times)
    assert _columns(mixed, good).matrix.tolist() == _columns(plain, [0, 1, 2]).matrix.tolist()  # type: ignore[union-attr]
    assert mixed.ids[1] and mixed.times[1]


def test_an_event_that_nothing_can_be_read_of_has_its_origins_id() -> None:
    """The id is that of the record that first carried it, and a CloudEvent's header where there is one."""
    retry = Rec("loans.retry.5s", offset=9, value=encoded(9, _value(1)), headers=[("failsoft-attempt", b"0")])
    named = Rec(value=encoded(9, _value(1)), headers=[("ce_id", b"c1")])
    batch = decode([retry, named], {0: Origin(INPUT, 0, 5, NOW_MS)}, ENVELOPE, {9: DOWN})
    assert batch.ids == [f"{INPUT}-0-5", "c1"] and batch.times == [iso(NOW_MS), ORIGIN_AT]
    assert list(batch.failures.values()) == [DOWN] * 2


def test_events_of_several_schemas_keep_their_order() -> None:
    """Each schema's rows are read at once, and columns have the rows in the order that is asked for."""
    readers: dict[int | str, FakeReader] = {7: FakeReader(), 8: FakeReader(matrices=False)}
    records = [Rec(value=encoded(7 + n % 2, _value(n, features={"x": n, "word": f"w{n}"}))) for n in range(5)]
    batch = _decode(records, readers)
    assert [each.batches for each in readers.values()] == [[3], [2]]
    assert batch.ids == [f"e{n}" for n in range(5)]
    made = _columns(batch, [4, 3, 0], X, Spec("word", FeatureType.STRING))
    assert made.values["x"].tolist() == [4.0, 3.0, 0.0] and made.values["word"].tolist() == ["w4", "w3", "w0"]
    assert _columns(batch, []).size == 0
    with pytest.raises(KeyError):
        _columns(_decode([*records, Rec(value=b"")], readers), [0, 5])


@pytest.mark.parametrize(
    ("changes", "id", "time", "untimed"),
    [
        ({"id": 12}, "12", AT, False),
        ({"id": None}, f"{INPUT}-0-0", AT, False),
        ({"id": ""}, f"{INPUT}-0-0", AT, False),
        ({"at": None}, "e1", ORIGIN_AT, False),
        ({"at": "yesterday"}, "e1", ORIGIN_AT, True),
        ({"at": 1540922400}, "e1", "2018-10-30T18:00:00Z", False),
    ],
)
def test_ids_and_times_are_those_of_json(changes: dict[str, Any], id: str, time: str, untimed: bool) -> None:
    """The same values give the same id and time in each format."""
    value = _value(1) | changes
    json = decode([Rec(value=encoded(7, value)[6:])], {}, Envelope(id="id", time="at"))
    batch = _decode([Rec(value=encoded(7, value))])
    assert (batch.ids, batch.times, batch.untimed) == ([id], [time], json.untimed) and (0 in batch.untimed) is untimed
    assert (json.ids, json.times) == (batch.ids, batch.times)


def test_without_configured_fields_the_record_says_both() -> None:
    """With no field for the id or the time, the origin and the record's timestamp stand for them."""
    batch = _decode(_events(2), envelope=Envelope(format=WireFormat.AVRO))
    assert batch.ids == [f"{INPUT}-0-0", f"{INPUT}-0-1"] and batch.times == [ORIGIN_AT] * 2 and batch.untimed == {}


SPECS = (
    X,
    Spec("least", FeatureType.FLOAT, field="deep.least", minimum=0.0),
    Spec("n", FeatureType.INT),
    Spec("word", FeatureType.STRING, categories=frozenset({"a", "b"})),
    Spec("yes", FeatureType.BOOL, coerce=True),
    Spec("two", FeatureType.TENSOR, tensor=TensorSpec(DType.FLOAT32, (2,))),
    Spec("some", FeatureType.TENSOR, tensor=TensorSpec(DType.INT8, (-1,), max_length=3)),
)
GOOD = {"x": 0.5, "deep": {"least": 1.5}, "n": 3, "word": "a", "yes": True, "two": [1, 2], "some": [1]}


@pytest.mark.parametrize("matrices", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"x": None},
        {"x": "1"},
        {"x": 1e39},
        {"x": 10**400},
        {"deep": {"least": -1}},
        {"deep": {}},
        {"deep": 1},
        {"n": 1.5, "word": "c", "yes": "maybe"},
        {"n": 2**63, "word": 3, "yes": 0},
        {"two": [1], "some": [1, 2, 3, 4]},
        {"two": [1, None], "some": None},
    ],
)
def test_columns_and_reasons_are_those_of_json(changes: dict[str, Any], matrices: bool) -> None:
    """Columns of decoded rows have the values, the unusable cells and the reasons of the same JSON."""
    features: list[Mapping[str, Any]] = [GOOD, GOOD | changes, {}, GOOD]
    records = [Rec(value=encoded(7, {"features": each})) for each in features]
    batch = _decode(records, {7: FakeReader(matrices=matrices)})
    for specs in (SPECS, SPECS[:2]):
        for rows in ([0, 1, 2, 3], [2, 1], [0]):
            _same(_columns(batch, rows, *specs), columns([features[row] for row in rows], specs))


def _same(one: Columns, other: Columns) -> None:
    assert (one.specs, one.size, one.why) == (other.specs, other.size, other.why)
    for name, column in other.values.items():
        assert one.values[name].dtype == column.dtype
        assert repr(one.values[name].tolist()) == repr(column.tolist())
    for mine, others in ((one.unusable, other.unusable), (one.wide, other.wide)):
        assert {name: mask.tolist() for name, mask in mine.items()} == {n: mask.tolist() for n, mask in others.items()}
    assert (one.matrix is None) == (other.matrix is None)


@pytest.mark.parametrize(
    ("two", "some", "why"),
    [
        ("hex:0000803f00000040", "hex:0102", {}),
        (
            "hex:0000803f",
            "hex:01020304",
            {"two": "4 bytes (1 elements), not of 8 bytes", "some": "4 bytes (4 elements)"},
        ),
        ("hex:0000c07f00000040", "hex:", {"two": "NaN at [0], not finite"}),
        ("hex:", "hex:ff", {"two": "0 bytes (0 elements), not of 8 bytes (2 elements): it takes a float32 tensor"}),
    ],
)
def test_bytes_are_a_tensors(two: str, some: str, why: dict[str, str]) -> None:
    """Bytes of a tensor are those that base64 has in JSON, and are refused with the same words."""
    specs = [
        *SPECS[5:],
        Spec("x", FeatureType.STRING),
        Spec("words", FeatureType.TENSOR, tensor=TensorSpec(DType.STRING, (1,))),
    ]
    records = [Rec(value=encoded(7, {"features": {"two": two, "some": some, "x": "hex:00", "words": "hex:00"}}))]
    made = _columns(_decode(records), [0], *specs)
    assert made.why.pop((0, "x")) == "bytes, not a string" and "bytes, not a string tensor" in made.why.pop(
        (0, "words")
    )
    assert {name for _, name in made.why} == set(why)
    assert all(words in made.why[0, name] for name, words in why.items())
    if not why:
        assert made.values["two"].tolist() == [[1.0, 2.0]] and made.values["some"][0].tolist() == [1, 2]
        assert made.values["two"].dtype == np.float32


def test_the_best_id_needs_the_schema() -> None:
    """A dead letter's id is read by its schema, and without a reader it is the origin's."""
    record = Rec(offset=3, value=encoded(7, _value(1)))
    assert best_id(record, origin_of(record), ENVELOPE, {7: FakeReader()}) == "e1"
    assert best_id(record, origin_of(record), ENVELOPE) == f"{INPUT}-0-3"


def test_json_needs_no_schema() -> None:
    """Plain JSON, framed JSON and a pipeline without records name no schema."""
    assert schema_refs([Rec(value=b"{}"), Rec(value=encoded(7, {}))], Envelope()) == set()
    assert schema_refs([], ENVELOPE) == set() and decode([], {}, ENVELOPE).ids == []
    assert objects(decode([], {}, Envelope(id="id", time="at"))) == []


FIELDS = WantedFields(
    "event_id", "occurred_at", "features", (("a", Want.NUMBER), ("b", Want.NUMBER), ("c", Want.INTEGER))
)


@pytest.mark.parametrize("framing", ["value", "header"])
def test_what_confluents_serializers_wrote(framing: str) -> None:
    """Two versions of a schema in one batch: a field that one lacks is a missing feature. The framed JSON of the same
    events gives the same ids, times and numbers.
    """
    readers: dict[int | str, SchemaReader | Failure] = {}
    for registered, guid in golden.schemas():
        if registered.type is SchemaType.AVRO:
            readers[registered.ref] = readers[guid] = compile_avro(registered, FIELDS)
    found = [e for e in golden.events(SchemaType.AVRO, framing=framing) if "payment" in e.file]
    records = [Rec(value=each.value, headers=each.headers) for each in found]
    envelope = Envelope("event_id", "occurred_at", format=WireFormat.AVRO)
    assert schema_refs(records, envelope) <= set(readers)
    batch = decode(records, {}, envelope, readers)
    assert batch.ids == [each.event for each in found] == ["payment-1", "payment-2", "payment-3"]
    assert batch.times == [f"2026-11-24T10:00:0{n}Z" for n in (1, 2, 3)] and batch.failures == {}
    made = _columns(
        batch, [0, 1, 2], Spec("a", FeatureType.FLOAT), Spec("b", FeatureType.FLOAT), Spec("c", FeatureType.INT)
    )
    assert made.values["a"].tolist() == [1.5, -3.0, 4.5] and made.values["b"].tolist() == [2.5, 0.0, 0.0]
    assert {i: why for (i, name), why in made.why.items() if name == "b"} == {2: "missing"}
    assert made.values["c"].tolist() == [0, 0, 7] and {i for i, name in made.why if name == "c"} == {0, 1}
    plain = [Rec(value=e.value, headers=e.headers) for e in golden.events(SchemaType.JSON, framing=framing)]
    json = decode(plain, {}, Envelope("event_id", "occurred_at"))
    assert (json.ids[:2], json.times[:2], json.failures) == (batch.ids[:2], batch.times[:2], {})
    assert columns(objects(json)[:2], [Spec("a", FeatureType.FLOAT)]).values["a"].tolist() == [1.5, -3.0]
