"""Writes JSON values as Avro's types without parts, and as its logical types. Pure."""

from __future__ import annotations

import binascii
import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from failsoft.schemas import times as event_times
from failsoft.schemas.config.refusal import near
from failsoft.schemas.features.words import kind, quote
from failsoft.schemas.formats.avro_encoding import FALSE, TRUE, double, long, string
from failsoft.schemas.formats.decimals import stored

Path = tuple[str, ...]
Write = Callable[[Any, Path], bytes]
"""Makes Avro of a JSON value at a path. Raises Unwritable."""

_RANGES = {"int": 2**31, "long": 2**63}
_FLOAT = struct.Struct("<f")
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_WHOLE = re.compile(r"-?\d{1,19}", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_RFC_3339 = re.compile(r"(.{19})(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"millis": 10**3, "micros": 10**6, "nanos": 10**9}
"""Parts of a second, by the end of a logical type."""


class Unwritable(ValueError):
    """A value does not fit its schema. The text names the field, what was found, and what would be right."""


def at(path: Path) -> str:
    return ".".join(path) or "the event"


def wrong(path: Path, value: Any, wanted: str) -> Unwritable:
    found = quote(value) if isinstance(value, str) else str(value) if type(value) in (int, float) else kind(value)
    return Unwritable(f"{at(path)}: {found}, and the schema wants {wanted}")


def _null(value: Any, path: Path) -> bytes:
    if value is not None:
        raise wrong(path, value, "null")
    return b""


def _boolean(value: Any, path: Path) -> bytes:
    if not isinstance(value, bool):
        raise wrong(path, value, "true or false")
    return TRUE if value else FALSE


def _string(value: Any, path: Path) -> bytes:
    if not isinstance(value, str):
        raise wrong(path, value, "a string")
    return string(value)


def _integer(name: str) -> Write:
    bound = _RANGES[name]

    def write(value: Any, path: Path) -> bytes:
        whole = _whole(value)
        if whole is None or not -bound <= whole < bound:
            raise wrong(path, value, f"a whole number of {'32' if name == 'int' else '64'} bits ({name})")
        return long(whole)

    return write


def _whole(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, str) and _WHOLE.fullmatch(value) else None


def _number(name: str, pack: Callable[[float], bytes]) -> Write:
    def write(value: Any, path: Path) -> bytes:
        if isinstance(value, str):
            value = _WORDS.get(value, value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                return pack(float(value))
            except OverflowError:
                pass
        raise wrong(path, value, f"a number ({name})")

    return write


def _decoded(value: Any, path: Path) -> bytes:
    try:
        if isinstance(value, str):
            return binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        pass
    raise wrong(path, value, "bytes, as base64")


def _bytes(value: Any, path: Path) -> bytes:
    return _sized(_decoded(value, path))


def _sized(raw: bytes) -> bytes:
    return long(len(raw)) + raw


PRIMITIVES: Mapping[str, Write] = {
    "null": _null,
    "boolean": _boolean,
    "int": _integer("int"),
    "long": _integer("long"),
    "float": _number("float", _FLOAT.pack),
    "double": _number("double", double),
    "bytes": _bytes,
    "string": _string,
}


def fixed(size: int) -> Write:
    def write(value: Any, path: Path) -> bytes:
        raw = _decoded(value, path)
        if len(raw) != size:
            raise Unwritable(f"{at(path)}: base64 of {len(raw)} bytes, and the schema wants {size}")
        return raw

    return write


def enum(symbols: Sequence[str]) -> Write:
    places = {symbol: long(i) for i, symbol in enumerate(symbols)}

    def write(value: Any, path: Path) -> bytes:
        if not isinstance(value, str) or value not in places:
            hint = near(value, symbols) if isinstance(value, str) else ""
            raise wrong(path, value, f"one of {', '.join(symbols[:20])}{hint}")
        return places[value]

    return write


def logical(schema: Mapping[str, Any]) -> Write | None:
    """The conversion of a logical type; None if the schema has none, or one that does not fit or is not known."""
    logical, carrier = str(schema.get("logicalType")), schema["type"]
    name, _, unit = logical.rpartition("-")
    if logical == "decimal" and carrier in ("bytes", "fixed"):
        return _decimal(schema.get("precision", 0), schema.get("scale", 0), schema.get("size"))
    if logical == "uuid" and carrier == "string":
        return _uuid
    if logical == "date" and carrier == "int":
        return _either("int", _days, "a date, such as 2026-01-31, or days since 1970")
    if name in ("timestamp", "local-timestamp") and unit in _UNITS and carrier == "long":
        return _either("long", lambda text: _moment(text, unit), f"a time in ISO 8601, or {unit} since 1970")
    if (logical, carrier) in (("time-millis", "int"), ("time-micros", "long")):
        return _either(carrier, lambda text: _of_day(text, unit), f"a time of day, such as 12:30:00, or {unit}")
    return None


def _either(carrier: str, parse: Callable[[str], int | None], wanted: str) -> Write:
    number = _integer(carrier)

    def write(value: Any, path: Path) -> bytes:
        found = parse(value) if isinstance(value, str) else None
        if found is not None:
            return number(found, path)
        if isinstance(value, str) and not _WHOLE.fullmatch(value):
            raise wrong(path, value, wanted)
        return number(value, path)

    return write


def _moment(text: str, unit: str) -> int | None:
    """Units since 1970 of an ISO 8601 time, which is in UTC without a zone; further digits are cut off."""
    found = None if _WHOLE.fullmatch(text) else _RFC_3339.fullmatch(event_times.time(text) or "")
    if not found:
        return None
    whole, digits, zone = found.groups()
    seconds = (datetime.fromisoformat(whole + zone) - _EPOCH) // timedelta(seconds=1)
    return (seconds * 10**9 + int((digits or "")[:9].ljust(9, "0"))) * _UNITS[unit] // 10**9


def _days(text: str) -> int | None:
    try:
        return date.fromisoformat(text).toordinal() - date(1970, 1, 1).toordinal()
    except ValueError:
        return None


def _of_day(text: str, unit: str) -> int | None:
    try:
        found = time.fromisoformat(text)
    except ValueError:
        return None
    seconds = 3600 * found.hour + 60 * found.minute + found.second
    return (seconds * 10**6 + found.microsecond) * _UNITS[unit] // 10**6


def _uuid(value: Any, path: Path) -> bytes:
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise wrong(path, value, "a UUID")
    return string(value)


def _decimal(precision: int, scale: int, size: int | None) -> Write:
    def write(value: Any, path: Path) -> bytes:
        number = exact(value)
        digits = None if number is None else number.scaleb(scale, MANY_DIGITS)
        if digits is None or digits != digits.to_integral_value() or abs(digits) >= 10**precision:
            raise wrong(path, value, f"a decimal of at most {precision} digits, {scale} of them after the point")
        if size is None:
            return _sized(stored(int(digits)))
        try:
            return int(digits).to_bytes(size, "big", signed=True)
        except OverflowError:
            raise wrong(path, value, f"a decimal that fits into {size} bytes") from None

    return write


MANY_DIGITS = Context(prec=2000)
"""More digits than a number of a thousand digits has after any shift of its point."""


def exact(value: Any) -> Decimal | None:
    """A number as it is written."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = Decimal(value if isinstance(value, (int, str)) else repr(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() and abs(found.adjusted()) < 1000 else None
