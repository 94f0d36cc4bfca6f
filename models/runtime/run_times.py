"""How long a version's runs take by their number of rows, as measured when it was loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

ENOUGH = 1.0
"""Seconds that the larger of the measured runs may take, where a run of fewer rows allows it: a load should not wait
long."""

MOST_ROWS = 64
"""Rows of the larger run: with them a row of a fast model can be told from the fixed cost of a run."""

QUICK = 0.1
"""Seconds under which a run is repeated: the first one of its size allocates memory, and takes longer."""


@dataclass(frozen=True, slots=True)
class RunTimes:
    """The time of a run of n rows is about ``run + n * row`` seconds.

    Attributes:
        run: the cost of any run.
        row: the cost of each row.
    """

    run: float
    row: float

    def seconds(self, rows: int) -> float:
        """Of a run of ``rows`` rows."""
        return self.run + rows * self.row

    def rows(self, seconds: float) -> float:
        """How many rows a run of ``seconds`` may have; not rounded, and under 1 if not even one row fits."""
        return (seconds - self.run) / max(self.row, 1e-9)

    def in_runs_of(self, most: int | None) -> RunTimes:
        """The times where a batch is split into runs of at most ``most`` rows; None: it is not split."""
        return self if most is None else RunTimes(self.run, self.row + self.run / most)


def measure(run: Callable[[int], float | None], most: int | None) -> RunTimes | None:
    """Measure a model by its made-up rows: one row twice, and then as many as tell a row's cost.

    Args:
        run: runs as many made-up rows as it is told. Returns the seconds it took, None if the model failed.
        most: the most rows of a run, by the card; None: no such bound.

    Returns:
        Its times. None if a run failed: nothing is known then.
    """
    if run(1) is None or (one := run(1)) is None:
        return None
    rows = min(most or MOST_ROWS, MOST_ROWS, max(2, int(ENOUGH / max(one, 1e-9))))
    if rows == 1:
        return RunTimes(0.0, one)
    many = run(rows)
    if many is not None and many < QUICK:
        again = run(rows)
        many = None if again is None else min(many, again)
    if many is None:
        return None
    row = max(0.0, many - one) / (rows - 1)
    return RunTimes(max(0.0, one - row), row)
