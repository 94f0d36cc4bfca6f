"""Reads a batch's feature columns from JSON objects, and marks each unusable cell with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain

import numpy as np

from failsoft.schemas.features import scalars, tensor_reasons, tensors
from failsoft.schemas.features.bounds import FLOAT32_LIMIT, outside
from failsoft.schemas.features.columns import Columns, Mask, of_matrix
from failsoft.schemas.features.paths import MISSING, Absent, find, getter
from failsoft.schemas.features.spec import FeatureType, Spec
from failsoft.schemas.features.words import with_field

_NAN = float("nan")


def columns(events: Sequence[Mapping[str, object]], specs: Sequence[Spec]) -> Columns:
    """Build the columns that ``specs`` name from decoded JSON objects. Other keys of an event are ignored.

    Never raises because of an event's content. A cell is ``unusable``, with its ``why``, when it is missing, null, of
    another type or shape, not finite, beyond its dtype (float64 and int64 for a float and an int), outside its bounds,
    or of an unseen category. A cell of a float that is usable but beyond float32 is marked ``wide``.
    """
    specs = tuple(specs)
    rows = _rows(events, specs)
    if specs and all(spec.type is FeatureType.FLOAT for spec in specs):
        return _all_float(events, specs, rows)
    made = Columns(specs, len(events), {})
    by_column: Iterable[tuple[object, ...]] = zip(*rows, strict=True) if rows else ((),) * len(specs)
    for spec, raw in zip(specs, by_column, strict=bool(specs)):
        column, bad = (scalars if spec.tensor is None else tensors).read(raw, spec)
        made.values[spec.name] = column
        _mark(made, events, spec, bad)
        if bad is not None and spec.type is FeatureType.FLOAT:
            wide = np.abs(column) >= FLOAT32_LIMIT
            if wide.any():
                made.wide[spec.name] = wide
    return made


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


def _all_float(
    events: Sequence[Mapping[str, object]], specs: tuple[Spec, ...], rows: list[tuple[object, ...]]
) -> Columns:
    matrix = None
    flat = list(chain.from_iterable(rows))
    if set(map(type, flat)) <= scalars.FLOATS:
        with suppress(OverflowError):  # an integer is beyond float64: found column by column below
            matrix = np.array(flat, dtype=np.float64).reshape(len(rows), len(specs))
    if matrix is None:
        by_column = [scalars.floats(raw, spec) for spec, raw in zip(specs, zip(*rows, strict=True), strict=True)]
        matrix = np.ascontiguousarray(np.array(by_column).T)
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
        _mark(made, events, specs[j], np.ascontiguousarray(bad[:, j]))
    wide = (sizes >= FLOAT32_LIMIT) & ~bad
    for j in np.flatnonzero(wide.any(axis=0)).tolist():
        made.wide[specs[j].name] = np.ascontiguousarray(wide[:, j])
    return made


def _mark(made: Columns, events: Sequence[Mapping[str, object]], spec: Spec, bad: Mask | None) -> None:
    if bad is None or not bad.any():
        return
    made.unusable[spec.name] = bad
    path = spec.path
    plain = "." not in path
    for i in np.flatnonzero(bad).tolist():
        event = events[i]
        why = reason(event[path] if path in event else MISSING if plain else find(event, path), spec)
        assert why is not None, "every masked cell has a reason"
        made.why[i, spec.name] = why
