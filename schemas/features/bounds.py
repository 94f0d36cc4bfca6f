"""The bounds of a feature: its ``minimum`` and ``maximum``, and what its dtype can hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.features.columns import Mask
from failsoft.schemas.features.spec import Spec
from failsoft.schemas.features.words import show

FLOAT32_LIMIT = 2.0**128 - 2.0**103
"""The least number that float32 rounds to infinity. It is half a step over float32's maximum, whose own shortest
decimal, 3.4028235e38, is over the maximum as a double."""


def outside(numbers: NDArray[Any], spec: Spec) -> Mask | None:
    """Mask of the numbers outside ``spec``'s bounds; None if it has no bounds. NaN is not outside."""
    if spec.minimum is None:
        return None if spec.maximum is None else _above(numbers, spec.maximum)
    low = _below(numbers, spec.minimum)
    return low if spec.maximum is None else low | _above(numbers, spec.maximum)


def why_outside(number: object, spec: Spec, dtype: np.dtype[Any]) -> str | None:
    """Why ``number``, in a column of this dtype, is outside ``spec``'s bounds; None if it is not."""
    column = np.array([number], dtype)
    if spec.minimum is not None and _below(column, spec.minimum)[0]:
        return f"below the minimum of {show(spec.minimum)}"
    if spec.maximum is not None and _above(column, spec.maximum)[0]:
        return f"above the maximum of {show(spec.maximum)}"
    return None


def _below(numbers: NDArray[Any], minimum: float) -> Mask:
    return np.asarray(numbers < _limit(minimum, numbers.dtype, math.ceil))


def _above(numbers: NDArray[Any], maximum: float) -> Mask:
    return np.asarray(numbers > _limit(maximum, numbers.dtype, math.floor))


def _limit(bound: float, dtype: np.dtype[Any], whole: Callable[[float], int]) -> Any:
    """The bound in the column's own type: 0.1 in float32 is not above a maximum of 0.1. Integers compare exactly."""
    if dtype.kind != "f":
        return whole(bound)
    with np.errstate(over="ignore"):  # a bound beyond float16 is infinite there, and nothing is outside it
        return dtype.type(bound)
