"""A lane in front of a slow model with a backlog: no event is answered late because its batch was too large."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.runtime.run_times import RunTimes, measure
from failsoft.models.runtime.session import Cancel
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.prediction import Prediction, Predictions
from failsoft.workers.execution.batch_size import LONGEST_BATCH
from failsoft.workers.execution.runner import Runner
from failsoft.workers.execution.shared_calls import SharedCalls
from failsoft.workers.scoring.plan import Plan
from failsoft.workers.telemetry.metrics import Metrics
from tests.kit import FakeBoard, events, plan, trio
from tests.lane_kit import LIVE, LaneUnderTest

BACKLOG = 600


class Burning:
    """A model that takes its time on the lane's clock, and fails every run if it is ``down``."""

    def __init__(self, times: RunTimes, down: bool = False) -> None:
        self.times, self.down = times, down
        self.tested: LaneUnderTest | None = None
        self.slowest = 0.0

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        took = self.times.seconds(columns.size)
        self.slowest = max(self.slowest, took)
        assert self.tested is not None
        self.tested.now += took
        if self.down:
            return Failure(Kind.MODEL_ERROR, "down")
        return ModelOutput(Predictions.of([Prediction(0.9, 1, None, 0.9)] * columns.size), {})


class Drained:
    """The answers to a backlog, by source and reason, and how long each batch took (seconds)."""

    def __init__(self, the_plan: Plan, **models: Burning) -> None:
        self.answers: Counter[tuple[str, str]] = Counter()
        self.batches: list[tuple[int, float]] = []
        self.tested = tested = LaneUnderTest({LIVE: [*events(BACKLOG)]}, the_plan=the_plan)
        board = FakeBoard(
            versions=dict.fromkeys(models, 1),
            times={
                name: measured for name, model in models.items() if (measured := measure(model.times.seconds, None))
            },
        )
        tested.deps.registry.serving = board.serving
        sessions = {f"{name}@1": model for name, model in models.items()}
        for model in models.values():
            model.tested = tested
        runner = Runner(sessions, 1, Metrics(CollectorRegistry()), lambda: tested.now, _never)
        tested.deps.calls = SharedCalls(runner, lambda: tested.now)
        tested.deps.reporter = SimpleNamespace(idle=lambda: None, committed=self._committed)
        self._began = 0.0

    def _committed(self, records: Any, scored: Any, arrived: float) -> None:
        self.batches.append((len(records), self.tested.now - self._began))
        self._began = self.tested.now
        self.answers += scored.answers

    async def run(self) -> Drained:
        await self.tested.run(lambda: sum(self.answers.values()) == BACKLOG, "the answers")
        return self


def _never(error: Exception) -> None:
    raise AssertionError(f"the worker is fit: {error}")


@pytest.mark.parametrize("row", [0.02, 0.07, 0.15])
async def test_no_event_of_a_backlog_is_late_because_a_model_is_slow(row: float) -> None:
    """20 ms a row and more, with a deadline of 200 ms: the first batch of 500 took 10 s and all of it timed out."""
    model = Burning(RunTimes(0.0, row))
    drained = await Drained(plan(), m=model).run()
    assert drained.answers == {("primary", "none"): BACKLOG}
    assert model.slowest <= plan().cards["m"].model.deadline
    assert max(seconds for _, seconds in drained.batches) <= 2.5 * LONGEST_BATCH


async def test_nor_because_a_run_is_slow_however_few_rows_it_has() -> None:
    """Then small runs would not help, and the backlog would take a hundred times as long."""
    model = Burning(RunTimes(0.06, 0.0005))
    drained = await Drained(plan(), m=model).run()
    assert drained.answers == {("primary", "none"): BACKLOG} and drained.tested.now < BACKLOG * 0.003


async def test_nor_because_the_members_of_an_ensemble_are() -> None:
    """Each within its own deadline, and the batch within a lane's time."""
    slow = [Burning(RunTimes(0.0, 0.03)) for _ in "abc"]
    drained = await Drained(trio(), a=slow[0], b=slow[1], c=slow[2]).run()
    assert drained.answers == {("ensemble", "none"): BACKLOG}
    assert max(seconds for _, seconds in drained.batches) <= 2.5 * LONGEST_BATCH


async def test_nor_because_the_fallback_is_slower_than_the_primary() -> None:
    """When a fast primary fails, the fallback answers batches that the primary made large."""
    primary, fallback = Burning(RunTimes(0.0001, 0.00001), down=True), Burning(RunTimes(0.0, 0.01))
    drained = await Drained(plan(["model:lite", "static"]), m=primary, lite=fallback).run()
    assert drained.answers == {("fallback_model", "model_error"): BACKLOG}
