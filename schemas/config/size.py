"""Converts sizes between text ("512MB", "2GB", "1.5GiB") and bytes."""

from __future__ import annotations

import re

_UNITS = {
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
_MOST = 2**50
"""Bytes: a pebibyte. On any machine more is a typing mistake; 64 bits hold it easily."""

PATTERN = rf"^(0*[1-9][0-9]*(\.[0-9]+)?|0+\.[0-9]*[1-9][0-9]*)({'|'.join(_UNITS)})$"
"""The same rule for JSON Schemas, which can only express a pattern (so without the upper limit)."""

_FORM = re.compile(rf"(\d+(?:\.\d+)?)({'|'.join(_UNITS)})", re.ASCII)


def bytes_of(text: str) -> int:
    """``"512MB"`` -> 512,000,000; ``"512MiB"`` -> 536,870,912.

    Raises ValueError, which says what would be right, unless ``text`` is a positive number and a unit, at most a
    pebibyte.
    """
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None or not 1 <= float(found[1]) * _UNITS[found[2]] <= _MOST:
        raise ValueError(f'{text!r} is not a size: write a positive number and a unit, such as "512MB" or "2GiB"')
    return round(float(found[1]) * _UNITS[found[2]])


def text(size: int) -> str:
    """``size`` bytes in the largest unit that gives a whole number, else in MB. The inverse of ``bytes_of``."""
    whole = [(amount, unit) for unit, amount in _UNITS.items() if size >= amount and size % amount == 0]
    if whole:
        amount, unit = max(whole)
        return f"{size // amount}{unit}"
    return f"{size / _UNITS['MB']:g}MB"
