"""What the schema of an event says, whatever its language: a tree of values, with examples of the event. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from failsoft.schemas.formats.registered import MAX_DEPTH

MOST_NODES = 20_000
"""Most values of a schema that are described. A short schema may have 2^60: each record holds two of the next."""

_LENGTHS = (3, 1, 2)
"""Lengths of the lists of example events."""


class NodeKind(StrEnum):
    """The kind of a value in an event."""

    OBJECT = "object"
    LIST = "list"
    MAP = "map"
    FLOAT = "float"
    INT = "int"
    BOOL = "bool"
    STRING = "string"
    BYTES = "bytes"
    TIME = "time"
    OTHER = "other"


_EXAMPLES: Mapping[NodeKind, Sequence[Any]] = {
    NodeKind.FLOAT: [1.5, 0.25, 3.0],
    NodeKind.INT: [1, 2, 0],
    NodeKind.BOOL: [True, False, True],
    NodeKind.STRING: ["a", "b", "a"],
    NodeKind.TIME: [f"2026-01-01T12:00:0{n}Z" for n in range(3)],
    NodeKind.MAP: [{}, {}, {}],
    NodeKind.OTHER: [None, None, None],
}
_BASE64 = ("AAAA", "AAA=", "AA==")
"""Three, two and one zero byte."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value in an event.

    Attributes:
        kind: what it is.
        members: of an object, its values by name.
        items: of a list, its elements.
        symbols: of a string, the only ones that it may be; empty if it may be any.
        dtype: of a number or bool, the tensor's dtype that holds it.
        size: of bytes and lists, their fixed length; None if it differs.
        nullable: it may be null, or not be there.
        default: its default in the schema; None if it has none, or null.
        unit: of a time, what its number counts, such as ``milliseconds since 1970``; empty if it is a text.
        why: of OTHER, why no feature can be made of it.
        examples: values for three example events; empty: by its kind.
    """

    kind: NodeKind
    members: Mapping[str, Node] = field(default_factory=dict)
    items: Node | None = None
    symbols: tuple[str, ...] = ()
    dtype: str | None = None
    size: int | None = None
    nullable: bool = False
    default: bool | int | float | str | None = None
    unit: str = ""
    why: str = ""
    examples: tuple[Any, ...] = ()

    def optional(self) -> Node:
        """The same value, which may be null."""
        return self if self.nullable else replace(self, nullable=True)

    def example(self, n: int) -> Any:
        """The JSON value in example event ``n``, of 0 to 2."""
        if self.examples:
            return self.examples[n]
        if self.symbols:
            return self.symbols[n % len(self.symbols)]
        if self.kind is NodeKind.OBJECT:
            return {name: each.example(n) for name, each in self.members.items()}
        if self.kind is NodeKind.LIST and self.items is not None:
            return [self.items.example((n + k) % 3) for k in range(_LENGTHS[n] if self.size is None else self.size)]
        if self.kind is NodeKind.BYTES:
            length = _LENGTHS[n] if self.size is None else self.size
            return "AAAA" * (length // 3) + (_BASE64[3 - length % 3] if length % 3 else "")
        return _EXAMPLES[self.kind][n]


def other(why: str) -> Node:
    """A value of which no feature can be made."""
    return Node(NodeKind.OTHER, why=why)


class TooLarge(ValueError):
    """A schema has more values or levels than are described. The text says which."""


@dataclass(slots=True)
class Bounds:
    """Counts the values of a schema while its tree is made."""

    nodes: int = 0

    def step(self, path: Sequence[str]) -> None:
        """Counts one value at ``path``. Raises TooLarge."""
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise TooLarge(f"it has more than {MOST_NODES:,} fields, each place of a shared type counted")
        if len(path) > MAX_DEPTH:
            raise TooLarge(f"it is nested deeper than {MAX_DEPTH} levels, at {'.'.join(path[:4])}…")
