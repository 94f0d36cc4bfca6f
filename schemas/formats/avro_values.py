"""Avro's values as JSON's: what each type gives where a pipeline wants a number, a string, a time or a tensor."""

from __future__ import annotations

import math
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from datetime import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.features.paths import Absent
from failsoft.schemas.formats.avro_schema import AvroType, Logical
from failsoft.schemas.formats.decimals import decimal, unscaled
from failsoft.schemas.formats.framing import guid
from failsoft.schemas.formats.reader import Want

Form = Callable[[Any], Any]
"""Makes a value of what was read: of an enum its symbol's index, of a logical type what it is stored as."""

BRANCH = "branch"
"""With its index, the only key of the object that stands for a value of a union of several types."""

_NUMBERS = (Want.NUMBER, Want.INTEGER, Want.BOOL, Want.TENSOR)
_UNITS = {"millis": ("ms", 10**3), "micros": ("us", 10**6), "nanos": ("ns", 10**9)}

_NO_TIME, _LEAST = "NaT", -(2**63)
"""numpy's name for the least 64-bit integer as a time, which Avro's timestamps do not set apart."""


def values(kind: AvroType, want: Want, raw: NDArray[Any] | Sequence[Any]) -> list[Any]:
    """A column of one type: what is wanted of each raw value."""
    if isinstance(raw, np.ndarray):
        if kind.kind == "enum":
            return list(map(kind.symbols.__getitem__, raw.tolist()))
        if kind.logical is not None and kind.kind in ("int", "long") and want not in _NUMBERS:
            texts = _texts(kind.logical.name, want, raw)
            if texts is not None:
                return texts
        raw = raw.tolist()
    made = form(kind, want)
    return list(raw) if made is None else list(map(made, raw))


def numbers(kind: AvroType, want: Want | None, raw: NDArray[Any] | Sequence[Any]) -> NDArray[Any] | None:
    """A column of one type as numbers, NaN where a decimal is none; None if the type has other values than numbers."""
    if want not in (Want.NUMBER, Want.INTEGER):
        return None
    if kind.logical is not None and kind.logical.name == "decimal":
        found = values(kind, Want.NUMBER, raw)
        return np.array([math.nan if isinstance(value, Absent) else value for value in found], np.float64)
    return raw if kind.kind in ("int", "long", "float", "double") and isinstance(raw, np.ndarray) else None


def form(kind: AvroType, want: Want, people: bool = False) -> Form | None:
    """The form of a type's values; None: they stay as they are.

    Args:
        kind: the type.
        want: what the value is wanted as.
        people: bytes become base64, as JSON has no bytes.
    """
    match kind.kind:
        case "enum":
            return _symbol(kind)
        case "int" | "long" | "string" | "bytes" | "fixed" if kind.logical is not None:
            made = _logical(kind.kind, kind.logical, want)
            return _shown(made) if people and made is not None else made
        case "bytes" | "fixed":
            return (lambda raw: b2a_base64(raw, newline=False).decode()) if people else None
        case "array":
            item = form(kind.parts[0], want, people)
            return None if item is None else _each(item)
        case "map":
            item = form(kind.parts[0], want, people)
            return None if item is None else lambda raw: {key: item(value) for key, value in raw.items()}
        case "record":
            forms = {name: made for name, part in kind.fields if (made := form(part, want, people)) is not None}
            return _record(forms) if forms else None
        case "union":
            return _union(kind, [form(part, want, people) for part in kind.parts])
    return None


def branches(union: AvroType) -> list[int]:
    """The indexes of a union's types that are not null."""
    return [i for i, part in enumerate(union.parts) if part.kind != "null"]


def _symbol(kind: AvroType) -> Form:
    def symbol(index: int) -> str:
        if not 0 <= index < len(kind.symbols):
            raise ValueError(f"there is no symbol {index}")
        return kind.symbols[index]

    return symbol


def _shown(made: Form) -> Form:
    """For people, a value that cannot be used is what is wrong with it."""
    return lambda raw: found.why if isinstance(found := made(raw), Absent) else found


def _each(item: Form) -> Form:
    return lambda raw: list(map(item, raw))


def _record(forms: dict[str, Form]) -> Form:
    return lambda raw: {name: forms[name](value) if name in forms else value for name, value in raw.items()}


def _union(kind: AvroType, forms: list[Form | None]) -> Form | None:
    there = branches(kind)
    if len(there) < 2:
        one = forms[there[0]] if there else None
        return None if one is None else lambda raw: None if raw is None else one(raw)
    by_key = {f"{BRANCH}{i}": forms[i] for i in there}

    def chosen(raw: Any) -> Any:
        if raw is None:
            return None
        ((key, value),) = raw.items()
        made = by_key[key]
        return value if made is None else made(value)

    return chosen


def _logical(stored: str, logical: Logical, want: Want) -> Form | None:
    match logical.name:
        case "decimal":
            return _decimal(logical, want)
        case "uuid" if stored == "fixed" and want is not Want.TENSOR:
            return guid
        case "uuid":
            return None
        case name if want in _NUMBERS:
            return None
        case "time-millis" | "time-micros" as name:
            parts = _UNITS[name.removeprefix("time-")][1]
            return lambda raw: _time_of_day(raw, parts)
        case name:
            return lambda raw: (_texts(name, want, np.array([raw], np.int64)) or [raw])[0]


def _texts(name: str, want: Want, raw: NDArray[Any]) -> list[str] | None:
    """Dates and times as ISO 8601; None for a time of day."""
    if name == "date":
        days: list[str] = np.datetime_as_string(raw.astype(np.int64).view("datetime64[D]")).tolist()
        return [f"{day}T00:00:00Z" for day in days] if want is Want.TIME else days
    kind, _, unit = name.rpartition("-")
    if kind == "time":
        return None
    moments = raw.astype(np.int64).view(f"datetime64[{_UNITS[unit][0]}]")
    texts: list[str] = np.datetime_as_string(moments, timezone="UTC" if kind == "timestamp" else "naive").tolist()
    return texts if _NO_TIME not in texts else [str(_LEAST) if text == _NO_TIME else text for text in texts]


def _time_of_day(raw: int, parts: int) -> str | Absent:
    seconds, rest = divmod(raw, parts)
    if not 0 <= seconds < 24 * 3600:
        return Absent(f"{raw} is no time of day")
    moment = time(seconds // 3600, seconds // 60 % 60, seconds % 60, rest * 10**6 // parts)
    return moment.isoformat("milliseconds" if parts == 1000 else "microseconds")


def _decimal(logical: Logical, want: Want) -> Form | None:
    if want is Want.TENSOR:
        return None
    limit = 10**logical.precision

    def made(raw: bytes) -> Any:
        number = unscaled(raw)
        if abs(number) >= limit:
            return Absent(f"a decimal of over {logical.precision} digits")
        return decimal(number, logical.scale, want)

    return made
