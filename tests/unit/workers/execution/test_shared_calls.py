"""Runs that lanes share: which calls share one, each lane's part of the result, and lanes that run by themselves."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
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
from failsoft.schemas.fleet.counts import Counts
from failsoft.schemas.prediction import Prediction, Predictions
from failsoft.workers.execution.runner import Runner, Unfit
from failsoft.workers.execution.shared_calls import APART_FOR, MOST_ROWS, SHARE, SharedCalls
from failsoft.workers.scoring import calls
from failsoft.workers.scoring.plan import Call, CallResult
from failsoft.workers.telemetry.metrics import Metrics
from tests.kafka import eventually
from tests.kit import card

SPECS = (Spec("x", FeatureType.FLOAT),)
KEY = "m@3"
SOON = 20.0
BROKEN, CRASH, SLOW = 1e6, 2e6, 3e6
"""Values of ``x`` with which the model fails the whole run: it raises, crashes, or takes its deadline."""


@dataclass
class Scripted:
    """A model that answers ``x``, and fails the whole run for certain values. It waits while ``gate`` is not set."""

    ran: list[list[float]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    raises: BaseException | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        x = columns.values["x"]
        self.ran.append(x.tolist())
        while not self.gate.wait(0.01):
            if cancel is not None and cancel.expired:
                return Failure(Kind.TIMEOUT, "stopped")
        if self.raises is not None:
            raise self.raises
        for value, kind in ((BROKEN, Kind.MODEL_ERROR), (CRASH, Kind.CRASHED), (SLOW, Kind.TIMEOUT)):
            if (x == value).any():
                return Failure(kind, f"a {kind} with {len(x)} rows")
        bad = {i: Failure(Kind.BAD_OUTPUT, "nan") for i in np.flatnonzero(x < 0).tolist()}
        return ModelOutput(Predictions.of([Prediction(float(v), int(v)) for v in x]), bad)

    @property
    def sizes(self) -> list[int]:
        return [len(x) for x in self.ran]


@dataclass
class Bench:
    """Shared calls over a runner of one scripted model, with a clock that tests set."""

    model: Scripted = field(default_factory=Scripted)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.registry = CollectorRegistry()
        self.runner = Runner({KEY: self.model}, 4, Metrics(self.registry), time.monotonic, _never)
        self.shared = SharedCalls(self.runner, lambda: self.now)

    async def run(self, *batches: Sequence[float], **changes: Any) -> list[CallResult]:
        """The results of one call a lane, all made in one turn of the event loop."""
        return await asyncio.gather(*(self.shared.run(call(*x, **changes), i) for i, x in enumerate(batches)))

    def runs(self) -> float | None:
        return self.registry.get_sample_value("failsoft_inference_seconds_count", {"model": "m", "version": "3"})


def _never(error: Unfit) -> None:
    raise AssertionError(f"the worker is fit: {error}")


def call(*x: float, **changes: Any) -> Call:
    plain: dict[str, Any] = {"deadline": SOON, "bisect_budget": 10 * SOON}
    return Call(KEY, columns([{"x": v} for v in x], SPECS), **(plain | changes))


def scores(result: CallResult) -> list[float]:
    assert result.predictions is not None
    return result.predictions.scores.tolist()


def kinds(result: CallResult) -> dict[int, Kind]:
    return {row: failure.kind for row, failure in result.bad.items()}


# --- sharing ----------------------------------------------------------------------------------------------------------


async def test_calls_of_one_turn_share_a_run() -> None:
    """Each lane gets its own rows, in order. One of the lanes counts the run, and the metrics count one."""
    bench = Bench()
    results = await bench.run([1, 2], [3], [4, 5, 6])
    assert bench.model.ran == [[1, 2, 3, 4, 5, 6]]
    assert [scores(r) for r in results] == [[1, 2], [3], [4, 5, 6]]
    assert [r.predictions.labels for r in results if r.predictions] == [[1, 2], [3], [4, 5, 6]]
    assert [r.runs for r in results] == [1, 0, 0]
    assert len({r.seconds for r in results}) == 1
    assert bench.runs() == 1


async def test_the_breaker_counts_a_shared_run_once() -> None:
    """The rows of all sharers count, and so does a slow run: once, not once a lane."""
    bench = Bench()
    results = await bench.run([1], [-1], [3, 4])
    slow = [CallResult(r.predictions, r.bad, 1e9, r.runs) for r in results]
    total = sum((calls.counts(card("m"), n, r) for n, r in zip([1, 1, 2], slow, strict=True)), Counts())
    assert total == Counts(calls=4, failures=1, slow=1, runs=1)


async def test_a_lane_that_calls_a_turn_later_joins() -> None:
    """A lane that awaits something between the wake-up and its call is not left out."""
    bench = Bench()

    async def after(turns: int, lane: int) -> CallResult:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await bench.shared.run(call(lane), lane)

    await asyncio.gather(after(0, 1), after(1, 2))
    assert bench.model.ran == [[1, 2]]


async def test_a_call_without_company_runs_unchanged() -> None:
    """Its own Call reaches the runner: nothing is copied."""
    bench = Bench()
    single = call(1, 2)
    assert scores(await bench.shared.run(single, 0)) == [1, 2]
    assert bench.model.ran == [[1, 2]]


async def test_versions_do_not_share_a_run() -> None:
    """Calls for different keys run apart, each on its own session."""
    bench = Bench()
    other = Scripted()
    bench.runner.add("m@4", other)
    await asyncio.gather(bench.shared.run(call(1), 0), bench.shared.run(Call("m@4", call(2).columns, SOON, SOON), 1))
    assert (bench.model.ran, other.ran) == ([[1]], [[2]])


async def test_a_version_that_is_not_loaded_is_unavailable_for_all() -> None:
    """The answer of the runner reaches every sharer, and it is not held against their lanes."""
    bench = Bench()
    await bench.runner.retire(KEY)
    assert [kinds(r) for r in await bench.run([1], [2, 3])] == [
        {0: Kind.UNAVAILABLE},
        {0: Kind.UNAVAILABLE, 1: Kind.UNAVAILABLE},
    ]
    bench.runner.add(KEY, bench.model)
    await bench.run([1], [2])
    assert bench.model.ran == [[1, 2]]


# --- the size of a shared run -----------------------------------------------------------------------------------------


async def test_a_shared_run_has_a_limit_and_no_call_is_split() -> None:
    """Calls that do not fit go into the next run; a large call runs by itself."""
    bench = Bench()
    size = MOST_ROWS // SHARE
    batches = [[float(i)] * size for i in range(6)]
    results = await bench.run(*batches, [9.0] * (size + 1))
    assert sorted(bench.model.sizes) == [size + 1, 2 * size, MOST_ROWS]
    assert [scores(r) for r in results] == [*batches, [9.0] * (size + 1)]


async def test_no_more_rows_share_a_run_than_one_may_have() -> None:
    """A model that is slow with many rows must not get the rows of all lanes at once. Quick runs raise the limit."""
    bench = Bench()
    batches = [[float(i)] for i in range(64)]
    slow = {"times": RunTimes(0.0, SOON / 16)}
    await bench.run(*batches, **slow)
    assert bench.model.sizes == [8] * 8
    bench.model.ran.clear()
    await bench.run(*batches, **slow)
    assert max(bench.model.sizes) > 8
    bench.model.ran.clear()
    await bench.run(*batches, max_batch=4)
    assert bench.model.sizes == [4] * 16


# --- failures ---------------------------------------------------------------------------------------------------------


async def test_a_failing_row_fails_in_its_lane_only() -> None:
    """The shared run is bisected, and the failure has the row's number in its own call."""
    bench = Bench()
    results = await bench.run([1, 2], [3, BROKEN], [5])
    assert [kinds(r) for r in results] == [{}, {1: Kind.MODEL_ERROR}, {}]
    assert scores(results[0]) == [1, 2] and scores(results[1])[0] == 3 and scores(results[2]) == [5]


