"""Derives the ``[[features]]`` of a new card, and where an event's id and time are, from its schema. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from failsoft.models.catalog.feature_section import MAX_LENGTH, MOST_DIMENSIONS, MOST_ELEMENTS
from failsoft.schemas.features.paths import locate
from failsoft.workers.operations.card_features import Feature, unnamed
from failsoft.workers.operations.schema_tree import Node, NodeKind

_IDS = ("eventid", "id", "uuid", "messageid")
_TIMES = (
    "occurredat",
    "eventtime",
    "timestamp",
    "eventtimestamp",
    "eventts",
    "timestampms",
    "ts",
    "tsms",
    "time",
    "createdat",
)
"""Names of the id and the time, the likelier first, without case and underscores."""

_TYPES = {NodeKind.FLOAT: "float", NodeKind.INT: "int", NodeKind.BOOL: "bool", NodeKind.STRING: "string"}
_ZERO: Mapping[str, bool | int | float | str] = {"float": 0.0, "int": 0, "bool": False, "string": ""}
_MOST_NAMED = 12
"""Features that a note names; it counts the others."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A field of an event that may be a feature.

    Attributes:
        path: its path from the event's root.
        node: what the schema says of it.
    """

    path: str
    node: Node

    @property
    def name(self) -> str:
        """Its own name, without those of the objects around it."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class EventShape:
    """What a schema says of its events.

    Attributes:
        id: path of the id; None: no field looks like one.
        time: path of the time; None: no field looks like one.
        holder: path of the object that holds the features; "" is the event itself.
        leaves: the fields that may be features.
        examples: three events, as JSON values.
        notes: what the user should check or do.
    """

    id: str | None
    time: str | None
    holder: str
    leaves: Sequence[Leaf]
    examples: Sequence[Any]
    notes: Sequence[str] = ()

    def field(self, leaf: Leaf) -> str:
        """The path of a leaf within the features."""
        return leaf.path.removeprefix(f"{self.holder}.") if self.holder else leaf.path


@dataclass(frozen=True, slots=True)
class Joined:
    """The features of a model, joined with the schema of its events.

    Attributes:
        features: in the card's order.
        notes: what the user should check or do.
        outdated: notes on the model that these features or notes replace.
        unmatched: names of the features for which the schema has no field.
        examples: three events that the model's shapes fit, as JSON values.
    """

    features: Sequence[Feature]
    notes: Sequence[str]
    outdated: Sequence[str]
    unmatched: Sequence[str]
    examples: Sequence[Any]


def event_shape(root: Node, title: str = "") -> EventShape:
    """The shape of events of a schema, which is called ``title``.

    Raises ValueError if they are no objects, or if nothing can be a feature.
    """
    if root.kind is not NodeKind.OBJECT:
        raise ValueError(f"an event of it is no object with fields, but {root.kind.value}: features have names")
    found = list(_leaves(root, ""))
    features = root.members.get("features")
    holder = "features" if features is not None and features.kind is NodeKind.OBJECT else ""
    identity, time = _identity(found, title), _time(found)
    inside = [each for each in found if not holder or each.path.startswith(f"{holder}.")]
    inside = [each for each in inside if each.path not in (identity, time)]
    able = [each for each in inside if _why_not(each.node) is None]
    if not able:
        raise ValueError("no field of it can be a feature: a number, a bool, a string, or a list of these")
    ids = [each.path for each in found if "." not in each.path and re.search(r"(?i)(_id|id)$", each.path)]
    notes = [_said("the id", "id", identity, ids), _said("the time", "time", time, ())]
    left = [f"{each.path} ({_why_not(each.node)})" for each in inside if each not in able]
    if left:
        notes.append(f"no features were made of {_listed(left)}")
    return EventShape(identity, time, holder, able, _examples(root, found, identity, time), notes)


