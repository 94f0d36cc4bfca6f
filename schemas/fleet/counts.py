"""How many calls failed and how many runs were slow: what workers count, report and add up."""

from __future__ import annotations

from dataclasses import dataclass

from failsoft.schemas.fleet.fields import Count


@dataclass(frozen=True, slots=True)
class Counts:
    """How many calls there were and how many failed; how many runs they took and how many of those were slow.

    A call is a row. A run answers a batch of rows at once, and a run is slow or not: were its rows counted, one stall
    of a large batch would be thousands of slow calls and open the breaker of a healthy model. ``runs`` left out is one
    a call. Raises ValueError when a number is negative, or when more failed or were slow than there were.
    """

    calls: Count = 0
    failures: Count = 0
    slow: Count = 0
    runs: Count = -1

    def __post_init__(self) -> None:
        if self.runs == -1:
            object.__setattr__(self, "runs", self.calls)
        if not (0 <= self.failures <= self.calls and 0 <= self.slow <= self.runs <= self.calls):
            raise ValueError("a number is negative, or more failed or were slow than there were calls and runs")

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.calls + other.calls,
            self.failures + other.failures,
            self.slow + other.slow,
            self.runs + other.runs,
        )

    @property
    def failure_rate(self) -> float:
        """Failures by calls, 0 when there were no calls."""
        return self.failures / self.calls if self.calls else 0.0

    @property
    def slow_rate(self) -> float:
        """Slow runs by runs, 0 when there were none."""
        return self.slow / self.runs if self.runs else 0.0
