"""Encodes and decodes JSON, and limits the size and depth of values. The only module that imports orjson."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

MAX_DEPTH = 32
"""Levels of nesting. Events are flat or nearly so; hostile values are thousands of levels deep. orjson's own limit is
1,024."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
"""A JSON string, with or without its closing quote."""

_MANY = 16
"""Values from which on counting the brackets of all at once is faster than counting those of each."""

_PART = 65_536
"""Bytes in which they are counted at once: they stay in the processor's cache. Counted over a batch of vectors, bytes
took three times as long, and one bracket more in each value was too many for the total to say anything."""

_NO_BRACKETS = bytes(set(range(256)) - set(b"{[}]"))


class Malformed(ValueError):
    """A value is not in the declared format or exceeds a limit. The text says how, without quoting the value."""


class NotJson(Malformed):
    """A value within the limits is not JSON."""


def loads(raw: bytes | None, max_bytes: int, max_depth: int = MAX_DEPTH) -> Any:
    """Decode one JSON value of at most ``max_bytes`` bytes and ``max_depth`` levels.

    Of duplicate keys the last one counts. Integers beyond 64 bits become floats. Raises Malformed for a tombstone and
    a value over a limit, and NotJson for anything that RFC 8259 does not allow, such as NaN and Infinity.
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
        raise NotJson(f"not JSON: {e}") from None


def loads_all(values: Sequence[Any], max_bytes: int) -> list[Any] | None:
    """Decode all values, or return None when any is bad: ``loads`` then says what is wrong.

    Checks the size, but not the depth: call ``all_shallow`` for that.
    """
    try:
        if max(map(len, values), default=0) > max_bytes:
            return None
        return list(map(orjson.loads, values))
    except (orjson.JSONDecodeError, TypeError):  # TypeError: len(None), from a tombstone
        return None


def all_shallow(values: Sequence[bytes], least: int, max_depth: int = MAX_DEPTH) -> bool:
    """True when no value is nested deeper than ``max_depth``. Each value must have at least ``least`` open brackets.

    In many values, the open brackets are counted over all bytes, a part at a time. If the total of a part hardly
    exceeds the required minimum, no value in it can have many, and none is scanned by itself.
    """
    size = len(values) if len(values) < _MANY else _PART * len(values) // (sum(map(len, values)) + 1)
    parts = (values[i : i + size] for i in range(0, len(values), size)) if size else (values,)
    return all(_few_openers(part, least, max_depth) or not any(too_deep(v, max_depth) for v in part) for part in parts)


def _few_openers(values: Sequence[bytes], least: int, max_depth: int) -> bool:
    """Whether all values together have so few open brackets that none can be too deep. False for a few values, which
    are scanned faster one by one.
    """
    if len(values) < _MANY:
        return False
    whole = np.frombuffer(b"".join(values), np.uint8)
    openers = int(np.count_nonzero(whole == ord("{"))) + int(np.count_nonzero(whole == ord("[")))
    return openers - least * len(values) <= max_depth - least


def too_deep(raw: bytes, max_depth: int) -> bool:
    """True when ``raw`` is nested deeper than ``max_depth``. For nearly all events, counting open brackets suffices."""
    if raw.count(b"{") + raw.count(b"[") <= max_depth:
        return False
    # Strings and all bytes but brackets are removed at C speed, and so is the depth counted: a Python loop over a
    # megabyte takes 100 ms.
    brackets = np.frombuffer(_STRING.sub(b"", raw).translate(None, _NO_BRACKETS), np.uint8)
    steps = np.where((brackets == ord("{")) | (brackets == ord("[")), np.int8(1), np.int8(-1))
    return bool(np.cumsum(steps, dtype=np.int64).max(initial=0) > max_depth)


def dumps(value: Any) -> bytes:
    """``value`` as compact JSON."""
    return orjson.dumps(value)


def strings(column: Sequence[str]) -> list[bytes]:
    """Each string as JSON, without its quotes. One call encodes the whole column.

    In an array without escapes, ``","`` occurs only between two strings, so the array is split there without parsing.
    """
    if not column:
        return []
    whole = orjson.dumps(list(column))
    if b"\\" in whole:  # an escaped quote and a comma at a string's end would look like a boundary between two strings
        return [orjson.dumps(text)[1:-1] for text in column]
    return whole[2:-2].split(b'","')


def numbers(column: NDArray[np.floating[Any]] | NDArray[np.integer[Any]]) -> list[bytes]:
    """Each number as JSON, with the fewest digits that convert back to it. NaN becomes null."""
    if not len(column):
        return []
    return orjson.dumps(np.ascontiguousarray(column), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")


def values(column: NDArray[Any] | Sequence[Any]) -> list[bytes]:
    """Each row of an array of numbers, or each value of a list, as JSON. A number that is not finite becomes null.

    An array is encoded by one call. In it, as many brackets as it has dimensions but one close only at a row's end.
    """
    if not isinstance(column, np.ndarray):
        return [orjson.dumps(value) for value in column]
    if column.size == 0 and column.ndim > 2:  # a dimension of 0 leaves fewer brackets than there are dimensions
        return [orjson.dumps(row) for row in column.tolist()]
    if not len(column):
        return []
    inner = column.ndim - 1
    whole = orjson.dumps(np.ascontiguousarray(column), option=orjson.OPT_SERIALIZE_NUMPY)
    begin, end = b"[" * inner, b"]" * inner
    parts = whole[inner + 1 : -inner - 1].split(end + b"," + begin)
    return parts if inner == 0 else [begin + part + end for part in parts]


def objects(columns: Mapping[str, NDArray[Any] | Sequence[Any]]) -> list[bytes]:
    """Each row of ``columns`` as a JSON object. There is at least one column; all have one length."""
    encoded = [[orjson.dumps(name) + b":" + value for value in values(column)] for name, column in columns.items()]
    return [b"{%b}" % b",".join(row) for row in zip(*encoded, strict=True)]


def plain(column: NDArray[Any] | Sequence[Any]) -> list[Any]:
    """The JSON values that ``values`` writes, as Python objects."""
    values: list[Any] = orjson.loads(
        orjson.dumps(
            np.ascontiguousarray(column) if isinstance(column, np.ndarray) else column,
            option=orjson.OPT_SERIALIZE_NUMPY,
        )
    )
    return values


def lines(values: Iterable[Any]) -> bytes:
    """``values`` as NDJSON: one JSON value per line, each line ended."""
    return b"".join(orjson.dumps(v, option=orjson.OPT_APPEND_NEWLINE) for v in values)
