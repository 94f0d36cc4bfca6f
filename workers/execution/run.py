"""Owns one run of a session on a thread: its timer, what it returned, and whether its thread was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from failsoft.models.runtime.session import Cancel, ModelOutput
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.workers.execution.bisect import EXPENSIVE, RowIndexes
from failsoft.workers.execution.threads import Threads

GRACE = 0.25
"""Seconds that a run has to return after it was terminated. Between two operators that takes a millisecond, and
killing a process some tens of milliseconds. The rest is for a machine whose cores are all busy."""

SLICE = 0.005
"""Seconds after which a thread begins no further part of a batch: the other batches wait for it, and its last part may
take this much longer before it counts as late. A hand-over to a thread and back costs as much as 40 rows."""

RunSession = Callable[[Columns, Cancel | None], ModelOutput | Failure]
"""Runs a batch: failsoft.models.runtime.session.Session.run."""


class Run:
    """One run with its timer, on the event loop. The timer checks it at its deadline and at the end of the grace.

    ``parts`` of ``columns`` run one after the other; None stands for all rows. ``deadline`` is that of each part, from
    when the thread begins it (seconds). ``on_lost`` is called when its thread is given up, and ``on_returned`` with
    the seconds that it took when such a thread returns after all.

    Attributes:
        ended: done when the outcomes are there; an exception of the session is its own.
        outcomes: the outcomes and times (seconds) of at least the first part, and of as many as fit into SLICE.
    """

    def __init__(
        self,
        threads: Threads,
        clock: Callable[[], float],
        key: str,
        session: RunSession,
        columns: Columns,
        parts: list[RowIndexes | None],
        deadline: float,
        on_lost: Callable[[], object],
        on_returned: Callable[[float], object],
    ) -> None:
        self._threads, self._clock, self._key, self._deadline = threads, clock, key, deadline
        self._on_lost, self._on_returned = on_lost, on_returned
        self._most = deadline + (0 if parts[0] is None else SLICE)
        self._lost = False
        self._cancel = Cancel()
        self._loop = loop = asyncio.get_running_loop()
        self.outcomes: list[tuple[ModelOutput | Failure, float]] = []
        self.ended: asyncio.Future[None] = loop.create_future()
        self._timer = loop.call_later(self._most, self._check)
        # The thread fills both lists: when it is given up, they tell which part it did not come back from.
        self._begun: list[float] = []
        self._job = threads.start(
            partial(_run_parts, session, columns, parts, deadline, self._cancel, clock, self._begun, self.outcomes),
            lambda _, raised, took: loop.call_soon_threadsafe(self._on_return, raised, took),
        )

    def leave(self) -> None:
        """Called when the caller stops waiting. If the caller was cancelled, the run is cancelled too."""
        if self.ended.cancelled():
            self._cancel.set()
        else:
            self._timer.cancel()

    def _check(self) -> None:
        threads, now = self._threads, self._clock()
        began = self._job.began
        if began is None:
            if threads.drop(self._job):
                self.outcomes = [(Failure(Kind.UNAVAILABLE, f"no thread was free for {self._deadline:g} s"), 0.0)]
                self._end()
                return
            began = now  # a thread has just begun it
        if now < began + self._most:
            self._check_after(began + self._most - now)
        elif not self._cancel.expired:
            self._cancel.set()
            self._check_after(GRACE)
        elif threads.lose(self._job):
            self._lost = True
            self._on_lost()
            message = f"{self._key} ignored its deadline of {self._deadline:g} s and was given up {GRACE:g} s later"
            begun, ended = len(self._begun), self.outcomes[:]  # in this order: the thread may still go on
            self.outcomes = ended
            if begun > len(ended) or not ended:
                ended.append((Failure(Kind.TIMEOUT, message), now - began - sum(took for _, took in ended)))
            self._end()

    def _check_after(self, seconds: float) -> None:
        # The loop's timer has a resolution of a millisecond: a shorter delay could check many times within one.
        self._timer = self._loop.call_later(max(0.001, seconds), self._check)

    def _on_return(self, raised: BaseException | None, took: float) -> None:
        """The thread has returned. If it counted as lost, its result is dropped."""
        self._timer.cancel()
        if self._lost:
            self._on_returned(took)
        elif raised is not None and not self.ended.done():
            self.ended.set_exception(raised)
        else:
            self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


def _run_parts(
    session: RunSession,
    columns: Columns,
    parts: list[RowIndexes | None],
    deadline: float,
    cancel: Cancel,
    clock: Callable[[], float],
    begun: list[float],
    outcomes: list[tuple[ModelOutput | Failure, float]],
) -> None:
    """Runs on a thread: the parts in order, until SLICE has passed or one failed expensively. ``begun`` gets the time
    at which each part begins, ``outcomes`` its outcome and how long it took.
    """
    first = clock()
    for rows in parts:
        part = columns if rows is None else columns.take(rows)
        begun.append(clock())
        outcome = session(part, cancel)
        took = clock() - begun[-1]
        if took > deadline and isinstance(outcome, ModelOutput):
            # A run ignores terminate inside one operator and then returns an answer. It is still too late.
            outcome = Failure(Kind.TIMEOUT, f"{took:.3g} s, over the deadline of {deadline:g} s")
        outcomes.append((outcome, took))
        if isinstance(outcome, Failure) and (outcome.kind in EXPENSIVE or outcome.kind is Kind.UNAVAILABLE):
            return
        if begun[-1] + took - first > SLICE:
            return
