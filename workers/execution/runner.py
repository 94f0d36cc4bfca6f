"""Owns the running of calls within their deadlines. A model's failure is returned, not raised.

A run that has not ended at its deadline is terminated. If it ignores that, the runner stops waiting, and its thread is
lost. A batch that fails as a whole, or that will, is bisected (workers.execution.bisect) within a time budget.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import structlog

from failsoft.models.runtime.session import Cancel, ModelOutput
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.model_version import ModelVersion
from failsoft.workers.execution.batch_size import LARGEST
from failsoft.workers.execution.bisect import Bisection, RowIndexes, expects_to_fail
from failsoft.workers.execution.run import Run
from failsoft.workers.execution.run_size import RunSize, in_several_runs
from failsoft.workers.execution.threads import Threads
from failsoft.workers.scoring.plan import Call, CallResult
from failsoft.workers.telemetry.metrics import Metrics

log = structlog.get_logger("failsoft.runner")

LOST_TO_SPLIT = 4
"""Largest number of a model's lost threads with which its batches are still split. One row in 4,000 that ignores its
deadline costs the batch's own thread and one thread at each of three levels. More lost threads mean more than one such
row, and each further piece could cost another thread."""

PAUSE = 0.05
"""Seconds before a piece that could not be run is tried again. A model's process needs about a second to restart."""


class Unfit(RuntimeError):
    """More threads are lost than serve. Only a restart of the worker frees them."""


class Runs(Protocol):
    """The part of a loaded model that the runner uses. failsoft.models.runtime.session.Session has it."""

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure: ...


@dataclass(slots=True, eq=False)
class _RunningModel:
    """A loaded model in use.

    Attributes:
        key: its ``model@version``.
        session: runs its batches.
        calls: calls in flight.
        lost: its lost threads.
        spacing: how many rows held one that failed at once, in the last batch with such a row; None before.
        size: the most rows of a run; None before the first call.
        waiting: futures to complete when no call is in flight.
    """

    key: str
    session: Runs
    calls: int = 0
    lost: int = 0
    spacing: float | None = None
    size: RunSize | None = None
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def labels(self) -> dict[str, str]:
        named = ModelVersion.of_key(self.key)
        return {"model": named.model, "version": str(named.version)}

    def size_of(self, call: Call) -> RunSize:
        """The size of its runs, which begins with the times that its first call knows."""
        if self.size is None:
            self.size = RunSize(call.times)
        return self.size


