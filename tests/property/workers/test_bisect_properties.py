"""Bisecting a batch: whatever rows fail and whatever their runs cost, each row ends once, and no good row fails in
time.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from failsoft.models.runtime.outputs import ModelOutput
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.prediction import Predictions
from failsoft.workers.execution.bisect import EXPENSIVE, MAX_RUNS_WITHOUT_ANSWER, Bisection

DEADLINE = 1.0
KINDS = st.sampled_from([Kind.TIMEOUT, Kind.CRASHED, Kind.MODEL_ERROR, Kind.BAD_OUTPUT])


SPACINGS = st.one_of(st.none(), st.floats(1.0, 400.0))


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, dict[int, Kind]]:
    """A batch's size, and at least one bad row of it with the kind of failure that it causes."""
    n = draw(st.integers(1, 300))
    return n, draw(st.dictionaries(st.integers(0, n - 1), KINDS, min_size=1, max_size=n))


def _failure(bad: dict[int, Kind], rows: list[int]) -> Failure | None:
    """The failure of a run of ``rows``: that of its first bad row."""
    bad_row = next((row for row in rows if row in bad), None)
    return None if bad_row is None else Failure(bad[bad_row], f"because of {bad_row}")


@given(batches(), st.floats(0.0, 30.0), st.lists(st.floats(0.0, 2.0), max_size=40), st.integers(0, 3), SPACINGS)
def test_each_row_ends_once_and_no_good_row_fails_in_time(
    batch: tuple[int, dict[int, Kind]], budget: float, costs: list[float], refused: int, spacing: float | None
) -> None:
    """Each row is answered by the model or failed. While the budget lasts, only bad rows fail, each with its own
    failure. The number of runs is bounded by one for each row, one for each piece with a bad row, and the runs that
    were refused.
    """
    n, bad = batch
    why = _failure(bad, list(range(n)))
    assert why is not None
    if spacing is not None:  # what the last batch found: then the whole batch need not have run
        why = Failure(Kind.UNAVAILABLE, "not run")
    bisection = Bisection(n, why, DEADLINE, budget, budget, spacing)
    now, runs, answered = 0.0, 0, np.zeros(n, int)
    while pieces := bisection.next(now):
        outcomes: list[ModelOutput | Failure] = []
        given = [row for piece in pieces for row in piece.rows.tolist()]
        assert given and len(given) == len(set(given)) and not set(given) & set(bisection.bad)
        for piece in pieces:
            assert len(piece.rows) and 0 < piece.deadline <= DEADLINE
            if outcomes and refused:
                break  # the runner ends a round early when it has taken long
            rows = piece.rows.tolist()
            cost = costs[runs % len(costs)] if costs else 0.0
            runs += 1
            failure = _failure(bad, rows)
            if failure is None and cost > piece.deadline:
                cost = 0.0  # a good row is good in every piece without a bad one
            late = failure is not None and failure.kind is Kind.TIMEOUT
            now += piece.deadline if late else min(cost, piece.deadline)
            if refused:
                refused -= 1
                outcomes.append(Failure(Kind.UNAVAILABLE, "not now"))
            elif failure is None:
                answered[piece.rows] += 1
                outcomes.append(ModelOutput(Predictions(piece.rows.astype(np.float32)), {}))
            else:
                outcomes.append(failure)
            last = outcomes[-1]
            if isinstance(last, Failure) and last.kind in {*EXPENSIVE, Kind.UNAVAILABLE}:
                break
        bisection.record_outcomes(pieces, outcomes)
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
