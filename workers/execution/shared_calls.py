"""Owns the sharing of runs: calls of several lanes for one model version run as one batch.

In light traffic on many partitions each lane has a row or two, and a run of one row costs nearly as much as a run of
fifty. So the calls that lanes make in the same turn of the event loop share a run. Each lane still gets the result of
its own rows, as if they had run by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial

from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.workers.execution.runner import Reservation, Runner
from failsoft.workers.scoring.plan import Call, CallResult

MOST_ROWS = 256
"""The most rows of a shared run. Measured with a hundred trees: a run costs about as much as 50 rows. So with more rows
there is little left to save, and separate runs use several cores."""

SHARE = 4
"""A call that has more than one part in this many of the rows of a shared run runs by itself, for the same reason: four
calls of 60 rows are a little quicker together, four of 100 a little slower."""

TURNS = 2
"""Turns of the event loop for which a call waits for others. Lanes that one fetch or one commit wakes make their calls
in the same turn, and in the next one if they await something in between."""

APART_FOR = 5.0
"""Seconds for which a lane runs by itself after its rows failed. A failing row costs the whole run a deadline or more,
and failures come in series: a bad producer writes to one partition for a while."""


@dataclass(slots=True, eq=False)
class _Sharer:
    """One lane's call and the future of its result."""

    call: Call
    lane: int
    result: asyncio.Future[CallResult]


@dataclass(slots=True, eq=False)
class _SharedRun:
    """Calls that run together.

    Attributes:
        key: the version, as ``model@version``.
        reservation: keeps the version loaded until every sharer has its result.
        sharers: the calls, in order.
        rows: the rows of all calls.
        task: runs them; None before.
    """

    key: str
    reservation: Reservation
    sharers: list[_Sharer] = field(default_factory=list)
    rows: int = 0
    task: asyncio.Task[None] | None = None


