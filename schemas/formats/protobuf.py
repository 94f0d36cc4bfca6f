"""Reads values of a Protobuf schema. The only module that makes message classes.

A value begins with the indexes that tell which message of the schema it is. Values of a batch are grouped by these.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from failsoft.schemas.formats import protobuf_wire as wire
from failsoft.schemas.formats.protobuf_columns import MessageType, MixedRows, Types
from failsoft.schemas.formats.protobuf_known import JSON_TYPES
from failsoft.schemas.formats.protobuf_values import Shown, Values, is_message
from failsoft.schemas.formats.reader import Decoded, Undecodable, WantedFields
from failsoft.schemas.formats.registered import MAX_SCHEMA, Registered, Unusable

MAX_DEPTH = 64
"""Levels of messages in a schema."""

MAX_DESCRIPTORS = 16 * MAX_SCHEMA
"""Bytes of a schema's descriptors, with those of all that it imports."""

MOST_MEMORY = 256_000_000
"""Bytes of the messages that one value may make. Two bytes on the wire can stand for a message of 10,000 fields."""

MOST_FIELDS = 3000
"""Fields of one message, besides those that are wanted. Each takes up to 20 bytes of upb's 64 KB."""

EXTRA = "Protobuf needs two more packages: pip install 'failsoft[protobuf]'"


def compile_protobuf(registered: Registered, descriptors: bytes, wanted: WantedFields) -> ProtobufReader:
    """A SchemaReader of this schema.

    ``descriptors`` is a serialized FileDescriptorSet: the schema's file is the last, and each file stands after those
    that it imports. Raises Unusable if they do not fit together, or if no message of the schema can be read.
    """
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
    except ImportError:
        raise Unusable(EXTRA) from None
    if len(descriptors) > MAX_DESCRIPTORS:
        raise Unusable(f"its descriptors have {len(descriptors)} bytes, over the limit of {MAX_DESCRIPTORS}")
    pool = descriptor_pool.DescriptorPool()
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptors).file
        for file in files:
            _fit(file.message_type, wanted.names)
            pool.Add(file)
        root = pool.FindFileByName(files[-1].name)
    except (message.DecodeError, TypeError, KeyError, IndexError, ValueError) as e:
        raise Unusable(f"not a Protobuf schema: {e}") from None
    messages = _messages(root.message_types_by_name.values())
    if not messages:
        raise Unusable("the schema has no message")
    faults: dict[str, str] = {}
    for each in messages.values():
        faults |= _faults(each) if each.full_name not in faults else {}
        if each.full_name not in faults:
            break
    else:
        raise Unusable(next(iter(faults.values())))
    checked = frozenset(file.name for file in files if file.syntax == "proto3")
    types = Types(message_factory.GetMessageClass, checked, Values())
    return ProtobufReader(types, messages, wanted, message.DecodeError)


def _fit(messages: Iterable[Any], names: Collection[str]) -> None:
    """Leave out fields of large messages, first those that are in no path: upb makes no message of over 64 KB.

    What is left out is an unknown field of a value, which is skipped.
    """
    for message in messages:
        _fit(message.nested_type, names)
        if len(message.field) <= MOST_FIELDS:
            continue
        kept = [field for field in message.field if field.name in names]
        rest = [field for field in message.field if field.name not in names]
        kept += rest[: max(0, MOST_FIELDS - len(kept))]
        oneofs = sorted({field.oneof_index for field in kept if field.HasField("oneof_index")})
        declared = [message.oneof_decl[index] for index in oneofs]
        for field in kept:
            if field.HasField("oneof_index"):
                field.oneof_index = oneofs.index(field.oneof_index)
        del message.field[:], message.oneof_decl[:]
        message.field.extend(kept)
        message.oneof_decl.extend(declared)


def _messages(roots: Iterable[Any]) -> dict[tuple[int, ...], Any]:
    """The message types of a schema by their indexes.

    Java's serializer does not count the types of map entries among nested messages, and Python's does. Indexes are
    Java's; Python's are known too where Java has none.
    """
    java: dict[tuple[int, ...], Any] = {}
    other: dict[tuple[int, ...], Any] = {}
    waiting: list[tuple[tuple[int, ...], tuple[int, ...], Any]] = [((i,), (i,), each) for i, each in enumerate(roots)]
    for path, python, message in waiting:  # which grows meanwhile
        java[path] = other[python] = message
        plain = 0
        for i, nested in enumerate(message.nested_types):
            if not nested.GetOptions().map_entry:
                waiting.append(((*path, plain), (*python, i), nested))
                plain += 1
    return other | java


