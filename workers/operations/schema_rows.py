"""Makes events in Avro or Protobuf of the rows of a file. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from failsoft.schemas import wire
from failsoft.schemas.event import Envelope
from failsoft.schemas.features.spec import FeatureType, Spec
from failsoft.schemas.formats import framing
from failsoft.workers.operations.avro_scalars import Unwritable
from failsoft.workers.operations.event_files import BadRow, EventLine, Rows
from failsoft.workers.operations.schema_tree import Node, NodeKind

_TYPES: Mapping[NodeKind, FeatureType] = {
    NodeKind.FLOAT: FeatureType.FLOAT,
    NodeKind.INT: FeatureType.INT,
    NodeKind.BOOL: FeatureType.BOOL,
    NodeKind.LIST: FeatureType.TENSOR,
    **dict.fromkeys((NodeKind.STRING, NodeKind.BYTES, NodeKind.TIME), FeatureType.STRING),
}


class EventWriter(Protocol):
    """Writes events of one schema."""

    def write(self, value: Any) -> bytes:
        """The encoding of a JSON value. Raises Unwritable."""


class SchemaRows:
    """Each row becomes an event in Confluent's framing.

    parse: makes JSON events of the rows. writer: writes them. schema_id: the id in the registry.
    """

    def __init__(self, parse: Rows, writer: EventWriter, schema_id: int) -> None:
        self._parse = parse
        self._write = writer.write
        self._prefix = framing.prefix(schema_id)
        self._number = 0

    @property
    def untimed(self) -> int:
        """Times that could not be parsed: a type of time refuses them, and a string keeps them."""
        return self._parse.untimed

    def rows(self, lines: Sequence[bytes]) -> Iterator[EventLine]:
        """One event for each row. Raises BadRow for one that does not fit the schema."""
        for key, value in self._parse.rows(lines):
            self._number += 1
            try:
                yield key, self._prefix + self._write(wire.loads(value, len(value)))
            except (wire.Malformed, Unwritable) as e:
                raise BadRow(f"event {self._number}: {e}") from None


def specs(root: Node, cards: Iterable[Spec], envelope: Envelope) -> tuple[Spec, ...]:
    """The features by whose types a CSV file's cells are read: the schema's fields, some called as the cards say.

    The id and the time are not among them. A cell of a map, or of a field that may be of several types, is read by its
    look.
    """
    holder = f"{envelope.features}." if envelope.features else ""
    found = {
        path.removeprefix(holder): _TYPES[node.kind]
        for path, node in _fields(root, "")
        if path.startswith(holder) and path not in (envelope.id, envelope.time) and node.kind in _TYPES
    }
    named = {
        spec.path: replace(spec, type=found[spec.path], field=spec.path, tensor=None)
        for spec in cards
        if spec.path in found
    }
    return tuple(named.get(path) or Spec(path, kind, field=path) for path, kind in found.items())


def _fields(node: Node, path: str) -> Iterator[tuple[str, Node]]:
    for name, each in node.members.items():
        inner = f"{path}.{name}" if path else name
        yield inner, each
        yield from _fields(each, inner)