def features_of_schema(shape: EventShape) -> tuple[list[Feature], list[str]]:
    """A feature for each leaf, and notes on them."""
    names = Counter(each.name for each in shape.leaves)
    features: list[Feature] = []
    notes: list[str] = []
    for leaf in shape.leaves:
        path = shape.field(leaf)
        name = leaf.name if names[leaf.name] == 1 else path.replace(".", "_")
        features.append(_with_schema(_of_node(name, leaf.node), leaf.node, path))
    return features, notes + _said_of_imputed(features)


def _said_of_imputed(features: Sequence[Feature]) -> list[str]:
    imputed = [each.name for each in features if each.impute is not None]
    if not imputed:
        return []
    return [
        f"the schema allows events without a value of {_listed(imputed)}: impute in the card says what the model gets "
        "then; without it such an event is invalid"
    ]


def joined(features: Sequence[Feature], shape: EventShape) -> Joined:
    """The features of a model, each with the field of the schema that has its name, and notes on those without one.

    A name is compared as it is, else as the last of a path, else without case, dots and underscores. Columns without
    names are one tensor where the schema has a list that is called like their input.
    """
    made: list[Feature] = []
    notes: list[str] = []
    outdated: list[str] = []
    lost: list[str] = []
    examples = [_copy(each) for each in shape.examples]
    for feature in _whole_lists(features, shape, outdated):
        leaf = _like(feature.name, shape)
        if leaf is None:
            made.append(feature)
            lost.append(feature.name)
            continue
        _fit(examples, leaf, feature)
        joint = _with_schema(feature, leaf.node, shape.field(leaf))
        problem = _misfit(feature, leaf)
        if problem is not None:
            notes.append(problem)
            joint = replace(
                joint, coerce=feature.type in ("float", "int", "bool") and leaf.node.kind is NodeKind.STRING
            )
        made.append(joint)
    for columns in _blocks(each for each in made if each.name in lost):
        outdated.append(unnamed(columns))
        fields = _listed([shape.field(leaf) for leaf in shape.leaves if leaf.node.kind in _TYPES])
        notes.append(f"{unnamed(columns)}, and write field = … where it has another name: the schema has {fields}")
    named = [each.name for each in made if each.name in lost and each.whole is None]
    if named:
        notes.append(f"the schema has no field like {_listed(named)}: write field = … for each of them in the card")
    return Joined(made, notes + _said_of_imputed(made), outdated, lost, examples)


def _blocks(features: Iterable[Feature]) -> list[list[Feature]]:
    """The columns without names, by their input."""
    found: dict[str, list[Feature]] = {}
    for each in features:
        if each.whole is not None:
            found.setdefault(each.whole.name, []).append(each)
    return list(found.values())


def _whole_lists(features: Sequence[Feature], shape: EventShape, outdated: list[str]) -> list[Feature]:
    """The features; columns without names are one tensor where the schema has such a list."""
    made = list(features)
    for columns in _blocks(features):
        whole = columns[0].whole
        leaf = None if whole is None else _like(whole.name, shape)
        if whole is None or leaf is None or leaf.node.kind is not NodeKind.LIST:
            continue
        element, size = _elements(leaf.node)
        if element.kind in (NodeKind.INT, NodeKind.FLOAT) and size in ((-1,), whole.shape):
            outdated.append(unnamed(columns))
            made[made.index(columns[0])] = whole
            made = [each for each in made if each not in columns]
    return made


def _fit(examples: Sequence[Any], leaf: Leaf, feature: Feature) -> None:
    """Gives a list or bytes in the example events the fixed shape that a model's tensor has."""
    if feature.dtype is None or -1 in feature.shape or leaf.node.examples:
        return
    node = _sized(leaf.node, feature.shape, feature.dtype)
    for n, event in enumerate(examples):
        parent, name = locate(event, leaf.path) or ({}, "")
        if parent.get(name) is not None:
            parent[name] = node.example(n)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(each) for name, each in value.items()}
    return [_copy(each) for each in value] if isinstance(value, list) else value


