"""CPU time by phase: wraps functions, coroutines and generators, and charges each with its own time only.

It times batches and not events, with a few clock readings each, so that measuring hardly changes the result. The hook
of a tracing profiler, which runs on each call, would change it.
"""

from __future__ import annotations

import functools
import gc
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Phases:
    """Nanoseconds of CPU by phase, over all threads. Time of an inner phase is not charged to the outer one."""

    def __init__(self) -> None:
        self._counts: list[Counter[str]] = []  # one for each thread: an addition is not atomic across threads
        self._here = _Here(self._counts)

    def spent(self) -> dict[str, int]:
        """The time spent so far, by phase (ns)."""
        return dict(sum(self._counts, Counter()))

    def clear(self) -> None:
        """Resets the time spent so far."""
        for counts in self._counts:
            counts.clear()

    def function(self, owner: Any, name: str, phase: str) -> None:
        """Charges the calls of ``owner.name``, a function or method, to ``phase``."""
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.enter(phase)
            try:
                return inner(*args, **kwargs)
            finally:
                self.leave()

        setattr(owner, name, timed)

    def coroutine(self, owner: Any, name: str, phase: str) -> None:
        """Charges ``owner.name``, a coroutine function, to ``phase``, without the time in which it awaits."""
        inner = getattr(owner, name)

        @functools.wraps(inner)
        async def timed(*args: Any, **kwargs: Any) -> Any:
            return await self._steps(inner(*args, **kwargs), phase)

        setattr(owner, name, timed)

    def generator(self, owner: Any, name: str, phase: str) -> None:
        """Charges ``owner.name``, a generator function, to ``phase``, without the time between its yields."""
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            return (yield from self._driven(inner(*args, **kwargs), phase))

        setattr(owner, name, timed)

    def collector(self, phase: str) -> None:
        """Charges the runs of the cyclic garbage collector to ``phase``."""
        gc.callbacks.append(lambda when, _info: self.enter(phase) if when == "start" else self.leave())

    def enter(self, phase: str) -> None:
        """Charges this thread's time to ``phase`` until ``leave``."""
        here, now = self._here, time.thread_time_ns()
        if here.stack:
            here.spent[here.stack[-1]] += now - here.mark
        here.stack.append(phase)
        here.mark = now

    def leave(self) -> None:
        """Returns to the phase before ``enter``."""
        here, now = self._here, time.thread_time_ns()
        here.spent[here.stack.pop()] += now - here.mark
        here.mark = now

    @types.coroutine
    def _steps(self, inner: Coroutine[Any, Any, Any], phase: str) -> Generator[Any, Any, Any]:
        return (yield from self._driven(inner, phase))

    def _driven(self, inner: Any, phase: str) -> Generator[Any, Any, Any]:
        """Passes on what ``inner`` yields, is sent and is thrown, and times each of its steps."""
        step: Callable[[Any], Any] = inner.send
        given: Any = None
        while True:
            self.enter(phase)
            try:
                yielded = step(given)
            except StopIteration as end:
                return end.value
            finally:
                self.leave()
            try:
                step, given = inner.send, (yield yielded)
            except BaseException as error:  # noqa: BLE001  (a cancellation too: ``inner`` must handle it)
                step, given = inner.throw, error


class _Here(threading.local):
    """A thread's stack of phases, and the time it has spent in each."""

    def __init__(self, counts: list[Counter[str]]) -> None:
        self.spent: Counter[str] = Counter()
        counts.append(self.spent)
        self.stack: list[str] = []
        self.mark = 0
