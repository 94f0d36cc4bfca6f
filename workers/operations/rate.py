"""Keeps a rate by schedule: the n-th item has a fixed due time, so late items are caught up. Pure."""

from __future__ import annotations

from dataclasses import dataclass

TICK = 0.01
"""Shortest wait in seconds: timers are not more exact, and one batch a tick is cheaper than one a record."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule of items.

    Attributes:
        rate: items a second; None is as fast as possible.
        start: time of the first item (seconds, on any clock that the caller uses for ``now``).
    """

    rate: float | None
    start: float

    def allowed(self, done: int, now: float) -> float:
        """How many more items may be sent at ``now``; infinity without a rate."""
        if self.rate is None:
            return float("inf")
        return max(0.0, (now - self.start) * self.rate // 1 + 1 - done)

    def wait(self, done: int, now: float) -> float:
        """Seconds until the next item may be sent."""
        if self.rate is None or self.allowed(done, now) >= 1:
            return 0.0
        return max(TICK, self.start + done / self.rate - now)
