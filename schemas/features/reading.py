"""Reads a batch's feature columns from JSON objects, and marks each unusable cell with a reason."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.features.columns import Column, Columns, Mask, of_matrix
from failsoft.schemas.features.spec import FeatureType, Spec

# Models compute in float32: a number beyond its range would become infinity.
FLOAT32_MAX = float(np.finfo(np.float32).max)
# Characters of a value that a message quotes: enough to recognise it, too few to fill a header or a log.
QUOTED = 40


def columns(events: Sequence[Mapping[str, object]], specs: Sequence[Spec]) -> Columns:
    """Build the columns that ``specs`` name from decoded JSON objects. Other keys of an event are ignored.

    Never raises because of an event's content. A cell is ``unusable``, with its ``why``, when it is missing, null, of
    another type, not finite, beyond float32 (or int64), or of an unseen category. One pass at C speed checks the types
    of a whole batch; only a column that fails this check is read value by value.
    """
    specs = tuple(specs)
    rows = _rows(events, specs)
    if specs and all(spec.type is FeatureType.FLOAT for spec in specs):
        return _all_float(events, specs, rows)
    made = Columns(specs, len(events), {})
    by_column: Iterable[tuple[object, ...]] = zip(*rows, strict=True) if rows else ((),) * len(specs)
    for spec, raw in zip(specs, by_column, strict=bool(specs)):
        column, bad = _READERS[spec.type](raw, spec)
        made.values[spec.name] = column
        _mark(made, events, spec, bad)
    return made


def reason(value: object, spec: Spec) -> str | None:
    """Why ``value`` is unusable for this feature, or None if it is usable."""
    if value is _MISSING:
        return "missing"
    if value is None:
        return "null"
    match spec.type:
        case FeatureType.BOOL:
            return None if isinstance(value, bool) else f"{_kind(value)}, not true or false"
        case FeatureType.STRING:
            if not isinstance(value, str):
                return f"{_kind(value)}, not a string"
            seen = spec.categories is None or value in spec.categories
            return None if seen else f"unseen category {_quote(value)}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"{_kind(value)}, not a number"
    if isinstance(value, float) and not np.isfinite(value):
        return "not finite"
    if spec.type is FeatureType.FLOAT:
        return None if -FLOAT32_MAX <= value <= FLOAT32_MAX else "beyond the range of float32"
    if value != int(value):
        return f"{value!r}, not an integer"
    return None if -(2**63) <= value < 2**63 else "beyond the range of int64"


class _Missing:
    """Marks a key that an event lacks. No JSON value has this type."""


_MISSING = _Missing()
_NAN = float("nan")
# With dtype float64, np.array turns None into NaN, so nulls need no separate pass.
_FLOATS: frozenset[type] = frozenset({float, int, type(None)})


def _rows(events: Sequence[Mapping[str, object]], specs: tuple[Spec, ...]) -> list[tuple[object, ...]]:
    """One tuple per event, in the order of ``specs``. A missing float is NaN, so its column still converts at once."""
    if not specs:
        return []
    names = [spec.name for spec in specs]
    get = _getter(names)
    try:
        return list(map(get, events))
    except KeyError:
        pass
    absent = [_NAN if spec.type is FeatureType.FLOAT else _MISSING for spec in specs]
    pairs = list(zip(names, absent, strict=True))
    rows = []
    for event in events:
        try:
            rows.append(get(event))
        except KeyError:
            rows.append(tuple([event.get(name, other) for name, other in pairs]))
    return rows


def _getter(names: list[str]) -> Callable[[Mapping[str, object]], tuple[object, ...]]:
    if len(names) == 1:
        (name,) = names  # itemgetter with one key returns the value, not a tuple
        return lambda event: (event[name],)
    return itemgetter(*names)


def _all_float(
    events: Sequence[Mapping[str, object]], specs: tuple[Spec, ...], rows: list[tuple[object, ...]]
) -> Columns:
    matrix = None
    flat = list(chain.from_iterable(rows))
    if set(map(type, flat)) <= _FLOATS:
        with suppress(OverflowError):  # an integer is beyond float64: found column by column below
            matrix = np.array(flat, dtype=np.float64).reshape(len(rows), len(specs))
    if matrix is None:
        by_column = [_floats(raw, spec) for spec, raw in zip(specs, zip(*rows, strict=True), strict=True)]
        matrix = np.ascontiguousarray(np.array(by_column).T)
    made = of_matrix(specs, matrix)
    if not np.abs(matrix).max(initial=0.0) <= FLOAT32_MAX:  # with a NaN, too: the greatest number is NaN then
        bad = _beyond(matrix)
        matrix[bad] = 0.0
        for j in np.flatnonzero(bad.any(axis=0)):
            _mark(made, events, specs[j], np.ascontiguousarray(bad[:, j]))
    return made


def _mark(made: Columns, events: Sequence[Mapping[str, object]], spec: Spec, bad: Mask | None) -> None:
    if bad is None or not bad.any():
        return
    made.unusable[spec.name] = bad
    for i in np.flatnonzero(bad).tolist():
        why = reason(events[i].get(spec.name, _MISSING), spec)
        assert why is not None, "every masked cell has a reason"
        made.why[i, spec.name] = why


def _beyond(numbers: NDArray[np.float64]) -> Mask:
    """Mask of NaN, infinities and numbers beyond float32. One comparison finds all: NaN compares false."""
    return np.asarray(~(np.abs(numbers) <= FLOAT32_MAX))


def _floats(raw: tuple[object, ...], spec: Spec) -> NDArray[np.float64]:
    """The column as numbers, NaN for values that are not numbers. ``_beyond`` finds the other unusable numbers."""
    if set(map(type, raw)) <= _FLOATS:
        try:
            return np.array(raw, dtype=np.float64)
        except OverflowError:
            pass  # an integer is beyond float64: found value by value below
    numbers = [value if type(value) in _FLOATS or reason(value, spec) is None else _NAN for value in raw]
    try:
        return np.array(numbers, dtype=np.float64)
    except OverflowError:
        return np.array([_NAN if reason(value, spec) else value for value in raw], dtype=np.float64)


def _read_floats(raw: tuple[object, ...], spec: Spec) -> tuple[Column, Mask | None]:
    column = _floats(raw, spec)
    bad = _beyond(column)
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
_READERS: dict[FeatureType, Callable[[tuple[object, ...], Spec], tuple[Column, Mask | None]]] = {
    FeatureType.FLOAT: _read_floats,
    FeatureType.INT: _read_ints,
    FeatureType.BOOL: _read_bools,
    FeatureType.STRING: _read_strings,
}


def _kind(value: object) -> str:
    """The JSON type of ``value`` in words."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
    return f"a {type(value).__name__}"


def _quote(value: str) -> str:
    return repr(value if len(value) <= QUOTED else value[: QUOTED - 1] + "…")
