"""Runs that ignore their deadlines: their threads are lost, counted, replaced, and counted again when they return."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.runtime.session import Cancel
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns
from failsoft.schemas.features.spec import FeatureType, Spec
from failsoft.schemas.prediction import Prediction, Predictions
from failsoft.workers.execution.bisect import RowIndexes
from failsoft.workers.execution.runner import LOST_TO_SPLIT, Runner, Unfit
from failsoft.workers.execution.threads import NAME
from failsoft.workers.scoring.plan import Call, CallResult
from failsoft.workers.telemetry.metrics import Metrics
from tests.kafka import eventually
from tests.kit import with_a_thread
from tests.onnx_models import a_card, load, rows, unstoppable

ROOT = Path(__file__).parents[4]
SPECS = (Spec("x", FeatureType.FLOAT),)
KEY = "m@3"


@dataclass
class Blocking:
    """A model that answers ``x``. A 9 blocks it until ``free`` is set, and it ignores its cancel."""

    free: threading.Event = field(default_factory=threading.Event)
    ran: list[int] = field(default_factory=list)

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        self.ran.append(columns.size)
        x = columns.values["x"]
        if (x == 9).any():
            self.free.wait()
        return ModelOutput(Predictions.of([Prediction(float(v)) for v in x]), {})


@pytest.fixture
def model() -> Iterator[Blocking]:
    """A blocking model, freed at the end of the test so that its threads return."""
    made = Blocking()
    yield made
    made.free.set()


@dataclass
class Desk:
    """A runner with ``threads`` threads, its metrics, and the errors that it reported to the worker."""

    threads: int = 2
    sessions: dict[str, Blocking] = field(default_factory=dict)
    reported: list[Unfit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.registry = CollectorRegistry()
        self.runner = Runner(
            self.sessions, self.threads, Metrics(self.registry), time.monotonic, on_unfit=self.reported.append
        )

    def gauge(self) -> float | None:
        return self.registry.get_sample_value("failsoft_threads_lost")

    def total(self) -> float | None:
        labels = {"model": "m", "version": "3"}
        return self.registry.get_sample_value("failsoft_model_threads_lost_total", labels)


def call(*x: float, deadline: float = 0.1, bisection: float = 20) -> Call:
    return Call(KEY, columns([{"x": v} for v in x], SPECS), deadline, bisection)


def kinds(result: CallResult) -> dict[int, Kind]:
    return {row: failure.kind for row, failure in result.bad.items()}


async def test_a_lost_thread_is_counted_replaced_and_found_again(model: Blocking) -> None:
    """The row times out, another thread serves, and the lost thread ends when it returns."""
    desk = Desk(1, {KEY: model})
    assert desk.gauge() == 0
    result = await with_a_thread(desk.runner, call(9))
    assert kinds(result) == {0: Kind.TIMEOUT} and "ignored its deadline of 0.1 s" in result.bad[0].message
    assert result.seconds > 0.1
    assert (desk.runner.lost, desk.gauge(), desk.total()) == (1, 1, 1)
    assert not (await desk.runner.run(call(1, deadline=20))).bad
    before = _threads()
    model.free.set()
    await eventually(lambda: desk.runner.lost == 0, 20, "the thread to be back")
    assert (desk.gauge(), desk.total()) == (0, 1)
    await eventually(lambda: _threads() < before, 20, "the thread that was replaced to end")
    assert not (await desk.runner.run(call(1, deadline=20))).bad


def _threads() -> int:
    return sum(t.name.startswith(NAME) for t in threading.enumerate())


@dataclass
class Raising(Blocking):
    """A model that raises for an 8."""

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        outcome = super().run(columns, cancel)
        return Failure(Kind.MODEL_ERROR, "an 8") if (columns.values["x"] == 8).any() else outcome


async def test_a_thread_that_is_lost_between_two_parts_keeps_what_came_before() -> None:
    """Several parts run in one hand-over. The part that blocks is blamed, and the outcomes before it count."""
    model = Raising()
    try:
        desk = Desk(2, {KEY: model})
        x = [1.0] * 64
        x[5], x[20] = 8, 9
        first = [1.0] * 63 + [8.0]  # so that the next call begins with groups of this size
        assert set((await with_a_thread(desk.runner, call(*first, deadline=20))).bad) == {63}
        x[6] = x[7] = x[8] = 8
        result = await with_a_thread(desk.runner, call(*x, deadline=0.5))
        assert kinds(result) == {20: Kind.TIMEOUT} | dict.fromkeys((5, 6, 7, 8), Kind.MODEL_ERROR)
        assert result.predictions is not None
        assert [s for i, s in enumerate(result.predictions.scores.tolist()) if i not in result.bad] == [1.0] * 59
    finally:
        model.free.set()


class Stalling:
    """A clock that stalls the model's thread when its last part has ended and before it says so: the thread reads the
    clock once for the part, then once for the whole.
    """

    def __init__(self) -> None:
        self.reads_left: int | None = None
        self.go_on = threading.Event()

    def __call__(self) -> float:
        if self.reads_left is not None and threading.current_thread().name.startswith(NAME):
            self.reads_left -= 1
            if self.reads_left < 0:
                self.go_on.wait()
        return time.monotonic()


async def test_a_thread_that_is_lost_after_its_last_part_blames_no_part() -> None:
    """It waits for the interpreter while the grace ends. A part that has not run cannot be late."""
    clock = Stalling()

    class Late:
        def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
            assert cancel is not None
            while not cancel.expired:
                clock.go_on.wait(0.001)
            clock.reads_left = 1
            return Failure(Kind.TIMEOUT, "stopped at its deadline")

    runner = Runner({KEY: Late()}, 2, Metrics(CollectorRegistry()), clock, pytest.fail)
    parts: list[RowIndexes | None] = [np.array([0]), np.array([1])]
    try:
        outcomes = await runner._run_parts(runner._models[KEY], call(1, 2).columns, parts, 0.1)
        assert [getattr(outcome, "message", "") for outcome, _ in outcomes] == ["stopped at its deadline"]
    finally:
        clock.go_on.set()


async def test_an_operator_that_ignores_its_deadline_keeps_its_row_alone(tmp_path: Path) -> None:
    """In a real model one row makes one operator long. The other rows are answered, and every lost thread returns."""
    session = load(tmp_path, unstoppable(1400), a_card({"kind": "regression"}, x="float"))
    desk = Desk(2, {KEY: session})  # type: ignore[dict-item]
    ready = rows(session.card, *[(9 if i == 77 else i / 100,) for i in range(500)])
    result = await with_a_thread(desk.runner, Call(KEY, ready, 0.3, 20))
    assert kinds(result) == {77: Kind.TIMEOUT}
    assert result.predictions is not None
    assert result.predictions.scores[[0, 76, 78, 499]].tolist() == pytest.approx([0, 0.76, 0.78, 4.99])
    total = desk.total()
    assert total is not None and 1 <= total <= LOST_TO_SPLIT
    await eventually(lambda: desk.runner.lost == 0, 60, "the threads to be back")


async def test_splitting_ends_when_more_threads_are_lost_than_one_row_costs(model: Blocking) -> None:
    """Each further piece might cost another thread, so the undecided rows fail together with that reason."""
    desk = Desk(16, {KEY: model})
    result = await with_a_thread(desk.runner, call(*[9.0] * 40))
    assert desk.runner.lost == LOST_TO_SPLIT + 1
    assert set(kinds(result).values()) == {Kind.TIMEOUT} and len(result.bad) == 40
    assert result.bad[39].message.endswith(f"not tried alone while {LOST_TO_SPLIT + 1} threads are lost)")
    model.ran.clear()
    await with_a_thread(desk.runner, call(9, 1))
    assert model.ran == [2], "a batch that fails meanwhile is not split at all"


async def test_beyond_the_limit_the_worker_is_unfit(model: Blocking) -> None:
    """As many threads may be lost as serve; with one more only a restart helps. Calls still return in time."""
    desk = Desk(2, {KEY: model})
    for lost in (1, 2):
        await with_a_thread(desk.runner, call(9))
        assert (desk.runner.lost, desk.reported) == (lost, [])
    result = await with_a_thread(desk.runner, call(9))
    assert kinds(result) == {0: Kind.TIMEOUT}
    [error] = desk.reported
    assert "3 threads are lost" in str(error) and KEY in str(error)


async def test_no_call_waits_for_a_thread_longer_than_its_deadline(model: Blocking) -> None:
    """If all threads are busy but not lost, the waiting call is unavailable, which is not its model's fault."""
    other = Blocking()
    desk = Desk(1, {"long@1": model, KEY: other})
    long = asyncio.ensure_future(
        desk.runner.run(Call("long@1", columns([{"x": 9}], SPECS), 60, 60)),
    )
    await eventually(lambda: model.ran, 20, "the only thread to be busy")
    result = await desk.runner.run(call(1, 2))
    assert result.bad == dict.fromkeys((0, 1), Failure(Kind.UNAVAILABLE, "no thread was free for 0.1 s"))
    model.free.set()
    assert not (await long).bad
    assert not (await desk.runner.run(call(1, deadline=20))).bad
    assert other.ran == [1], "a call that was given up must not run later"


