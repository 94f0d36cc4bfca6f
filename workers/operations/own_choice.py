"""What a model's whole-number outputs tell of its scores: they are distances, or the confidence in a class. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Value = NDArray[Any] | list[Any] | None

_HALF = 0.5


def lowest(own: Value, table: NDArray[np.float64]) -> bool:
    """Whether the model's own label is the number of the column with the lowest score, and not with the highest."""
    if not isinstance(own, np.ndarray) or own.dtype == object or table.shape[1] < 2 or len(own) != len(table):
        return False
    given = own.reshape(-1)
    return bool((given == table.argmin(axis=1)).all() and (given != table.argmax(axis=1)).any())


def zero_or_one(own: Value) -> bool:
    """Whether an output has one value a row, 0 or 1, and both occur: it is the label, whatever its name is."""
    whole = isinstance(own, np.ndarray) and own.dtype.kind in "biu" and own.size == len(own)
    return whole and set(np.asarray(own).reshape(-1).tolist()) == {0, 1}


def confidence(outputs: Iterable[Value], scores: NDArray[np.float64]) -> bool:
    """Whether the scores of one column are how sure the model is of a class, which another output gives.

    The class is one of several, or one of two that both have scores of at least a half, which no threshold parts: the
    score is not the probability of one label.
    """
    for own in outputs:
        if not isinstance(own, np.ndarray) or own.dtype == object or own.size != len(own) or len(own) != len(scores):
            continue
        given, sure = own.reshape(-1), scores.reshape(-1)
        classes = set(given.tolist())
        if len(classes) > 2:
            return True
        if classes == {0, 1} and bool((sure >= _HALF).all()) and sure[given == 0].max() > sure[given == 1].min():
            return True
    return False
