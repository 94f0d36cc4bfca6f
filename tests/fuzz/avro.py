"""The target for Avro: any schema and any values, held against a slow reader of single values."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from typing import Any

from failsoft.schemas.features.paths import Absent, find
from failsoft.schemas.formats.avro import AvroReader, compile_avro
from failsoft.schemas.formats.avro_schema import AvroType, parse_avro
from failsoft.schemas.formats.reader import Undecodable, Want, WantedFields
from failsoft.schemas.formats.registered import Registered, SchemaType, Unusable
from tests import golden
from tests.fuzz.target import Target

SPLIT = b"\x1e\n"
MOST_PATHS = 40


def avro(data: bytes) -> bool:
    """A schema is unusable, or each value is read as the slow reader reads it, or is bad with a place in it.

    A value is read the same alone and among others. The array of numbers has what the columns have.
    """
    text, *values = data.split(SPLIT)[:20]
    text = SCHEMAS.get(text, text)
    registered = Registered(1, SchemaType.AVRO, text.decode("utf-8", "surrogateescape"))
    try:
        root = parse_avro(registered)
        paths = list(dict.fromkeys(_paths(root)))[:MOST_PATHS]
        reader = compile_avro(registered, WantedFields(None, None, "", tuple((path, Want.TENSOR) for path in paths)))
        numbers = compile_avro(registered, WantedFields(None, None, "", tuple((path, Want.NUMBER) for path in paths)))
    except Unusable as e:
        assert 0 < len(str(e)) < 400 and "\n" not in str(e)
        return False
    assert isinstance(reader, AvroReader)
    batch = reader.read(values)
    assert sorted([*batch.kept, *batch.bad]) == list(range(len(values))) and batch.rows.size == len(batch.kept)
    for i, value in enumerate(values):
        alone = reader.read([value])
        assert (0 in alone.bad) == (i in batch.bad)
        if i in batch.bad:
            assert alone.bad[0] == batch.bad[i] and batch.bad[i].startswith("at byte ") and len(batch.bad[i]) < 400
            assert _slow(root, value) is None
            _refused(reader, value)
            continue
        row, right = list(batch.kept).index(i), _slow(root, value)
        assert right is not None or _has(root, ("array", "map")), "only within collections may something odd be read"
        for path in paths:
            found = batch.rows.feature(path)[row]
            assert repr(found) == repr(alone.rows.feature(path)[0])
            if right is not None:
                _same(found, find(right[0], path))
        json.dumps(reader.value(value))
    table = numbers.read(values).rows
    for path in paths:
        matrix = table.matrix([path])
        if matrix is not None:
            made = [value if type(value) in (int, float) else math.nan for value in table.feature(path)]
            assert repr(matrix[:, 0].tolist()) == repr(list(map(float, made)))
    return bool(batch.kept)


def _refused(reader: AvroReader, value: bytes) -> None:
    try:
        reader.value(value)
    except Undecodable:
        return
    raise AssertionError("a bad value is none for people either")


def _same(found: Any, right: Any) -> None:
    if isinstance(right, dict) and found == {}:
        return  # a record, whose fields have paths of their own
    assert repr(found) == repr(right) or (isinstance(found, Absent) and isinstance(right, Absent))


def _paths(kind: AvroType, path: str = "") -> list[str]:
    """The paths of all fields, and one beyond each."""
    made = [f"{path}.beyond"] if path else []
    made += [f"{path}.{name}" if path else name for name, _ in kind.fields]
    for name, part in kind.fields:
        made += _paths(part, f"{path}.{name}" if path else name) if len(made) < MOST_PATHS else []
    for part in kind.parts if kind.kind == "union" else ():
        made += _paths(part, path)
    return made


def _has(kind: AvroType, kinds: tuple[str, ...], seen: set[int] | None = None) -> bool:
    seen = set() if seen is None else seen
    if id(kind) in seen:
        return False
    seen.add(id(kind))
    return kind.kind in kinds or any(_has(part, kinds, seen) for part in (*kind.parts, *dict(kind.fields).values()))


# --- the slow reader ---


def _slow(root: AvroType, data: bytes) -> tuple[Any] | None:
    """The value, or None if the bytes are anything else than one value that the specification allows."""
    try:
        value, at = _read(root, data, 0)
    except ValueError:
        return None
    return (value,) if at == len(data) and isinstance(value, dict) else None


def _take(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    if size < 0 or at + size > len(data):
        raise ValueError("cut off")
    return data[at : at + size], at + size


def _long(data: bytes, at: int, bits: int = 64) -> tuple[int, int]:
    number = shift = 0
    while True:
        (byte,), at = _take(data, at, 1)
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128 or shift >= 70:
            break
    if byte >= 128 or number >= 2**bits:
        raise ValueError("too long")
    return (number >> 1) ^ -(number & 1), at


def _sized(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = _long(data, at)
    return _take(data, at, size)


def _items(data: bytes, at: int, item: Callable[[int], int]) -> int:
    while True:
        count, at = _long(data, at)
        if count < 0:
            count, (_, at) = -count, _long(data, at)
        for _ in range(count):
            at = item(at)
        if not count:
            return at


def _read(kind: AvroType, data: bytes, at: int) -> tuple[Any, int]:
    match kind.kind:
        case "null":
            return None, at
        case "boolean":
            (byte,), at = _take(data, at, 1)
            return {0: False, 1: True}[byte] if byte < 2 else _fail(), at
        case "int" | "long":
            return _long(data, at, 32 if kind.kind == "int" else 64)
        case "float" | "double":
            raw, at = _take(data, at, 4 if kind.kind == "float" else 8)
            return struct.unpack("<f" if kind.kind == "float" else "<d", raw)[0], at
        case "bytes":
            return _sized(data, at)
        case "string":
            raw, at = _sized(data, at)
            return raw.decode(), at
        case "fixed":
            return _take(data, at, kind.width or 0)
        case "enum" | "union":
            index, at = _long(data, at)
            choices: tuple[Any, ...] = kind.symbols or kind.parts
            chosen = choices[index] if 0 <= index < len(choices) else _fail()
            return (chosen, at) if kind.symbols else _read(chosen, data, at)
        case "record":
            made = {}
            for name, part in kind.fields:
                made[name], at = _read(part, data, at)
            return made, at
    if kind.kind == "array":
        items: list[Any] = []

        def one(at: int) -> int:
            value, at = _read(kind.parts[0], data, at)
            items.append(value)
            return at

        return items, _items(data, at, one)
    pairs: dict[str, Any] = {}

    def pair(at: int) -> int:
        key, at = _sized(data, at)
        pairs[key.decode()], at = _read(kind.parts[0], data, at)
        return at

    return pairs, _items(data, at, pair)


def _fail() -> Any:
    raise ValueError("not there")


# --- seeds ---


def _golden(file: str) -> bytes:
    text = golden.schema(file).text
    if file == "loan.avsc":  # a reference, within the schema that refers to it
        place = golden.schema(file).references[0].text
        text = text.replace('"shop.common.Place"}', f"{place}}}", 1)
    return SPLIT.join([text.encode(), *(each.payload for each in golden.events(file=file, framing="value"))])


_UNION = b"""[{"type": "record", "name": "A", "fields": [
 {"name": "x", "type": ["null", "double", {"type": "record", "name": "B", "fields": [{"name": "y", "type": "int"}]}]},
 {"name": "l", "type": {"type": "array", "items": ["null", "B", {"type": "enum", "name": "N", "symbols": ["U", "V"]}]}},
 {"name": "n", "type": "N"}, {"name": "f", "type": {"type": "fixed", "name": "F", "size": 2}},
 {"name": "t", "type": "boolean"}, {"name": "u", "type": "boolean"}, {"name": "d", "type": "float"}]}, "B"]"""

_GOLDEN = [_golden(file) for file in ("loan.avsc", "payment.avsc", "payment-2.avsc")]
SCHEMAS = {b"loan": _GOLDEN[0].split(SPLIT)[0], b"payment": _GOLDEN[2].split(SPLIT)[0], b"union": _UNION}
"""Schemas that an input may have by name, so that only its values are mutated."""

_VALUES = (
    [b"\0\4\6\x06\0\2\4\4\2\0\2ab\1\0\0\0\x80?", b"\0\0\0\0ab\0\1\0\0\0\0", b"\2\x10"],
    [b"\2\xff\xff\xff\xff\x0f", b"\0\2" + b"\x80" * 8 + b"\0\2ab\1\1\1\1\1\1"],
)

TARGETS = (
    Target(
        "avro",
        avro,
        (
            *_GOLDEN,
            *(SPLIT.join([_UNION, *values]) for values in _VALUES),
            *(SPLIT.join([b"union", *values]) for values in _VALUES),
            *(SPLIT.join([name, *whole.split(SPLIT)[1:]]) for name, whole in zip(SCHEMAS, _GOLDEN[::2], strict=False)),
        ),
        (
            SPLIT,
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x80\x80\x80\x80\x80\x40",
            b'"null"',
            b'"double"',
            b'"string"',
            b'{"type": "array", "items": "float"}',
            b'["null", "long"]',
            b'{"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 4}',
            b'{"type": "long", "logicalType": "timestamp-micros"}',
            b"\xc3",
        ),
    ),
)
