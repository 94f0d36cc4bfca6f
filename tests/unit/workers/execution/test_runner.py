"""Calls within their deadlines, with real ONNX models that fail for certain rows: which rows fail, and how soon."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest
from prometheus_client import CollectorRegistry

from failsoft.models.runtime.session import Cancel, ModelOutput, Session
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.workers.execution.runner import Runner
from failsoft.workers.scoring.plan import Call, CallResult
from failsoft.workers.telemetry.metrics import Metrics
from tests.kafka import eventually
from tests.kit import with_a_thread
from tests.onnx_models import a_card, endless, load, looked_up, rows, same, unstoppable

KEY = "m@3"
SOON = 20.0
"""Seconds: a deadline for calls that should not be late, on a machine that may stall."""


def never(error: Exception) -> None:
    raise AssertionError(f"the worker is fit: {error}")


def runner(session: Session, threads: int = 2) -> Runner:
    return Runner({KEY: session}, threads, Metrics(CollectorRegistry()), time.monotonic, never)


def call(columns: Columns, deadline: float = SOON, bisection: float = 4 * SOON) -> Call:
    return Call(KEY, columns, deadline, bisection)


def column(session: Session, n: int, marked: Mapping[int, float]) -> Columns:
    """``n`` rows; row i has the value i / 1000, except those in ``marked``."""
    return rows(session.card, *[(marked.get(i, i / 1000),) for i in range(n)])


def kinds(result: CallResult) -> dict[int, Kind]:
    return {row: failure.kind for row, failure in result.bad.items()}


def answered_but(result: CallResult, n: int, *bad: int) -> None:
    """Asserts that every row except ``bad`` has its own answer from the model."""
    assert result.predictions is not None
    good = [i for i in range(n) if i not in bad]
    expected = np.array(good) / 1000
    assert sorted(result.bad) == sorted(bad)
    np.testing.assert_allclose(result.predictions.scores[good], expected, rtol=1e-5)


async def test_a_row_that_raises_is_found_among_five_hundred(tmp_path: Path) -> None:
    """The run fails for the whole batch. Afterwards only that row has the error; the others get the model's answer."""
    session = load(tmp_path, looked_up(), a_card({"kind": "regression"}, row="int"))
    tested = runner(session)
    columns = rows(session.card, *[(7 if i == 123 else 0,) for i in range(500)])
    result = await tested.run(call(columns))
    assert kinds(result) == {123: Kind.MODEL_ERROR} and "out of data bounds" in result.bad[123].message
    assert result.predictions is not None
    assert set(np.delete(result.predictions.scores, 123).tolist()) == {0.5}


async def test_each_of_several_rows_that_raise_is_found(tmp_path: Path) -> None:
    """Several failing rows are found, also adjacent ones, the first and the last."""
    session = load(tmp_path, looked_up(), a_card({"kind": "regression"}, row="int"))
    bad = {0, 1, 77, 250, 251, 499}
    columns = rows(session.card, *[(7 if i in bad else 0,) for i in range(500)])
    result = await runner(session).run(call(columns))
    assert kinds(result) == dict.fromkeys(sorted(bad), Kind.MODEL_ERROR)


class Counting:
    """A session that counts its runs, and may fail all of them at once."""

    def __init__(self, session: Session) -> None:
        self.session, self.sizes, self.down = session, list[int](), False
        self.failure = Failure(Kind.MODEL_ERROR, "down")

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        """The session's outcome, or a failure of the whole batch."""
        self.sizes.append(columns.size)
        return self.failure if self.down else self.session.run(columns, cancel)


async def test_a_batch_that_will_fail_does_not_run_as_a_whole_until_one_passes(tmp_path: Path) -> None:
    """The last batch tells how many rows fail. When none fails any more, batches run as a whole again."""
    session = load(tmp_path, looked_up(), a_card({"kind": "regression"}, row="int"))
    counting = Counting(session)
    tested = Runner({KEY: counting}, 2, Metrics(CollectorRegistry()), time.monotonic, never)
    failing = rows(session.card, *[(7 if i % 50 == 9 else 0,) for i in range(500)])
    good = rows(session.card, *[(0,) for _ in range(500)])
    bad = set(range(9, 500, 50))
    for first_is_whole in (True, False):
        counting.sizes.clear()
        assert set((await tested.run(call(failing))).bad) == bad
        assert (max(counting.sizes) == 500) is first_is_whole
    for first_is_whole in (False, True):
        counting.sizes.clear()
        assert not (await tested.run(call(good))).bad
        assert (counting.sizes == [500]) is first_is_whole and sum(counting.sizes) == 500


