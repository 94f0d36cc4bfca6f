"""Parses Avro schemas: named types resolved, logical types checked, and what could not be read in bounds refused."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from failsoft.schemas.features.words import kind as kind_of
from failsoft.schemas.features.words import quote
from failsoft.schemas.formats.registered import MAX_DEPTH, MAX_SCHEMA, Registered, Unusable

MAX_FIELDS = 50_000
"""Types in a schema, each named type counted wherever it is used: the steps of reading one value."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}", re.ASCII)
_FULL_NAME = re.compile(rf"(?=.{{1,400}}$){_NAME.pattern}(?:\.{_NAME.pattern})*", re.ASCII)
_RULE = "at most 200 letters, digits and underscores, no digit first"
"""Of names, by the specification. The lengths bound what messages say."""

_PER_BYTE = 8
"""Values that an item of an array or map may have for each of its bytes. Of values that take no bytes (null, a record
without fields), five bytes of a count could make 2^40."""

MAX_PRECISION = 1000
"""Digits of a decimal. Its text and its arithmetic stay bounded."""

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
_WIDTHS = {"boolean": 1, "float": 4, "double": 8}


@dataclass(frozen=True, slots=True, eq=False)
class Logical:
    """A logical type: its name, and of a decimal its digits and how many of them are behind the point."""

    name: str
    precision: int = 0
    scale: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class AvroType:
    """A type of an Avro schema. A named type is one object wherever it is used.

    Attributes:
        kind: a primitive's name, or record, enum, fixed, array, map or union.
        name: the full name of a record, enum or fixed.
        fields: names and types of a record's fields.
        symbols: of an enum.
        parts: the branches of a union; the items of an array or the values of a map, as the only one.
        width: bytes of every value, where that is fixed and the type is neither record nor null; else None.
        logical: its logical type, if it is a valid one.
        depth: levels of types in it, itself included.
        total: types in it, a named type counted wherever it is used.
        free: values of it that its bytes do not pay for, at most, at ``_PER_BYTE`` values a byte. Negative: none.
    """

    kind: str
    name: str = ""
    fields: tuple[tuple[str, AvroType], ...] = ()
    symbols: tuple[str, ...] = ()
    parts: tuple[AvroType, ...] = ()
    width: int | None = None
    logical: Logical | None = None
    depth: int = 1
    total: int = 1
    free: int = 1


def parse_avro(registered: Registered) -> AvroType:
    """The schema of events. Raises Unusable."""
    texts = [registered.text, *(each.text for each in registered.references)]
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    if size > MAX_SCHEMA:
        raise Unusable(f"the schema has {size} bytes with its references, over the limit of {MAX_SCHEMA}")
    parser = _Parser()
    for reference in registered.references:
        parser.parse(_json(reference.text, f"the reference {quote(reference.name)}"), "", 1)
    root = parser.parse(_json(registered.text, "the schema"), "", 1)
    branches = root.parts if root.kind == "union" else (root,)
    if not any(branch.kind in ("record", "map") for branch in branches):
        raise Unusable(f"the schema is of {root.kind} values: an event is a record")
    return root


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        if not text.strip().startswith(("{", "[", '"')) and text.strip() in PRIMITIVES:
            return text.strip()  # registries accept a primitive's bare name
        raise Unusable(f"{what} is not JSON: {e}") from None