def _faults(message: Any) -> dict[str, str]:
    """Why values of this message type, and of those that it holds, are not read, by their names."""
    levels: dict[str, int] = {}
    faults: dict[str, str] = {}
    open_: set[str] = set()
    waiting = [(message, False)]
    while waiting:
        each, left = waiting.pop()
        name = each.full_name
        if not left:
            if name in levels or name in open_ or name in JSON_TYPES:
                continue
            open_.add(name)
            waiting.append((each, True))
            waiting += [(inner, False) for inner in _inner(each)]
            continue
        inside = {inner.full_name for inner in _inner(each)}
        looping = next((other for other in inside if other in open_), None)
        bad = next((faults[other] for other in inside if other in faults), None)
        open_.remove(name)
        levels[name] = 1 + max((levels.get(other, 0) for other in inside), default=0)
        if looping is not None:
            faults[name] = f"the schema is recursive: {looping} contains itself"
        elif bad is not None:
            faults[name] = bad
        elif levels[name] > MAX_DEPTH:
            faults[name] = f"messages are nested deeper than {MAX_DEPTH} levels"
    return faults


def _inner(message: Any) -> list[Any]:
    return [field.message_type for field in message.fields if is_message(field)]


def _largest(message: Any) -> int:
    """Bytes of the largest message that messages of this type can hold many of; 0 if there is none."""
    found: dict[str, Any] = {}
    waiting = [message]
    while waiting:
        for inner in _inner(waiting.pop()):
            if inner.full_name not in found:
                found[inner.full_name] = inner
                waiting.append(inner)
    return max(map(wire.size, found.values()), default=0)