class Runner:
    """Runs sessions on threads. ONNX Runtime releases the GIL, so the event loop goes on. Used by one event loop.

    At most ``threads`` threads serve, and as many may be lost in addition: a stalled machine loses a thread in each
    lane, and that should not end the worker. ``on_unfit`` is called when one more is lost. ``clock`` is monotonic
    seconds.
    """

    def __init__(
        self,
        sessions: Mapping[str, Runs],
        threads: int,
        metrics: Metrics,
        clock: Callable[[], float],
        on_unfit: Callable[[Unfit], object],
    ) -> None:
        self._models = {key: _RunningModel(key, session) for key, session in sessions.items()}
        self._metrics, self._clock, self._on_unfit = metrics, clock, on_unfit
        self._threads, self._most = Threads(threads, clock), threads
        self.lost = 0
        metrics.set("failsoft_threads_lost", 0)

    def run(self, call: Call) -> Awaitable[CallResult]:
        """Runs a call; every row is answered or failed, with UNAVAILABLE if the key is not in use. Await the result at
        once: the call counts as in flight from now on.
        """
        return self._run_and_release(self.reserve(call.key), call)

    def reserve(self, key: str) -> Reservation:
        """Counts a call for ``key`` as in flight from now on, until the reservation is released: its session stays
        open, and a call under it is not refused.
        """
        return Reservation(self, self._models.get(key))

    def add(self, key: str, session: Runs) -> None:
        """Runs calls for ``key`` on ``session`` from now on. Raises ValueError if the key is in use (retire it
        first).
        """
        if key in self._models:
            raise ValueError(f"{key} is in use")
        self._models[key] = _RunningModel(key, session)

    def retire(self, key: str) -> Awaitable[None]:
        """Refuses new calls for ``key`` from now on. The result is done when the calls in flight have ended, so that
        the session can be closed; at once if the key is not in use. Lost threads are not waited for: they hold their
        own references.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        model = self._models.pop(key, None)
        if model is None or not model.calls:
            done.set_result(None)
        else:
            model.waiting.append(done)
        return done

    def close(self) -> None:
        """Ends the idle threads. Call it when no call is running any more."""
        self._threads.close()

    async def _run_and_release(self, reservation: Reservation, call: Call) -> CallResult:
        try:
            return await reservation.run(call)
        finally:
            reservation.release()

    def most_rows(self, call: Call) -> int:
        """The most rows that a run of ``call``'s version may have now."""
        model = self._models.get(call.key)
        return LARGEST if model is None else model.size_of(call).most(call)

    async def _run(self, model: _RunningModel, call: Call) -> CallResult:
        size = model.size_of(call)
        if len(call) <= size.most(call):
            result = await self._run_as_one(model, call)
        else:
            runs = partial(self._run_as_one, model)
            result = await in_several_runs(call, lambda: size.most(call), runs, self._clock)
        self._count(model, result)
        return result

    async def _run_as_one(self, model: _RunningModel, call: Call) -> CallResult:
        """Runs all rows of a call at once, and bisects it if it fails or will."""
        if expects_to_fail(len(call), model.spacing):
            return await self._bisect(model, call, Failure(Kind.UNAVAILABLE, f"{call.key} was not run"), 0.0)
        outcome, took = await self._run_once(model, call.columns, call.deadline)
        if isinstance(outcome, ModelOutput) or outcome.kind is Kind.TIMEOUT:
            model.size_of(call).adapt(call, len(call), took)
        if isinstance(outcome, ModelOutput):
            if model.spacing is not None and len(call) >= model.spacing:
                model.spacing = None
            return CallResult(outcome.predictions, outcome.bad, took)
        if len(call) == 1 or outcome.kind is Kind.UNAVAILABLE:
            return CallResult(None, dict.fromkeys(range(len(call)), outcome), took)
        return await self._bisect(model, call, outcome, took)

    async def _bisect(self, model: _RunningModel, call: Call, why: Failure, took: float) -> CallResult:
        """Bisects a call that failed, or, with ``why`` UNAVAILABLE, one that has not run. The budget of a failed call
        starts with its first run, so waiting for a thread does not use it up.
        """
        bisection = Bisection(
            len(call),
            why,
            call.deadline,
            self._clock() - took + call.bisect_budget,
            call.bisect_budget,
            model.spacing,
        )
        slowest = took
        while True:
            if model.lost > LOST_TO_SPLIT:
                bisection.give_up(f"while {model.lost} threads are lost")
            pieces = bisection.next(self._clock())
            if not pieces:
                model.spacing = bisection.spacing
                return CallResult(bisection.predictions, bisection.bad, slowest, undecided=bisection.undecided)
            runs = await self._run_parts(model, call.columns, [piece.rows for piece in pieces], pieces[0].deadline)
            slowest = max(slowest, *(took for _, took in runs))
            bisection.record_outcomes(pieces, [outcome for outcome, _ in runs])
            last, _ = runs[-1]
            if isinstance(last, Failure) and last.kind is Kind.UNAVAILABLE:
                if why.kind is Kind.UNAVAILABLE and len(runs) == 1 and bisection.untouched:
                    return CallResult(None, dict.fromkeys(range(len(call)), last), slowest)
                await asyncio.sleep(PAUSE)

    async def _run_once(
        self, model: _RunningModel, columns: Columns, deadline: float
    ) -> tuple[ModelOutput | Failure, float]:
        """One run of all rows of ``columns``; see ``_run_parts``."""
        return (await self._run_parts(model, columns, [None], deadline))[0]

    async def _run_parts(
        self, model: _RunningModel, columns: Columns, parts: list[RowIndexes | None], deadline: float
    ) -> list[tuple[ModelOutput | Failure, float]]:
        """Runs parts of ``columns`` one after the other on a thread; None stands for all rows. Returns the outcomes
        and times (seconds) of at least the first one, and of as many as fit into SLICE. An exception of the session is
        raised.

        ``deadline`` is that of each run. A run's time starts when the thread begins it: waiting for a thread is not the
        model's fault. A wait as long as the deadline is UNAVAILABLE.
        """
        lost, returned = partial(self._count_lost, model), partial(self._count_returned, model)
        run = Run(self._threads, self._clock, model.key, model.session.run, columns, parts, deadline, lost, returned)
        try:
            await run.ended
        finally:
            run.leave()
        return run.outcomes

    def _count_lost(self, model: _RunningModel) -> None:
        self.lost += 1
        model.lost += 1
        self._metrics.set("failsoft_threads_lost", self.lost)
        self._metrics.add("failsoft_model_threads_lost_total", **model.labels)
        log.warning("a run ignores its deadline: its thread is lost", key=model.key, lost=self.lost, most=self._most)
        if self.lost > self._most:
            self._on_unfit(Unfit(f"{self.lost} threads are lost in models that ignore their deadlines: {model.key}"))

    def _count_returned(self, model: _RunningModel, took: float) -> None:
        self.lost -= 1
        model.lost -= 1
        self._metrics.set("failsoft_threads_lost", self.lost)
        log.info("a lost thread came back", key=model.key, seconds=round(took, 3), lost=self.lost)

    def _count(self, model: _RunningModel, result: CallResult) -> None:
        self._metrics.observe("failsoft_inference_seconds", result.seconds, **model.labels)
        kinds: dict[Kind, int] = {}
        for failure in result.bad.values():
            kinds[failure.kind] = kinds.get(failure.kind, 0) + 1
        for kind, n in kinds.items():
            self._metrics.add("failsoft_inference_failures_total", n, **model.labels, kind=kind)


class Reservation:
    """A call that counts as in flight until ``release``. Several runs may be made under it."""

    __slots__ = ("_model", "_runner")

    def __init__(self, runner: Runner, model: _RunningModel | None) -> None:
        self._runner, self._model = runner, model
        if model is not None:
            model.calls += 1

    def run(self, call: Call) -> Awaitable[CallResult]:
        """Runs a call for the reserved key; see ``Runner.run``."""
        return _refused(call) if self._model is None else self._runner._run(self._model, call)

    def release(self) -> None:
        """Ends the reservation. If its version was retired and this was its last call, the session can be closed."""
        model, self._model = self._model, None
        if model is None:
            return
        model.calls -= 1
        if not model.calls:
            for future in model.waiting:
                if not future.done():
                    future.set_result(None)


async def _refused(call: Call) -> CallResult:
    """The result for a key that is not in use, because its version was retired between the plan and the call.

    It is not the model's failure, so it is not counted.
    """
    return CallResult(
        None, dict.fromkeys(range(len(call)), Failure(Kind.UNAVAILABLE, f"{call.key} is not loaded")), 0.0
    )