class _Parser:
    """Parses schemas that share their named types, which are kept by full name."""

    def __init__(self) -> None:
        self._named: dict[str, AvroType] = {}
        self._open: list[str] = []

    def parse(self, given: Any, space: str, level: int) -> AvroType:
        """``space``: the namespace around it."""
        if level > MAX_DEPTH:
            raise Unusable(f"types are nested deeper than {MAX_DEPTH} levels")
        if isinstance(given, str):
            return _primitive(given, None) if given in PRIMITIVES else self._resolved(given, space)
        if isinstance(given, list):
            return self._union(given, space, level)
        if not isinstance(given, dict):
            raise Unusable(f"a type is {kind_of(given)}, not a name, a list or an object")
        kind = given.get("type")
        if isinstance(kind, (dict, list)):
            return self.parse(kind, space, level + 1)
        if kind in PRIMITIVES:
            return _primitive(kind, _logical(given, kind, None))
        if kind in ("record", "error"):
            return self._record(given, space, level)
        if kind == "enum":
            return self._enum(given, space)
        if kind == "fixed":
            return self._fixed(given, space)
        if kind == "array":
            return _collection("array", self.parse(_member(given, "items", "an array"), space, level + 1))
        if kind == "map":
            return _collection("map", self.parse(_member(given, "values", "a map"), space, level + 1))
        if isinstance(kind, str):
            return self._resolved(kind, space)
        raise Unusable("an object in the schema has no type")

    def _resolved(self, name: str, space: str) -> AvroType:
        for full in [name] if "." in name or not space else [f"{space}.{name}", name]:
            if full in self._open:
                raise Unusable(f"the schema is recursive: {full} contains itself")
            if full in self._named:
                return self._named[full]
        raise Unusable(f"the type {quote(name)} is neither defined nor among the references")

    def _full_name(self, given: dict[str, Any], kind: str, space: str) -> tuple[str, str]:
        """The full name of a type that is defined, and the namespace within it."""
        name, own = given.get("name"), given.get("namespace")
        if not isinstance(name, str):
            raise Unusable(f"{kind} has no name")
        if "." not in name:
            around = own if isinstance(own, str) else space
            name = f"{around}.{name}" if around else name
        if not _FULL_NAME.fullmatch(name):
            raise Unusable(f"{quote(name)} is not the name of {kind}: {_RULE}")
        if name in self._named or name in self._open:
            raise Unusable(f"the type {name} is defined twice")
        return name, name.rpartition(".")[0]

    def _record(self, given: dict[str, Any], space: str, level: int) -> AvroType:
        name, within = self._full_name(given, "a record", space)
        listed = given.get("fields")
        if not isinstance(listed, list):
            raise Unusable(f"the record {name} has no list of fields")
        self._open.append(name)
        fields: dict[str, AvroType] = {}
        for field in listed:
            label = field.get("name") if isinstance(field, dict) else None
            if not isinstance(label, str):
                raise Unusable(f"a field of {name} has no name")
            if not _NAME.fullmatch(label):
                raise Unusable(f"{quote(label)} is not the name of a field: {_RULE}")
            if label in fields:
                raise Unusable(f"the record {name} has two fields {label!r}")
            fields[label] = self.parse(_member(field, "type", f"the field {name}.{label}"), within, level + 1)
        self._open.pop()
        kinds = tuple(fields.values())
        made = _checked(
            AvroType(
                "record",
                name,
                tuple(fields.items()),
                depth=1 + _deepest(kinds),
                total=1 + sum(kind.total for kind in kinds),
                free=1 + sum(kind.free for kind in kinds),
            )
        )
        self._named[name] = made
        return made

    def _enum(self, given: dict[str, Any], space: str) -> AvroType:
        name, _ = self._full_name(given, "an enum", space)
        symbols = given.get("symbols")
        if not isinstance(symbols, list) or not symbols or not all(isinstance(each, str) for each in symbols):
            raise Unusable(f"the enum {name} has no list of symbols")
        self._named[name] = AvroType("enum", name, symbols=tuple(symbols), free=1 - _PER_BYTE)
        return self._named[name]

    def _fixed(self, given: dict[str, Any], space: str) -> AvroType:
        name, _ = self._full_name(given, "a fixed", space)
        size = given.get("size")
        if type(size) is not int or not 0 <= size < 2**31:
            raise Unusable(f"the fixed {name} has no size")
        logical = _logical(given, "fixed", size)
        self._named[name] = AvroType("fixed", name, width=size, logical=logical, free=1 - _PER_BYTE * size)
        return self._named[name]

    def _union(self, given: list[Any], space: str, level: int) -> AvroType:
        if not given or any(isinstance(branch, list) for branch in given):
            raise Unusable("a union is empty, or has a union as a branch")
        parts = tuple([self.parse(branch, space, level + 1) for branch in given])
        most = max(part.free for part in parts)
        total = 1 + sum(part.total for part in parts)
        return _checked(AvroType("union", parts=parts, depth=1 + _deepest(parts), total=total, free=most - _PER_BYTE))


def _primitive(kind: str, logical: Logical | None) -> AvroType:
    least = _WIDTHS.get(kind, 0 if kind == "null" else 1)
    return AvroType(kind, width=_WIDTHS.get(kind), logical=logical, free=1 - _PER_BYTE * least)


def _collection(kind: str, item: AvroType) -> AvroType:
    if item.free - (_PER_BYTE if kind == "map" else 0) > 0:  # a map's key takes at least a byte
        article = "an" if kind == "array" else "a"
        raise Unusable(
            f"a few bytes could stand for any number of the items of {article} {kind}: they take too few bytes each"
        )
    return _checked(AvroType(kind, parts=(item,), depth=1 + item.depth, total=1 + item.total, free=1 - _PER_BYTE))


def _checked(made: AvroType) -> AvroType:
    if made.depth > MAX_DEPTH:
        raise Unusable(f"types are nested deeper than {MAX_DEPTH} levels")
    if made.total > MAX_FIELDS:
        raise Unusable(f"the schema has over {MAX_FIELDS} fields")
    return made


def _deepest(kinds: Sequence[AvroType]) -> int:
    return max((kind.depth for kind in kinds), default=0)


def _member(given: Any, key: str, what: str) -> Any:
    if key not in given:
        raise Unusable(f"{what} has no {key!r}")
    return given[key]


_INTEGERS = {
    "date": "int",
    "time-millis": "int",
    **{
        name: "long"
        for unit in ("millis", "micros", "nanos")
        for name in (f"timestamp-{unit}", f"local-timestamp-{unit}")
    },
    "time-micros": "long",
}


def _logical(given: dict[str, Any], kind: str, size: int | None) -> Logical | None:
    """The logical type of a type that is defined; None if there is none or, by the specification, an invalid one."""
    name = given.get("logicalType")
    if not isinstance(name, str):
        return None
    if _INTEGERS.get(name) == kind or (name == "uuid" and (kind == "string" or size == 16)):
        return Logical(name)
    if name != "decimal" or kind not in ("bytes", "fixed"):
        return None
    precision, scale = given.get("precision"), given.get("scale", 0)
    if type(precision) is not int or type(scale) is not int:
        return None
    return Logical(name, precision, scale) if 0 <= scale <= precision <= MAX_PRECISION and precision else None
