"""Bisecting a batch: whatever rows fail and whatever their runs cost, each row ends once, and no good row fails in
time.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from failsoft.models.runtime.signature import ModelOutput
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.prediction import Predictions
from failsoft.workers.execution.bisect import MAX_RUNS_WITHOUT_ANSWER, Bisection

DEADLINE = 1.0
KINDS = st.sampled_from([Kind.TIMEOUT, Kind.CRASHED, Kind.MODEL_ERROR, Kind.BAD_OUTPUT])


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, dict[int, Kind]]:
    """A batch's size, and at least one bad row of it with the kind of failure that it causes."""
    n = draw(st.integers(1, 300))
    return n, draw(st.dictionaries(st.integers(0, n - 1), KINDS, min_size=1, max_size=n))


def _failure(bad: dict[int, Kind], rows: list[int]) -> Failure | None:
    """The failure of a run of ``rows``: that of its first bad row."""
    bad_row = next((row for row in rows if row in bad), None)
    return None if bad_row is None else Failure(bad[bad_row], f"because of {bad_row}")


@given(batches(), st.floats(0.0, 30.0), st.lists(st.floats(0.0, 2.0), max_size=40), st.integers(0, 3))
def test_each_row_ends_once_and_no_good_row_fails_in_time(
    batch: tuple[int, dict[int, Kind]], budget: float, costs: list[float], refused: int
) -> None:
    """Each row is answered by the model or failed. While the budget lasts, only bad rows fail, each with its own
    failure. The number of runs is bounded by one for each row, one for each piece with a bad row, and the runs that
    were refused.
    """
    n, bad = batch
    why = _failure(bad, list(range(n)))
    assert why is not None
    bisection = Bisection(n, why, DEADLINE, budget, budget)
    now, runs, answered = 0.0, 0, np.zeros(n, int)
    while (piece := bisection.next(now)) is not None:
        assert 0 < piece.deadline <= DEADLINE and now + piece.deadline <= budget + 1e-9
        rows = piece.rows.tolist()
        assert rows and not set(rows) & set(bisection.bad)
        cost = costs[runs % len(costs)] if costs else 0.0
        runs += 1
        failure = _failure(bad, rows)
        if failure is None and cost > piece.deadline:
            cost = 0.0  # a good row is good in every piece without a bad one
        now += piece.deadline if failure is not None and failure.kind is Kind.TIMEOUT else min(cost, piece.deadline)
        if refused:
            refused -= 1
            bisection.record_outcome(piece, Failure(Kind.UNAVAILABLE, "not now"))
        elif failure is None:
            answered[piece.rows] += 1
            bisection.record_outcome(piece, ModelOutput(Predictions(piece.rows.astype(np.float32)), {}))
        else:
            bisection.record_outcome(piece, failure)
    assert answered.max(initial=0) <= 1
    assert set(bisection.bad) == set(np.flatnonzero(answered == 0).tolist())
    found = bisection.predictions
    assert (found is None) == (not answered.any())
    if found is not None:
        assert all(found.scores[i] == i for i in np.flatnonzero(answered).tolist())
    assert runs <= 2 * n + 16 * len(bad) + 3
    undecided = {row for row, failure in bisection.bad.items() if "not tried alone" in failure.message}
    assert {row: f.kind for row, f in bisection.bad.items() if row not in undecided} == {
        row: kind for row, kind in bad.items() if row not in undecided and row in bisection.bad
    }
    assert not undecided or now >= budget - 1e-9 or (runs + 1 >= MAX_RUNS_WITHOUT_ANSWER and found is None)
