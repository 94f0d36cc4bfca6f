"""How far rounding may take probabilities: outside [0, 1], and their sum away from 1, by the type of the output.

Answers, vettings and new cards are judged by the same numbers: what a vetting passes, a worker answers.
"""

from __future__ import annotations

from typing import NamedTuple


class Rounding(NamedTuple):
    """Tolerances of probabilities.

    Attributes:
        edge: how far one may be outside [0, 1].
        total: how far the sum of a row may be from 1.
    """

    edge: float
    total: float


_HALF = Rounding(1e-3, 2e-2)
"""Half precision has 11 bits: its next number after 1 is 1.00098."""

_SINGLE = Rounding(1e-5, 1e-3)
"""A softmax in float32 may exceed 1 by a few units in its last place, and a sum of many columns deviates more."""


def rounding(dtype: str) -> Rounding:
    """The tolerances of an output of this type, numpy's name."""
    return _HALF if dtype == "float16" else _SINGLE