async def test_a_lane_all_of_whose_rows_failed_has_no_predictions() -> None:
    """As in a call by itself."""
    results = await Bench().run([1, 2], [BROKEN])
    assert results[1].predictions is None and kinds(results[1]) == {0: Kind.MODEL_ERROR}


async def test_a_lane_with_failures_runs_by_itself_for_a_while() -> None:
    """It does not slow the other lanes again. Each further failure extends this; then it shares runs again."""
    bench = Bench()
    await bench.run([1], [BROKEN], [3])
    bench.model.ran.clear()
    await bench.run([1], [2], [3])
    assert sorted(bench.model.ran) == [[1, 3], [2]]
    bench.now = APART_FOR - 1
    await bench.run([1], [BROKEN], [3])
    bench.model.ran.clear()
    bench.now = APART_FOR
    await bench.run([1], [2], [3])
    assert sorted(bench.model.ran) == [[1, 3], [2]]
    bench.model.ran.clear()
    bench.now = 2 * APART_FOR - 1
    await bench.run([1], [2], [3])
    assert bench.model.ran == [[1, 2, 3]]


async def test_a_call_marked_alone_shares_no_run() -> None:
    """Suspected records and probes run by themselves, and at once."""
    bench = Bench()
    marked = call(1, alone=True)
    await asyncio.gather(bench.shared.run(call(2), 0), bench.shared.run(marked, 1), bench.shared.run(call(3), 2))
    assert sorted(bench.model.ran) == [[1], [2, 3]]


@pytest.mark.parametrize(("bad", "kind"), [(SLOW, Kind.TIMEOUT), (CRASH, Kind.CRASHED)])
async def test_rows_that_the_budget_left_undecided_run_again_with_their_lane(bad: float, kind: Kind) -> None:
    """Another lane's row used up the budget. The lane itself has the failure; the others are answered."""
    timed = Timed()
    lanes = [[float(i)] for i in range(40)]
    lanes[33] = [bad]
    results = await timed.run(lanes)
    assert kinds(results[33]) == {0: kind}
    assert [scores(r) for i, r in enumerate(results) if i != 33] == [x for i, x in enumerate(lanes) if i != 33]
    again = timed.model.sizes.count(1)
    assert 0 < again < len(lanes), "the rows that were decided in the shared run did not run again"
    assert sum(r.runs for r in results) == 1 + again
    assert sum(n > 1 for n in timed.model.sizes) == 10, "the shared run leaves one of the ten deadlines"


