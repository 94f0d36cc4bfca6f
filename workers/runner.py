"""Runs calls by their deadlines; a model's failure is returned, not raised.

A batch that fails as a whole is split until the failing rows stand alone, within the call's deadline: past it the
undecided rows fail together and say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.session import Cancel, Outcome
from schemas.failure import Failure, Kind
from schemas.features import Columns
from schemas.prediction import Predictions
from workers.metrics import Metrics
from workers.plan import Call, Result

Rows = NDArray[np.intp]


class Runs(Protocol):
    """What the runner needs of a loaded model (models.session.Session has it)."""

    def run(self, columns: Columns, cancel: Cancel | None = None) -> Outcome | Failure: ...


@dataclass(slots=True)
class _Split:
    """What is known of a call so far: answers by piece, failures by row."""

    pieces: list[tuple[Rows, Predictions]] = field(default_factory=list)
    bad: dict[int, Failure] = field(default_factory=dict)
    slowest: float = 0.0


class Runner:
    """Runs sessions on threads: ONNX Runtime releases the GIL, so the event loop goes on. ``clock`` is monotonic."""

    def __init__(
        self, sessions: Mapping[str, Runs], threads: int, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._sessions, self._metrics, self._clock = dict(sessions), metrics, clock
        self._busy: dict[str, int] = {}
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="failsoft-model")

    def add(self, key: str, session: Runs) -> None:
        self._sessions[key] = session

    async def retire(self, key: str) -> None:
        del self._sessions[key]
        while self._busy.get(key):
            await asyncio.sleep(0.01)

    async def run(self, call: Call) -> Result:
        """Every row of ``call`` answered or failed."""
        self._busy[call.key] = self._busy.get(call.key, 0) + 1
        try:
            return await self._run(call)
        finally:
            self._busy[call.key] -= 1

    async def _run(self, call: Call) -> Result:
        session = self._sessions[call.key]
        until = self._clock() + call.deadline
        found = _Split()
        rows = np.arange(len(call))
        await self._settle(session, call, rows, until, found)
        self._count(call, found)
        return Result(_joined(found, len(call)), found.bad, found.slowest)

    def close(self) -> None:
        """No call is running any more; threads that are idle end."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _settle(self, session: Runs, call: Call, rows: Rows, until: float, found: _Split) -> None:
        columns = call.columns if len(rows) == len(call) else call.columns.take(rows)
        outcome = await self._once(session, columns, call.deadline, found)
        if isinstance(outcome, Outcome):
            found.pieces.append((rows, outcome.predictions))
            found.bad.update({int(rows[i]): failure for i, failure in outcome.bad.items()})
        elif len(rows) == 1:
            found.bad[int(rows[0])] = outcome
        elif outcome.kind in (Kind.TIMEOUT, Kind.UNAVAILABLE) or self._clock() > until:
            said = Failure(outcome.kind, f"{outcome.message} (one of {len(rows)} rows that were not told apart)")
            found.bad.update(dict.fromkeys(rows.tolist(), said))
        else:
            middle = len(rows) // 2
            await self._settle(session, call, rows[:middle], until, found)
            await self._settle(session, call, rows[middle:], until, found)

    async def _once(self, session: Runs, columns: Columns, deadline: float, found: _Split) -> Outcome | Failure:
        """One run on a thread. Time counts from when the thread begins: waiting for one is not the model's fault."""
        loop = asyncio.get_running_loop()
        cancel = Cancel()
        timer: asyncio.TimerHandle | None = None

        def arm() -> None:
            nonlocal timer
            timer = loop.call_later(deadline, cancel.set)

        def work() -> tuple[Outcome | Failure, float]:
            loop.call_soon_threadsafe(arm)
            started = self._clock()
            outcome = session.run(columns, cancel)
            return outcome, self._clock() - started

        try:
            outcome, took = await loop.run_in_executor(self._executor, work)
        finally:
            if timer is not None:
                timer.cancel()
        found.slowest = max(found.slowest, took)
        if took > deadline and isinstance(outcome, Outcome):
            # terminate is ignored inside one operator, which then returns success: too late all the same
            return Failure(Kind.TIMEOUT, f"{took:.3g} s, over the deadline of {deadline:g} s")
        return outcome

    def _count(self, call: Call, found: _Split) -> None:
        model, _, version = call.key.rpartition("@")
        self._metrics.observe("failsoft_inference_seconds", found.slowest, model=model, version=version)
        kinds: dict[Kind, int] = {}
        for failure in found.bad.values():
            kinds[failure.kind] = kinds.get(failure.kind, 0) + 1
        for kind, n in kinds.items():
            self._metrics.add("failsoft_inference_failures_total", n, model=model, version=version, kind=kind)


def _joined(found: _Split, n: int) -> Predictions | None:
    """The pieces as one batch of ``n`` rows; rows of no piece are placeholders."""
    if not found.pieces:
        return None
    if len(found.pieces) == 1 and len(found.pieces[0][0]) == n:
        return found.pieces[0][1]
    order = np.concatenate([rows for rows, _ in found.pieces])
    place = np.zeros(n, np.intp)  # a row of no piece points at the first answer; it is in ``bad``
    place[order] = np.arange(len(order))
    parts = [p for _, p in found.pieces]
    first = parts[0]
    labels = None if first.labels is None else [label for p in parts for label in p.labels or ()]
    whole = Predictions(
        scores=np.concatenate([p.scores for p in parts]),
        labels=labels,
        probabilities=None if first.probabilities is None else np.concatenate([p.probabilities for p in parts]),
        confidences=None if first.confidences is None else np.concatenate([p.confidences for p in parts]),
    )
    return whole.take(place)