async def test_a_model_that_is_down_and_comes_back_is_not_run_row_by_row(tmp_path: Path) -> None:
    """While it was down every row failed, so the first groups are single rows; those that pass make larger ones."""
    session = load(tmp_path, looked_up(), a_card({"kind": "regression"}, row="int"))
    counting = Counting(session)
    tested = Runner({KEY: counting}, 2, Metrics(CollectorRegistry()), time.monotonic, never)
    good = rows(session.card, *[(0,) for _ in range(4000)])
    counting.down = True
    result = await tested.run(call(good))
    assert len(result.bad) == 4000 and len(counting.sizes) < 1100
    counting.down = False
    counting.sizes.clear()
    assert not (await tested.run(call(good))).bad and len(counting.sizes) < 100


async def test_a_batch_that_was_not_run_waits_for_no_process(tmp_path: Path) -> None:
    """The fallback answers at once while a model's process is in back-off, also after a batch with failing rows."""
    session = load(tmp_path, looked_up(), a_card({"kind": "regression"}, row="int"))
    counting = Counting(session)
    tested = Runner({KEY: counting}, 2, Metrics(CollectorRegistry()), time.monotonic, never)
    failing = rows(session.card, *[(7 if i % 50 == 9 else 0,) for i in range(500)])
    await tested.run(call(failing))
    counting.failure = Failure(Kind.UNAVAILABLE, "back-off")
    counting.down = True
    counting.sizes.clear()
    result = await tested.run(call(failing))
    assert len(counting.sizes) == 1
    assert result.bad == dict.fromkeys(range(500), Failure(Kind.UNAVAILABLE, "back-off"))
    assert result.predictions is None


async def test_a_nan_fails_its_row_only(tmp_path: Path) -> None:
    """A NaN costs no second run, because the output shows which row it is in."""
    card = a_card({"kind": "regression"}, x="float", y="float")
    model = _quotient()
    session = load(tmp_path, model, card)
    columns = rows(card, *[(0.0 if i == 4 else i, 0.0 if i == 4 else 1.0) for i in range(9)])
    result = await runner(session).run(call(columns))
    assert kinds(result) == {4: Kind.BAD_OUTPUT} and "nan" in result.bad[4].message
    assert result.predictions is not None
    assert result.predictions.scores[[0, 1, 8]].tolist() == [0, 1, 8]


def _quotient() -> object:
    from tests.onnx_models import X2, node, onnx_model

    nodes = (
        node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2),
        node("Div", ["a", "b"], ["y"]),
    )
    return onnx_model([X2], [("y", "float", ["n", 1])], *nodes)


async def test_a_row_that_hangs_costs_the_budget_and_not_its_neighbours(tmp_path: Path) -> None:
    """The run is terminated at its deadline and split sixteen ways: four deadlines for one row of two thousand."""
    session = load(tmp_path, endless(), a_card({"kind": "regression"}, x="float"))
    tested = runner(session)
    began = time.monotonic()
    result = await with_a_thread(tested, call(column(session, 2000, {1234: 9}), deadline=0.3, bisection=SOON))
    assert time.monotonic() - began < SOON, "the budget"
    answered_but(result, 2000, 1234)
    assert kinds(result) == {1234: Kind.TIMEOUT} and "not tried alone" not in result.bad[1234].message
    assert result.seconds >= 0.3, "a run that timed out is a slow one"
    assert tested.lost == 0


async def test_after_the_budget_the_undecided_rows_fail_together(tmp_path: Path) -> None:
    """This budget is enough for the first run and one piece; the other pieces are not run."""
    session = load(tmp_path, endless(), a_card({"kind": "regression"}, x="float"))
    hanging = call(column(session, 160, {0: 9, 159: 9}), deadline=0.3, bisection=0.45)
    result = await with_a_thread(runner(session), hanging)
    assert result.predictions is None and set(kinds(result).values()) == {Kind.TIMEOUT}
    assert len(result.bad) == 160
    assert result.bad[80].message.endswith("(one of 160 rows that were not tried alone within 0.45 s)")


