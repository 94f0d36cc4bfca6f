"""Counts of calls, failures, runs and slow runs, which workers report and the owner adds up."""

from __future__ import annotations

from dataclasses import dataclass

from failsoft.schemas.fleet.fields import Count


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of one model version's calls and runs. A call is one row; a run answers a batch of rows at once.

    Slowness is counted per run, not per row: else one slow run of a large batch would count as thousands of slow calls
    and open the breaker of a healthy model. Raises ValueError when a number is negative or not an int, failures exceed
    calls, slow runs exceed runs, or runs exceed calls.

    Attributes:
        calls: rows.
        failures: rows that failed.
        slow: runs that were slow.
        runs: runs; when left out, one per call.
    """

    calls: Count = 0
    failures: Count = 0
    slow: Count = 0
    runs: Count = -1

    def __post_init__(self) -> None:
        if self.runs == -1:
            object.__setattr__(self, "runs", self.calls)
        # A window that subtracts an infinite count holds NaN from then on. Counts are built per batch, not per event.
        if not type(self.calls) is type(self.failures) is type(self.slow) is type(self.runs) is int:
            raise ValueError("a number is not an int")
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
        """Failures divided by calls; 0 when there were no calls."""
        return self.failures / self.calls if self.calls else 0.0

    @property
    def slow_rate(self) -> float:
        """Slow runs divided by runs; 0 when there were no runs."""
        return self.slow / self.runs if self.runs else 0.0

    @property
    def slow_passes(self) -> int:
        """Rows that passed in slow runs: the share of slow runs, applied to the rows that passed, rounded down.

        Each row of a slow run is slow. Which run a row was part of is not recorded, so the rows are taken to be spread
        evenly over the runs. 0 when there were no runs.
        """
        return self.slow * (self.calls - self.failures) // self.runs if self.runs else 0
