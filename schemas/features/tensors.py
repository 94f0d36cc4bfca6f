"""Reads a column of tensors: lists (of lists) of elements, or their little-endian bytes in row-major order, in JSON as
base64.

A batch is read at once, at C speed. If one of its values is unusable, it is split in parts, and each is read, until
that value is alone: its neighbours cost little more than before. Sizes are checked before anything is converted.
"""

from __future__ import annotations

import math
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np

from failsoft.schemas.features.columns import Column, Mask
from failsoft.schemas.features.elements import Array, from_bytes, from_json, size_of, tensor_of
from failsoft.schemas.features.spec import DType, Spec, TensorSpec


def read(raw: Sequence[object], spec: Spec) -> tuple[Column, Mask | None]:
    """The column of a tensor, and a mask of its unusable cells. None: each cell is usable.

    Of a value that is cut off at ``max_length``, only what is kept is checked.
    """
    kinds = set(map(type, raw))
    for kind, reader in _READERS.items():
        if kinds <= {kind}:
            whole = reader(raw, spec)
            if whole is not None:
                return whole, None
    column, bad = _placeholders(len(raw), tensor_of(spec)), np.ones(len(raw), np.bool_)
    for kind, reader in _READERS.items():
        rows = [i for i, value in enumerate(raw) if type(value) is kind]
        for some, part in _usable(raw, spec, reader, rows):
            column[some] = part
            bad[some] = False
    return column, bad


_PARTS = 64
"""Parts in which rows are split. If all of 4,000 are unusable, each is read three times; in halves it was thirteen."""

_Reader = Callable[[Sequence[Any], Spec], Column | None]
"""Reads values of one type; None if one of them is unusable."""


