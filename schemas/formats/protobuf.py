"""Reads values of a Protobuf schema. The only module that makes message classes.

A value begins with the indexes that tell which message of the schema it is. Values of a batch are grouped by these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from failsoft.schemas.formats import protobuf_wire as wire
from failsoft.schemas.formats.protobuf_columns import MessageType, MixedRows, Types
from failsoft.schemas.formats.protobuf_schema import MemoryBound, faults_of, fit, memory_bound, messages_of
from failsoft.schemas.formats.protobuf_values import Shown, Values, short
from failsoft.schemas.formats.reader import Decoded, Undecodable, WantedFields
from failsoft.schemas.formats.registered import MAX_SCHEMA, Registered, Unusable

MAX_DESCRIPTORS = 16 * MAX_SCHEMA
"""Bytes of a schema's descriptors, with those of all that it imports."""

MOST_MEMORY = 64_000_000
"""Bytes of the messages that are in memory at once. Two bytes on the wire can stand for a message of 3,000 fields."""


def compile_protobuf(registered: Registered, descriptors: bytes, wanted: WantedFields) -> ProtobufReader:
    """A SchemaReader of this schema.

    ``descriptors`` is a serialized FileDescriptorSet: the schema's file is the last, and each file stands after those
    that it imports. Needs google.protobuf. Raises Unusable if they do not fit together, or if no message of the schema
    can be read.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

    if len(descriptors) > MAX_DESCRIPTORS:
        raise Unusable(f"its descriptors have {len(descriptors)} bytes, over the limit of {MAX_DESCRIPTORS}")
    pool = descriptor_pool.DescriptorPool()
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptors).file
        for file in files:
            fit(file.message_type, wanted.names)
            pool.Add(file)
        root = pool.FindFileByName(files[-1].name)
    except (message.DecodeError, TypeError, KeyError, IndexError, ValueError) as e:
        raise Unusable(f"not a Protobuf schema: {e}") from None
    messages = messages_of(root.message_types_by_name.values())
    if not messages:
        raise Unusable("the schema has no message")
    faults: dict[str, str] = {}
    for each in messages.values():
        faults |= faults_of(each) if each.full_name not in faults else {}
        if each.full_name not in faults:
            break
    else:
        raise Unusable(next(iter(faults.values())))
    checked = frozenset(file.name for file in files if file.syntax == "proto3")
    types = Types(message_factory.GetMessageClass, checked, Values())
    return ProtobufReader(types, messages, wanted, message.DecodeError)


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
        places = wire.BadPlaces()
        if {value[:1] for value in values} == {b"\0"}:
            return self._of_one((0,), [value[1:] for value in values], places)
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
            part = self._of_one(path, [bodies[row] for row in rows], places)
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
        return Shown().message(self._message(found, value[at:], wire.BadPlaces()))

    def _of_one(self, path: tuple[int, ...], values: Sequence[bytes], places: wire.BadPlaces) -> Decoded:
        """Decode messages of the type with these indexes."""
        found = self._type(path)
        if isinstance(found, str):
            return Decoded(MixedRows([]), (), dict.fromkeys(range(len(values)), found))
        bound = found.bound
        if bound.once * len(values) + bound.rate * sum(map(len, values)) <= MOST_MEMORY:
            return self._part(found, values, places)
        parts: list[Decoded] = []
        kept: list[Sequence[int]] = []
        bad: dict[int, str] = {}
        for begin, end in _cut(bound.of(map(len, values)), MOST_MEMORY):
            part = self._part(found, values[begin:end], places)
            bad |= {begin + row: why for row, why in part.bad.items()}
            kept.append([begin + row for row in part.kept])
            parts.append(replace(part, rows=found.type.read(part.rows)))
        return _joined(parts, kept, bad)

    def _part(self, found: _Compiled, values: Sequence[bytes], places: wire.BadPlaces) -> Decoded:
        """Decode values of one type whose messages may be in memory all at once."""
        type_ = found.type
        bad: dict[int, str] = {}
        kept: Sequence[int] = range(len(values))
        messages = self._all(found, values)
        if messages is None:
            messages = []
            for row, value in enumerate(values):
                try:
                    messages.append(self._message(found, value, places))
                except Undecodable as e:
                    bad[row] = str(e)
            kept = [row for row in kept if row not in bad]
        no_text: dict[int, str] = {}
        for path, column in type_.unchecked:
            for i, text in enumerate(column.values(messages)):
                if type(text) is bytes and i not in no_text:
                    no_text[i] = _not_text(places, type_.type.DESCRIPTOR, path, values[kept[i]])
        if no_text:
            bad |= {kept[i]: why for i, why in no_text.items()}
            messages = [message for i, message in enumerate(messages) if i not in no_text]
            kept = [row for i, row in enumerate(kept) if i not in no_text]
        return Decoded(type_.rows(messages), kept, bad)

    def _all(self, found: _Compiled, values: Sequence[bytes]) -> list[Any] | None:
        """The decoded messages of a part; None if one of them is bad, or must be bounded by itself."""
        if len(values) == 1 and sum(found.bound.of(map(len, values))) > MOST_MEMORY:
            return None
        try:
            return list(map(found.type.type.FromString, values))
        except self._refused:
            return None

    def _message(self, found: _Compiled, value: bytes, places: wire.BadPlaces) -> Any:
        """One decoded message. Raises Undecodable."""
        message_type = found.type.type.DESCRIPTOR
        large = sum(found.bound.of([len(value)])) > MOST_MEMORY
        if large and wire.memory(message_type, value, MOST_MEMORY) > MOST_MEMORY:
            raise Undecodable(f"its messages would take more than {MOST_MEMORY // 10**6} MB of memory")
        try:
            return found.type.type.FromString(value)
        except self._refused as e:
            why = places.first(message_type, value) or str(e).rpartition(": ")[2]
            raise Undecodable(f"not a {short(message_type.full_name)}: {why}") from None

    def _type(self, path: tuple[int, ...]) -> _Compiled | str:
        """The message type with these indexes, or why there is none."""
        found = self._compiled.get(path)
        if found is None:
            message = self._messages.get(path)
            if message is None:
                shown = ", ".join(map(str, path))
                return f"the schema has no message of index [{shown}]"
            found = faults_of(message).get(message.full_name)
            if found is None:
                class_ = self._types.class_of(message)
                found = _Compiled(MessageType(self._types, class_, self._wanted), memory_bound(message))
            self._compiled[path] = found
        return found


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A message type that values are read of.

    Attributes:
        type: the type.
        bound: the memory that its values may take.
    """

    type: MessageType
    bound: MemoryBound


def _not_text(places: wire.BadPlaces, message: Any, path: str, value: bytes) -> str:
    """What is wrong with a string of a decoded message, with its offset if it is the first that is no text."""
    place = places.first(message, value)
    return (
        f"not a {short(message.full_name)}: {place if place and place.startswith(path) else f'{path}: invalid UTF-8'}"
    )


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
