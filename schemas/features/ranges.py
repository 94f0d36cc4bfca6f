"""Finds the numbers that are beyond the range of the model's input, and marks their cells as unusable."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.features.columns import Column, Columns, Mask, of_matrix
from failsoft.schemas.features.spec import FeatureType, Spec, TensorSpec
from failsoft.schemas.features.words import show, with_field


def within(columns: Columns, dtypes: Mapping[str, str]) -> Columns:
    """The columns with each cell unusable whose number its model cannot hold.

    ``dtypes`` names the numpy type of a feature's ONNX input, by feature; a feature that is not in it is not checked.
    Returns ``columns`` itself if all numbers fit, and does not change it.
    """
    if columns.matrix is not None and not columns.wide and "float16" not in dtypes.values():
        return columns  # only floats, and none is beyond float32: the usual case
    found = [(name, mask, dtype) for name, mask, dtype in _beyond(columns, dtypes) if mask.any()]
    if not found:
        return columns
    if columns.matrix is not None:
        made = of_matrix(columns.specs, columns.matrix.copy())
    else:
        bad = {name for name, _, _ in found}
        values = {name: column.copy() if name in bad else column for name, column in columns.values.items()}
        made = Columns(columns.specs, columns.size, values)
    made.unusable, made.why, made.wide = dict(columns.unusable), dict(columns.why), dict(columns.wide)
    specs = {spec.name: spec for spec in columns.specs}
    for name, mask, dtype in found:
        made.unusable[name] = mask | made.unusable[name] if name in made.unusable else mask
        made.wide.pop(name, None)
        spec, column = specs[name], made.values[name]
        tensor = spec.tensor
        for i in np.flatnonzero(mask).tolist():
            made.why[i, name] = _why(columns.values[name][i], spec, dtype)
            column[i] = 0 if tensor is None or not _ragged(column) else _empty(tensor)
    return made


def _why(value: Any, spec: Spec, dtype: str) -> str:
    """The words for a number, or a tensor's first one, that is beyond ``dtype``."""
    found = show(value)
    if spec.tensor is not None:
        i = int(beyond(value, dtype).argmax())
        place = ", ".join([str(n) for n in np.unravel_index(i, value.shape)])
        found = f"{show(value.flat[i])} at [{place}]"
    return with_field(f"{found} is beyond the range of {dtype}, which the model takes", spec)


def _beyond(columns: Columns, dtypes: Mapping[str, str]) -> Iterator[tuple[str, Mask, str]]:
    """The features that may have numbers beyond their dtype, and a mask of shape (rows,) of those that are."""
    for name, mask in columns.wide.items():
        if dtypes.get(name) == "float32":
            yield name, mask, "float32"
    for spec in columns.specs:
        dtype = dtypes.get(spec.name)
        if dtype is None or dtype in _HOLDS_ALL.get(spec.type, ()):
            continue
        column = columns.values[spec.name]
        if not _ragged(column):
            outside = beyond(column, dtype)
            yield spec.name, np.asarray(outside.any(axis=tuple(range(1, outside.ndim)))), dtype
        elif columns.size:
            elements = np.concatenate([row.ravel() for row in column])
            rows = np.repeat(np.arange(columns.size), [row.size for row in column])
            mask = np.zeros(columns.size, np.bool_)
            mask[rows[beyond(elements, dtype)]] = True
            yield spec.name, mask, dtype


_HOLDS_ALL: dict[FeatureType, frozenset[str]] = {
    # A scalar float beyond float32 is in ``Columns.wide``: no need to look for it again.
    FeatureType.FLOAT: frozenset({"float32", "float64"}),
    FeatureType.INT: frozenset({"int64", "float32", "float64"}),
}


def beyond(numbers: NDArray[Any], dtype: str) -> Mask:
    """Mask of the numbers that a numpy type of numbers cannot hold; NaN is not beyond it.

    A float is beyond the range if it would be rounded to infinity: half a step over the greatest number.
    """
    if np.dtype(dtype).kind == "f":
        info = np.finfo(dtype)
        limit = math.ldexp(1 - math.ldexp(1, -info.nmant - 2), info.maxexp) if info.maxexp < 1024 else math.inf
        with np.errstate(over="ignore"):  # the limit is infinite in a narrower type, and no number is beyond it
            return np.asarray((numbers >= limit) | (numbers <= -limit))
    bounds = np.iinfo(dtype)
    return np.asarray((numbers < int(bounds.min)) | (numbers > int(bounds.max)))


def _empty(tensor: TensorSpec) -> Column:
    return np.empty([max(n, 0) for n in tensor.shape], tensor.dtype.value)


def _ragged(column: Column) -> bool:
    """Whether the column has one array a row, of rows of different lengths."""
    return bool(column.dtype == object)