async def test_a_run_that_is_too_late_fails_although_it_succeeded(tmp_path: Path) -> None:
    """A single operator cannot be terminated: its run returns within the grace, and the answer is too late."""
    session = load(tmp_path, unstoppable(700), a_card({"kind": "regression"}, x="float"))
    tested = runner(session)
    result = await with_a_thread(tested, call(column(session, 1, {0: 9}), deadline=0.02, bisection=0.02))
    assert kinds(result) == {0: Kind.TIMEOUT} and result.seconds > 0.02


async def test_memory_stays_flat_over_failing_batches(tmp_path: Path) -> None:
    """Two hundred batches with a row that raises, and as many with a row that hangs, leave no memory behind."""
    raising = load(tmp_path, looked_up(), a_card({"kind": "regression"}, row="int"))
    row = rows(raising.card, *[(7 if i == 123 else 0,) for i in range(500)])
    (tmp_path / "endless").mkdir()
    hanging = load(tmp_path / "endless", endless(), a_card({"kind": "regression"}, x="float"))
    x = column(hanging, 16, {5: 9})
    tested, other = runner(raising), runner(hanging)

    async def fail(times: int) -> int:
        for _ in range(times):
            assert len((await tested.run(call(row))).bad) == 1
            assert (await other.run(call(x, deadline=0.01, bisection=1))).bad
        gc.collect()
        return psutil.Process().memory_info().rss

    settled = await fail(40)
    assert await fail(200) - settled < 10_000_000


@pytest.mark.parametrize("n", [1, 50])
async def test_a_healthy_batch_is_one_run(tmp_path: Path, n: int) -> None:
    """Its predictions are passed on as the session gave them, without a copy."""
    session = load(tmp_path, same(1), a_card({"kind": "regression"}, x="float"))
    ran: list[int] = []

    class Counting:
        def run(self, columns: Columns, cancel: object = None) -> object:
            ran.append(columns.size)
            return session.run(columns)

    tested = Runner({KEY: Counting()}, 1, Metrics(CollectorRegistry()), time.monotonic, never)  # type: ignore[dict-item]
    answered_but(await tested.run(call(column(session, n, {}))), n)
    assert ran == [n]


async def test_a_mistake_of_the_caller_is_raised(tmp_path: Path) -> None:
    """Columns of another card are not a failure of the model, so they raise ValueError."""
    session = load(tmp_path, same(1), a_card({"kind": "regression"}, x="float"))
    other = rows(a_card({"kind": "regression"}, y="float"), (1,))
    with pytest.raises(ValueError, match="needs the columns of its card"):
        await runner(session).run(call(other))


async def test_a_closed_session_is_not_split(tmp_path: Path) -> None:
    """UNAVAILABLE is not caused by a row, so the batch is not bisected."""
    session = load(tmp_path, same(1), a_card({"kind": "regression"}, x="float"))
    session.close()
    result = await runner(session).run(call(column(session, 3, {})))
    assert result.bad == dict.fromkeys(range(3), Failure(Kind.UNAVAILABLE, f"{KEY} is unloaded"))


@pytest.mark.parametrize("marked", [{}, {3: 9.0}])
async def test_a_batch_is_freed_when_its_call_ends(tmp_path: Path, marked: Mapping[int, float]) -> None:
    """It is freed without the garbage collector, which runs rarely in a worker, so that large batches do not pile
    up.
    """
    session = load(tmp_path, endless(), a_card({"kind": "regression"}, x="float"))
    tested = runner(session)
    columns = column(session, 16, marked)
    assert columns.matrix is not None
    held = weakref.ref(columns.matrix)
    gc.collect()
    gc.disable()
    try:
        result = await with_a_thread(tested, call(columns, deadline=0.3 if marked else SOON, bisection=SOON))
        del columns
        await eventually(lambda: held() is None, 30, "the batch to be freed")
    finally:
        gc.enable()
    assert sorted(result.bad) == sorted(marked)
