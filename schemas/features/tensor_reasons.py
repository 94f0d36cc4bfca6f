"""Says why a value is no tensor of a feature: what was found, where, and what would be right."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import numpy as np

from failsoft.schemas.features.elements import first_unusable, first_unusable_number, size_of, tensor_of
from failsoft.schemas.features.spec import DType, Spec
from failsoft.schemas.features.tensors import bytes_of, cut_bytes, read, size_in
from failsoft.schemas.features.words import kind, wanted

_DEEPEST = 8
"""Dimensions of a list that a reason names. A tensor has at most four."""


def reason(value: object, spec: Spec) -> str | None:
    """Why ``value`` is unusable for this feature, or None if it is usable."""
    _, bad = read((value,), spec)
    if bad is None or not bad[0]:
        return None
    if value is None:
        return "null"
    if isinstance(value, list):
        return _why_list(value, spec)
    if isinstance(value, str) and tensor_of(spec).dtype is not DType.STRING:
        return _why_base64(value, spec)
    if isinstance(value, bytes) and tensor_of(spec).dtype is not DType.STRING:
        kept = cut_bytes(value, spec)
        return _another_size(len(value), spec) if kept is None else _why_numbers(*kept, spec)
    return f"{kind(value)}, not {wanted(tensor_of(spec))}"


def _why_list(value: list[Any], spec: Spec) -> str:
    tensor = tensor_of(spec)
    another_shape = f"a list of shape {_shape(value)}, not {wanted(tensor)}"
    lists, shape = [value], list[int]()
    for length in tensor.shape:
        other = next((i for i, one in enumerate(lists) if type(one) is not list), None)
        if other is not None:
            return another_shape if other == 0 else _at(other, shape, kind(lists[other]), "not a list", spec)
        lengths = list(map(len, lists))
        odd = next((i for i, n in enumerate(lengths) if n != lengths[0]), None)
        if odd is not None:
            return _at(odd, shape, f"a list of {lengths[odd]}", f"beside one of {lengths[0]}", spec, "ragged: ")
        found = lengths[0] if lengths else length
        if length == -1 and tensor.truncate:
            length = min(found, tensor.max_length or found)
            lists = [one[:length] for one in lists]
        elif length != found and (length != -1 or found > (tensor.max_length or found)):
            return another_shape
        shape.append(found if length == -1 else length)
        lists = list(chain.from_iterable(lists))
    i, what, why = first_unusable(lists, spec)
    return another_shape if i == 0 and type(lists[0]) is list else _at(i, shape, what, why, spec)


def _why_base64(text: str, spec: Spec) -> str:
    tensor = tensor_of(spec)
    kept = bytes_of(text, spec)
    if kept is not None:
        return _why_numbers(*kept, spec)
    unit = abs(math.prod(tensor.shape)) * size_of(tensor.dtype)
    most = unit * (tensor.max_length or 1)
    found = size_in(text)
    if len(text) % 4 or (found <= most and not found % unit and (found == most or -1 in tensor.shape)):
        return f"a string that is not base64: it takes {wanted(tensor)}"
    return f"base64 of {_another_size(found, spec)}"


def _why_numbers(raw: bytes, shape: list[int], spec: Spec) -> str:
    bad = first_unusable_number(raw, spec)
    assert bad is not None, "unusable bytes of the right size have an unusable element"
    return _at(bad[0], shape, *bad[1:], spec)


def _another_size(found: int, spec: Spec) -> str:
    """Bytes of a tensor that are too few, too many or not of whole elements, in words."""
    tensor = tensor_of(spec)
    size = size_of(tensor.dtype)
    unit = abs(math.prod(tensor.shape)) * size
    several = "" if -1 not in tensor.shape else f"a multiple of {unit} bytes up to "
    right = f"{several}{_bytes(unit * (tensor.max_length or 1), size)}"
    return f"{_bytes(found, size)}, not of {right}: it takes {wanted(tensor)}"


def _bytes(n: int, size: int) -> str:
    return f"{n} bytes" + ("" if n % size else f" ({n // size} elements)")


def _at(i: int, shape: list[int], found: str, why: str, spec: Spec, before: str = "") -> str:
    """The words for a part at the place ``i``, in row-major order, of a list of this shape."""
    where = ", ".join([str(n) for n in np.unravel_index(i, shape)]) if shape else ""
    return f"{before}{found} at [{where}], {why}: it takes {wanted(tensor_of(spec))}"


def _shape(value: object) -> list[int]:
    """The shape of a list, by the first element of each level."""
    shape = list[int]()
    while type(value) is list and len(shape) < _DEEPEST:
        shape.append(len(value))
        value = value[0] if value else None
    return shape
