"""Decimals as they are wanted: a number, an integer, or plain text. A format stores an integer and a scale."""

from __future__ import annotations

import math
from functools import lru_cache

from failsoft.schemas.features.paths import Absent
from failsoft.schemas.formats.reader import Want

MOST_BYTES = 512
"""Bytes of an unscaled number. These are 1,233 digits; beyond, conversions between binary and decimal get slow."""

MOST_SCALE = 1300
"""The greatest scale, and the least negative one, that is written out in digits."""

_NUMBERS = frozenset({Want.NUMBER, Want.INTEGER, Want.BOOL})


def unscaled(raw: bytes) -> int:
    """The unscaled number, which Avro and Confluent's Decimal have as big-endian two's complement."""
    return int.from_bytes(raw, "big", signed=True)


def stored(number: int) -> bytes:
    """The inverse of ``unscaled``, in as few bytes as there can be."""
    return number.to_bytes((8 + (number + (number < 0)).bit_length()) // 8, "big", signed=True)


def decimal(number: int, scale: int, want: Want | None) -> float | int | str | Absent:
    """``number`` / 10^``scale``; the number has at most MOST_BYTES bytes.

    As a number it is correctly rounded, and infinite beyond a double's range. An INTEGER is an int if the decimal is
    integral, else a float. All else is text.
    """
    if want is Want.INTEGER and abs(scale) <= MOST_SCALE:
        whole, rest = divmod(number, _power(scale)) if scale > 0 else (number * _power(-scale), 0)
        if not rest:
            return whole
    if want in _NUMBERS:
        return _rounded(number, scale)
    if abs(scale) > MOST_SCALE:
        return Absent(f"a decimal of scale {scale}, beyond {MOST_SCALE}")
    return _plain(number, scale)


@lru_cache(maxsize=256)
def _power(exponent: int) -> int:
    """10^exponent, which is not negative."""
    return int(10**exponent)


def _rounded(number: int, scale: int) -> float:
    """The nearest double. Python rounds a quotient of integers and the text of a number correctly."""
    if not 0 <= scale <= MOST_SCALE:
        return float(f"{number}e{-scale}")
    try:
        return number / _power(scale)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _plain(number: int, scale: int) -> str:
    """A decimal in digits, without an exponent; all digits after its point are kept."""
    if scale <= 0:
        return str(number * _power(-scale))
    digits = f"{abs(number):0{scale + 1}d}"
    return f"{'-' if number < 0 else ''}{digits[:-scale]}.{digits[-scale:]}"