def _usable(raw: Sequence[object], spec: Spec, reader: _Reader, rows: list[int]) -> Iterable[tuple[list[int], Column]]:
    """The usable ones of these rows, in parts. Rows are split where one is unusable."""
    part = reader([raw[i] for i in rows], spec) if rows else None
    if part is not None:
        yield rows, part
    elif len(rows) > 1:
        size = -(-len(rows) // _PARTS)
        for i in range(0, len(rows), size):
            yield from _usable(raw, spec, reader, rows[i : i + size])


def _placeholders(n: int, tensor: TensorSpec) -> Column:
    if -1 not in tensor.shape:
        return _zeros((n, *tensor.shape), tensor.dtype)
    return _ragged([_zeros(tuple([max(length, 0) for length in tensor.shape]), tensor.dtype)] * n)


def _zeros(shape: tuple[int, ...], dtype: DType) -> Array:
    return np.full(shape, "", object) if dtype is DType.STRING else np.zeros(shape, dtype.value)


def _ragged(rows: list[Array]) -> Column:
    column = np.empty(len(rows), object)
    for i, row in enumerate(rows):
        column[i] = row
    return column


def _read_lists(raw: Sequence[list[Any]], spec: Spec) -> Column | None:
    tensor = tensor_of(spec)
    if -1 not in tensor.shape:
        made = _flat(raw, tensor.shape, spec)
        return None if made is None else made.reshape(len(raw), *tensor.shape)
    if tensor.shape[0] != -1:
        rows = [_inner_length(value, spec) for value in raw]
        return None if any(row is None for row in rows) else _ragged([row for row in rows if row is not None])
    cut = _cut(raw, tensor)
    made = None if cut is None else _flat(list(chain.from_iterable(cut)), tensor.shape[1:], spec)
    if cut is None or made is None:
        return None
    made, lengths = made.reshape(-1, *tensor.shape[1:]), list(map(len, cut))
    return _ragged([made[end - length : end] for length, end in zip(lengths, accumulate(lengths), strict=True)])


def _flat(lists: Sequence[Any], shape: tuple[int, ...], spec: Spec) -> Array | None:
    """The elements of lists that all have the shape ``shape``."""
    for length in shape:
        if not (set(map(type, lists)) <= {list} and set(map(len, lists)) <= {length}):
            return None
        lists = list(chain.from_iterable(lists))
    return from_json(list(lists), spec)


def _inner_length(value: list[Any], spec: Spec) -> Array | None:
    """One tensor whose -1 is not its first dimension."""
    tensor, lists, shape = tensor_of(spec), [value], list[int]()
    for length in tensor.shape:
        if not set(map(type, lists)) <= {list}:
            return None
        found = set(map(len, lists)) or {length}  # no lists are left after a length of 0
        if len(found) != 1 or length not in (-1, *found):
            return None
        cut = _cut(lists, tensor) if length == -1 else lists
        if cut is None:
            return None
        shape.append(len(cut[0]) if cut else length)
        lists = list(chain.from_iterable(cut))
    made = from_json(lists, spec)
    return None if made is None else made.reshape(shape)


def _cut(lists: Sequence[list[Any]], tensor: TensorSpec) -> Sequence[list[Any]] | None:
    """The lists, cut off at ``max_length``, or None if one is longer than it may be."""
    assert tensor.max_length is not None, "a -1 has a max_length"
    if max(map(len, lists), default=0) <= tensor.max_length:
        return lists
    return [one[: tensor.max_length] for one in lists] if tensor.truncate else None


def _read_base64(raw: Sequence[str], spec: Spec) -> Column | None:
    tensor = tensor_of(spec)
    if tensor.dtype is DType.STRING:
        return None
    if -1 in tensor.shape:
        rows = [_one(bytes_of(text, spec), spec) for text in raw]
        return None if any(row is None for row in rows) else _ragged([row for row in rows if row is not None])
    size = math.prod(tensor.shape) * size_of(tensor.dtype)
    if not set(map(len, raw)) <= {characters(size)}:
        return None
    try:
        parts = [a2b_base64(text, strict_mode=True) for text in raw]
    except ValueError:
        return None
    return _of_size(parts, size, spec)


def _read_bytes(raw: Sequence[bytes], spec: Spec) -> Column | None:
    tensor = tensor_of(spec)
    if tensor.dtype is DType.STRING:
        return None
    if -1 not in tensor.shape:
        return _of_size(raw, math.prod(tensor.shape) * size_of(tensor.dtype), spec)
    rows = [_one(cut_bytes(each, spec), spec) for each in raw]
    return None if any(row is None for row in rows) else _ragged([row for row in rows if row is not None])


def _of_size(parts: Sequence[bytes], size: int, spec: Spec) -> Column | None:
    """Tensors of a fixed shape, of ``size`` bytes each."""
    if not set(map(len, parts)) <= {size}:
        return None
    made = from_bytes(bytearray().join(parts), spec)
    return None if made is None else made.reshape(len(parts), *tensor_of(spec).shape)


def _one(kept: tuple[bytes, list[int]] | None, spec: Spec) -> Array | None:
    made = None if kept is None else from_bytes(bytearray(kept[0]), spec)
    return None if kept is None or made is None else made.reshape(kept[1])


def bytes_of(text: str, spec: Spec) -> tuple[bytes, list[int]] | None:
    """The bytes of one tensor in base64 (RFC 4648, with its padding) and its shape, cut off at ``max_length`` where it
    may be. None if ``text`` is something else, or has another size.
    """
    tensor = tensor_of(spec)
    unit = abs(math.prod(tensor.shape)) * size_of(tensor.dtype)
    most = unit * (tensor.max_length or 1)
    if len(text) > characters(most) and not tensor.truncate:
        return None
    try:
        whole = a2b_base64(text, strict_mode=True)
    except ValueError:  # not base64, or not even ASCII
        return None
    if len(text) % 4 or len(whole) != size_in(text):
        return None  # a2b_base64 lets padding pass that is not needed
    return cut_bytes(whole, spec)


def cut_bytes(whole: bytes, spec: Spec) -> tuple[bytes, list[int]] | None:
    """The bytes of one tensor and its shape, cut off at ``max_length`` where it may be. None for another size."""
    tensor = tensor_of(spec)
    unit = abs(math.prod(tensor.shape)) * size_of(tensor.dtype)
    most = unit * (tensor.max_length or 1)
    if -1 not in tensor.shape:
        return (whole, list(tensor.shape)) if len(whole) == unit else None
    if len(whole) % unit or (len(whole) > most and not tensor.truncate):
        return None
    axis = tensor.shape.index(-1)
    shape = [*tensor.shape]
    shape[axis] = len(whole) // unit
    if len(whole) <= most:
        return whole, shape
    elements = np.frombuffer(whole, f"V{size_of(tensor.dtype)}").reshape(shape)
    kept = elements[(slice(None),) * axis + (slice(tensor.max_length),)]
    return kept.tobytes(), list(kept.shape)


def size_in(text: str) -> int:
    """Bytes in a text of this length and padding, if it is base64."""
    return len(text) // 4 * 3 - text[-2:].count("=")


def characters(size: int) -> int:
    """Characters of ``size`` bytes in base64."""
    return (size + 2) // 3 * 4


_READERS: dict[type, _Reader] = {list: _read_lists, str: _read_base64, bytes: _read_bytes}
