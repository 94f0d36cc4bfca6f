"""Writes JSON values as Protobuf messages, by Protobuf's own mapping of JSON. Pure."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from failsoft.schemas.formats.avro_encoding import long
from failsoft.schemas.formats.decimals import stored
from failsoft.workers.operations.avro_scalars import MANY_DIGITS, Unwritable, exact

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor


class ProtobufWriter:
    """Writes events that are one message of a schema.

    As in Protobuf's mapping, a field is called by its name or in camel case, a 64-bit integer may be text, bytes are
    base64, an enum is its name, a Timestamp is RFC 3339, and a null is a field that is not set. Beyond it, a Decimal
    may be a number or its text, and a google.type.Date may be ISO 8601.
    """

    def __init__(self, message: Descriptor) -> None:
        from google.protobuf import message_factory

        self._pool = message.file.pool
        self._make = message_factory.GetMessageClass(message)
        self._indexes = indexes(message)
        self._message = message
        self._plain = _has_plain(message, set())

    def write(self, value: Any) -> bytes:
        """The message's indexes and the message. Raises Unwritable."""
        from google.protobuf import json_format
        from google.protobuf.message import EncodeError

        if not isinstance(value, dict):
            raise Unwritable("the event is not an object")
        try:
            if self._plain:
                value = _spelled(value, self._message)
            made = json_format.ParseDict(value, self._make(), descriptor_pool=self._pool)
            raw: bytes = made.SerializeToString(deterministic=True)
        except Unwritable:
            raise
        except (json_format.ParseError, EncodeError, ValueError, TypeError, RecursionError) as e:
            raise Unwritable(str(e) or type(e).__name__) from None
        return self._indexes + raw


def indexes(message: Descriptor) -> bytes:
    """Where a message is in its file, as Confluent's framing says it: how many indexes, and each, as zigzag varints.

    The first message of a file is one zero byte.
    """
    path: list[int] = []
    at: Descriptor | None = message
    while at is not None:
        outer = at.containing_type
        beside = at.file.message_types_by_name.values() if outer is None else outer.nested_types
        path.append([each.full_name for each in beside].index(at.full_name))
        at = outer
    if path == [0]:
        return b"\0"
    return b"".join(map(long, (len(path), *reversed(path))))


def _has_plain(message: Descriptor, seen: set[str]) -> bool:
    """Whether a field of ``message``, or within it, has a type of _PLAIN."""
    seen.add(message.full_name)
    inner = [each.message_type for each in message.fields if each.message_type is not None]
    return any(each.full_name in _PLAIN or (each.full_name not in seen and _has_plain(each, seen)) for each in inner)


def _spelled(value: Any, message: Descriptor) -> Any:
    """``value`` with each number or text that stands for a message of _PLAIN as that message's fields."""
    if isinstance(value, list):
        return [_spelled(each, message) for each in value]
    if message.GetOptions().map_entry:
        entry = message.fields_by_name["value"].message_type
        return value if entry is None else {key: _spelled(each, entry) for key, each in dict(value).items()}
    if message.full_name in _PLAIN and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return _PLAIN[message.full_name](value)
    if not isinstance(value, dict):
        return value
    made = dict(value)
    for each in message.fields:
        for name in {each.name, each.camelcase_name} & made.keys() if each.message_type is not None else ():
            made[name] = _spelled(made[name], each.message_type)
    return made


def _decimal(value: float | str) -> dict[str, Any]:
    """confluent.type.Decimal: the digits as a big-endian integer, and how many are after the point."""
    number = exact(value)
    if number is None:
        raise Unwritable(f"{value!r} is not a decimal number, such as 12.50")
    scale = max(0, -int(number.as_tuple().exponent))
    whole = int(number.scaleb(scale, MANY_DIGITS))
    digits = binascii.b2a_base64(stored(whole), newline=False).decode()
    return {"value": digits, "precision": max(1, len(str(abs(whole)))), "scale": scale}


def _text_decimal(value: float | str) -> dict[str, Any]:
    if exact(value) is None:
        raise Unwritable(f"{value!r} is not a decimal number, such as 12.50")
    return {"value": value if isinstance(value, str) else repr(value)}


def _date(value: float | str) -> dict[str, Any]:
    try:
        found = date.fromisoformat(str(value))
    except ValueError:
        raise Unwritable(f"{value!r} is not a date, such as 2026-01-31") from None
    return {"year": found.year, "month": found.month, "day": found.day}


_PLAIN: Mapping[str, Callable[[float | str], dict[str, Any]]] = {
    "confluent.type.Decimal": _decimal,
    "google.type.Decimal": _text_decimal,
    "google.type.Date": _date,
}
"""What makes the fields of a message of a number or text."""
