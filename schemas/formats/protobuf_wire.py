"""Reads Protobuf's wire format by itself: message indexes, where a value is bad, and what memory it would take.

Values are decoded by upb, whose errors name no place. Only values that it refused are walked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from failsoft.schemas.formats.protobuf_schema import size_of
from failsoft.schemas.formats.protobuf_values import repeated, short
from failsoft.schemas.formats.reader import Undecodable

MOST_INDEXES = 64
"""Message indexes of a value: as many as the levels of a schema."""

MOST_FIELDS = 100_000
"""Fields that are walked to find the bad places of a batch. Walking takes about a microsecond each, and nothing else
runs meanwhile."""

MOST_COUNTED = 500_000
"""Fields of one value whose memory must be counted: as many as a megabyte has, of two bytes each."""

MOST_DEPTH = 100
"""Levels of messages and groups; upb's limit."""

_VARINT, _FIXED64, _BYTES, _GROUP, _END, _FIXED32 = range(6)
_TYPE_GROUP, _TYPE_MESSAGE, _TYPE_STRING = 10, 11, 9
_VARINTS = frozenset({3, 4, 5, 8, 13, 14, 17, 18})
_FIXED = {1: 8, 6: 8, 16: 8, 2: 4, 7: 4, 15: 4}
"""Types of fields, by the numbers of ``FieldDescriptorProto.Type``: those of varints, and the bytes of the others."""


class _Bad(Exception):
    """The wire format is broken: the offset, and why."""

    def __init__(self, at: int, why: str) -> None:
        super().__init__(why)
        self.at, self.why = at, why


class _Enough(Exception):
    """There are more fields than may be walked."""


def indexes(value: bytes) -> tuple[tuple[int, ...], int]:
    """The message indexes that a value begins with, and how many bytes they take. Raises Undecodable.

    They are a count and as many numbers, all zigzag varints. The single byte 0 stands for [0].
    """
    try:
        count, at = _zigzag(value, 0)
        if count == 0:
            return (0,), at
        if not 0 < count <= MOST_INDEXES:
            raise Undecodable(f"byte 0: {count} message indexes; there can be 1 to {MOST_INDEXES}")
        found: list[int] = []
        for _ in range(count):
            start = at
            index, at = _zigzag(value, at)
            if index < 0:
                raise Undecodable(f"byte {start}: the message index {index} is negative")
            found.append(index)
        return tuple(found), at
    except _Bad as e:
        raise Undecodable(f"byte {e.at}: {e.why} in the message indexes") from None


class BadPlaces:
    """Finds where values of a batch are bad, for MOST_FIELDS in all: of those after them no place is known."""

    def __init__(self) -> None:
        self._left = MOST_FIELDS

    def first(self, descriptor: Any, data: bytes) -> str | None:
        """The first place in ``data`` that does not fit the message type ``descriptor``, in words; None if none is
        found.

        The text has the path of the field, and the offset from the message's first byte.
        """
        path: list[str] = []
        walk = _Walk(data, path, self._left)
        try:
            for _ in walk.message(descriptor, 0, len(data), 0):
                pass
        except _Bad as e:
            return f"{short('.'.join(path))}: {e.why} at byte {e.at}" if path else f"{e.why} at byte {e.at}"
        except _Enough:
            pass
        finally:
            self._left = max(0, walk.left)
        return None


def memory(descriptor: Any, data: bytes, most: int) -> int:
    """Bytes of the messages that ``data`` makes, at least; counting ends when there are more than ``most``.

    Texts and packed numbers are not looked at: they take at most eight times their bytes on the wire. Raises
    Undecodable if there are more fields than are counted.
    """
    total = 0
    walk = _Walk(data, [], MOST_COUNTED, inside=False)
    try:
        for each in walk.message(descriptor, 0, len(data), 0):
            total += size_of(each)
            if total > most:
                return total
    except _Bad:
        pass  # what stands before is all that upb makes
    except _Enough:
        raise Undecodable(f"more than {MOST_COUNTED} fields") from None
    return total


class _Walk:
    """Walks a message and all messages in it."""

    def __init__(self, data: bytes, path: list[str], most: int, inside: bool = True) -> None:
        """
        Args:
            data: the message.
            path: where to keep the names of the fields that lead to the present place.
            most: fields that are walked.
            inside: look into texts and packed numbers.
        """
        self._data = data
        self._path = path
        self.left = most
        self._inside = inside

    def message(self, descriptor: Any, at: int, end: int, depth: int, group: int = 0) -> Iterator[Any]:
        """Walk the message in ``at`` to ``end``; of a ``group``, up to its end. Gives each message's type.

        ``descriptor`` is None for a group that the schema lacks. The last value is the offset after the message.
        """
        if depth > MOST_DEPTH:
            raise _Bad(at, f"nested deeper than {MOST_DEPTH} levels")
        if descriptor is not None:
            yield descriptor
        data = self._data
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise _Enough
            start = at
            tag, at = _varint(data, at, end, 5)
            number, wire = tag >> 3, tag & 7
            if not number or tag >= 1 << 32:
                raise _Bad(start, f"a field of number {number}")
            if wire == _END:
                if number != group:
                    raise _Bad(start, f"the end of a group {number} that did not begin")
                self.end = at
                return
            field = None if descriptor is None else descriptor.fields_by_number.get(number)
            name = f"field {number}" if field is None else field.name
            self._path.append(name)
            if wire == _GROUP:
                inner = field.message_type if field is not None and field.type == _TYPE_GROUP else None
                yield from self.message(inner, at, end, depth + 1, number)
                at = self.end
            elif wire == _BYTES:
                length, at = _varint(data, at, end, 5)
                if length > end - at:
                    raise _Bad(start, f"a length of {length} where {end - at} bytes are left")
                if field is None:
                    pass
                elif field.type == _TYPE_MESSAGE:
                    yield from self.message(field.message_type, at, at + length, depth + 1)
                elif not self._inside:
                    pass
                elif field.type == _TYPE_STRING:
                    self._text(at, at + length)
                elif repeated(field):
                    self._packed(field.type, at, at + length)
                at += length
            elif wire == _VARINT:
                _, at = _varint(data, at, end)
            elif wire in (_FIXED64, _FIXED32):
                at += 8 if wire == _FIXED64 else 4
                if at > end:
                    raise _Bad(start, "cut off")
            else:
                raise _Bad(start, f"wire type {wire}")
            self._path.pop()
        if group:
            raise _Bad(end, f"the group {group} does not end")
        self.end = end

    def _packed(self, kind: int, at: int, end: int) -> None:
        if kind in _FIXED and (end - at) % _FIXED[kind]:
            raise _Bad(at, f"packed numbers of {_FIXED[kind]} bytes in {end - at} bytes")
        while kind in _VARINTS and at < end:
            self.left -= 1
            if self.left < 0:
                raise _Enough
            _, at = _varint(self._data, at, end)

    def _text(self, at: int, end: int) -> None:
        try:
            self._data[at:end].decode()
        except UnicodeDecodeError as e:
            raise _Bad(at + e.start, "invalid UTF-8") from None


def _varint(data: bytes, at: int, end: int, longest: int = 10) -> tuple[int, int]:
    """The number at ``at``, and the offset after it."""
    number, start = 0, at
    for shift in range(0, 7 * longest, 7):
        if at >= end:
            raise _Bad(start, "cut off")
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise _Bad(start, f"a number of more than {longest} bytes")


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    number, at = _varint(data, at, len(data))
    return (number >> 1) ^ -(number & 1), at
