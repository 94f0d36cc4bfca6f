"""How long to wait before the next try: doubling waits, and the draws that keep apart what failed together."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Draw = TypeVar("Draw", float, NDArray[np.float64])

_MOST_DOUBLINGS = 64
"""They reach any longest wait from any first one; more would overflow the float after years without success."""


def doubled(first: float, longest: float, times: int) -> float:
    """``first`` doubled ``times`` times, at most ``longest``."""
    return min(longest, first * 2.0 ** min(times, _MOST_DOUBLINGS))


def jittered(wait: float, share: float, u: Draw) -> Draw:
    """``wait`` ± ``share`` of it, evenly, by ``u`` in [0, 1): for a wait whose length means something, as a rung's."""
    return wait * (1 + share * (2 * u - 1))


def upper_half(wait: float, u: float) -> float:
    """From half of ``wait`` to all of it, evenly, by ``u`` in [0, 1): for restarts, where ``wait`` is a limit."""
    return wait * (0.5 + u / 2)
