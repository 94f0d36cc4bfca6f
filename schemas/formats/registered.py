"""A schema as a registry has it, and its form in the topic ``<name>.schemas``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from failsoft.schemas.formats.wire_format import WireFormat

SchemaRef = int | str
"""What an event names its schema by: the registry's id, or a GUID in its canonical text form."""

MAX_SCHEMA = 1_000_000
"""Bytes of a schema with its references. Kafka's default limit of a record is about as much."""

MAX_DEPTH = 64
"""Levels of types within types in a schema. Schemas of real events have under ten."""


class SchemaType(StrEnum):
    """The kinds of schemas, by the names that registries give them."""

    AVRO = "AVRO"
    PROTOBUF = "PROTOBUF"
    JSON = "JSON"

    @property
    def wire_format(self) -> WireFormat:
        """How events of such schemas are encoded."""
        return WireFormat(self.value.lower())


class Unusable(ValueError):
    """A schema cannot be used. The text says why; the events that name it are malformed."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A schema that another one refers to.

    Attributes:
        name: what the other schema calls it: an Avro full name, or the path of a Protobuf import.
        text: the schema.
    """

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Registered:
    """A schema as the registry has it. It never changes: registries give an id once.

    Attributes:
        ref: the id or GUID that events name it by.
        type: its kind.
        text: the schema: JSON for Avro and JSON Schema, the text of a ``.proto`` file for Protobuf.
        references: all schemas that it refers to, also indirectly, each after those that it refers to itself.
    """

    ref: SchemaRef
    type: SchemaType
    text: str
    references: tuple[Reference, ...] = ()

    def to_bytes(self) -> bytes:
        """The value of its record in ``<name>.schemas``, whose key is the ref as text."""
        references = [{"name": each.name, "schema": each.text} for each in self.references]
        value = {"ref": self.ref, "type": self.type, "schema": self.text, "references": references}
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, raw: bytes) -> Registered:
        """The inverse of ``to_bytes``. Raises Unusable for what it never writes."""
        try:
            value: Any = json.loads(raw)
            ref, text = value["ref"], value["schema"]
            found = [Reference(each["name"], each["schema"]) for each in value["references"]]
            texts = [text, *(t for each in found for t in (each.name, each.text))]
            if type(ref) not in (int, str) or any(type(each) is not str for each in texts):
                raise Unusable("not a schema's record: a field has a wrong type")
            return cls(ref, SchemaType(value["type"]), text, tuple(found))
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise Unusable(f"not a schema's record: {e}") from None
