"""A rate kept by schedule: the n-th of something is due at its time, so a late one is caught up. Pure."""

from __future__ import annotations

from dataclasses import dataclass

TICK = 0.01
"""Seconds. No wait is shorter: timers are no more exact, and a batch a tick is cheaper than one a record."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """``rate`` a second from ``start`` (seconds of any clock); None is as fast as it goes."""

    rate: float | None
    start: float

    def allowed(self, done: int, now: float) -> float:
        """How many more may go by ``now``; infinity without a rate."""
        if self.rate is None:
            return float("inf")
        return max(0.0, (now - self.start) * self.rate // 1 + 1 - done)

    def wait(self, done: int, now: float) -> float:
        """Seconds until the next one may go."""
        if self.rate is None or self.allowed(done, now) >= 1:
            return 0.0
        return max(TICK, self.start + done / self.rate - now)
