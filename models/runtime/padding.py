"""Owns the padding of tensors whose length differs by row: one array a batch, and a mask that tells what is padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.spec import TensorSpec

Tensor = NDArray[Any]

MOST_BYTES = 1 << 30
"""Most bytes of one padded input. A single long row multiplies the memory of a batch of thousands. The batch fails with
a message before the machine's memory runs out, and smaller parts of it are run."""


@dataclass(frozen=True, slots=True)
class Padded:
    """A feature of variable length, as inputs of the model.

    Attributes:
        feature: its name.
        tensor: what its values are; one dimension is -1.
        port: the input that takes its elements.
        dtype: type of that input.
        length: the length that the input has: a number if it is fixed, else the name that the model gives to it.
            Inputs with the same name of a length get the same length.
        mask: the input that takes the mask, and its type; None if there is none.
    """

    feature: str
    tensor: TensorSpec
    port: str
    dtype: np.dtype[Any]
    length: int | str | None = None
    mask: tuple[str, np.dtype[Any]] | None = None


def pad(columns: Columns, inputs: Sequence[Padded]) -> dict[str, Tensor]:
    """The inputs by name, each padded to the longest row of the batch, or to the model's fixed length.

    The length is at least 1, because few models can compute with none. Raises MemoryError for over MOST_BYTES.
    """
    lengths = [_lengths(columns, each) for each in inputs]
    longest: dict[int | str, int] = {}
    for i, each in enumerate(inputs):
        if not isinstance(each.length, int):
            group = i if each.length is None else each.length
            longest[group] = max(longest.get(group, 1), int(lengths[i].max(initial=1)))
    made: dict[str, Tensor] = {}
    for i, each in enumerate(inputs):
        to = each.length if isinstance(each.length, int) else longest[i if each.length is None else each.length]
        _check_size(columns.size, to, each)
        there = np.arange(to) < lengths[i][:, None]
        made[each.port] = _block(columns, each, there)
        if each.mask is not None:
            name, dtype = each.mask
            made[name] = there.astype(dtype)
    return made


def _axis(each: Padded) -> int:
    return each.tensor.shape.index(-1)


def _lengths(columns: Columns, each: Padded) -> NDArray[np.int64]:
    axis = _axis(each)
    return np.fromiter((row.shape[axis] for row in columns.values[each.feature]), np.int64, columns.size)


def _check_size(rows: int, length: int, each: Padded) -> None:
    """Raises MemoryError if the input, or its mask, would take too much. Nothing of that size is made before."""
    elements = math.prod(n for n in each.tensor.shape if n != -1) * each.dtype.itemsize
    size = rows * length * max(elements, 1 if each.mask is None else each.mask[1].itemsize)
    if size > MOST_BYTES:
        raise MemoryError(
            f"feature {each.feature!r}: {rows} rows padded to a length of {length} take {size >> 20} MB, over "
            f"{MOST_BYTES >> 20}: lower its max_length, or the model's max_batch"
        )


def _block(columns: Columns, each: Padded, there: NDArray[np.bool_]) -> Tensor:
    """The rows in one array. ``there`` has the shape (rows, length), and is true for what is no padding."""
    axis, column = _axis(each), columns.values[each.feature]
    rest = [n for n in each.tensor.shape if n != -1]
    shape = (*there.shape, *rest)
    block = np.full(shape, each.tensor.pad, each.dtype)
    if columns.size:
        block[there] = np.concatenate([np.moveaxis(row, axis, 0) for row in column] if axis else list(column))
    return np.ascontiguousarray(np.moveaxis(block, 1, axis + 1)) if axis else block
