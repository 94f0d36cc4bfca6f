"""Schemas in Avro: what is unusable, what does not matter to reading, and how named types are found."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from failsoft.schemas.formats.avro import compile_avro
from failsoft.schemas.formats.reader import SchemaReader, Want, WantedFields
from failsoft.schemas.formats.registered import Reference, Registered, SchemaType, Unusable
from tests.unit.schemas.formats.test_avro import field, reader

STRING, TENSOR, NUMBER = Want.STRING, Want.TENSOR, Want.NUMBER


def compiled(schema: Any, *references: Any) -> SchemaReader:
    others = tuple(Reference(f"r{i}", json.dumps(each)) for i, each in enumerate(references))
    return compile_avro(Registered(1, SchemaType.AVRO, json.dumps(schema), others), WantedFields())


def record(name: str, *fields: Any, **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def nested(depth: int) -> Any:
    kind: Any = "long"
    for i in range(depth):
        kind = record(f"R{i}", field("x", kind))
    return kind


def exponential() -> Any:
    kind = record("R0", field("a", "null"))
    for i in range(1, 30):
        kind = record(f"R{i}", field("a", kind), field("b", f"R{i - 1}"))
    return kind


EMPTY = record("Z")
UNUSABLE: tuple[tuple[Any, str], ...] = (
    (record("E", field("next", ["null", "E"])), "the schema is recursive: E contains itself"),
    (record("a.E", field("m", {"type": "map", "values": "E"})), "the schema is recursive: a.E contains itself"),
    (record("E", field("x", "Other")), "the type 'Other' is neither defined nor among the references"),
    (nested(64), "nested deeper than 64 levels"),
    (exponential(), "over 50000 fields"),
    (record("E", field("x", {"type": "array", "items": "null"})), "any number of the items of an array"),
    (record("E", field("x", {"type": "array", "items": EMPTY})), "any number of the items"),
    (record("E", field("x", {"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}})), "any number"),
    (
        record("E", field("x", {"type": "array", "items": record("W", *(field(f"n{i}", "null") for i in range(9)))})),
        "any",
    ),
    (record("E", field("x", "long"), field("x", "long")), "two fields 'x'"),
    (record("E", field("x.y", "long")), "'x.y' is not the name of a field: at most"),
    (record("E", field("x" * 201, "long")), "is not the name of a field"),
    (record("a..E"), "'a..E' is not the name of a record"),
    (record("E", field("x", record("E", field("y", "long")))), "the type E is defined twice"),
    (record("E", {"name": "x"}), "the field E.x has no 'type'"),
    (record("E", field("x", {"type": "enum", "name": "N", "symbols": []})), "no list of symbols"),
    (record("E", field("x", {"type": "fixed", "name": "N", "size": -1})), "the fixed N has no size"),
    (record("E", field("x", [])), "a union is empty"),
    (record("E", field("x", 7)), "a type is a number, not a name, a list or an object"),
    ({"type": "record", "name": "E"}, "the record E has no list of fields"),
    ({"type": "record", "fields": []}, "a record has no name"),
    ("string", "the schema is of string values: an event is a record"),
)


@pytest.mark.parametrize(("schema", "why"), UNUSABLE, ids=[why[:30] for _, why in UNUSABLE])
def test_a_schema_that_cannot_be_used(schema: Any, why: str) -> None:
    """It is refused in one line that says why."""
    with pytest.raises(Unusable) as refused:
        compiled(schema)
    assert why in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '"' + "x" * 1_000_000, "\ud800", "null", "7", "{}"])
def test_text_that_is_no_schema(text: str) -> None:
    """It is refused, also when it is deep, long, or no JSON."""
    with pytest.raises(Unusable):
        compile_avro(Registered(1, SchemaType.AVRO, text), WantedFields())


def test_what_does_not_matter_to_reading() -> None:
    """Defaults of a wrong type, aliases, documentation, unknown logical types and properties, and errors as records."""
    fields = [
        {"name": "x", "type": "double", "default": "no number", "aliases": 7, "doc": {}, "order": []},
        field("y", {"type": "long", "logicalType": "of-my-own"}),
        field("z", {"type": "bytes", "logicalType": "decimal", "precision": -1, "scale": 9}),
        field("s", {"type": "string", "avro.java.string": "String"}),
        field("t", {"type": {"type": "int", "logicalType": "timestamp-millis"}}),
    ]
    made = reader(fields, *((name, STRING) for name in "xyzst")).read([bytes(8) + b"\4\2a\2b\6"]).rows
    assert [made.feature(name)[0] for name in "xyzst"] == [0.0, 2, b"a", "b", 3]
    assert compiled({**record("E"), "type": "error"}).read([b""]).rows.size == 1


def test_named_types_are_found_by_the_rules_of_namespaces() -> None:
    """A name without dots is looked for in the namespace around it; references may refer to earlier ones."""
    first = {"type": "enum", "name": "N", "namespace": "a.b", "symbols": ["A", "B"]}
    second = record("a.R", field("n", "a.b.N"), field("m", {"type": "fixed", "name": "F", "size": 1}))
    event = record("E", field("r", "R"), field("f", "F"), field("n", "a.b.N"), namespace="a")
    others = (Reference("one", json.dumps(first)), Reference("two", json.dumps(second)))
    wanted = WantedFields(None, None, "", (("r.n", STRING), ("n", STRING), ("f", TENSOR)))
    found = compile_avro(Registered(1, SchemaType.AVRO, json.dumps(event), others), wanted).read([b"\2xy\0"]).rows
    assert [found.feature(path)[0] for path in ("r.n", "n", "f")] == ["B", "A", b"y"]


def test_ten_thousand_fields() -> None:
    """They are read in order, with one wanted among them."""
    fields = [field(f"f{i}", ["null", "double"]) for i in range(10_000)]
    made = reader(fields, ("f9999", NUMBER))
    value = b"\0" * 9_999 + b"\2" + np.float64(2.5).tobytes()
    assert made.read([value] * 3).rows.feature("f9999") == [2.5] * 3
    assert made.read([value[:-1]]).bad == {0: "at byte 10000: f9999 is cut off"}


def test_a_wide_fixed_takes_no_memory_of_a_short_value() -> None:
    """A schema may say that two gigabytes follow: nothing is kept for them until they are there."""
    made = reader([field("x", {"type": "fixed", "name": "F", "size": 2**31 - 1})], ("x", TENSOR))
    assert made.read([b"abc"] * 500).bad[499] == "at byte 0: x is cut off"


def test_wide_fixed_fields_that_stand_together() -> None:
    """Together they are wider than numpy's largest type."""
    wide = [{"type": "fixed", "name": f"F{i}", "size": size} for i, size in enumerate((2**31 - 1, 2**30, 2**30))]
    fields = [field("a", "double"), *(field(f"f{i}", each) for i, each in enumerate(wide)), field("b", "boolean")]
    made = reader(fields, ("a", NUMBER), ("f0", TENSOR), ("f1", TENSOR), ("f2", TENSOR), ("b", NUMBER))
    assert made.read([bytes(30)]).bad == {0: "at byte 0: f0 is cut off"}