def _sized(node: Node, shape: Sequence[int], dtype: str) -> Node:
    if node.kind is NodeKind.BYTES and node.size is None and dtype != "string":
        return replace(node, size=prod(shape) * np.dtype(dtype).itemsize)
    if node.kind is NodeKind.LIST and node.items is not None and shape:
        return replace(node, size=shape[0], items=_sized(node.items, shape[1:], dtype))
    return node


def _examples(root: Node, leaves: Sequence[Leaf], identity: str | None, time: str | None) -> list[Any]:
    """Three events with ids of their own, and with times that can be read."""
    made = [root.example(n) for n in range(3)]
    by_path = {each.path: each.node for each in leaves}
    for path, text in ((identity, "example-{}"), (time, "2026-01-01T12:00:0{}Z")):
        if path is not None and by_path[path].kind is NodeKind.STRING and not by_path[path].examples:
            for n, event in enumerate(made):
                parent, name = locate(event, path) or (event, path)
                parent[name] = text.format(n)
    return made


def _leaves(node: Node, path: str) -> Iterator[Leaf]:
    for name, each in node.members.items():
        inner = f"{path}.{name}" if path else name
        if each.kind is NodeKind.OBJECT and each.members:
            nullable = each.nullable
            yield from (Leaf(at.path, at.node.optional() if nullable else at.node) for at in _leaves(each, inner))
        else:
            yield Leaf(inner, each)


def _plain(name: str) -> str:
    return re.sub(r"[._ -]", "", name).lower()


def _identity(leaves: Sequence[Leaf], title: str) -> str | None:
    """A field that is called like an event's id, else like that of the schema: ``payment_id`` of a Payment."""
    able = [each for each in leaves if each.node.kind in (NodeKind.STRING, NodeKind.INT) and not each.node.symbols]
    roots = [each for each in able if "." not in each.path]
    nested = [each for each in able if _plain(each.name) == "eventid"]
    words = (*_IDS, f"{_plain(title)}id")
    return next((each.path for word in words for each in (*roots, *nested) if _plain(each.name) == word), None)


def _time(leaves: Sequence[Leaf]) -> str | None:
    """A field that is called like a time; else the only one that is a moment by its type."""
    moments = [
        each for each in leaves if each.node.kind is NodeKind.TIME and (not each.node.unit or "1970" in each.node.unit)
    ]
    able = [*moments, *(each for each in leaves if each.node.kind in (NodeKind.STRING, NodeKind.INT))]
    near = sorted(able, key=lambda each: each.path.count("."))
    named = (each.path for word in _TIMES for each in near if _plain(each.name) == word)
    only = moments[0].path if len(moments) == 1 and "days" not in moments[0].node.unit else None
    return next(named, only)


def _said(what: str, key: str, path: str | None, near: Sequence[str]) -> str:
    if path is None:
        none = "topic-partition-offset is the id" if key == "id" else "the record's time is the time"
        perhaps = f" ({' or '.join(near[:3])}?)" if near else ""
        return f"no field looks like {what} of an event, so {none}: set {key} in [input] if there is one{perhaps}"
    return f"{what} of an event is taken from {path!r}: change {key} in [input] if another field has it"


def _why_not(node: Node) -> str | None:
    """Why no feature can be made of a field; None if one can."""
    if node.kind is NodeKind.OTHER:
        return node.why
    if node.kind is NodeKind.OBJECT:
        return "an object without fields"
    if node.kind is NodeKind.MAP:
        return 'a map, whose names are not in the schema: write field = "the.path" of each entry'
    if node.kind is NodeKind.LIST:
        element, shape = _elements(node)
        if element.dtype is None:
            return "a list of what is no number, bool or string"
        if shape.count(-1) > 1:
            return "lists in lists without fixed lengths: write its tensor by hand"
        if len(shape) > MOST_DIMENSIONS or _size(shape) > MOST_ELEMENTS:
            return "too large for a tensor"
    if node.kind is NodeKind.BYTES and node.size is not None and not 0 < node.size <= MOST_ELEMENTS:
        return f"{node.size} bytes"
    return None


