"""A batch's feature columns, and which of their cells are unusable and why."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]
Mask = NDArray[np.bool_]

# Models compute in float32: a number beyond its range would reach them as infinity.
FLOAT32_MAX = float(np.finfo(np.float32).max)
# A message quotes a value so that it can be recognised, not so that it can fill a header or a log.
QUOTED = 40


class FeatureType(StrEnum):
    """What a feature's JSON value must be. No type takes another's: ``"1"`` is not a number, nor is ``true``."""

    FLOAT = "float"
    INT = "int"
    BOOL = "bool"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class Spec:
    """One feature as a model wants it. ``categories`` None takes any string; else a string outside is unusable."""

    name: str
    type: FeatureType
    categories: frozenset[str] | None = None


@dataclass(slots=True)
class Columns:
    """``size`` rows of features in columns.

    ``values`` maps each name to an array of shape (size,): float64, int64, bool, or object (str). ``matrix``, when
    every spec is FLOAT, is the same numbers as one C-ordered (size, len(specs)) float64 array, and ``values`` are
    views of its columns. ``unusable`` has a mask for each name with a cell that cannot be used (a placeholder, 0,
    false or "", stands there), and ``why`` a reason for each such cell, by (row, name).
    """

    specs: tuple[Spec, ...]
    size: int
    values: dict[str, Column]
    matrix: NDArray[np.float64] | None = None
    unusable: dict[str, Mask] = field(default_factory=dict)
    why: dict[tuple[int, str], str] = field(default_factory=dict)

    def take(self, rows: NDArray[np.intp]) -> Columns:
        """The given rows, in that order, as columns of their own (copies)."""
        if self.matrix is not None:
            taken = _of_matrix(self.specs, self.matrix[rows])
        else:
            taken = Columns(self.specs, len(rows), {name: column[rows] for name, column in self.values.items()})
        for name, mask in self.unusable.items():
            kept = mask[rows]
            at = np.flatnonzero(kept).tolist()
            if at:
                taken.unusable[name] = kept
                taken.why.update({(i, name): self.why[int(rows[i]), name] for i in at})
        return taken

    def row(self, i: int) -> dict[str, object]:
        """Row ``i`` as Python values, None where a cell is unusable: what a rule reads."""
        values: dict[str, object] = {name: column.item(i) for name, column in self.values.items()}
        for name, mask in self.unusable.items():
            if mask[i]:
                values[name] = None
        return values


def columns(events: Sequence[Mapping[str, object]], specs: Sequence[Spec]) -> Columns:
    """The columns that ``specs`` name, out of decoded JSON objects; keys that no spec names are ignored.

    Nothing is raised for what an event holds: a cell that is missing, null, of another type, not finite, beyond
    float32 (or int64), or of an unseen category is ``unusable``, with its ``why``. Types are proved by one C-speed
    pass over a batch; only a column where that finds something is looked at value by value.
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
    """Why ``value`` cannot be this feature, or None if it can."""
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
    """Stands where an event lacks a key: no JSON value is one."""


_MISSING = _Missing()
_NAN = float("nan")
# np.array turns None into NaN when told float64, so a null costs a batch nothing.
_FLOATS: frozenset[type] = frozenset({float, int, type(None)})


def _rows(events: Sequence[Mapping[str, object]], specs: tuple[Spec, ...]) -> list[tuple[object, ...]]:
    """A tuple an event, in the order of ``specs``. A missing float is NaN, so that its column still converts whole."""
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
        (name,) = names  # itemgetter of one key returns the bare value
        return lambda event: (event[name],)
    return itemgetter(*names)


def _all_float(
    events: Sequence[Mapping[str, object]], specs: tuple[Spec, ...], rows: list[tuple[object, ...]]
) -> Columns:
    matrix = None
    if set(map(type, chain.from_iterable(rows))) <= _FLOATS:
        with suppress(OverflowError):  # some integer is beyond float64: find which, below
            matrix = np.array(rows, dtype=np.float64).reshape(len(rows), len(specs))
    if matrix is None:
        by_column = [_floats(raw, spec) for spec, raw in zip(specs, zip(*rows, strict=True), strict=True)]
        matrix = np.ascontiguousarray(np.array(by_column).T)
    bad = _beyond(matrix)
    made = _of_matrix(specs, matrix)
    if bad.any():
        matrix[bad] = 0.0
        for j in np.flatnonzero(bad.any(axis=0)):
            _mark(made, events, specs[j], np.ascontiguousarray(bad[:, j]))
    return made


def _of_matrix(specs: tuple[Spec, ...], matrix: NDArray[np.float64]) -> Columns:
    return Columns(specs, len(matrix), {spec.name: matrix[:, j] for j, spec in enumerate(specs)}, matrix)


def _mark(made: Columns, events: Sequence[Mapping[str, object]], spec: Spec, bad: Mask | None) -> None:
    if bad is None or not bad.any():
        return
    made.unusable[spec.name] = bad
    for i in np.flatnonzero(bad).tolist():
        why = reason(events[i].get(spec.name, _MISSING), spec)
        assert why is not None, "a cell is masked only for a reason"
        made.why[i, spec.name] = why


def _beyond(numbers: NDArray[np.float64]) -> Mask:
    """NaN compares false, so one comparison finds NaN, infinities and what float32 cannot hold."""
    return np.asarray(~(np.abs(numbers) <= FLOAT32_MAX))


def _floats(raw: tuple[object, ...], spec: Spec) -> NDArray[np.float64]:
    """The numbers, with NaN where there is none (other unusable numbers may stay: see ``_beyond``)."""
    if set(map(type, raw)) <= _FLOATS:
        try:
            return np.array(raw, dtype=np.float64)
        except OverflowError:
            pass  # some integer is beyond float64: find which
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
            pass  # some value is beyond int64: find which
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
    """Value by value. One of type ``exact`` and in ``known`` is usable without more ado; only the others are judged."""
    bad = [(type(value) is not exact or value not in known) and reason(value, spec) is not None for value in raw]
    usable = [exact() if off else exact(value) for value, off in zip(raw, bad, strict=True)]
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
    """A JSON value's type in words."""
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
