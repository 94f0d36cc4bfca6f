"""The Avro reader with schemas of every shape, held against the slow reader of the fuzz target."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from failsoft.schemas.formats.avro_schema import parse_avro
from failsoft.schemas.formats.registered import Registered, SchemaType, Unusable
from tests.fuzz.avro import SPLIT, avro
from tests.unit.schemas.formats.test_avro import zigzag

_Made = tuple[Any, st.SearchStrategy[bytes]]


def _sized(content: bytes) -> bytes:
    return zigzag(len(content)) + content


TEXT = st.text(st.characters(codec="utf-8"), max_size=5).map(lambda text: _sized(text.encode()))
PRIMITIVES: dict[str, st.SearchStrategy[bytes]] = {
    "null": st.just(b""),
    "boolean": st.sampled_from([b"\0", b"\1"]),
    "int": (st.integers(-(2**31), 2**31 - 1) | st.integers(-70, 70)).map(zigzag),
    "long": (st.integers(-(2**63), 2**63 - 1) | st.integers(-70, 70)).map(zigzag),
    "float": st.binary(min_size=4, max_size=4),
    "double": st.binary(min_size=8, max_size=8),
    "bytes": st.binary(max_size=9).map(_sized),
    "string": TEXT,
}
NESTED = ("record", "union", "array", "map")


@st.composite
def types(draw: st.DrawFn, names: Iterator[int], depth: int) -> _Made:
    """A type, and its values in bytes."""
    kind = draw(st.sampled_from([*PRIMITIVES, "double", "enum", "fixed", *(NESTED * 2 if depth else ())]))
    if kind in PRIMITIVES:
        return kind, PRIMITIVES[kind]
    if kind == "enum":
        symbols = [f"S{i}" for i in range(draw(st.integers(1, 3)))]
        values = st.integers(0, len(symbols) - 1).map(zigzag)
        return {"type": "enum", "name": f"N{next(names)}", "symbols": symbols}, values
    if kind == "fixed":
        size = draw(st.integers(1, 4) | st.just(600))
        return {"type": "fixed", "name": f"N{next(names)}", "size": size}, st.binary(min_size=size, max_size=size)
    if kind == "record":
        return draw(records(names, depth - 1))
    if kind == "union":
        branches = [draw(records(names, depth - 1)), draw(types(names, 0).filter(lambda made: made[0] != "null"))]
        branches.insert(draw(st.integers(0, 2)), ("null", PRIMITIVES["null"]))
        branches = draw(st.sampled_from([branches, [branch for branch in branches if type(branch[0]) is not dict]]))
        choices = [values.map(zigzag(i).__add__) for i, (_, values) in enumerate(branches)]
        return [part for part, _ in branches], st.one_of(choices)
    part, values = draw(types(names, depth - 1).filter(lambda made: made[0] != "null"))
    if kind == "array":
        return {"type": "array", "items": part}, _blocks(values)
    return {"type": "map", "values": part}, _blocks(st.tuples(TEXT, values).map(b"".join))


def _blocks(items: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Items in blocks, of which some say their size."""

    def block(chosen: tuple[list[bytes], bool]) -> bytes:
        found, said = chosen
        content = b"".join(found)
        return zigzag(-len(found)) + zigzag(len(content)) + content if said else zigzag(len(found)) + content

    several = st.tuples(st.lists(items, min_size=1, max_size=3), st.booleans()).map(block)
    return st.lists(several, max_size=2).map(lambda blocks: b"".join([*blocks, b"\0"]))


@st.composite
def records(draw: st.DrawFn, names: Iterator[int], depth: int) -> _Made:
    """A record of some fields."""
    fields = draw(st.lists(types(names, max(depth, 0)), min_size=1, max_size=5))
    made = [{"name": f"f{i}", "type": part} for i, (part, _) in enumerate(fields)]
    values = st.tuples(*(values for _, values in fields)).map(b"".join)
    return {"type": "record", "name": f"N{next(names)}", "fields": made}, values


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_written_is_read(data: st.DataObject) -> None:
    """Values of any schema, whole, cut and too long, keep the rule of the fuzz target; whole ones are not refused."""
    schema, values = data.draw(records(count(), 3))
    whole = data.draw(st.lists(values, min_size=1, max_size=6))
    cut = whole[0][: data.draw(st.integers(0, len(whole[0])))]
    assume(not any(SPLIT in value for value in whole))
    text = json.dumps(schema)
    try:
        parse_avro(Registered(1, SchemaType.AVRO, text))
    except Unusable as e:
        assert "too few bytes" in str(e), "an array of records of nulls is what may be refused"
        return
    for parts in (whole, [*whole, cut, whole[-1] + b"\x02"]):
        assert avro(SPLIT.join([text.encode(), *parts]))
