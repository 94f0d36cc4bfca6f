"""Writes JSON values as Avro, by the types of a schema. Pure.

JSON has fewer types than Avro. A time is ISO 8601, or the number that the schema's type counts; bytes are base64; a
decimal is a number or its text; a 64-bit integer may be text. Nothing else is converted.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from failsoft.schemas.config.refusal import near
from failsoft.schemas.formats.avro_encoding import block, long, string
from failsoft.schemas.formats.registered import Registered, Unusable
from failsoft.workers.operations.avro_scalars import (
    PRIMITIVES,
    Path,
    Unwritable,
    Write,
    at,
    enum,
    fixed,
    logical,
    wrong,
)


class AvroWriter:
    """Writes events of one schema. Raises Unusable for a schema that is not valid."""

    def __init__(self, schema: Registered) -> None:
        from fastavro import schema as avro

        named: dict[str, Any] = {}
        try:
            for each in schema.references:
                avro.parse_schema(json.loads(each.text), named_schemas=named)
            parsed = avro.parse_schema(json.loads(schema.text), named_schemas=named)
            self._write = _Compiler(named).write(parsed)
        except (avro.SchemaParseException, ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
            raise Unusable(f"not a valid Avro schema: {e}") from None

    def write(self, value: Any) -> bytes:
        """The Avro of one event. Raises Unwritable."""
        try:
            return self._write(value, ())
        except RecursionError:
            raise Unwritable("the event is nested too deep") from None


@dataclass(slots=True)
class _Compiler:
    named: Mapping[str, Any]
    done: dict[str, Write] = field(default_factory=dict)
    """What writes each record, which may hold itself."""

    def write(self, schema: Any) -> Write:
        if isinstance(schema, list):
            return self._union(schema)
        if isinstance(schema, str):
            return PRIMITIVES[schema] if schema in PRIMITIVES else self.write(self.named[schema])
        made = logical(schema)
        if made is not None:
            return made
        match schema["type"]:
            case "record" | "error":
                return self._record(schema)
            case "enum":
                return enum(schema["symbols"])
            case "fixed":
                return fixed(schema["size"])
            case "array":
                return _array(self.write(schema["items"]))
            case "map":
                return _map(self.write(schema["values"]))
            case inner:
                return self.write(inner)

    def _record(self, schema: Mapping[str, Any]) -> Write:
        name = schema["name"]
        if name in self.done:
            return self.done[name]
        fields: dict[str, tuple[Write, Write | None]] = {}

        def write(value: Any, path: Path) -> bytes:
            if not isinstance(value, dict):
                raise wrong(path, value, "an object")
            unknown = next((key for key in value if key not in fields), None)
            if unknown is not None:
                raise Unwritable(f"{at((*path, unknown))}: the schema has no such field{near(unknown, fields)}")
            made = []
            for key, (each, default) in fields.items():
                if key in value:
                    made.append(each(value[key], (*path, key)))
                elif default is not None:
                    made.append(default(None, (*path, key)))
                else:
                    raise Unwritable(f"{at((*path, key))}: missing, and it has no default in the schema")
            return b"".join(made)

        self.done[name] = write
        for each in schema["fields"]:
            fields[each["name"]] = (self.write(each["type"]), self._absent(each))
        return write

    def _absent(self, given: Mapping[str, Any]) -> Write | None:
        """Writes a field that an event lacks: its default; or null if it may be that; or a record without fields of its
        own, each of which is then absent. None if it is none of these.

        A default is written when it is first needed: one that does not fit its own type harms nobody else.
        """
        kind = given["type"]
        if "default" not in given:
            if isinstance(kind, list):
                return self.write(kind) if "null" in kind else None
            named = self.named.get(kind, {}) if isinstance(kind, str) else kind
            record = self.write(kind) if named.get("type") == "record" else None
            return record and (lambda _, path: record({}, path))
        default = given["default"]
        if not isinstance(kind, list) or default is None:
            each, value = self.write(kind), self._as_event(kind, default)
            return lambda _, path: each(value, path)
        first, value = self.write(kind[0]), self._as_event(kind[0], default)  # a union's default is of its first
        return lambda _, path: b"\0" + first(value, path)

    def _as_event(self, schema: Any, default: Any) -> Any:
        """A default as an event has it: in a schema, bytes are text of a letter a byte."""
        if isinstance(schema, str) and schema in self.named:
            schema = self.named[schema]
        kind = schema["type"] if isinstance(schema, dict) else schema
        match default:
            case str() if kind in ("bytes", "fixed"):
                return binascii.b2a_base64(default.encode("latin-1", "replace"), newline=False).decode()
            case list() if kind == "array":
                return [self._as_event(schema["items"], each) for each in default]
            case dict() if kind == "map":
                return {key: self._as_event(schema["values"], each) for key, each in default.items()}
            case dict() if kind == "record":
                types = {each["name"]: each["type"] for each in schema["fields"]}
                return {key: self._as_event(types.get(key), each) for key, each in default.items()}
        return default

    def _union(self, branches: Sequence[Any]) -> Write:
        """The first branch that fits; a text is a string before it is anything else."""
        made = [(long(i), each, self.write(each)) for i, each in enumerate(branches)]
        texts = sorted(made, key=lambda branch: branch[1] != "string")

        def write(value: Any, path: Path) -> bytes:
            problems = []
            for index, branch, each in texts if isinstance(value, str) else made:
                try:
                    return index + each(value, path)
                except Unwritable as e:
                    problems += [e] if branch != "null" else []
            if len(problems) == 1 and value is not None:
                raise problems[0]
            raise wrong(path, value, f"one of {', '.join(map(_named, branches))}")

        return write


def _named(schema: Any) -> str:
    return schema if isinstance(schema, str) else schema.get("name") or schema.get("logicalType") or schema["type"]


def _array(items: Write) -> Write:
    def write(value: Any, path: Path) -> bytes:
        if not isinstance(value, list):
            raise wrong(path, value, "a list")
        return block([items(each, (*path, f"[{i}]")) for i, each in enumerate(value)])

    return write


def _map(values: Write) -> Write:
    def write(value: Any, path: Path) -> bytes:
        if not isinstance(value, dict):
            raise wrong(path, value, "an object")
        return block([string(key) + values(each, (*path, key)) for key, each in value.items()])

    return write
