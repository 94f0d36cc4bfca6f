"""Reads a column of numbers, booleans or strings, and says why a value is unusable there."""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.features.bounds import FLOAT32_LIMIT, outside, why_outside
from failsoft.schemas.features.coercion import coerced
from failsoft.schemas.features.columns import Column, Mask
from failsoft.schemas.features.spec import FeatureType, Spec
from failsoft.schemas.features.words import kind, quote, show

# With dtype float64, np.array turns None into NaN, so nulls need no separate pass.
FLOATS: frozenset[type] = frozenset({float, int, type(None)})
"""Types of which ``np.array`` makes the right float64 column."""

_NAN = float("nan")


def read(raw: tuple[object, ...], spec: Spec) -> tuple[Column, Mask | None]:
    """The column of a feature that is no tensor, and a mask of its unusable cells.

    Without a mask (None), each cell is usable, and no number of a float is beyond float32.

    One pass at C speed checks the types of a whole column; only a column that fails this check is read value by value.
    """
    exact, reader = _KINDS[spec.type]
    if spec.coerce and not set(map(type, raw)) <= exact:
        raw = tuple([value if type(value) in exact else coerced(value, spec.type) for value in raw])
    return _within(*reader(raw, spec), spec)


def checked(column: NDArray[np.float64], spec: Spec) -> tuple[Column, Mask | None]:
    """``read`` of a float feature whose numbers are converted already, NaN for what is none. Changes ``column``."""
    return _within(*_finite(column), spec)


def _within(column: Column, bad: Mask | None, spec: Spec) -> tuple[Column, Mask | None]:
    out = outside(column, spec)
    if out is None or not out.any():
        return column, bad
    column[out] = 0
    return column, out if bad is None else bad | out


def floats(raw: tuple[object, ...], spec: Spec) -> NDArray[np.float64]:
    """The column as numbers, NaN for values that are not numbers or beyond float64."""
    if spec.coerce:
        raw = tuple([value if type(value) in FLOATS else coerced(value, spec.type) for value in raw])
    if set(map(type, raw)) <= FLOATS:
        try:
            return np.array(raw, dtype=np.float64)
        except OverflowError:
            pass  # an integer is beyond float64: found value by value below
    numbers = [value if type(value) in FLOATS or reason(value, spec) is None else _NAN for value in raw]
    try:
        return np.array(numbers, dtype=np.float64)
    except OverflowError:
        return np.array([_NAN if value is None or _beyond(value) else value for value in numbers], dtype=np.float64)


def reason(value: object, spec: Spec) -> str | None:
    """Why ``value``, which is there, is unusable for this feature, or None if it is usable."""
    if spec.coerce:
        value = coerced(value, spec.type)
    if value is None:
        return "null"
    match spec.type:
        case FeatureType.BOOL:
            return None if isinstance(value, bool) else f"{_found(value, spec)}, not true or false"
        case FeatureType.STRING:
            if not isinstance(value, str):
                return f"{kind(value)}, not a string"
            seen = spec.categories is None or value in spec.categories
            return None if seen else f"unseen category {quote(value)}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"{_found(value, spec)}, not a number"
    if isinstance(value, float) and not math.isfinite(value):
        return "not finite"
    if spec.type is FeatureType.FLOAT:
        return "beyond the range of float64" if _beyond(value) else _why_outside(value, spec, np.dtype(np.float64))
    if value != int(value):
        return f"{show(value)}, not an integer"
    if not -(2**63) <= value < 2**63:
        return "beyond the range of int64"
    return _why_outside(int(value), spec, np.dtype(np.int64))


def _why_outside(value: int | float, spec: Spec, dtype: np.dtype[Any]) -> str | None:
    why = why_outside(value, spec, dtype)
    return None if why is None else f"{show(value)} is {why}"


def _found(value: object, spec: Spec) -> str:
    """The value's type in words. Where strings are converted, the beginning of one that cannot be."""
    return quote(value) if spec.coerce and isinstance(value, str) else kind(value)


def _beyond(value: Any) -> bool:
    try:
        float(value)
    except OverflowError:
        return True
    return False


def _read_floats(raw: tuple[object, ...], spec: Spec) -> tuple[Column, Mask | None]:
    return _finite(floats(raw, spec))


def _finite(column: NDArray[np.float64]) -> tuple[Column, Mask | None]:
    if np.abs(column).max(initial=0.0) < FLOAT32_LIMIT:  # false with a NaN: the greatest number is NaN then
        return column, None
    bad = ~np.isfinite(column)
    column[bad] = 0.0
    return column, bad


def _read_ints(raw: tuple[object, ...], spec: Spec) -> tuple[Column, Mask | None]:
    if set(map(type, raw)) <= {int}:
        try:
            return np.array(raw, dtype=np.int64), None
        except OverflowError:
            pass  # a value is beyond int64: found value by value below
    return _checked(raw, spec, _INT64, int, np.int64)


def _read_bools(raw: tuple[object, ...], spec: Spec) -> tuple[Column, Mask | None]:
    if set(map(type, raw)) <= {bool}:
        return np.array(raw, dtype=np.bool_), None
    return _checked(raw, spec, (False, True), bool, np.bool_)


def _read_strings(raw: tuple[object, ...], spec: Spec) -> tuple[Column, Mask | None]:
    if set(map(type, raw)) <= {str} and (spec.categories is None or spec.categories.issuperset(raw)):
        return np.array(raw, dtype=object), None
    return _checked(raw, spec, _ANY if spec.categories is None else spec.categories, str, object)


def _checked(
    raw: tuple[object, ...], spec: Spec, known: Container[Any], exact: type, dtype: Any
) -> tuple[Column, Mask]:
    """Read a column value by value. ``reason`` checks only values that are not of type ``exact`` and in ``known``."""
    bad = [(type(value) is not exact or value not in known) and reason(value, spec) is not None for value in raw]
    usable = [exact() if unusable else exact(value) for value, unusable in zip(raw, bad, strict=True)]
    return np.array(usable, dtype=dtype), np.array(bad, dtype=np.bool_)


class _Any:
    def __contains__(self, _: object) -> bool:
        return True


_ANY = _Any()
_INT64 = range(-(2**63), 2**63)
_Read = Callable[[tuple[object, ...], Spec], tuple[Column, Mask | None]]
_KINDS: dict[FeatureType, tuple[frozenset[type], _Read]] = {
    FeatureType.FLOAT: (FLOATS, _read_floats),
    FeatureType.INT: (frozenset({int}), _read_ints),
    FeatureType.BOOL: (frozenset({bool}), _read_bools),
    FeatureType.STRING: (frozenset({str}), _read_strings),
}
