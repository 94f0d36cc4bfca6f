"""The elements of tensors: from JSON values or from bytes to an array of their dtype, and why one is unusable."""

from __future__ import annotations

import math
import struct
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.features.bounds import outside, why_outside
from failsoft.schemas.features.spec import DType, Spec, TensorSpec
from failsoft.schemas.features.words import show

Array = NDArray[Any]


def tensor_of(spec: Spec) -> TensorSpec:
    """What ``spec``'s value is, which must be a tensor."""
    assert spec.tensor is not None, f"feature {spec.name!r} is no tensor"
    return spec.tensor


def from_json(flat: list[Any], spec: Spec) -> Array | None:
    """JSON values as an array of shape (len(flat),); None if one of them is unusable.

    numpy alone would make 1 of true, 1.5 of "1.5", NaN of null and 44 of 300.
    """
    dtype = tensor_of(spec).dtype
    match dtype:
        case DType.STRING:
            return _strings(flat)
        case DType.BOOL:
            return np.array(flat, np.bool_) if set(map(type, flat)) <= {bool} else None
    made = _floats(flat, dtype) if dtype.floating else _integers(flat, dtype)
    return made if made is not None and _within(made, spec) else None


def from_bytes(raw: bytearray, spec: Spec) -> Array | None:
    """Little-endian bytes, a whole number of elements, as an array of one dimension; None if one is unusable.

    The array is a view of ``raw`` where the machine has the same byte order.
    """
    made, dtype = plain_from_bytes(raw, spec), tensor_of(spec).dtype
    if dtype is DType.BOOL:
        return made.view(np.bool_) if (made <= 1).all() else None
    return made if (not dtype.floating or np.isfinite(made).all()) and _within(made, spec) else None


def plain_from_bytes(raw: bytes | bytearray, spec: Spec) -> Array:
    """Little-endian bytes as numbers, whatever they are; of a bool, the bytes themselves."""
    dtype = tensor_of(spec).dtype
    native = np.dtype(np.uint8 if dtype is DType.BOOL else dtype.value)
    return np.frombuffer(raw, native.newbyteorder("<")).astype(native, copy=False)


def size_of(dtype: DType) -> int:
    """Bytes of an element."""
    return np.dtype(dtype.value).itemsize


def first_unusable(flat: list[Any], spec: Spec) -> tuple[int, str, str]:
    """Of these JSON values, the first unusable one, which there must be: its place, itself in words, and why it is
    unusable. The values are halved at C speed: looking at each takes a thousand times as long.
    """
    begin, end = 0, len(flat)
    while end - begin > 1:
        middle = (begin + end) // 2
        if from_json(flat[begin:middle], spec) is None:
            end = middle
        else:
            begin = middle
    why = _why(flat[begin], spec)
    assert why is not None, "one of the values is unusable"
    return begin, show(flat[begin]), why


def first_unusable_number(raw: bytes, spec: Spec) -> tuple[int, str, str] | None:
    """Of these little-endian bytes, the first unusable element: its place, itself in words, and why it is unusable."""
    numbers, boolean = plain_from_bytes(raw, spec), tensor_of(spec).dtype is DType.BOOL
    bad = numbers > 1 if boolean else ~np.isfinite(numbers)
    out = None if boolean else outside(numbers, spec)
    if out is not None:
        bad |= out
    if not bad.any():
        return None
    i = int(bad.argmax())
    if boolean:
        return i, f"the byte {numbers[i]}", "not 0 or 1"
    return i, show(numbers[i]), why_outside(numbers[i], spec, numbers.dtype) or "not finite"


def _why(value: Any, spec: Spec) -> str | None:
    """Why a JSON value is no element, or None if it is one."""
    dtype = tensor_of(spec).dtype
    if dtype is DType.STRING:
        return None if type(value) is str else "not a string"
    if dtype is DType.BOOL:
        return None if type(value) is bool else "not true or false"
    if type(value) not in (int, float):
        return "not a number"
    if type(value) is float and not math.isfinite(value):
        return "not finite"
    if not dtype.floating and value != int(value):
        return "not an integer"
    if (_floats if dtype.floating else _integers)([value], dtype) is None:
        return f"beyond the range of {dtype}{_range(dtype)}"
    return why_outside(value, spec, np.dtype(dtype.value))


def _range(dtype: DType) -> str:
    """The range of a small dtype, which few know by heart."""
    if dtype is DType.FLOAT16:
        return " (-65504 to 65504)"
    if dtype.floating or dtype is DType.INT64:
        return ""
    bounds = np.iinfo(dtype.value)
    return f" ({bounds.min} to {bounds.max})"


def _within(numbers: Array, spec: Spec) -> bool:
    out = outside(numbers, spec)
    return out is None or not out.any()


def _strings(flat: list[Any]) -> Array | None:
    if not set(map(type, flat)) <= {str}:
        return None
    made = np.empty(len(flat), object)
    made[:] = flat
    return made


def _floats(flat: list[Any], dtype: DType) -> Array | None:
    numbers = _packed(flat, "d", np.float64)
    if numbers is None:
        return None
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # what becomes infinity, or is a signalling NaN, is refused below
        made = numbers.astype(dtype.value)
    return made if np.isfinite(made).all() else None


def _integers(flat: list[Any], dtype: DType) -> Array | None:
    numbers = _packed(flat, "q", np.int64)
    if numbers is None:
        whole = _whole(flat)
        numbers = None if whole is None else _packed(whole, "q", np.int64)
    if numbers is None:
        return None
    bounds = np.iinfo(dtype.value)
    if numbers.min(initial=0) < bounds.min or numbers.max(initial=0) > bounds.max:
        return None
    return numbers.astype(dtype.value)


def _whole(flat: list[Any]) -> list[int] | None:
    """The values as integers, as JSON does not tell 3.0 from 3; None if one of them is no whole number."""
    if not set(map(type, flat)) <= {int, float}:
        return None
    try:
        whole = list(map(int, flat))
    except (OverflowError, ValueError):  # an infinity, or NaN
        return None
    return whole if whole == flat else None


def _packed(flat: list[Any], code: str, dtype: type[np.generic]) -> Array | None:
    """The numbers as one array, which cannot be written to; None if one is of another type, or beyond ``dtype``.

    ``struct`` refuses all but numbers (and ``q`` all but integers), in a third of the time of looking at each type. It
    takes true for 1, so ones and zeros are looked at.
    """
    try:
        numbers = np.frombuffer(struct.pack(f"{len(flat)}{code}", *flat), dtype)
    except (struct.error, OverflowError):
        return None
    doubtful = (numbers == 0) | (numbers == 1)
    if doubtful.any() and bool in set(map(type, compress(flat, doubtful.tobytes()))):
        return None
    return numbers
