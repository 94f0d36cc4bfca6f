"""Converts durations between text ("200ms", "5s", "1m", "1h", "7d") and seconds."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MOST = 36_500 * 86400.0
"""Seconds: a century. A longer duration is a typing mistake, and its milliseconds would not fit where they are used."""

PATTERN = r"^(0*[1-9][0-9]*(\.[0-9]+)?|0+\.[0-9]*[1-9][0-9]*)(ms|s|m|h|d)$"
"""The same rule for JSON Schemas, which can only express a pattern (so without the upper limit)."""

_FORM = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)


def seconds(text: str) -> float:
    """``"200ms"`` -> 0.2.

    Raises ValueError, which says what would be right, unless ``text`` is a positive number and a unit, at most a
    century.
    """
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None or not 0 < float(found[1]) * _UNITS[found[2]] <= _MOST:
        raise ValueError(
            f'{text!r} is not a duration: write a positive number and a unit, such as "200ms", "5s" or "1h"'
        )
    return float(found[1]) * _UNITS[found[2]]


def text(length: float) -> str:
    """``length`` seconds in the largest unit that gives a whole number, else in seconds. The inverse of ``seconds``."""
    for unit, amount in reversed(_UNITS.items()):
        count = length / amount
        if count >= 1 and count == round(count):
            return f"{count:g}{unit}"
    return f"{length:g}s"
