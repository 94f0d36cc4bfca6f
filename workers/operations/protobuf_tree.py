"""Reads the descriptor of a Protobuf message into the tree of its values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from failsoft.schemas.formats.protobuf_values import ENUM, is_map, repeated
from failsoft.workers.operations.schema_tree import Bounds, Node, NodeKind, other

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

_INT32 = Node(NodeKind.INT, dtype="int32")
_INT64 = Node(NodeKind.INT, dtype="int64")
_FLOAT = Node(NodeKind.FLOAT, dtype="float32")
_DOUBLE = Node(NodeKind.FLOAT, dtype="float64")
_BOOL = Node(NodeKind.BOOL, dtype="bool")
_STRING = Node(NodeKind.STRING, dtype="string")
_BYTES = Node(NodeKind.BYTES)

# By the numbers of FieldDescriptorProto.Type. No card's dtype is uint32 or uint64: int64 stands for them.
_SCALARS: Mapping[int, Node] = {
    1: _DOUBLE,
    2: _FLOAT,
    **dict.fromkeys((5, 15, 17), _INT32),
    **dict.fromkeys((3, 4, 6, 7, 13, 16, 18), _INT64),
    8: _BOOL,
    9: _STRING,
    12: _BYTES,
}
_ANY_JSON = "its fields are not in the schema"
_KNOWN: Mapping[str, Node] = {
    "google.protobuf.Timestamp": Node(NodeKind.TIME),
    "google.protobuf.Duration": Node(NodeKind.FLOAT, dtype="float64", examples=("1.5s", "0.250s", "3s")),
    "google.protobuf.DoubleValue": _DOUBLE.optional(),
    "google.protobuf.FloatValue": _FLOAT.optional(),
    "google.protobuf.Int64Value": _INT64.optional(),
    "google.protobuf.UInt64Value": _INT64.optional(),
    "google.protobuf.Int32Value": _INT32.optional(),
    "google.protobuf.UInt32Value": _INT64.optional(),
    "google.protobuf.BoolValue": _BOOL.optional(),
    "google.protobuf.StringValue": _STRING.optional(),
    "google.protobuf.BytesValue": _BYTES.optional(),
    "google.protobuf.Struct": Node(NodeKind.MAP),
    "google.protobuf.Value": other(_ANY_JSON),
    "google.protobuf.ListValue": Node(NodeKind.OTHER, why=_ANY_JSON, examples=([], [], [])),
    "google.protobuf.Any": Node(NodeKind.OTHER, why=_ANY_JSON, examples=({}, {}, {})),
    "google.type.Date": Node(
        NodeKind.TIME, unit="days since 1970", examples=tuple({"year": 2026, "month": 1, "day": n} for n in (1, 2, 3))
    ),
    "google.type.TimeOfDay": Node(NodeKind.STRING, dtype="string", examples=tuple({"hours": n} for n in (1, 2, 3))),
    "google.type.Decimal": Node(
        NodeKind.FLOAT, dtype="float64", examples=tuple({"value": v} for v in ("1.5", "2", "3"))
    ),
    "confluent.type.Decimal": Node(
        NodeKind.FLOAT,
        dtype="float64",
        examples=tuple({"value": v, "precision": 3, "scale": 1} for v in ("Dw==", "Ag==", "Hg==")),
    ),
}
"""Messages that are read as one value."""


class NoSuchMessage(ValueError):
    """A file has no message of this name. The text names those that it has."""


def messages(descriptors: bytes) -> dict[str, Descriptor]:
    """The messages of the last file in a FileDescriptorSet, which is the one that was compiled, by full name.

    In the order of Confluent's message indexes, with the messages within them after each; entries of maps left out.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool

    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors)
    pool = descriptor_pool.DescriptorPool()
    for each in files.file:
        pool.Add(each)
    last = pool.FindFileByName(files.file[-1].name)
    return {each.full_name: each for each in _with_inner(last.message_types_by_name.values())}


