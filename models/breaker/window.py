"""Calls, failures and slow calls over the last few seconds, in rolling buckets: it counts, and decides nothing."""

from __future__ import annotations

import math
from collections import deque

from failsoft.schemas.fleet.counts import Counts

__all__ = ["Counts", "Window"]  # what a window holds, for those who fill one


class Window:
    """The counts of the last ``span`` seconds, to within one bucket (``span / buckets``).

    A count added at t is in the totals while the clock is less than ``span - span / buckets`` past t, and out of them
    once it is ``span`` past t: it leaves with its bucket, never later than ``span``.

    Thirty buckets: a count leaves at most 3 % of the span early, and a bucket of the usual 30 s window is one second.
    Only buckets that hold something are kept, so that an idle window costs nothing and a long gap needs no sweep.
    """

    __slots__ = ("_buckets", "_calls", "_failures", "_filled", "_runs", "_slow", "span")

    def __init__(self, span: float, buckets: int = 30) -> None:
        if not (math.isfinite(span) and span > 0 and buckets >= 1):
            raise ValueError(f"a window needs a positive span and at least one bucket, not {span} s in {buckets}")
        self.span = span
        self._buckets = buckets
        self.reset()

    def add(self, counts: Counts, now: float) -> None:
        """Counts that became known at ``now`` (monotonic seconds).

        Should ``now`` lie before the newest bucket, the counts go into the newest: they are never lost, and never
        make a bucket out of order that would outlive its neighbours.
        """
        if not counts.calls:
            return
        self._expire(now)
        index = self._index(now)
        if not self._filled or index > self._filled[-1][0]:
            self._filled.append((index, counts))
        else:
            newest, held = self._filled[-1]
            self._filled[-1] = (newest, held + counts)
        self._calls += counts.calls
        self._failures += counts.failures
        self._slow += counts.slow
        self._runs += counts.runs

    def totals(self, now: float) -> Counts:
        """What the window holds at ``now``."""
        self._expire(now)
        return Counts(self._calls, self._failures, self._slow, self._runs)

    def reset(self) -> None:
        """Forgets everything."""
        self._filled: deque[tuple[int, Counts]] = deque()
        self._calls = self._failures = self._slow = self._runs = 0

    def _index(self, now: float) -> int:
        # Multiplied first: 0.3 * 10 / 1.0 is 3, whereas 0.3 / (1.0 / 10) falls just short of the edge it stands on.
        return math.floor(now * self._buckets / self.span)

    def _expire(self, now: float) -> None:
        last_gone = self._index(now) - self._buckets
        while self._filled and self._filled[0][0] <= last_gone:
            _, gone = self._filled.popleft()
            self._calls -= gone.calls
            self._failures -= gone.failures
            self._slow -= gone.slow
            self._runs -= gone.runs
