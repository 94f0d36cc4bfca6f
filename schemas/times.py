"""Reads event times: ISO 8601, and epoch numbers in seconds, milliseconds, microseconds or nanoseconds.

An epoch number's unit is told by its size. Under 10^11 it is in seconds (until the year 5138), under 10^14 in
milliseconds, under 10^17 in microseconds, else in nanoseconds; so a time before 3 March 1973 must be in seconds. A
negative number is no time: -1 is how many systems say that there is none.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.features.words import kind

# At most nine digits (nanoseconds): the time is copied into the answer, whose size must stay bounded.
_FORM = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z"
_RFC_3339 = re.compile(_FORM, re.ASCII)
_RFC_3339_LINES = re.compile(f"{_FORM}(?:\n{_FORM})*", re.ASCII)
# A text of nine digits or more is an epoch number: JSON of Protocol Buffers writes 64-bit integers so. Eight are a day
# of ISO 8601, such as 20260101.
_EPOCH_TEXT = re.compile(r"\d{9,19}(?:\.\d{1,9})?", re.ASCII)
_MINUTE = timedelta(minutes=1)
_UNITS = ((10**11, "s", 1), (10**14, "ms", 10**3), (10**17, "us", 10**6), (2**63, "ns", 10**9))
"""Upper bound, numpy's name and parts of a second of each unit."""
_QUOTED = 40
_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)
_CALENDAR = (
    (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND,
    (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND,
)


def time(value: object) -> str | None:
    """A time as RFC 3339; one without a zone is UTC. None for what is not a time.

    An epoch number has as many decimals as its unit; a fraction of one is read to the microsecond.
    """
    given = type(value)
    if given is str:
        return _iso_8601(value)  # type: ignore[arg-type]
    if given is int:
        return _epoch(value)  # type: ignore[arg-type]
    return _epoch_fraction(value) if given is float else None  # type: ignore[arg-type]


def times(column: Sequence[object]) -> Sequence[str | None]:
    """``time`` of each value. A column of RFC 3339, or of epoch numbers of one type and unit, costs a fifth of that.

    A column of RFC 3339 is returned itself.
    """
    kinds = {*map(type, column)}
    if kinds == {str}:
        lines: Sequence[str] = column  # type: ignore[assignment]
        if _RFC_3339_LINES.fullmatch("\n".join(lines)):
            try:
                deque(map(datetime.fromisoformat, lines), maxlen=0)
                return lines
            except ValueError:
                pass
    elif kinds == {int} or kinds == {float}:
        moments = _moments(column, int in kinds)  # type: ignore[arg-type]
        if moments is not None:
            return np.datetime_as_string(moments, timezone="UTC").tolist()  # type: ignore[no-any-return]
    return list(map(time, column))


def _moments(column: Sequence[int | float], whole: bool) -> NDArray[np.datetime64] | None:
    """Epoch numbers that are all ``whole`` or all floats, if they are of one unit; None otherwise."""
    least, most = min(column), max(column)  # behind another number, a NaN is neither
    if not 0 <= least <= most < 2**63 or not (whole or all(map(math.isfinite, column))):
        return None
    unit, parts = _unit(most)
    if _unit(least) != (unit, parts):
        return None
    if whole:
        return np.array(column, np.int64).view(f"datetime64[{unit}]")
    if parts > 10**6:
        return None
    return np.rint(np.array(column) * (10**6 / parts)).astype(np.int64).view("datetime64[us]")


def _unit(number: float) -> tuple[str, int]:
    return next((name, parts) for bound, name, parts in _UNITS if number < bound)


def microseconds(column: Sequence[str]) -> list[int]:
    """RFC 3339 times, as this module gives them, as microseconds since the epoch: further digits are cut off.

    An offset may move a time out of the calendar's years 1 to 9999, where other programs cannot read it: it becomes the
    nearest moment within.
    """
    lines = "\n".join(column)
    if lines.count("Z") == len(column) > 0:
        return np.array(lines[:-1].split("Z\n"), "datetime64[us]").view(np.int64).tolist()  # type: ignore[no-any-return]
    least, most = _CALENDAR
    since = [(datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND for text in column]
    return [min(max(moment, least), most) for moment in since]


def rfc_3339(microseconds: int) -> str:
    """The inverse of ``microseconds``, with as many decimals as are needed: none, three or six."""
    text = str(np.datetime64(microseconds, "us"))
    return f"{text.removesuffix('000').removesuffix('.000')}Z"


def unreadable(value: object) -> str:
    """What is wrong with a value that is not a time, in words."""
    if isinstance(value, str):
        shown = value if len(value) <= _QUOTED else value[: _QUOTED - 1] + "…"
        return f"{shown!r} is neither ISO 8601 nor an epoch number"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value!r} is no epoch time: it must be positive and under 2^63"
    return f"{kind(value)} is not a time"


def _iso_8601(text: str) -> str | None:
    if _EPOCH_TEXT.fullmatch(text):
        return _epoch(int(text)) if text.isdigit() else _epoch_fraction(float(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if _RFC_3339.fullmatch(text):  # fromisoformat also accepts other forms: weeks, a decimal comma, no separators
        return text
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    elif moment.utcoffset() % _MINUTE:  # type: ignore[operator]
        return None  # RFC 3339 offsets have no seconds
    return moment.isoformat().replace("+00:00", "Z")


def _epoch(number: int) -> str | None:
    if not 0 <= number < 2**63:
        return None
    parts = _unit(number)[1]
    seconds, rest = divmod(number, parts)
    decimals = f".{rest:0{len(str(parts)) - 1}d}" if parts > 1 else ""
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}{decimals}Z"


def _epoch_fraction(number: float) -> str | None:
    """An epoch number that is a float, to the microsecond; nanoseconds are whole, for a float has no parts of them."""
    if not 0 <= number < 2**63:  # with NaN, too
        return None
    parts = _unit(number)[1]
    if parts > 10**6:
        return _epoch(int(number))
    seconds, micros = divmod(round(number * (10**6 / parts)), 10**6)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{micros:06d}Z"