def _with_inner(found: Iterable[Descriptor]) -> Iterator[Descriptor]:
    for each in found:
        if not each.GetOptions().map_entry:
            yield each
            yield from _with_inner(each.nested_types)


def chosen(found: Mapping[str, Descriptor], name: str | None) -> Descriptor:
    """The message called ``name``, by its full or its last name. Raises NoSuchMessage.

    Without a name it is the first that no other message holds, and else the first: files often begin with the parts.
    """
    if not found:
        raise NoSuchMessage("it has no message")
    if name is None:
        parts = {part for full, each in found.items() for part in _held(each) if part != full}
        return next((each for full, each in found.items() if full not in parts), next(iter(found.values())))
    fits = [each for full, each in found.items() if name in (full, full.rpartition(".")[2])]
    if len(fits) != 1:
        raise NoSuchMessage(f"{name!r} is {'several' if fits else 'none'} of its messages: {', '.join(found)}")
    return fits[0]


def _held(message: Descriptor) -> Iterator[str]:
    """The full names of the messages that are types of its fields, values of maps too."""
    for each in message.fields:
        if each.message_type is not None:
            if each.message_type.GetOptions().map_entry:
                yield from _held(each.message_type)
            else:
                yield each.message_type.full_name


def read(message: Descriptor) -> Node:
    """The tree of a message. Raises ValueError for a recursive one, and TooLarge."""
    return _MessageReader().message(message, ())


@dataclass(slots=True)
class _MessageReader:
    inside: list[str] = field(default_factory=list)
    """The messages on the way."""
    bounds: Bounds = field(default_factory=Bounds)
    proto2: dict[str, bool] = field(default_factory=dict)
    """Which files are of proto2, by name."""

    def message(self, message: Descriptor, path: tuple[str, ...]) -> Node:
        self.bounds.step(path)
        name = message.full_name
        if name in _KNOWN:
            return _KNOWN[name]
        if name in self.inside:
            raise ValueError(
                f"it is recursive: {name} holds itself at {'.'.join(path)}, and failsoft reads no such events"
            )
        self.inside.append(name)
        members = {each.name: self._field(each, (*path, each.name)) for each in message.fields}
        self.inside.pop()
        return Node(NodeKind.OBJECT, members)

    def _field(self, given: FieldDescriptor, path: tuple[str, ...]) -> Node:
        one = self._value(given, path)
        if repeated(given):
            return Node(NodeKind.MAP) if is_map(given) else Node(NodeKind.LIST, items=one)
        if given.containing_oneof is not None and len(given.containing_oneof.fields) > 1:
            # Only one of them can be in an event, and a JSON null is none of them.
            first = given.containing_oneof.fields[0] is given
            return one.optional() if first else replace(one.optional(), examples=(None, None, None))
        if given.message_type is None:
            optional = given.has_presence
        else:
            # Every message has presence. Of proto3, one that is declared `optional` is in a oneof of its own.
            optional = given.containing_oneof is not None or self._is_proto2(given.file)
        return one.optional() if optional and not _required(given) else one

    def _is_proto2(self, file: FileDescriptor) -> bool:
        """Does a file say `optional` or `required` of each single field?"""
        if file.name not in self.proto2:
            from google.protobuf import descriptor_pb2

            copy = descriptor_pb2.FileDescriptorProto()
            file.CopyToProto(copy)
            self.proto2[file.name] = copy.syntax in ("", "proto2")
        return self.proto2[file.name]

    def _value(self, given: FieldDescriptor, path: tuple[str, ...]) -> Node:
        if given.message_type is not None:
            return self.message(given.message_type, path)
        self.bounds.step(path)
        if given.type == ENUM:
            return Node(NodeKind.STRING, symbols=tuple(v.name for v in given.enum_type.values), dtype="string")
        return _SCALARS[given.type]


def _required(given: Any) -> bool:
    newer = getattr(given, "is_required", None)
    return bool(given.label == given.LABEL_REQUIRED if newer is None else newer)
