"""Durations as people write them ("200ms", "5s", "1m", "1h", "7d") and as programs count them (seconds)."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MOST = 36_500 * 86400.0
"""Seconds: a century. More is a slip of the pen, and past it milliseconds no longer fit where they have to."""

PATTERN = r"^(0*[1-9][0-9]*(\.[0-9]+)?|0+\.[0-9]*[1-9][0-9]*)(ms|s|m|h|d)$"
"""The same for JSON Schemas, which know no more than a pattern."""

_FORM = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)


def seconds(text: str) -> float:
    """``"200ms"`` -> 0.2. Raises ValueError, with what would be right, for anything but a positive number and a unit,
    and for more than a century.
    """
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None or not 0 < float(found[1]) * _UNITS[found[2]] <= _MOST:
        raise ValueError(
            f'{text!r} is not a duration: write a positive number and a unit, such as "200ms", "5s" or "1h"'
        )
    return float(found[1]) * _UNITS[found[2]]


def text(length: float) -> str:
    """``length`` seconds in the largest unit of which it is a whole number: the inverse for what people write."""
    for unit, amount in reversed(_UNITS.items()):
        count = length / amount
        if count >= 1 and count == round(count):
            return f"{count:g}{unit}"
    return f"{length:g}s"
