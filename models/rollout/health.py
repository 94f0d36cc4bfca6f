"""How a version did lately in this worker: calls, failures, times and confidences over a rolling window."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.fleet.rollout import Health

SPAN = 300.0
"""Seconds: long enough that a version with an event every few seconds has something to show."""

BUCKETS = 30
"""So that what is too old leaves ten seconds' worth at a time."""


class Recent:
    """The last ``span`` seconds of one version, to within one bucket. ``now`` is monotonic seconds."""

    def __init__(self, span: float = SPAN) -> None:
        self._width = span / BUCKETS
        self._filled: deque[tuple[int, Health]] = deque()

    def add(
        self, calls: int, failures: int, seconds: float, confidences: NDArray[np.floating] | None, now: float
    ) -> None:
        """One run of ``calls`` rows; ``confidences`` are of those that were answered, None for outputs without."""
        sure, judged = (0.0, 0) if confidences is None else (float(confidences.sum()), len(confidences))
        if not np.isfinite(sure):  # a placeholder may hold anything
            sure, judged = 0.0, 0
        found, index = Health(calls, failures, 1, seconds, judged, max(0.0, sure)), int(now // self._width)
        if self._filled and self._filled[-1][0] >= index:
            newest, held = self._filled[-1]
            self._filled[-1] = newest, held + found
        else:
            self._expire(index)
            self._filled.append((index, found))

    def totals(self, now: float) -> Health:
        """What is in the window at ``now``."""
        self._expire(int(now // self._width))
        return sum((held for _, held in self._filled), Health())

    def _expire(self, index: int) -> None:
        while self._filled and self._filled[0][0] <= index - BUCKETS:
            self._filled.popleft()
