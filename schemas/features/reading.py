"""Reads a batch's feature columns from JSON objects or decoded rows, and marks each unusable cell with a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.features import scalars, tensor_reasons, tensors
from failsoft.schemas.features.bounds import FLOAT32_LIMIT, outside
from failsoft.schemas.features.columns import Column, Columns, Mask, of_matrix
from failsoft.schemas.features.paths import MISSING, Absent, find, getter
from failsoft.schemas.features.spec import FeatureType, Spec
from failsoft.schemas.features.table import FeaturePart, FeatureRows, FeatureTable
from failsoft.schemas.features.words import with_field

_NAN = float("nan")

_At = Callable[[int], object]
"""The value of a row, or an Absent."""
_Values = Callable[[str], _At]
"""The values at a path."""


def columns(events: Sequence[Mapping[str, object]], specs: Sequence[Spec]) -> Columns:
    """Build the columns that ``specs`` name from decoded JSON objects. Other keys of an event are ignored.

    Never raises because of an event's content. A cell is ``unusable``, with its ``why``, when it is missing, null, of
    another type or shape, not finite, beyond its dtype (float64 and int64 for a float and an int), outside its bounds,
    or of an unseen category. A cell of a float that is usable but beyond float32 is marked ``wide``.
    """
    specs = tuple(specs)
    rows = _rows(events, specs)

    def values(path: str) -> _At:
        plain = "." not in path

        def at(i: int) -> object:
            event = events[i]
            return event[path] if path in event else MISSING if plain else find(event, path)

        return at

    if specs and all(spec.type is FeatureType.FLOAT for spec in specs):
        return _checked(specs, _matrix(rows, specs), values)
    made = Columns(specs, len(events), {})
    by_column: Iterable[tuple[object, ...]] = zip(*rows, strict=True) if rows else ((),) * len(specs)
    for spec, raw in zip(specs, by_column, strict=bool(specs)):
        column, bad = (scalars if spec.tensor is None else tensors).read(raw, spec)
        _add(made, spec, column, bad, values)
    return made


def columns_of(rows: FeatureRows, specs: Sequence[Spec], at: NDArray[np.intp] | None = None) -> Columns:
    """``columns`` of decoded rows; ``at`` chooses some of them, and None all."""
    specs = tuple(specs)
    numeric = [spec for spec in specs if spec.type is FeatureType.FLOAT]
    matrix = rows.matrix([spec.path for spec in numeric]) if numeric else None
    if matrix is not None and at is not None:
        matrix = matrix[at]

    def values(path: str) -> _At:
        found = rows.feature(path)
        return found.__getitem__ if at is None else lambda i: found[at[i]]

    def raw(spec: Spec) -> tuple[object, ...]:
        found = rows.feature(spec.path)
        chosen = found if at is None else [found[i] for i in at.tolist()]
        if spec.type is not FeatureType.FLOAT or Absent not in set(map(type, chosen)):
            return tuple(chosen)
        return tuple([_NAN if type(each) is Absent else each for each in chosen])

    if specs and len(numeric) == len(specs):
        if matrix is None:
            by_column = [scalars.floats(raw(spec), spec) for spec in specs]
            matrix = np.ascontiguousarray(np.array(by_column, np.float64).T)
        return _checked(specs, matrix, values)
    made = Columns(specs, rows.size if at is None else len(at), {})
    numbers = {} if matrix is None else {spec.name: j for j, spec in enumerate(numeric)}
    for spec in specs:
        if matrix is not None and spec.name in numbers:
            column, bad = scalars.checked(np.ascontiguousarray(matrix[:, numbers[spec.name]]), spec)
        else:
            column, bad = (scalars if spec.tensor is None else tensors).read(raw(spec), spec)
        _add(made, spec, column, bad, values)
    return made


def columns_in(table: FeatureTable, rows: Sequence[int], specs: Sequence[Spec]) -> Columns:
    """``columns`` of these rows of a table, in their order. Each must be in one of its parts."""
    whole = next((part for part in table.parts if list(part.rows) == list(rows)), None)
    if whole is not None:
        return _of_part(whole, specs, None)
    part_of, index_in = np.full(table.size, -1, np.intp), np.zeros(table.size, np.intp)
    for number, part in enumerate(table.parts):
        part_of[part.rows] = number
        index_in[part.rows] = np.arange(len(part.rows))
    wanted = np.array(rows, np.intp)
    if (part_of[wanted] < 0).any():
        raise KeyError("a row that could not be decoded has no features")
    found = [np.flatnonzero(part_of[wanted] == number) for number in range(len(table.parts))]
    some = [(part, at) for part, at in zip(table.parts, found, strict=True) if len(at)]
    if not some:
        return columns([], specs)
    made = [_of_part(part, specs, index_in[wanted[at]]) for part, at in some]
    if len(made) == 1:
        return made[0]
    return Columns.concat(made).take(np.argsort(np.concatenate([at for _, at in some])))


def _of_part(part: FeaturePart, specs: Sequence[Spec], at: NDArray[np.intp] | None) -> Columns:
    features = part.features
    if isinstance(features, Sequence):
        return columns(features if at is None else [features[i] for i in at.tolist()], specs)
    return columns_of(features, specs, at)


def reason(value: object, spec: Spec) -> str | None:
    """Why ``value`` is unusable for this feature, or None if it is usable. ``value`` may be an ``Absent``."""
    if value is None:
        why: str | None = "null"
    elif isinstance(value, Absent):
        why = value.why
    else:
        why = (scalars if spec.tensor is None else tensor_reasons).reason(value, spec)
    return None if why is None else with_field(why, spec)


def _rows(events: Sequence[Mapping[str, object]], specs: tuple[Spec, ...]) -> list[tuple[object, ...]]:
    """One tuple per event, in the order of ``specs``. A missing float is NaN, so its column still converts at once."""
    if not specs:
        return []
    get = getter(tuple([spec.field or spec.name for spec in specs]))
    rows = get.rows(events)
    if rows is None:
        absent = [_NAN if spec.type is FeatureType.FLOAT else MISSING for spec in specs]
        rows = get.filled(events, absent)
    return rows


def _matrix(rows: list[tuple[object, ...]], specs: tuple[Spec, ...]) -> NDArray[np.float64]:
    """The numbers of all cells, shape (rows, specs), NaN for those that are none. ``specs`` are all FLOAT."""
    flat = list(chain.from_iterable(rows))
    if set(map(type, flat)) <= scalars.FLOATS:
        with suppress(OverflowError):  # an integer is beyond float64: found column by column below
            return np.array(flat, dtype=np.float64).reshape(len(rows), len(specs))
    by_column = [scalars.floats(raw, spec) for spec, raw in zip(specs, zip(*rows, strict=True), strict=True)]
    return np.ascontiguousarray(np.array(by_column).T)


def _checked(specs: tuple[Spec, ...], matrix: NDArray[np.float64], values: _Values) -> Columns:
    """Columns of a matrix of numbers, which is changed; NaN stands for values that are none."""
    made = of_matrix(specs, matrix)
    bounded = [j for j, spec in enumerate(specs) if spec.minimum is not None or spec.maximum is not None]
    sizes = np.abs(matrix)
    if sizes.max(initial=0.0) < FLOAT32_LIMIT and not bounded:  # false with a NaN: the greatest number is NaN then
        return made
    bad = ~np.isfinite(sizes)
    for j in bounded:
        bad[:, j] |= outside(matrix[:, j], specs[j])
    matrix[bad] = 0.0
    for j in np.flatnonzero(bad.any(axis=0)).tolist():
        _mark(made, values, specs[j], np.ascontiguousarray(bad[:, j]))
    wide = (sizes >= FLOAT32_LIMIT) & ~bad
    for j in np.flatnonzero(wide.any(axis=0)).tolist():
        made.wide[specs[j].name] = np.ascontiguousarray(wide[:, j])
    return made


def _add(made: Columns, spec: Spec, column: Column, bad: Mask | None, values: _Values) -> None:
    made.values[spec.name] = column
    _mark(made, values, spec, bad)
    if bad is not None and spec.type is FeatureType.FLOAT:
        wide = np.abs(column) >= FLOAT32_LIMIT
        if wide.any():
            made.wide[spec.name] = wide


def _mark(made: Columns, values: _Values, spec: Spec, bad: Mask | None) -> None:
    if bad is None or not bad.any():
        return
    made.unusable[spec.name] = bad
    value = values(spec.path)
    for i in np.flatnonzero(bad).tolist():
        why = reason(value(i), spec)
        assert why is not None, "every masked cell has a reason"
        made.why[i, spec.name] = why