async def test_the_second_run_of_a_lane_has_only_the_deadline_that_is_left() -> None:
    """Both runs together stay within the card's budget, so that the watchdog does not take the lane as stuck."""
    timed = Timed()
    large = [*map(float, range(39)), SLOW]
    results = await timed.run([*([float(i)] for i in range(40)), large])
    assert all(not r.bad for r in results[:40])
    assert set(kinds(results[40]).values()) == {Kind.TIMEOUT}
    assert "within 1000 s" in results[40].bad[39].message
    assert [n for n in timed.model.sizes if n > 1] == [80, *[5] * 9, 40, 3]


async def test_a_lane_whose_own_row_was_found_bad_does_not_run_again() -> None:
    """It is part of the cause: its undecided rows fail as those of one batch do."""
    timed = Timed()
    own = [-1.0, *map(float, range(7))]
    results = await timed.run([*([float(i)] for i in range(20)), own, *([float(i)] for i in range(19)), [SLOW]])
    assert kinds(results[20]) == {0: Kind.BAD_OUTPUT} | dict.fromkeys(range(4, 8), Kind.TIMEOUT)
    assert len(own) not in timed.model.sizes


async def test_a_model_that_fails_everything_is_not_asked_by_each_lane_again() -> None:
    """No row was answered, so the model is to blame: the lanes share the failure, and the breaker opens."""
    timed = Timed()
    results = await timed.run([[SLOW]] * 40)
    assert [kinds(r) for r in results] == [{0: Kind.TIMEOUT}] * 40
    assert 1 not in timed.model.sizes


class Timed:
    """Shared calls on a clock that only runs of several rows advance, so that nine deadlines are ten of them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.model = Scripted()
        runner = Runner({KEY: _Advancing(self)}, 4, Metrics(CollectorRegistry()), lambda: self.now, _never)
        self.shared = SharedCalls(runner, lambda: 0.0)

    async def run(self, lanes: list[list[float]]) -> list[CallResult]:
        one = {"deadline": 1000.0, "bisect_budget": 10_000.0}
        return await asyncio.gather(*(self.shared.run(call(*x, **one), i) for i, x in enumerate(lanes)))


@dataclass
class _Advancing:
    timed: Timed

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        if columns.size > 1:
            self.timed.now += 990
        return self.timed.model.run(columns, cancel)


# --- ends -------------------------------------------------------------------------------------------------------------


async def test_an_error_of_the_session_reaches_every_sharer() -> None:
    """It is a mistake of the worker, so each lane must end."""
    bench = Bench(Scripted(raises=ValueError("other columns")))
    ends = await asyncio.gather(*(bench.shared.run(call(i), i) for i in range(3)), return_exceptions=True)
    assert [str(e) for e in ends] == ["other columns"] * 3
    await asyncio.wait_for(bench.runner.retire(KEY), SOON)


async def test_a_cancelled_caller_does_not_cancel_the_others() -> None:
    """It leaves before or during the run; the others get their own rows."""
    bench = Bench()
    bench.model.gate.clear()
    early, late, stays = (asyncio.ensure_future(_one(bench, i)) for i in (1, 2, 3))
    await asyncio.sleep(0)
    early.cancel()
    await eventually(lambda: bench.model.ran, SOON, "the run")
    late.cancel()
    await asyncio.wait([early, late], timeout=SOON)
    bench.model.gate.set()
    assert scores(await stays) == [3]
    assert early.cancelled() and late.cancelled()
    assert bench.model.ran == [[2, 3]]


async def _one(bench: Bench, i: int) -> CallResult:
    return await bench.shared.run(call(i), i)


async def test_a_run_that_nobody_waits_for_is_cancelled() -> None:
    """As with the runner: its thread is free again, and its version can be closed."""
    bench = Bench()
    bench.model.gate.clear()
    both = [asyncio.ensure_future(_one(bench, i)) for i in (1, 2)]
    await eventually(lambda: bench.model.ran, SOON, "the run")
    for task in both:
        task.cancel()
    await asyncio.wait_for(bench.runner.retire(KEY), SOON)
    assert all(task.cancelled() for task in both)
    bench.model.gate.set()


@pytest.mark.parametrize("turns", range(6))
async def test_a_version_that_is_retired_meanwhile_answers_its_calls(turns: int) -> None:
    """A call counts as in flight from the moment it is made, though it waits for others to share a run with."""
    bench = Bench()
    both = [asyncio.ensure_future(_one(bench, i)) for i in (1, 2)]
    for _ in range(turns):
        await asyncio.sleep(0)
    if turns:
        retired = bench.runner.retire(KEY)
        results = await asyncio.gather(*both)
        assert [scores(r) for r in results] == [[1], [2]]
        await asyncio.wait_for(retired, SOON)
    else:
        await bench.runner.retire(KEY)
        assert [kinds(r) for r in await asyncio.gather(*both)] == [{0: Kind.UNAVAILABLE}] * 2