def _size(shape: Sequence[int]) -> int:
    size = 1
    for n in shape:
        size *= MAX_LENGTH if n == -1 else n
    return size


def _elements(node: Node) -> tuple[Node, tuple[int, ...]]:
    """The element of lists in lists, and their shape."""
    shape: list[int] = []
    while node.kind is NodeKind.LIST and node.items is not None:
        shape.append(-1 if not node.size else node.size)
        node = node.items
    return node, tuple(shape)


def _of_node(name: str, node: Node) -> Feature:
    if node.kind is NodeKind.LIST:
        element, shape = _elements(node)
        return Feature(name, "tensor", element.dtype, shape, MAX_LENGTH if -1 in shape else None)
    if node.kind is NodeKind.BYTES:
        shape = (-1,) if node.size is None else (node.size,)
        said = "EDIT: dtype and shape are of bytes; the model may want what they hold, such as float32"
        return Feature(name, "tensor", "uint8", shape, MAX_LENGTH if -1 in shape else None, comment=said)
    if node.kind is NodeKind.TIME:
        return Feature(name, "int" if node.unit else "string", comment=node.unit or "RFC 3339")
    return Feature(name, _TYPES[node.kind])


def _with_schema(feature: Feature, node: Node, path: str) -> Feature:
    """A feature with what the schema says: its path, its categories, and what stands for null."""
    categories = node.symbols if feature.type == "string" else ()
    impute, from_schema = _imputation(feature, node, categories) if node.nullable else (None, False)
    return replace(
        feature,
        field=path if path != feature.name else None,
        categories=categories,
        impute=impute,
        impute_comment="the schema's default"
        if from_schema
        else "EDIT: stands for a missing value, which the schema allows",
    )


def _imputation(
    feature: Feature, node: Node, categories: Sequence[str]
) -> tuple[bool | int | float | str | None, bool]:
    """What stands for null, and whether it is the schema's default; None for a tensor whose length differs."""
    if feature.type == "tensor":
        zeros: dict[str | None, bool | str] = {"string": "", "bool": False}
        return (zeros.get(feature.dtype, 0) if -1 not in feature.shape else None), False
    fits: dict[str, tuple[type, ...]] = {"float": (int, float), "int": (int,), "bool": (bool,), "string": (str,)}
    if type(node.default) in fits[feature.type] and (not categories or node.default in categories):
        return node.default, True
    return (categories[0] if categories else _ZERO[feature.type]), False


def _like(name: str, shape: EventShape) -> Leaf | None:
    """The only leaf that has the feature's name, by the strictest comparison that finds one."""
    for same in (
        lambda leaf: name in (shape.field(leaf), leaf.path),
        lambda leaf: name == leaf.name,
        lambda leaf: _plain(name) in (_plain(shape.field(leaf)), _plain(leaf.path)),
        lambda leaf: _plain(name) == _plain(leaf.name),
    ):
        found = [leaf for leaf in shape.leaves if same(leaf)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _misfit(feature: Feature, leaf: Leaf) -> str | None:
    """A note on a field whose type is not the model's; None if it fits."""
    kind = leaf.node.kind
    of = (
        "tensor"
        if kind in (NodeKind.LIST, NodeKind.BYTES)
        else "int"
        if kind is NodeKind.TIME and leaf.node.unit
        else None
    )
    of = of or _TYPES.get(kind, "string")
    if of == feature.type or (feature.type, of) == ("float", "int"):
        return None
    coerced = ": coerce = true in the card accepts a text that is one" if of == "string" else ""
    return f"the model takes {feature.name!r} as {feature.type}, and {leaf.path!r} is {of} in the schema{coerced}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