class SharedCalls:
    """Runs calls of lanes on ``runner``, several in one run where that is safe. Used by one event loop.

    These calls run by themselves: calls marked ``alone``, calls of many rows (SHARE), and calls of a lane whose rows
    have failed within APART_FOR. A call is never split. ``clock`` is monotonic seconds.
    """

    def __init__(self, runner: Runner, clock: Callable[[], float]) -> None:
        self._runner, self._clock = runner, clock
        self._waiting: dict[str, _SharedRun] = {}  # by key: takes further calls
        self._next: list[_SharedRun] = []  # the waiting ones and the full ones, in order
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: dict[int, float] = {}  # by lane: when its rows last failed

    def run(self, call: Call, lane: int) -> Awaitable[CallResult]:
        """Runs a call; see ``Runner.run``. Await the result at once: the call counts as in flight from now on.

        ``seconds`` of the result is the time of the shared run, and its ``runs`` is 1 for one of the sharers only. An
        exception of the model's session reaches every sharer. A cancelled caller does not cancel the others.
        """
        limit = min(self._runner.most_rows(call), MOST_ROWS)
        if call.alone or SHARE * len(call) > limit or self._apart(lane):
            return self._by_itself(self._runner.run(call), lane)
        shared = self._waiting.get(call.key)
        if shared is None or shared.rows + len(call) > limit:
            shared = self._waiting[call.key] = _SharedRun(call.key, self._runner.reserve(call.key))
            if not self._next:
                self._wait(TURNS)
            self._next.append(shared)
        sharer = _Sharer(call, lane, asyncio.get_running_loop().create_future())
        shared.sharers.append(sharer)
        shared.rows += len(call)
        return self._joined(shared, sharer)

    async def _by_itself(self, result: Awaitable[CallResult], lane: int) -> CallResult:
        return self._noted(await result, lane)

    async def _joined(self, shared: _SharedRun, sharer: _Sharer) -> CallResult:
        try:
            return await sharer.result
        finally:
            # After the last one has left, nobody needs the run: cancel it, as a cancelled caller of Runner.run does.
            if sharer.result.cancelled() and all(s.result.cancelled() for s in shared.sharers) and shared.task:
                shared.task.cancel()

    # --- start ----------------------------------------------------------------------------------------------------

    def _wait(self, turns: int) -> None:
        loop = asyncio.get_running_loop()
        if turns:
            loop.call_soon(self._wait, turns - 1)
        else:
            self._start()

    def _start(self) -> None:
        waiting, self._next = self._next, []
        self._waiting.clear()
        for shared in waiting:
            shared.task = task = asyncio.create_task(self._run(shared))
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, shared))

    def _ended(self, shared: _SharedRun, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        shared.reservation.release()
        error = None if task.cancelled() else task.exception()
        for sharer in shared.sharers:
            if sharer.result.done():
                continue
            if error is not None:
                sharer.result.set_exception(error)
            else:
                sharer.result.cancel()

    # --- run ------------------------------------------------------------------------------------------------------

    async def _run(self, shared: _SharedRun) -> None:
        """Runs the calls, and gives each sharer its result."""
        sharers = [sharer for sharer in shared.sharers if not sharer.result.done()]
        if len(sharers) == 1:
            self._give(sharers[0], await shared.reservation.run(sharers[0].call))
        elif sharers:
            whole = await shared.reservation.run(_joint(sharers))
            again, runs = [], whole.runs
            for sharer, result in zip(sharers, split(whole, [len(s.call) for s in sharers]), strict=True):
                if _blameless(sharer.call, result, whole):
                    again.append(sharer)
                else:
                    self._give(sharer, replace(result, runs=runs) if runs else result)
                    runs = 0
            if again:
                ends = await asyncio.gather(*(self._again(shared, s) for s in again), return_exceptions=True)
                for error in ends:
                    if error is not None:
                        raise error

    async def _again(self, shared: _SharedRun, sharer: _Sharer) -> None:
        """Runs one call by itself. The shared run has left a deadline of its budget for this."""
        call = replace(sharer.call, bisect_budget=sharer.call.deadline)
        self._give(sharer, await shared.reservation.run(call))

    def _give(self, sharer: _Sharer, result: CallResult) -> None:
        self._noted(result, sharer.lane)
        if not sharer.result.done():
            sharer.result.set_result(result)

    def _noted(self, result: CallResult, lane: int) -> CallResult:
        if result.bad and any(failure.trips_breaker for failure in result.bad.values()):
            self._failed[lane] = self._clock()
        return result

    def _apart(self, lane: int) -> bool:
        failed = self._failed.get(lane)
        if failed is None:
            return False
        if self._clock() - failed < APART_FOR:
            return True
        del self._failed[lane]
        return False


def split(whole: CallResult, sizes: list[int]) -> list[CallResult]:
    """The result of a shared run by call, each with no run counted. ``sizes`` has the rows of each call, in order."""
    results, start = [], 0
    for size in sizes:
        end = start + size
        bad: dict[int, Failure] = {}
        undecided: frozenset[int] = frozenset()
        if whole.bad:
            bad = {row - start: failure for row, failure in whole.bad.items() if start <= row < end}
            undecided = frozenset(row - start for row in whole.undecided if start <= row < end)
        predictions = None
        if whole.predictions is not None and len(bad) < size:
            predictions = whole.predictions.part(start, end)
        results.append(CallResult(predictions, bad, whole.seconds, 0, undecided))
        start = end
    return results


def _joint(sharers: list[_Sharer]) -> Call:
    """One call of the rows of all sharers. It keeps a deadline of the budget for a second run of the blameless."""
    first = sharers[0].call
    budget = first.bisect_budget - first.deadline if _has_time_left(first) else first.bisect_budget
    return replace(first, columns=Columns.concat([s.call.columns for s in sharers]), bisect_budget=budget)


def _has_time_left(call: Call) -> bool:
    """Whether the budget is enough for a shared run and one more."""
    return call.bisect_budget >= 2 * call.deadline


def _blameless(call: Call, result: CallResult, whole: CallResult) -> bool:
    """Whether a call runs again by itself: its rows failed only because the budget ended before they were tried apart
    from another lane's row.

    If no row at all was answered, the model is to blame, and every call would fail again. A crash is an exception: no
    row may have been answered because the process was restarting, and a crash counts against the record.
    """
    if not result.undecided or len(result.undecided) < len(result.bad) or not _has_time_left(call):
        return False
    return whole.predictions is not None or any(f.kind is Kind.CRASHED for f in result.bad.values())
