"""Decimals as they are wanted: a number, an integer, or plain text."""

from __future__ import annotations

from failsoft.schemas.features.paths import Absent
from failsoft.schemas.formats.reader import Want

MOST_BYTES = 512
"""Bytes of an unscaled number. These are 1,233 digits; beyond, conversions between binary and decimal get slow."""

MOST_SCALE = 1300
"""The greatest scale, and the least negative one, that is written out in digits."""


def decimal(unscaled: bytes, scale: int, want: Want | None) -> float | int | str | Absent:
    """``unscaled`` / 10^``scale``; ``unscaled`` is a big-endian two's complement number.

    A NUMBER is correctly rounded. An INTEGER is an int if the decimal is integral, else a float. All else is text.
    """
    if len(unscaled) > MOST_BYTES:
        return Absent(f"a decimal of {len(unscaled)} bytes, over the limit of {MOST_BYTES}")
    number = int.from_bytes(unscaled, "big", signed=True)
    if want is Want.INTEGER and abs(scale) <= MOST_SCALE:
        whole, rest = divmod(number, _power(scale)) if scale > 0 else (number * _power(-scale), 0)
        if not rest:
            return whole
    if want is Want.NUMBER or want is Want.INTEGER:
        return float(f"{number}e{-scale}")
    if abs(scale) > MOST_SCALE:
        return Absent(f"a decimal of scale {scale}, beyond {MOST_SCALE}")
    return _plain(number, scale)


def _power(exponent: int) -> int:
    """10^exponent, which is not negative."""
    return int(10**exponent)


def _plain(number: int, scale: int) -> str:
    """A decimal in digits, without an exponent; all digits after its point are kept."""
    if scale <= 0:
        return str(number * _power(-scale))
    digits = f"{abs(number):0{scale + 1}d}"
    return f"{'-' if number < 0 else ''}{digits[:-scale]}.{digits[-scale:]}"
