"""What the fields of Protobuf messages are as JSON values, by what they are wanted as, and for people."""

from __future__ import annotations

import math
from binascii import b2a_base64
from typing import Any

from failsoft.schemas.features.paths import Absent
from failsoft.schemas.formats.protobuf_known import Convert, known
from failsoft.schemas.formats.reader import Want

NUMBERS = frozenset({1, 2, 3, 4, 5, 6, 7, 13, 15, 16, 17, 18})
"""Types of plain numbers, by the numbers of ``FieldDescriptorProto.Type``."""

STRING, ENUM = 9, 14
_MESSAGES = frozenset({10, 11})
_BY_NUMBER = frozenset({Want.NUMBER, Want.INTEGER, Want.TENSOR})

_LONGEST = 200
"""Characters of a name in a message. protoc takes 65,535, and a message is made for each row."""

_DEFAULTS = 100_000
"""Fields of one value that are shown to people although they are not on the wire. A value of some bytes may have
millions."""


def short(name: str) -> str:
    """A name or a path in messages: its end, if it is long."""
    return name if len(name) <= _LONGEST else f"…{name[-_LONGEST:]}"


def repeated(field: Any) -> bool:
    """Is it a repeated field, or a map?"""
    try:
        return bool(field.is_repeated)
    except AttributeError:  # before protobuf 6.31
        return bool(field.label == 3)


def is_map(field: Any) -> bool:
    """Is it a map?"""
    return field.type == 11 and bool(field.message_type.GetOptions().map_entry)


def is_message(field: Any) -> bool:
    """Is it a message, or a group?"""
    return field.type in _MESSAGES


class Values:
    """Makes JSON values of the fields of one schema. What was found of a field is kept with it."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, Want | None], Convert | None] = {}

    def converter(self, field: Any, want: Want | None) -> Convert | None:
        """What makes a value of this field; None if it is one as it is. ``want`` None: whatever tells most."""
        key = field, want
        if key not in self._kept:
            self._kept[key] = self._converter(field, want)
        return self._kept[key]

    def _converter(self, field: Any, want: Want | None) -> Convert | None:
        if is_map(field):
            return _map(field, self._one(field.message_type.fields_by_number[2], want))
        convert = self._one(field, want)
        if not repeated(field):
            return convert
        if convert is None:
            return list
        return lambda values: [convert(value) for value in values]

    def _one(self, field: Any, want: Want | None) -> Convert | None:
        """``converter``, of one of the values of a repeated field."""
        if field.type == ENUM:
            return None if want in _BY_NUMBER else _symbol(field.enum_type)
        if not is_message(field):
            return None
        return known(field.message_type, want) or self._message

    def _message(self, message: Any) -> dict[str, Any]:
        """The fields of a message that are on the wire; a few bytes may stand for a message of 10,000 others."""
        made = {}
        for field, value in message.ListFields():
            convert = self.converter(field, None)
            made[field.name] = value if convert is None else convert(value)
        return made


def key_text(key: Any) -> str:
    """A map's key as JSON has it."""
    return key if type(key) is str else str(key).lower()


def by_key(field: Any) -> Convert:
    """What makes a dict of a map, whose values stay as they are."""
    return dict if field.message_type.fields_by_number[1].type == STRING else _by_key


def _by_key(items: Any) -> dict[str, Any]:
    return {key_text(key): items[key] for key in items}


def _map(field: Any, convert: Convert | None) -> Convert:
    if convert is None:
        return by_key(field)
    return lambda items: {key_text(k): convert(items[k]) for k in items}


def _symbol(enum: Any) -> Convert:
    names = {number: value.name for number, value in enum.values_by_number.items()}
    enum_name = short(enum.full_name)
    return lambda number: names.get(number) or Absent(f"{number} is no value of the enum {enum_name}")


class Shown:
    """Makes JSON values of a whole message for people, as JSON of Protocol Buffers has them."""

    def __init__(self) -> None:
        self._left = _DEFAULTS

    def message(self, message: Any) -> Any:
        """The message's fields. Those without presence are there too, with their defaults."""
        convert = known(message.DESCRIPTOR, None)
        if convert is not None:
            return self._plain(convert(message))
        made = {field.name: self._field(field, value) for field, value in message.ListFields()}
        if self._left <= 0:
            return made
        absent = [f for f in message.DESCRIPTOR.fields if f.name not in made and not f.has_presence]
        self._left -= len(absent)
        rest = {field.name: self._field(field, getattr(message, field.name)) for field in absent}
        return made | rest

    def _field(self, field: Any, value: Any) -> Any:
        if is_map(field):
            of = field.message_type.fields_by_number[2]
            return {key_text(key): self._one(of, value[key]) for key in value}
        if repeated(field):
            return [self._one(field, each) for each in value]
        return self._one(field, value)

    def _one(self, field: Any, value: Any) -> Any:
        if is_message(field):
            return self.message(value)
        if field.type == ENUM:
            named = field.enum_type.values_by_number.get(value)
            return value if named is None else named.name
        return self._plain(value)

    def _plain(self, value: Any) -> Any:
        if isinstance(value, bytes):
            return b2a_base64(value, newline=False).decode()
        if isinstance(value, float) and not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        if isinstance(value, dict):
            return {key: self._plain(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._plain(each) for each in value]
        return value.why if isinstance(value, Absent) else value