async def test_a_call_that_waits_behind_a_lost_thread_gets_its_replacement(model: Blocking) -> None:
    """The call waited before the thread was lost, so losing the thread must start the replacement."""
    desk = Desk(1, {KEY: model})
    first = asyncio.ensure_future(with_a_thread(desk.runner, call(9, deadline=2)))
    await eventually(lambda: model.ran, 20, "the only thread to be busy")
    second = await desk.runner.run(call(1, deadline=20))
    assert not second.bad
    assert kinds(await first) == {0: Kind.TIMEOUT}


async def test_a_cancelled_call_ends_its_run(model: Blocking) -> None:
    """The run is cancelled too. If it ignores that, its thread is lost, and counted again when it returns."""
    desk = Desk(1, {KEY: model})
    waiting = asyncio.ensure_future(with_a_thread(desk.runner, call(9, deadline=2)))
    await eventually(lambda: model.ran, 20, "the run to begin")
    waiting.cancel()
    await eventually(lambda: desk.runner.lost == 1, 20, "the thread to be given up")
    model.free.set()
    await eventually(lambda: desk.runner.lost == 0, 20, "the thread to be back")
    assert waiting.cancelled()


async def test_a_key_that_is_not_in_use_is_unavailable(model: Blocking) -> None:
    """The version was retired between the plan and the call. Each row fails, and no error is raised."""
    desk = Desk(1, {"m@2": model})
    result = await desk.runner.run(call(1, 2))
    assert result.predictions is None
    assert result.bad == dict.fromkeys((0, 1), Failure(Kind.UNAVAILABLE, "m@3 is not loaded"))


