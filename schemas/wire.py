"""Bytes and objects: the only import of orjson, and the limits that a value must keep."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

MAX_DEPTH = 32
"""Levels of nesting; events are flat or nearly so, and a bomb is thousands deep (orjson itself stops at 1,024)."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
"""A string, ended or not."""

_NO_BRACKETS = bytes(set(range(256)) - set(b"{[}]"))


class Malformed(ValueError):
    """A value that is not the declared format, or over a limit; the text says how, without quoting the value."""


def loads(raw: bytes | None, max_bytes: int, max_depth: int = MAX_DEPTH) -> Any:
    """One JSON value. Raises Malformed for a tombstone, a value over the limits, and anything RFC 8259 does not allow
    (NaN and Infinity among them). Of duplicate keys the last wins; integers past 64 bits become floats.
    """
    if raw is None:
        raise Malformed("the value is null (a tombstone)")
    if len(raw) > max_bytes:
        raise Malformed(f"{len(raw)} bytes, over the limit of {max_bytes}")
    if too_deep(raw, max_depth):
        raise Malformed(f"nested deeper than {max_depth} levels")
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as e:
        raise Malformed(f"not JSON: {e}") from None


def loads_all(values: Sequence[Any], max_bytes: int) -> list[Any] | None:
    """Every value at once, or None when any one needs ``loads`` to say what is wrong. Depth is ``all_shallow``'s."""
    try:
        if max(map(len, values), default=0) > max_bytes:
            return None
        return list(map(orjson.loads, values))
    except (orjson.JSONDecodeError, TypeError):  # TypeError: len(None), a tombstone
        return None


def all_shallow(values: Sequence[bytes], least: int, max_depth: int = MAX_DEPTH) -> bool:
    """Is none of ``values``, each of which has at least ``least`` openers, nested deeper than allowed?

    If all together have hardly more openers than they must, no one can have many. One pass over the bytes settles that.
    """
    whole = np.frombuffer(b"".join(values), np.uint8)
    openers = np.count_nonzero((whole & 0xDF) == ord("["))  # the mask makes a "{" a "[", and nothing else one
    if openers - least * len(values) <= max_depth - least:
        return True
    return not any(too_deep(v, max_depth) for v in values)


def too_deep(raw: bytes, max_depth: int) -> bool:
    """Is ``raw`` nested deeper than allowed? Counting openers settles nearly every event without a scan."""
    if raw.count(b"{") + raw.count(b"[") <= max_depth:
        return False
    depth = 0
    # Strings and all but brackets go at C speed: a megabyte byte by byte takes 100 ms.
    for bracket in _STRING.sub(b"", raw).translate(None, _NO_BRACKETS):
        if bracket in b"{[":
            depth += 1
            if depth > max_depth:
                return True
        else:
            depth -= 1
    return False


def dumps(value: Any) -> bytes:
    """Compact JSON."""
    return orjson.dumps(value)


def strings(column: Sequence[str]) -> list[bytes]:
    """What stands between the quotes of each string's JSON, by one call for the column: where nothing is escaped,
    ``","`` stands between two strings only, and the array splits there without being parsed.
    """
    if not column:
        return []
    whole = orjson.dumps(list(column))
    if b"\\" in whole:  # a string may end in an escaped quote and a comma, which would look like a seam
        return [orjson.dumps(text)[1:-1] for text in column]
    return whole[2:-2].split(b'","')


def numbers(column: NDArray[np.floating[Any]] | NDArray[np.integer[Any]]) -> list[bytes]:
    """Each number as JSON, in the fewest digits that give it back; NaN is null."""
    if not len(column):
        return []
    return orjson.dumps(np.ascontiguousarray(column), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")


def vectors(rows: NDArray[np.floating[Any]]) -> list[bytes]:
    """Each row of a (n, k) matrix as a JSON array."""
    if not len(rows):
        return []
    parts = orjson.dumps(np.ascontiguousarray(rows), option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")
    return [b"[%b]" % part for part in parts]


def lines(values: Iterable[Any]) -> bytes:
    """NDJSON."""
    return b"".join(orjson.dumps(v, option=orjson.OPT_APPEND_NEWLINE) for v in values)
