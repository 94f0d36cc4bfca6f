"""The most rows of a run, and calls that take several runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.runtime.run_times import RunTimes
from failsoft.models.runtime.session import Cancel
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns
from failsoft.schemas.features.spec import FeatureType, Spec
from failsoft.schemas.prediction import Predictions
from failsoft.workers.execution.batch_size import LARGEST
from failsoft.workers.execution.run_size import LONGEST_CALL, SMALLEST, RunSize
from failsoft.workers.execution.runner import Runner
from failsoft.workers.scoring.plan import Call, CallResult
from failsoft.workers.telemetry.metrics import Metrics

KEY = "m@3"
SPECS = (Spec("x", FeatureType.FLOAT),)
SLOW_CALL, DEADLINE = 0.1, 0.2
PLAIN = Call(KEY, Columns(SPECS, 0, {}), DEADLINE, 10 * DEADLINE, SLOW_CALL)


class Timed:
    """A model that answers ``x``, and takes its time on a clock of its own.

    Attributes:
        times: how long its runs take.
        fails: how the run fails that has this ``x``.
        sizes: the rows of each run.
        now: the time (seconds).
    """

    def __init__(self, times: RunTimes, fails: Mapping[float, Failure] | None = None) -> None:
        self.times, self.fails = times, fails or {}
        self.sizes: list[int] = []
        self.now = 0.0

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        x = columns.values["x"]
        self.sizes.append(len(x))
        self.now += self.times.seconds(len(x))
        for value, failure in self.fails.items():
            if (x == value).any():
                return failure
        bad = {int(i): Failure(Kind.BAD_OUTPUT, "NaN") for i in np.flatnonzero(x < 0)}
        return ModelOutput(Predictions(x.copy(), [f"{v:g}" for v in x]), bad)

    def runner(self, threads: int = 1) -> Runner:
        return Runner({KEY: self}, threads, Metrics(CollectorRegistry()), lambda: self.now, _never)

    async def answer(self, n: int, **changes: Any) -> CallResult:
        """The result of a call of ``n`` rows; row i has x = i."""
        rows = columns([{"x": float(i)} for i in range(n)], SPECS)
        call = replace(PLAIN, columns=rows, times=self.times, **changes)
        return await self.runner().run(call)


def _never(error: Exception) -> None:
    raise AssertionError(f"the worker is fit: {error}")


def answered(result: CallResult) -> list[float]:
    """The scores of the rows that were answered. Each must be that of its own row, and have its own label."""
    assert result.predictions is not None and result.predictions.labels is not None
    good = [i for i in range(len(result.predictions)) if i not in result.bad]
    scores = [float(result.predictions.scores[i]) for i in good]
    assert scores == good and [result.predictions.labels[i] for i in good] == [f"{i:g}" for i in good]
    return scores


# --- the most rows of a run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "most"),
    [
        (RunTimes(0.0001, 0.000001), LARGEST),
        (RunTimes(0.0, 0.02), 2),  # half of slow_call is 50 ms
        (RunTimes(0.0, 1.0), 1),
        (RunTimes(0.06, 0.001), 20),  # a run costs 60 ms anyway: half of the other 40 ms
        (RunTimes(0.15, 0.001), 25),  # it is slow anyway, but it must not be late
        (RunTimes(0.3, 0.001), 1),  # no run is in time
    ],
)
def test_a_run_has_the_rows_that_it_can_do_well_within_its_deadline(times: RunTimes, most: int) -> None:
    """The rows take half of the time up to ``slow_call`` that the fixed cost of a run leaves."""
    assert RunSize(times).most(PLAIN) == pytest.approx(most, abs=1)


def test_the_deadline_counts_where_it_is_less_than_slow_call() -> None:
    """A pipeline may not care for slow calls."""
    size = RunSize(RunTimes(0.0, 0.02))
    assert size.most(replace(PLAIN, slow=math.inf)) == 5
    assert size.most(replace(PLAIN, slow=9.0, deadline=4.0)) == 100


def test_the_cards_max_batch_counts_in_any_case() -> None:
    """It is for models that need much memory a row, however fast they are."""
    fast = RunSize(RunTimes(0.0001, 0.000001))
    assert [fast.most(replace(PLAIN, max_batch=n)) for n in (1, 256, 100_000)] == [1, 256, LARGEST]


def test_rows_that_cost_more_than_made_up_ones_lower_it() -> None:
    """Each run that was too long counts at once."""
    size = RunSize(RunTimes(0.001, 0.0001))
    real, runs = RunTimes(0.001, 0.01), 0
    while real.seconds(n := size.most(PLAIN)) > SLOW_CALL:
        size.adapt(PLAIN, n, min(DEADLINE, real.seconds(n)))
        runs += 1
    assert runs <= 4 and n >= 1


def test_a_stall_is_forgotten() -> None:
    """One run that took a hundred times as long says little of the next ones."""
    size = RunSize(RunTimes(0.0001, 0.000001))
    size.adapt(PLAIN, 500, 0.15)
    assert size.most(PLAIN) < LARGEST
    for _ in range(6):
        size.adapt(PLAIN, n := size.most(PLAIN), RunTimes(0.0001, 0.000001).seconds(n))
    assert size.most(PLAIN) == LARGEST


def test_a_version_without_times_is_not_split_until_a_run_is_slow() -> None:
    """Its fixed cost is not known, so there is a least limit: fewer rows need not be any quicker."""
    size = RunSize(None)
    size.adapt(PLAIN, 1000, 0.01)
    assert size.most(PLAIN) == LARGEST
    size.adapt(PLAIN, 1000, 0.1)
    assert size.most(PLAIN) == 500
    for _ in range(50):
        size.adapt(PLAIN, size.most(PLAIN), 0.08)
    assert size.most(PLAIN) == SMALLEST


# --- calls of several runs --------------------------------------------------------------------------------------------


async def test_a_call_of_too_many_rows_takes_several_runs() -> None:
    """Each within its deadline; the call reports its longest run."""
    model = Timed(RunTimes(0.0, 0.02))
    result = await model.answer(7)
    assert len(answered(result)) == 7 and not result.bad
    assert model.sizes == [2, 2, 2, 1] and result.seconds == pytest.approx(0.04) and result.runs == 1


async def test_one_row_a_run() -> None:
    """``max_batch = 1`` for a model that was exported for one row, or has no room for two."""
    model = Timed(RunTimes(0.0, 0.0001))
    assert len(answered(await model.answer(5, max_batch=1))) == 5 and model.sizes == [1] * 5


async def test_a_row_that_fails_its_run_is_found_and_its_neighbours_are_answered() -> None:
    """In its own run, and not in the others."""
    model = Timed(RunTimes(0.0, 0.0001), {5.0: Failure(Kind.MODEL_ERROR, "broken")})
    result = await model.answer(20, max_batch=8)
    assert len(answered(result)) == 19 and {i: f.kind for i, f in result.bad.items()} == {5: Kind.MODEL_ERROR}


async def test_a_model_that_fails_every_row_uses_one_budget_for_all_runs() -> None:
    """A lane waits for the call: several budgets would be too long."""
    every = dict.fromkeys(map(float, range(100)), Failure(Kind.TIMEOUT, "late"))
    model = Timed(RunTimes(DEADLINE, 0.0), every)
    result = await model.answer(100, max_batch=4)
    assert result.predictions is None and {f.kind for f in result.bad.values()} == {Kind.TIMEOUT}
    assert len(result.bad) == 100 and model.now <= PLAIN.bisect_budget + 2 * DEADLINE


async def test_no_run_begins_when_a_lane_has_waited_long_enough() -> None:
    """A version became slower while a lane had a large batch: the other rows are not run, which is no timeout."""
    model = Timed(RunTimes(0.0, 0.04))
    result = await model.answer(1000)
    done = answered(result)
    assert len(done) == pytest.approx(LONGEST_CALL / 0.04, abs=1)
    assert {f.kind for f in result.bad.values()} == {Kind.UNAVAILABLE} and len(result.bad) == 1000 - len(done)
    assert "too slow" in result.bad[999].message


async def test_where_nothing_can_be_run_the_other_runs_are_not_tried() -> None:
    """A model's process is restarting: each run would wait for it anew."""
    model = Timed(RunTimes(0.0, 0.001), {0.0: Failure(Kind.UNAVAILABLE, "no process is up")})
    result = await model.answer(50, max_batch=10)
    assert model.sizes == [10] and {f.message for f in result.bad.values()} == {"no process is up"}


async def test_a_bad_row_does_not_use_up_the_budget_of_the_others() -> None:
    """Its run has ended well."""
    model = Timed(RunTimes(0.0, 0.02))
    rows = columns([{"x": -1.0}] * 4, SPECS)
    result = await model.runner().run(replace(PLAIN, columns=rows, times=model.times, bisect_budget=0.05))
    assert {f.kind for f in result.bad.values()} == {Kind.BAD_OUTPUT} and model.sizes == [2, 2]
