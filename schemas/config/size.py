"""Sizes as people write them ("512MB", "2GB", "1.5GiB") and as programs count them (bytes)."""

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
"""Bytes: more is a slip of the pen on any machine, and 64 bits hold it with room to spare."""

PATTERN = rf"^(0*[1-9][0-9]*(\.[0-9]+)?|0+\.[0-9]*[1-9][0-9]*)({'|'.join(_UNITS)})$"
"""The same for JSON Schemas, which know no more than a pattern."""

_FORM = re.compile(rf"(\d+(?:\.\d+)?)({'|'.join(_UNITS)})", re.ASCII)


def bytes_of(text: str) -> int:
    """``"512MB"`` -> 512,000,000; ``"512MiB"`` -> 536,870,912. Raises ValueError, with what would be right, for
    anything but a positive number and a unit, and for more than a pebibyte.
    """
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None or not 1 <= float(found[1]) * _UNITS[found[2]] <= _MOST:
        raise ValueError(f'{text!r} is not a size: write a positive number and a unit, such as "512MB" or "2GiB"')
    return round(float(found[1]) * _UNITS[found[2]])


def text(size: int) -> str:
    """``size`` bytes in the largest unit of which it is a whole number, or else in MB: the inverse of ``bytes_of``
    for what people write.
    """
    whole = [(amount, unit) for unit, amount in _UNITS.items() if size >= amount and size % amount == 0]
    if whole:
        amount, unit = max(whole)
        return f"{size // amount}{unit}"
    return f"{size / _UNITS['MB']:g}MB"
