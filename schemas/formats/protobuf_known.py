"""The messages of Protobuf that stand for single values: wrappers, times, durations, decimals, dates, and JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date
from operator import attrgetter
from typing import Any

import numpy as np

from failsoft.schemas.features.paths import Absent
from failsoft.schemas.formats.decimals import MOST_BYTES, decimal, unscaled
from failsoft.schemas.formats.reader import Want

Convert = Callable[[Any], Any]
"""Makes the JSON value of a field that is set."""

_AS_NUMBERS = frozenset({Want.NUMBER, Want.INTEGER})
_EPOCH = date(1970, 1, 1).toordinal()
_TIMESTAMP = "google.protobuf.Timestamp"
_PARTS = attrgetter("seconds", "nanos")
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
"""Seconds of the years 1 and 9999, the limits of a Timestamp."""
_DECIMAL = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,9}))?", re.ASCII)
_MOST_DIGITS = 1200
"""Characters of a google.type.Decimal: about as many digits as a binary decimal may have."""


def known(message: Any, want: Want | None) -> Convert | None:
    """What makes a value of messages of this type, if it is a well-known one with the fields that these have."""
    name = message.full_name
    if name not in _KNOWN:
        return None
    make, types = _KNOWN[name]
    fields = message.fields_by_name
    if any(field not in fields or fields[field].type not in known_as for field, known_as in types.items()):
        return None  # another message of this name
    return make(want)


def known_column(message: Any, want: Want | None) -> Callable[[Sequence[Any]], list[Any]] | None:
    """What makes the values of a column at once, where that costs less than one by one."""
    if message.full_name != _TIMESTAMP or want in _AS_NUMBERS or known(message, want) is None:
        return None
    return lambda messages: _timestamps(messages, want)


def _wrapper(want: Want | None) -> Convert:
    return lambda message: message.value


def _timestamp(want: Want | None) -> Convert:
    if want in _AS_NUMBERS:
        return lambda _: Absent("a Timestamp, not a number: a feature of type string reads it")
    return lambda message: _timestamps([message], want)[0]


def _timestamps(messages: Sequence[Any], want: Want | None) -> list[Any]:
    """RFC 3339 of a column of Timestamps; each is written alike whatever its neighbours are."""
    pairs = list(map(_PARTS, messages))
    if not all(_FIRST <= seconds <= _LAST and 0 <= nanos < 10**9 for seconds, nanos in pairs):
        return [_beyond(pair, want) or _timestamps([each], want)[0] for pair, each in zip(pairs, messages, strict=True)]
    moments = np.array([seconds for seconds, _ in pairs], np.int64).view("datetime64[s]")
    texts: list[str] = np.datetime_as_string(moments).tolist()
    return [f"{text}{_decimals(nanos)}Z" for text, (_, nanos) in zip(texts, pairs, strict=True)]


def _beyond(pair: tuple[int, int], want: Want | None) -> str | Absent | None:
    """What stands for a Timestamp that is none; None if it is one. As a time it is a text that is no time."""
    seconds, nanos = pair
    if _FIRST <= seconds <= _LAST and 0 <= nanos < 10**9:
        return None
    text = f"a Timestamp of {seconds} s and {nanos} ns"
    return text if want is Want.TIME else Absent(f"{text}, beyond its range")


def _decimals(nanos: int) -> str:
    """A fraction of a second, in 0, 3, 6 or 9 digits."""
    if not nanos:
        return ""
    digits = f"{nanos:09d}"
    return "." + (digits[:3] if digits.endswith("000000") else digits[:6] if digits.endswith("000") else digits)


def _duration(want: Want | None) -> Convert:
    def number(message: Any) -> Any:
        nanos = message.seconds * 10**9 + message.nanos
        return nanos // 10**9 if want is Want.INTEGER and not nanos % 10**9 else nanos / 10**9

    def text(message: Any) -> Any:
        nanos = message.seconds * 10**9 + message.nanos
        seconds, rest = divmod(abs(nanos), 10**9)
        return f"{'-' if nanos < 0 else ''}{seconds}{_decimals(rest)}s"

    return number if want in _AS_NUMBERS else text


def _confluent_decimal(want: Want | None) -> Convert:
    def convert(message: Any) -> Any:
        raw = message.value
        if len(raw) > MOST_BYTES:
            return Absent(f"a decimal of {len(raw)} bytes, over the limit of {MOST_BYTES}")
        return decimal(unscaled(raw), message.scale, want)

    return convert


def _google_decimal(want: Want | None) -> Convert:
    def convert(message: Any) -> Any:
        text = message.value
        parts = _DECIMAL.fullmatch(text) if len(text) <= _MOST_DIGITS else None
        if parts is None or not (parts[2] or parts[3]):
            return Absent("not a decimal")
        digits, after = (parts[2] or "") + (parts[3] or ""), len(parts[3] or "")
        return decimal(int(f"{parts[1]}{digits}"), after - int(parts[4] or 0), want)

    return convert


def _date(want: Want | None) -> Convert:
    def convert(message: Any) -> Any:
        try:
            found = date(message.year, message.month, message.day)
        except (ValueError, OverflowError):
            text = f"not a date: year {message.year}, month {message.month}, day {message.day}"
            return text if want is Want.TIME else Absent(text)  # no time either, which is counted and said
        if want in _AS_NUMBERS:
            return found.toordinal() - _EPOCH
        return f"{found.isoformat()}T00:00:00Z" if want is Want.TIME else found.isoformat()

    return convert


def _time_of_day(want: Want | None) -> Convert:
    if want in _AS_NUMBERS:
        return lambda _: Absent("a TimeOfDay, not a number: a feature of type string reads it")
    return lambda at: f"{at.hours:02d}:{at.minutes:02d}:{at.seconds:02d}{_decimals(at.nanos)}"


def _struct(want: Want | None) -> Convert:
    return _json_object


def _json_object(message: Any) -> dict[str, Any]:
    fields = message.fields
    return {key: _json(fields[key]) for key in fields}


def _json(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    if kind == "struct_value":
        return _json_object(message.struct_value)
    if kind == "list_value":
        return [_json(each) for each in message.list_value.values]
    return None if kind is None or kind == "null_value" else getattr(message, kind)


def _value(want: Want | None) -> Convert:
    return _json


def _list(want: Want | None) -> Convert:
    return lambda message: [_json(each) for each in message.values]


_INT32, _INT64, _STRINGS, _BYTES = ({5}, {3}, {9}, {12})
_ANY = set(range(1, 19))
_WRAPPED = ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
_JSON = {
    "google.protobuf.Struct": (_struct, {"fields": {11}}),
    "google.protobuf.Value": (_value, {"struct_value": {11}, "list_value": {11}}),
    "google.protobuf.ListValue": (_list, {"values": {11}}),
}
JSON_TYPES = frozenset(_JSON)
"""They hold JSON values, and so themselves: the one recursion that is read."""

_KNOWN: dict[str, tuple[Callable[[Want | None], Convert], dict[str, set[int]]]] = {
    **{f"google.protobuf.{name}Value": (_wrapper, {"value": _ANY - {10, 11}}) for name in _WRAPPED},
    **_JSON,
    _TIMESTAMP: (_timestamp, {"seconds": _INT64, "nanos": _INT32}),
    "google.protobuf.Duration": (_duration, {"seconds": _INT64, "nanos": _INT32}),
    "confluent.type.Decimal": (_confluent_decimal, {"value": _BYTES, "scale": _INT32}),
    "google.type.Decimal": (_google_decimal, {"value": _STRINGS}),
    "google.type.Date": (_date, dict.fromkeys(("year", "month", "day"), _INT32)),
    "google.type.TimeOfDay": (_time_of_day, dict.fromkeys(("hours", "minutes", "seconds", "nanos"), _INT32)),
}
