"""Reads an Avro schema into the tree of its values. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from failsoft.workers.operations.schema_tree import Bounds, Node, NodeKind, other

_PRIMITIVES: Mapping[str, Node] = {
    "boolean": Node(NodeKind.BOOL, dtype="bool"),
    "int": Node(NodeKind.INT, dtype="int32"),
    "long": Node(NodeKind.INT, dtype="int64"),
    "float": Node(NodeKind.FLOAT, dtype="float32"),
    "double": Node(NodeKind.FLOAT, dtype="float64"),
    "string": Node(NodeKind.STRING, dtype="string"),
    "bytes": Node(NodeKind.BYTES),
    "null": other("it is always null"),
}
_MOMENTS = tuple(f"2026-01-01T12:00:0{n}" for n in range(3))
_UTC = tuple(f"{moment}Z" for moment in _MOMENTS)
_OF_DAY = tuple(f"12:00:0{n}" for n in range(3))
_TIMES: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "date": ("int", "days since 1970", tuple(f"2026-01-0{n + 1}" for n in range(3))),
    "time-millis": ("int", "milliseconds since midnight", _OF_DAY),
    "time-micros": ("long", "microseconds since midnight", _OF_DAY),
    "timestamp-millis": ("long", "milliseconds since 1970", _UTC),
    "timestamp-micros": ("long", "microseconds since 1970", _UTC),
    "timestamp-nanos": ("long", "nanoseconds since 1970", _UTC),
    "local-timestamp-millis": ("long", "milliseconds since 1970, without a time zone", _MOMENTS),
    "local-timestamp-micros": ("long", "microseconds since 1970, without a time zone", _MOMENTS),
    "local-timestamp-nanos": ("long", "nanoseconds since 1970, without a time zone", _MOMENTS),
}
"""By logical type: the type that carries it, the unit of its number, and examples."""
_UUIDS = tuple(f"00000000-0000-4000-8000-00000000000{n}" for n in range(3))


def read(schema: Any, references: Sequence[Any] = ()) -> Node:
    """The tree of an Avro schema that is known to be valid. ``references``: the schemas that it refers to.

    Raises ValueError for a recursive schema, and TooLarge.
    """
    reader = _AvroTree()
    for each in references:
        reader.node(each, (), "")
    return reader.node(schema, (), "")


@dataclass(slots=True)
class _AvroTree:
    named: dict[str, tuple[Any, str]] = field(default_factory=dict)
    """Each record, enum and fixed by its full name, with the namespace that its fields have."""
    inside: list[str] = field(default_factory=list)
    """The full names of the records on the way."""
    bounds: Bounds = field(default_factory=Bounds)

    def node(self, schema: Any, path: tuple[str, ...], space: str) -> Node:
        self.bounds.step(path)
        if isinstance(schema, list):
            return self._union(schema, path, space)
        if isinstance(schema, str):
            return _PRIMITIVES[schema] if schema in _PRIMITIVES else self._named(*self._found(schema, space), path)
        kind = schema["type"]
        if not isinstance(kind, str):
            return self.node(kind, path, space)
        if kind in ("record", "error", "enum", "fixed"):
            name, space = _full(schema, space)
            self.named[name] = (schema, space)
            return self._named(name, schema, space, path)
        if kind == "array":
            return Node(NodeKind.LIST, items=self.node(schema["items"], (*path, "[]"), space))
        if kind == "map":
            self.node(schema["values"], (*path, "{}"), space)  # it may define a type that is named later
            return Node(NodeKind.MAP)
        return _logical(self.node(kind, path, space), schema)

    def _found(self, name: str, space: str) -> tuple[str, Any, str]:
        full = name if "." in name or not space else f"{space}.{name}"
        full = full if full in self.named else name
        return full, *self.named[full]

    def _named(self, name: str, schema: Any, space: str, path: tuple[str, ...]) -> Node:
        if schema["type"] == "enum":
            symbols = tuple(schema["symbols"])
            return Node(NodeKind.STRING, symbols=symbols, dtype="string")
        if schema["type"] == "fixed":
            return _logical(Node(NodeKind.BYTES, size=schema["size"]), schema)
        if name in self.inside:
            raise ValueError(
                f"it is recursive: {name} holds itself at {'.'.join(path)}, and failsoft reads no such events"
            )
        self.inside.append(name)
        members = {each["name"]: self._field(each, (*path, each["name"]), space) for each in schema["fields"]}
        self.inside.pop()
        return Node(NodeKind.OBJECT, members)

    def _field(self, given: Mapping[str, Any], path: tuple[str, ...], space: str) -> Node:
        made = self.node(given["type"], path, space)
        default = given.get("default")
        return replace(made, default=default) if isinstance(default, (bool, int, float, str)) else made

    def _union(self, branches: Sequence[Any], path: tuple[str, ...], space: str) -> Node:
        made = [self.node(each, path, space) for each in branches if each != "null"]
        if not made:
            return _PRIMITIVES["null"]
        if len(made) == 1:
            one = made[0]
        elif all(each.kind in (NodeKind.INT, NodeKind.FLOAT) for each in made):
            one = _PRIMITIVES["double"]
        else:
            one = replace(
                other(f"it is one of {len(made)} types"), examples=tuple(made[0].example(n) for n in range(3))
            )
        return one.optional() if len(made) < len(branches) else one


def _full(schema: Mapping[str, Any], space: str) -> tuple[str, str]:
    """The full name of a named type, and the namespace for what is inside."""
    name: str = schema["name"]
    if "." not in name:
        space = schema.get("namespace", space)
        return (f"{space}.{name}" if space else name), space
    return name, name.rpartition(".")[0]


def _logical(carrier: Node, schema: Mapping[str, Any]) -> Node:
    """A type with its logical type; as by the specification, one that is unknown or does not fit is not there."""
    logical = str(schema.get("logicalType"))
    kind = schema["type"]
    if logical in _TIMES and _TIMES[logical][0] == kind:
        _, unit, examples = _TIMES[logical]
        return replace(carrier, kind=NodeKind.TIME, unit=unit, examples=examples)
    if logical == "uuid" and (kind == "string" or carrier.size == 16):
        return Node(NodeKind.STRING, dtype="string", examples=_UUIDS)
    if logical == "decimal" and carrier.kind is NodeKind.BYTES:
        whole = schema.get("scale", 0) == 0
        return Node(NodeKind.INT, dtype="int64") if whole else Node(NodeKind.FLOAT, dtype="float64", examples=(1, 2, 3))
    return carrier
