"""Reads a JSON Schema into the tree of its values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from failsoft.workers.operations.schema_tree import Bounds, Node, NodeKind, other

_PLAIN: Mapping[str, Node] = {
    "number": Node(NodeKind.FLOAT, dtype="float64"),
    "integer": Node(NodeKind.INT, dtype="int64"),
    "boolean": Node(NodeKind.BOOL, dtype="bool"),
    "string": Node(NodeKind.STRING, dtype="string"),
    "null": other("it is always null"),
}
_ALTERNATIVES = ("anyOf", "oneOf")


def read(schema: Any) -> Node:
    """The tree of a JSON Schema; references lead within the file. Raises ValueError, which names the place."""
    return _SchemaFile(schema).node(schema, ())


@dataclass(slots=True)
class _SchemaFile:
    root: Any
    inside: list[str] = field(default_factory=list)
    """The references on the way."""
    bounds: Bounds = field(default_factory=Bounds)

    def node(self, schema: Any, path: tuple[str, ...]) -> Node:
        self.bounds.step(path)
        if schema is True or schema == {}:
            return other("the schema says nothing of it")
        if not isinstance(schema, dict):
            raise ValueError(f"{_at(path)}: {schema!r} is not a JSON Schema")
        if "$ref" in schema:
            return self._referred(schema["$ref"], path)
        if isinstance(schema.get("allOf"), list):
            return self._all_of(schema, path)
        for key in _ALTERNATIVES:
            if isinstance(schema.get(key), list):
                return self._one_of(schema[key], path)
        return self._typed(schema, path)

    def _referred(self, reference: Any, path: tuple[str, ...]) -> Node:
        at, name = self.root, str(reference)
        for step in name[2:].split("/") if name.startswith("#/") else ():
            at = at.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(at, dict) else None
        if at is None or not (name == "#" or name.startswith("#/")):
            raise ValueError(
                f"{_at(path)}: $ref {reference!r} leads to nothing in this file: put that schema into its $defs"
            )
        if reference in self.inside:
            raise ValueError(f"{_at(path)}: it is recursive, by $ref {reference!r}: name its fields in a card by hand")
        self.inside.append(reference)
        made = self.node(at, path)
        self.inside.pop()
        return made

    def _all_of(self, schema: Mapping[str, Any], path: tuple[str, ...]) -> Node:
        """Objects are joined; of other types, the one that says most is meant."""
        own = {key: value for key, value in schema.items() if key != "allOf"}
        parts = [self.node(each, path) for each in schema["allOf"]]
        if "properties" in own or "type" in own:
            parts.append(self.node(own, path))
        objects = [each for each in parts if each.kind is NodeKind.OBJECT]
        if not objects:
            return next(
                (each for each in parts if each.kind is not NodeKind.OTHER), parts[0] if parts else _PLAIN["null"]
            )
        return Node(NodeKind.OBJECT, {name: node for each in objects for name, node in each.members.items()})

    def _one_of(self, branches: list[Any], path: tuple[str, ...]) -> Node:
        null = {"type": "null"}
        made = [self.node(each, path) for each in branches if each != null]
        if not made:
            return _PLAIN["null"]
        numbers = all(each.kind in (NodeKind.INT, NodeKind.FLOAT) for each in made)
        several = _PLAIN["number"] if numbers else other(f"it is one of {len(made)} types")
        one = made[0] if len(made) == 1 else several
        return one.optional() if len(made) < len(branches) else one

    def _typed(self, schema: Mapping[str, Any], path: tuple[str, ...]) -> Node:
        given = schema.get("type")
        types = given if isinstance(given, list) else [given] if given is not None else _implied(schema)
        rest = [each for each in types if each != "null"]
        if set(rest) == {"integer", "number"}:
            rest = ["number"]
        made = other(f"it is one of {len(rest)} types") if len(rest) > 1 else other("the schema names no type of it")
        if len(rest) == 1:
            made = self._one(rest[0], schema, path)
        elif types == ["null"]:
            made = _PLAIN["null"]
        default = schema.get("default")
        if isinstance(default, (bool, int, float, str)):
            made = replace(made, default=default)
        return made.optional() if len(rest) < len(types) and rest else made

    def _one(self, kind: Any, schema: Mapping[str, Any], path: tuple[str, ...]) -> Node:
        if kind == "object":
            return self._object(schema, path)
        if kind == "array":
            items = schema.get("items", True)
            inner = other("its elements differ in type") if isinstance(items, list) else self.node(items, (*path, "[]"))
            least, most = schema.get("minItems"), schema.get("maxItems")
            return Node(NodeKind.LIST, items=inner, size=most if isinstance(most, int) and least == most else None)
        if kind not in _PLAIN:
            raise ValueError(f"{_at(path)}: type {kind!r} is none of object, array, {', '.join(_PLAIN)}")
        made = _PLAIN[kind]
        if kind != "string":
            return made
        if schema.get("format") == "date-time":
            return replace(made, kind=NodeKind.TIME)
        if schema.get("contentEncoding") == "base64":
            return Node(NodeKind.BYTES)
        symbols = schema.get("enum", [schema["const"]] if "const" in schema else [])
        texts = tuple(each for each in symbols if isinstance(each, str))
        made = replace(made, symbols=texts)
        return made.optional() if None in symbols else made

    def _object(self, schema: Mapping[str, Any], path: tuple[str, ...]) -> Node:
        properties = schema.get("properties")
        if not isinstance(properties, dict):
            return Node(NodeKind.MAP)
        required = schema.get("required")
        needed = required if isinstance(required, list) else []
        members = {}
        for name, each in properties.items():
            made = self.node(each, (*path, name))
            members[name] = made if name in needed or made.kind is NodeKind.OBJECT else made.optional()
        return Node(NodeKind.OBJECT, members)


def _implied(schema: Mapping[str, Any]) -> list[str]:
    """The types that a schema without ``type`` means."""
    if "properties" in schema:
        return ["object"]
    if "items" in schema:
        return ["array"]
    symbols = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if isinstance(symbols, list) and symbols and all(each is None or isinstance(each, str) for each in symbols):
        return ["string", "null"] if None in symbols else ["string"]
    return []


def _at(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the schema"
