"""CPU time by phase: functions, coroutines and generators wrapped from outside, each charged with its own time only.

It is counted for batches and not for events, a few clock readings each, so that measuring hardly changes what is
measured: a tracing profiler's hook on each call would.
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
    """Nanoseconds of CPU by phase, over all threads. A phase within another is not charged to that one as well."""

    def __init__(self) -> None:
        self._counts: list[Counter[str]] = []  # one a thread: adding to one of another's is no atomic step
        self._here = _Here(self._counts)

    def spent(self) -> dict[str, int]:
        """So far, by phase."""
        return dict(sum(self._counts, Counter()))

    def clear(self) -> None:
        """Forgets all that was spent so far."""
        for counts in self._counts:
            counts.clear()

    def function(self, owner: Any, name: str, phase: str) -> None:
        """``owner.name`` is a function or a method: its calls are ``phase``."""
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
        """``owner.name`` is a coroutine function: what it does between its awaits is ``phase``."""
        inner = getattr(owner, name)

        @functools.wraps(inner)
        async def timed(*args: Any, **kwargs: Any) -> Any:
            return await self._steps(inner(*args, **kwargs), phase)

        setattr(owner, name, timed)

    def generator(self, owner: Any, name: str, phase: str) -> None:
        """``owner.name`` is a generator function: what it does between its yields is ``phase``."""
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            return (yield from self._driven(inner(*args, **kwargs), phase))

        setattr(owner, name, timed)

    def collector(self, phase: str) -> None:
        """The cyclic garbage collector's time, wherever it strikes."""
        gc.callbacks.append(lambda when, _info: self.enter(phase) if when == "start" else self.leave())

    def enter(self, phase: str) -> None:
        """From now on this thread's time is ``phase``'s, until ``leave``."""
        here, now = self._here, time.thread_time_ns()
        if here.stack:
            here.spent[here.stack[-1]] += now - here.mark
        here.stack.append(phase)
        here.mark = now

    def leave(self) -> None:
        """Back to the phase before."""
        here, now = self._here, time.thread_time_ns()
        here.spent[here.stack.pop()] += now - here.mark
        here.mark = now

    @types.coroutine
    def _steps(self, inner: Coroutine[Any, Any, Any], phase: str) -> Generator[Any, Any, Any]:
        return (yield from self._driven(inner, phase))

    def _driven(self, inner: Any, phase: str) -> Generator[Any, Any, Any]:
        """Hands on what ``inner`` yields and what it is sent or thrown, and times each step of it."""
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
            except BaseException as error:  # noqa: BLE001  (a cancellation too: it is the inner one's to answer)
                step, given = inner.throw, error


class _Here(threading.local):
    """Where a thread is, and what it has spent."""

    def __init__(self, counts: list[Counter[str]]) -> None:
        self.spent: Counter[str] = Counter()
        counts.append(self.spent)
        self.stack: list[str] = []
        self.mark = 0