class ProtobufReader:
    """A SchemaReader of one Protobuf schema."""

    def __init__(
        self, types: Types, messages: Mapping[tuple[int, ...], Any], wanted: WantedFields, refused: type[Exception]
    ) -> None:
        """``messages``: the schema's message types by their indexes; ``refused``: what a message class raises."""
        self._types = types
        self._messages = messages
        self._wanted = wanted
        self._refused = refused
        self._compiled: dict[tuple[int, ...], _Compiled | str] = {}

    def read(self, values: Sequence[bytes]) -> Decoded:
        """Decode ``values``, each of which begins with message indexes."""
        if {value[:1] for value in values} == {b"\0"}:
            return self._of_one((0,), [value[1:] for value in values])
        groups: dict[tuple[int, ...], list[int]] = {}
        bad: dict[int, str] = {}
        bodies: dict[int, bytes] = {}
        for row, value in enumerate(values):
            try:
                path, at = wire.indexes(value)
            except Undecodable as e:
                bad[row] = str(e)
            else:
                groups.setdefault(path, []).append(row)
                bodies[row] = value[at:]
        parts: list[Decoded] = []
        kept: list[Sequence[int]] = []
        for path, rows in groups.items():
            part = self._of_one(path, [bodies[row] for row in rows])
            bad |= {rows[row]: why for row, why in part.bad.items()}
            parts.append(part)
            kept.append([rows[row] for row in part.kept])
        return _joined(parts, kept, bad)

    def value(self, value: bytes) -> Any:
        """One whole value as JSON values, for people."""
        path, at = wire.indexes(value)
        found = self._type(path)
        if isinstance(found, str):
            raise Undecodable(found)
        return Shown().message(self._message(found, value[at:]))

    def _of_one(self, path: tuple[int, ...], values: Sequence[bytes]) -> Decoded:
        """Decode messages of the type with these indexes."""
        found = self._type(path)
        if isinstance(found, str):
            return Decoded(MixedRows([]), (), dict.fromkeys(range(len(values)), found))
        if not found.most or sum(map(len, values)) <= found.most:
            return self._part(found, values)
        parts: list[Decoded] = []
        kept: list[Sequence[int]] = []
        bad: dict[int, str] = {}
        for begin, end in _cut([len(value) for value in values], found.most):
            part = self._part(found, values[begin:end])
            bad |= {begin + row: why for row, why in part.bad.items()}
            kept.append([begin + row for row in part.kept])
            parts.append(replace(part, rows=found.type.read(part.rows)))
        return _joined(parts, kept, bad)

    def _part(self, found: _Compiled, values: Sequence[bytes]) -> Decoded:
        """Decode values of one type whose messages may be in memory all at once."""
        type_ = found.type
        bad: dict[int, str] = {}
        kept: Sequence[int] = range(len(values))
        messages = self._all(found, values)
        if messages is None:
            messages = []
            for row, value in enumerate(values):
                try:
                    messages.append(self._message(found, value))
                except Undecodable as e:
                    bad[row] = str(e)
            kept = [row for row in kept if row not in bad]
        no_text: dict[int, str] = {}
        for path, column in type_.unchecked:
            for i, text in enumerate(column.values(messages)):
                if type(text) is bytes:
                    no_text.setdefault(i, _not_text(type_.type.DESCRIPTOR, path, values[kept[i]]))
        if no_text:
            bad |= {kept[i]: why for i, why in no_text.items()}
            messages = [message for i, message in enumerate(messages) if i not in no_text]
            kept = [row for i, row in enumerate(kept) if i not in no_text]
        return Decoded(type_.rows(messages), kept, bad)

    def _all(self, found: _Compiled, values: Sequence[bytes]) -> list[Any] | None:
        """The decoded messages of a part; None if one of them is bad, or must be bounded by itself."""
        if found.most and len(values) == 1 and len(values[0]) > found.most:
            return None
        try:
            return list(map(found.type.type.FromString, values))
        except self._refused:
            return None

    def _message(self, found: _Compiled, value: bytes) -> Any:
        """One decoded message. Raises Undecodable."""
        message_type = found.type.type.DESCRIPTOR
        if found.most and len(value) > found.most and wire.memory(message_type, value, MOST_MEMORY) > MOST_MEMORY:
            raise Undecodable(f"its messages would take more than {MOST_MEMORY // 10**6} MB of memory")
        try:
            return found.type.type.FromString(value)
        except self._refused as e:
            why = wire.bad_place(message_type, value) or str(e).rpartition(": ")[2]
            raise Undecodable(f"not a {message_type.full_name}: {why}") from None

    def _type(self, path: tuple[int, ...]) -> _Compiled | str:
        """The message type with these indexes, or why there is none."""
        found = self._compiled.get(path)
        if found is None:
            message = self._messages.get(path)
            if message is None:
                shown = ", ".join(map(str, path))
                return f"the schema has no message of index [{shown}]"
            found = _faults(message).get(message.full_name)
            if found is None:
                largest = _largest(message)
                most = 2 * MOST_MEMORY // largest if largest else 0  # a message takes two bytes or more
                found = _Compiled(MessageType(self._types, self._types.class_of(message), self._wanted), most)
            self._compiled[path] = found
        return found


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A message type that values are read of.

    Attributes:
        type: the type.
        most: bytes of values whose messages take at most MOST_MEMORY, whatever they are; 0 if any do.
    """

    type: MessageType
    most: int


def _not_text(message: Any, path: str, value: bytes) -> str:
    """What is wrong with a string of a decoded message, with its offset if it is the first that is no text."""
    place = wire.bad_place(message, value)
    return f"not a {message.full_name}: {place if place and place.startswith(path) else f'{path}: invalid UTF-8'}"


def _cut(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """The begin and end of parts, each of at most ``most`` in all, or of one that is larger by itself."""
    begin, total = 0, 0
    for i, size in enumerate(sizes):
        if total + size > most and i > begin:
            yield begin, i
            begin, total = i, 0
        total += size
    yield begin, len(sizes)


def _joined(parts: Sequence[Decoded], kept: Sequence[Sequence[int]], bad: Mapping[int, str]) -> Decoded:
    """One result of ``parts``; ``kept`` has the rows of each among all."""
    every = sorted(row for rows in kept for row in rows)
    place = {row: i for i, row in enumerate(every)}
    there = [(part.rows, [place[row] for row in rows]) for part, rows in zip(parts, kept, strict=True) if rows]
    return Decoded(there[0][0] if len(there) == 1 else MixedRows(there), every, bad)
