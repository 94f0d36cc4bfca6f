"""The most rows of one run of a version, so that it ends well within its deadline; and calls of more rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np

from failsoft.models.runtime.run_times import RunTimes
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.prediction import Predictions
from failsoft.workers.execution.batch_size import LARGEST
from failsoft.workers.execution.bisect import RowIndexes, joined
from failsoft.workers.scoring.plan import Call, CallResult

SMALLEST = 16
"""The least limit for a version whose times are not known: if a run of few rows is slow, even fewer need not help."""

LONGEST_CALL = 10.0
"""Seconds after which no further run of a call begins; its other rows are not run. A lane waits for the primary's call
and for a fallback's, and its drain for the lane (26 s). Lanes keep their batches far below, except for one batch after
a version became slower."""

OF_A_ROW = frozenset({Kind.INVALID, Kind.BAD_OUTPUT})
"""Failures of single rows in a run that has ended well."""


class RunSize:
    """The most rows of a run of one version.

    It begins with the times that were measured when the version was loaded, and follows how much slower or quicker real
    runs are: made-up rows may be cheaper than real ones, and other runs share the cores.
    """

    def __init__(self, times: RunTimes | None) -> None:
        self._known = times is not None
        self._times = times or RunTimes(0.0, 0.0)
        self._slower = 1.0  # real runs take so many times the expected time

    def most(self, call: Call) -> int:
        """The most rows of a run of ``call`` now.

        The rows take half of the time that the fixed cost of a run leaves up to ``slow_call``, or up to the deadline:
        if that is less, or if any run is slow anyway.
        """
        run, row = self._slower * self._times.run, self._slower * self._times.row
        bound = min(call.slow, call.deadline)
        allowed = (run + (bound if run < bound else call.deadline)) / 2
        rows = int(min(LARGEST, max(1 if self._known else SMALLEST, RunTimes(run, row).rows(allowed))))
        return rows if call.max_batch is None else min(rows, call.max_batch)

    def adapt(self, call: Call, rows: int, seconds: float) -> None:
        """Adapt to a run of ``rows`` rows of ``call`` that took ``seconds``, or was stopped after them."""
        allowed = min(call.slow, call.deadline) / 2
        expected = self._times.seconds(rows)
        if not self._known and (seconds > allowed or not expected):
            if seconds > allowed:  # nothing is known of its fixed cost
                self._times, self._slower = RunTimes(0.0, seconds / rows), 1.0
            return
        ratio = seconds / max(expected, 1e-9)
        # A run that was too long counts at once. A short one may have waited for a core: half of it counts.
        self._slower = ratio if ratio > self._slower and seconds > allowed / 4 else (self._slower + ratio) / 2


async def in_several_runs(
    call: Call, most: Callable[[], int], run: Callable[[Call], Awaitable[CallResult]], clock: Callable[[], float]
) -> CallResult:
    """Run a call of more rows than one run may have, and put the results together.

    Each run has the call's deadline. The failing runs share the bisect budget, and no run begins LONGEST_CALL after the
    first one: the rows left over are UNAVAILABLE, and not tried. They are not tried either, and fail like the others,
    where no row of a run was answered and the budget is used up, or where nothing can be run at all.

    Args:
        call: the call.
        most: the most rows of the next run.
        run: runs a part of the call, as a whole, and bisects it if it fails.
        clock: monotonic seconds.
    """
    began, budget, start, n = clock(), call.bisect_budget, 0, len(call)
    answers: list[tuple[RowIndexes, Predictions]] = []
    bad: dict[int, Failure] = {}
    undecided: set[int] = set()
    slowest = 0.0
    ended: Failure | None = None  # why the rows left over are not run
    while start < n and ended is None:
        now = clock()
        if now - began > LONGEST_CALL:
            ended = Failure(Kind.UNAVAILABLE, f"the rows before took {now - began:.3g} s: {call.key} is too slow")
            break
        rows = np.arange(start, min(n, start + most()))
        left = max(0.0, min(budget, LONGEST_CALL - (now - began)))
        result = await run(replace(call, columns=call.columns.take(rows), bisect_budget=left))
        slowest = max(slowest, result.seconds)
        bad.update({start + i: failure for i, failure in result.bad.items()})
        undecided.update(start + i for i in result.undecided)
        if result.predictions is not None:
            answers.append((rows, result.predictions))
        whole = [failure for failure in result.bad.values() if failure.kind not in OF_A_ROW]
        if whole:
            budget -= clock() - now
            if result.predictions is None and (budget <= 0 or whole[-1].kind is Kind.UNAVAILABLE):
                ended = whole[-1]
        start += len(rows)
    if ended is not None:
        bad.update(dict.fromkeys(range(start, n), ended))
        undecided.update(range(start, n))
    return CallResult(joined(answers, n), bad, slowest, undecided=frozenset(undecided))
