"""Encodes columns of values in Avro's binary encoding, each column by one call.

fastavro writes one record at a time, which takes several times as long for a batch of answers. Each function returns
the bytes of each value. Their forms are those of Avro's specification, in "Binary Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

TRUE, FALSE = b"\x01", b"\x00"
END = b"\x00"
"""The block of no items, which ends an array or a map."""

LEAST, MOST = -(2**63), 2**63 - 1
"""Bounds of a long."""

_FEW = 16
"""Numbers up to which each is encoded by itself: for so few, NumPy's calls take longer."""

_SIZES = np.array([2 ** (7 * size) for size in range(1, 10)], np.uint64)
"""Where a varint gets another byte."""

_SHIFTS = np.arange(0, 70, 7).astype(np.uint64)


def long(value: int) -> bytes:
    """A long or an int. Raises OverflowError beyond 64 bits."""
    if not LEAST <= value <= MOST:
        raise OverflowError(f"{value} has more than 64 bits")
    return _varint(value << 1 if value >= 0 else (-value << 1) - 1)


def longs(column: Sequence[int]) -> list[bytes]:
    """Longs. Raises OverflowError beyond 64 bits."""
    if len(column) <= _FEW:
        return list(map(long, column))
    numbers = np.array(column, np.int64)
    zigzag = ((numbers << 1) ^ (numbers >> 63)).view(np.uint64)
    sizes = np.searchsorted(_SIZES, zigzag, "right") + 1
    table = (zigzag[:, None] >> _SHIFTS & np.uint64(0x7F)).astype(np.uint8)
    table[np.arange(10) < sizes[:, None] - 1] |= 0x80
    whole = table.tobytes()
    return [whole[i : i + size] for i, size in zip(range(0, len(whole), 10), sizes.tolist(), strict=True)]


def string(text: str) -> bytes:
    """A string."""
    raw = text.encode()
    return _size(len(raw)) + raw


def strings(column: Sequence[str]) -> list[bytes]:
    """Strings."""
    return [_size(len(raw)) + raw for raw in map(str.encode, column)]


def double(value: float) -> bytes:
    """A double."""
    return _DOUBLE.pack(value)


_DOUBLE = struct.Struct("<d")


def doubles(column: NDArray[np.float64]) -> list[bytes]:
    """Doubles, of shape (n,); or n rows of k doubles, of shape (n, k), each as 8 k bytes."""
    whole = np.ascontiguousarray(column, "<f8").tobytes()
    size = 8 * (column.shape[1] if column.ndim > 1 else 1)
    return [whole[i : i + size] for i in range(0, len(whole), size)] if size else [b""] * len(column)


def begin(items: int) -> bytes:
    """What stands before the items of an array or a map, of which there are so many. ``END`` stands after them."""
    return _size(items) if items else b""


def block(items: Sequence[bytes]) -> bytes:
    """An array or a map whose items (with their keys) are encoded already."""
    return b"".join((begin(len(items)), *items, END))


@lru_cache(maxsize=4096)
def _size(number: int) -> bytes:
    return _varint(number << 1)


def _varint(zigzag: int) -> bytes:
    if zigzag < 0x80:
        return _BYTES[zigzag]
    out = bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)


_BYTES = [bytes((i,)) for i in range(0x80)]