async def test_a_version_is_retired_when_its_calls_have_ended(model: Blocking) -> None:
    """New calls are refused at once. The call in flight is answered, and only then may the session be closed."""
    desk = Desk(1, {KEY: model})
    call_in_flight = desk.runner.run(call(9, deadline=60))
    retired = asyncio.ensure_future(desk.runner.retire(KEY))
    assert (await desk.runner.run(call(1))).bad[0].kind is Kind.UNAVAILABLE
    running = asyncio.ensure_future(call_in_flight)
    await eventually(lambda: model.ran, 20, "the run to begin")
    assert not retired.done(), "a call is in flight from when run is called, not from when it begins"
    model.free.set()
    assert not (await running).bad
    await asyncio.wait_for(retired, 20)


async def test_a_lost_thread_does_not_keep_a_version_from_retiring(model: Blocking) -> None:
    """A lost thread may never return, and it holds its own references."""
    desk = Desk(1, {KEY: model})
    await with_a_thread(desk.runner, call(9))
    await asyncio.wait_for(desk.runner.retire(KEY), 20)
    await asyncio.wait_for(desk.runner.retire(KEY), 20)  # a key that is not in use is retired


async def test_a_version_is_added_and_another_never_replaced(model: Blocking) -> None:
    """A key in use has calls in flight on its session, so it must be retired before it is added again."""
    desk = Desk(1, {})
    desk.runner.add(KEY, model)
    assert not (await desk.runner.run(call(1, deadline=20))).bad
    with pytest.raises(ValueError, match="m@3 is in use"):
        desk.runner.add(KEY, Blocking())
    await desk.runner.retire(KEY)
    desk.runner.add(KEY, model)
    assert not (await desk.runner.run(call(1, deadline=20))).bad


STUCK = """
import asyncio, time
from tests.kit import with_a_thread
from tests.unit.workers.execution.test_lost_threads import Blocking, Desk, call
async def main():
    desk = Desk(2, {"m@3": Blocking()})
    await with_a_thread(desk.runner, call(9))
    await desk.runner.run(call(1, deadline=20))
    assert desk.runner.lost == 1
    desk.runner.close()
asyncio.run(main())
print("done", flush=True)
"""


def test_a_process_ends_although_a_thread_never_comes_back() -> None:
    """The interpreter waits for ever for threads that are not daemons, and an executor for its own threads."""
    done = subprocess.run([sys.executable, "-c", STUCK], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.stdout.endswith(b"done\n") and done.returncode == 0, done.stderr.decode()
