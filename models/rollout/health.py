"""A rolling window of one version's calls, failures, run times and confidences in this worker."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.fleet.rollout import Health

SPAN = 300.0
"""Length of the window in seconds: long enough for a version that gets one event every few seconds."""

BUCKETS = 30
"""Buckets of the window. With thirty, counts leave the window in steps of ten seconds."""


class Recent:
    """The last ``span`` seconds of one version, to within one bucket. ``now`` is monotonic seconds."""

    def __init__(self, span: float = SPAN) -> None:
        self._width = span / BUCKETS
        self._filled: deque[tuple[int, Health]] = deque()

    def add(
        self,
        calls: int,
        failures: int,
        seconds: float,
        confidences: NDArray[np.floating] | None,
        now: float,
        runs: int = 1,
    ) -> None:
        """Adds ``calls`` rows of a run that took ``seconds``. ``runs`` is 0 if the run was added with other rows.

        ``confidences`` holds one number for each answered row, or is None if the output has no confidences.
        """
        confidence_sum, judged = (0.0, 0) if confidences is None else (float(confidences.sum()), len(confidences))
        if not np.isfinite(confidence_sum):  # the placeholders of failed rows may hold any value
            confidence_sum, judged = 0.0, 0
        added = Health(calls, failures, runs, runs * seconds, judged, max(0.0, confidence_sum))
        index = int(now // self._width)
        if self._filled and self._filled[-1][0] >= index:
            newest, filled = self._filled[-1]
            self._filled[-1] = newest, filled + added
        else:
            self._expire(index)
            self._filled.append((index, added))

    def totals(self, now: float) -> Health:
        """The sums of the window at ``now``."""
        self._expire(int(now // self._width))
        return sum((filled for _, filled in self._filled), Health())

    def _expire(self, index: int) -> None:
        while self._filled and self._filled[0][0] <= index - BUCKETS:
            self._filled.popleft()
