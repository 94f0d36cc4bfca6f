"""What a Protobuf schema allows: which of its messages can be read, by which indexes, and what memory they may take."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from failsoft.schemas.formats.protobuf_known import JSON_TYPES
from failsoft.schemas.formats.protobuf_values import is_message, repeated
from failsoft.schemas.formats.registered import MAX_DEPTH

MOST_FIELDS = 3000
"""Fields of one message, besides those that are wanted. Each takes up to 20 bytes of upb's 64 KB."""

MOST_ONCE = 500_000
"""Bytes of the messages that a value has at most once each. They are not counted by what is on the wire."""


def fit(messages: Iterable[Any], names: Collection[str]) -> None:
    """Leave out fields of large messages, first those that are in no path: upb makes no message of over 64 KB.

    What is left out is an unknown field of a value, which is skipped.
    """
    for message in messages:
        fit(message.nested_type, names)
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


def messages_of(roots: Iterable[Any]) -> dict[tuple[int, ...], Any]:
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


def faults_of(message: Any) -> dict[str, str]:
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


@dataclass(frozen=True, slots=True)
class MemoryBound:
    """The most memory that values of a message type take when they are decoded, without texts and numbers in lists.

    Attributes:
        once: bytes of the messages that a value has at most once.
        rate: bytes of other messages for each byte on the wire: a value may have any number of them, of two bytes each.
    """

    once: int
    rate: int

    def of(self, sizes: Iterable[int]) -> list[int]:
        """The bytes of each of some values, by their sizes on the wire."""
        return [self.once + self.rate * size for size in sizes]


def memory_bound(message: Any) -> MemoryBound:
    """The MemoryBound of a message type that has no fault."""
    once = _once(message, {})
    if once <= MOST_ONCE:
        return MemoryBound(once, _largest(message, False) // 2)
    return MemoryBound(size_of(message), _largest(message, True) // 2)


def size_of(message: Any) -> int:
    """Bytes that a message of this type takes at most, without the messages and texts in it."""
    return 64 + 16 * len(message.fields)


def _once(message: Any, known: dict[str, int]) -> int:
    """Bytes of a message and of all messages in it that it can have only once."""
    if message.full_name not in known:
        inner = [f.message_type for f in message.fields if is_message(f) and not _many(f)]
        plain = [each for each in inner if each.full_name not in JSON_TYPES]
        known[message.full_name] = size_of(message) + sum(_once(each, known) for each in plain)
    return known[message.full_name]


def _many(field: Any) -> bool:
    """Can a value have any number of the field's messages? In a oneof, each of them takes the place of the former."""
    return repeated(field) or (field.containing_oneof is not None and len(field.containing_oneof.fields) > 1)


def _largest(message: Any, all_: bool) -> int:
    """Bytes of the largest message that a value can have any number of, or of ``all_`` in it; 0 if there is none."""
    found: dict[tuple[str, bool], int] = {}
    waiting = [(message, all_)]
    while waiting:
        each, many = waiting.pop()
        for field in each.fields:
            if not is_message(field):
                continue
            inner = field.message_type
            counted = many or _many(field) or inner.full_name in JSON_TYPES
            if (inner.full_name, counted) not in found:
                found[inner.full_name, counted] = size_of(inner) if counted else 0
                waiting.append((inner, counted))
    return max(found.values(), default=0)
