"""Owns the element types of a model's inputs: which features each one takes, and how a feature is written for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from failsoft.models.runtime.signature import Mismatch, Port
from failsoft.schemas.features.spec import DType, FeatureType, Spec

ELEMENT_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float16)": np.dtype(np.float16),
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(int16)": np.dtype(np.int16),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(uint16)": np.dtype(np.uint16),
    "tensor(uint32)": np.dtype(np.uint32),
    "tensor(uint64)": np.dtype(np.uint64),
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(string)": np.dtype(object),
}
"""The types of an input, by ONNX Runtime's names, as numpy has them. bfloat16 is missing: numpy does not have it."""

_SCALARS: dict[FeatureType, np.dtype[Any]] = {
    FeatureType.FLOAT: np.dtype(np.float64),
    FeatureType.INT: np.dtype(np.int64),
    FeatureType.BOOL: np.dtype(np.bool_),
    FeatureType.STRING: np.dtype(object),
}


def element_type(spec: Spec) -> np.dtype[Any]:
    """The type of a feature's values in its column."""
    if spec.tensor is None:
        return _SCALARS[spec.type]
    return np.dtype(object) if spec.tensor.dtype is DType.STRING else np.dtype(spec.tensor.dtype.value)


def takes(dtype: np.dtype[Any], spec: Spec) -> bool:
    """Whether an input of type ``dtype`` takes the feature.

    The rule is that a value may lose precision, and never its meaning:

    - A float fits each float type, and an integer each integer type. A number beyond the range of a smaller type is
      unusable (``schemas.features.ranges``).
    - A bool fits each type of numbers, as 0 and 1. Nothing but a bool fits bool.
    - A float never fits an integer type. A string fits only string, and only strings fit it.
    - A single integer fits each float type. A tensor of integers fits a float type that represents all of them exactly:
      such integers are ids or pixels, and rounding makes another id.
    """
    given = element_type(spec)
    if "O" in (given.kind, dtype.kind):
        return given == dtype
    if given.kind == "b":
        return True
    if given.kind == "f":
        return dtype.kind == "f"
    if dtype.kind in "iu":
        return True
    return dtype.kind == "f" and (spec.tensor is None or _exact(given, dtype))


def _exact(integers: np.dtype[Any], floats: np.dtype[Any]) -> bool:
    """Whether each integer of one type is a number of the other."""
    info = np.iinfo(integers)
    return bool(np.finfo(floats).nmant + 1 >= info.bits - (info.kind == "i"))


def check(spec: Spec, port: Port) -> np.dtype[Any]:
    """The type of the port's elements. Raises Mismatch if the feature does not fit it, and says what would."""
    dtype = ELEMENT_TYPES[port.type]
    if takes(dtype, spec):
        return dtype
    if spec.tensor is None:
        fits = ", ".join(sorted(kind for kind in _SCALARS if takes(dtype, Spec("", kind))))
        raise Mismatch(
            f"feature {spec.name!r} is a {spec.type} in the card, and input {port.name!r} is a {port.type}, which "
            f"takes {fits}: change the feature's type, or export the model with another input type"
        )
    right = card_dtype(port)
    mend = f'write dtype = "{right}", or ' if right else ""
    raise Mismatch(
        f"feature {spec.name!r} is a tensor of {spec.tensor.dtype} in the card, and input {port.name!r} is a "
        f"{port.type}, in which its elements do not fit: {mend}export the model with another input type"
    )


def card_dtype(port: Port) -> str | None:
    """The ``dtype`` of a tensor in a card that is the port's own type; None if a card cannot have it."""
    dtype = ELEMENT_TYPES.get(port.type)
    name = None if dtype is None else "string" if dtype.kind == "O" else dtype.name
    return name if name in set(DType) else None


def card_type(port: Port) -> str | None:
    """The ``type`` of a single value in a card that fits the port; None if none does."""
    dtype = ELEMENT_TYPES.get(port.type)
    if dtype is None:
        return None
    return {"f": "float", "b": "bool", "O": "string"}.get(dtype.kind, "int")


def narrows(spec: Spec, dtype: np.dtype[Any]) -> bool:
    """Whether some number of the feature is beyond the range of ``dtype``."""
    given = element_type(spec)
    if given.kind not in "iuf" or dtype.kind not in "iuf" or given == dtype:
        return False
    return not np.can_cast(given, dtype, "safe") and not (given.kind in "iu" and dtype in (np.float32, np.float64))
