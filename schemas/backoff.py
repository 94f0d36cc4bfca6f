"""Back-off: how long to wait before the next try. Waits double, and jitter spreads tries that failed together."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Draw = TypeVar("Draw", float, NDArray[np.float64])

_MOST_DOUBLINGS = 64
"""Enough to reach any longest wait from any first wait. Without a limit the float would overflow after years of
failures."""


def doubled(first: float, longest: float, times: int) -> float:
    """``first`` doubled ``times`` times, at most ``longest`` (both in the same unit)."""
    return min(longest, first * 2.0 ** min(times, _MOST_DOUBLINGS))


def jittered(wait: float, share: float, u: Draw) -> Draw:
    """``wait`` ± ``share`` of it, uniform in ``u`` in [0, 1). For waits that must stay near ``wait``, as on a rung."""
    return wait * (1 + share * (2 * u - 1))


def upper_half(wait: float, u: float) -> float:
    """Between half of ``wait`` and ``wait``, uniform in ``u`` in [0, 1). For restarts, where ``wait`` is a limit."""
    return wait * (0.5 + u / 2)
