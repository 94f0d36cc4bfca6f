"""A rolling window that counts calls, failures, runs and slow runs of the last few seconds in buckets."""

from __future__ import annotations

import math
from collections import deque

from failsoft.schemas.fleet.counts import Counts


class Window:
    """The counts of the last ``span`` seconds, to within one bucket (``span / buckets``).

    A count leaves the totals together with its bucket. It is in the totals for at least ``span - span / buckets``
    seconds and for at most ``span`` seconds.

    With thirty buckets a count leaves at most 3 % of the span early. A bucket of the default 30 s window is one second.
    Only buckets with counts are kept, so an idle window uses no memory and a long gap needs no sweep.

    Raises ValueError if ``span`` is not positive and finite, or if there is no bucket.
    """

    __slots__ = ("_buckets", "_calls", "_failures", "_filled", "_runs", "_slow", "span")

    def __init__(self, span: float, buckets: int = 30) -> None:
        if not (math.isfinite(span) and span > 0 and buckets >= 1):
            raise ValueError(f"a window needs a positive span and at least one bucket, not {span} s in {buckets}")
        self.span = span
        self._buckets = buckets
        self.reset()

    def add(self, counts: Counts, now: float) -> None:
        """Adds counts at ``now`` (monotonic seconds).

        If ``now`` lies before the newest bucket, the counts go into the newest bucket. They are not lost, and buckets
        stay in order, so that none expires late.
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
        """The sum of the counts in the window at ``now``."""
        self._expire(now)
        return Counts(self._calls, self._failures, self._slow, self._runs)

    def reset(self) -> None:
        """Removes all counts."""
        self._filled: deque[tuple[int, Counts]] = deque()
        self._calls = self._failures = self._slow = self._runs = 0

    def _index(self, now: float) -> int:
        # Multiply first. In floating point, 0.3 * 10 / 1.0 is 3, but 0.3 / (1.0 / 10) is just below 3.
        return math.floor(now * self._buckets / self.span)

    def _expire(self, now: float) -> None:
        last_gone = self._index(now) - self._buckets
        while self._filled and self._filled[0][0] <= last_gone:
            _, gone = self._filled.popleft()
            self._calls -= gone.calls
            self._failures -= gone.failures
            self._slow -= gone.slow
            self._runs -= gone.runs
