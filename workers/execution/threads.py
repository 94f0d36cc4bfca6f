"""Owns the threads that models run on: daemons, so that one that never returns does not keep the process alive.

``concurrent.futures`` is not used: it joins its threads when the interpreter ends, and cannot replace a lost thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

NAME = "failsoft-model"

OnReturn = Callable[[Any, BaseException | None, float], object]
"""Called with the result, the exception (None if there was none), and the time in seconds."""


class Job:
    """Work for a thread.

    Attributes:
        began: when a thread began it, by the pool's clock; None before.
        done: the work has returned or raised.
        lost: the thread that runs it was given up.
    """

    __slots__ = ("_task", "began", "done", "lost")

    def __init__(self, work: Callable[[], Any], back: OnReturn) -> None:
        self._task: tuple[Callable[[], Any], OnReturn] | None = (work, back)
        self.began: float | None = None
        self.done = self.lost = False

    def take(self) -> tuple[Callable[[], Any], OnReturn] | None:
        """The work, once; None after that. The job keeps no reference to it: job and caller refer to each other, and a
        batch would stay in memory until the garbage collector runs.
        """
        task, self._task = self._task, None
        return task


class Threads:
    """At most ``size`` serving threads, started when they are needed. ``clock`` is monotonic seconds."""

    def __init__(self, size: int, clock: Callable[[], float]) -> None:
        self._size, self._clock = size, clock
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()  # protects the counters below and each job
        self._serving = 0
        self._open = 0  # jobs that wait for a thread, or run on one that is not lost
        self._made = 0

    def start(self, work: Callable[[], Any], back: OnReturn) -> Job:
        """Runs ``work`` on the next free thread, and then ``back`` on the same thread.

        ``back`` gets the result or the exception, and the time in seconds. A RuntimeError of ``back`` (a closed event
        loop) is ignored: no caller waits any more.
        """
        job = Job(work, back)
        with self._lock:
            self._open += 1
            self._grow()
        self._jobs.put(job)
        return job

    def drop(self, job: Job) -> bool:
        """Takes back a job that no thread has begun. False if a thread has begun it."""
        with self._lock:
            if job.began is not None:
                return False
            job.take()
            self._open -= 1
            return True

    def lose(self, job: Job) -> bool:
        """Gives up the thread that runs ``job``: another thread may serve instead, and the given-up thread ends when it
        returns.

        False if the thread has just returned, so that it is not lost.
        """
        with self._lock:
            if job.done:
                return False
            job.lost = True
            self._open -= 1
            self._serving -= 1
            self._grow()
            return True

    def close(self) -> None:
        """Ends each thread when it becomes idle. No job may be started after this."""
        for _ in range(self._serving):
            self._jobs.put(None)

    def _grow(self) -> None:
        if self._serving < min(self._open, self._size):
            self._serving += 1
            self._made += 1
            threading.Thread(target=self._serve, name=f"{NAME}-{self._made}", daemon=True).start()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._run(job):
                return
            del job  # otherwise it would stay in memory until the next job

    def _run(self, job: Job) -> bool:
        """Runs one job. True if the thread was given up in the meantime, so that it ends."""
        with self._lock:
            task = job.take()
            if task is None:
                return False
            began = job.began = self._clock()
        work, back = task
        returned: Any = None
        raised: BaseException | None = None
        try:
            returned = work()
        except BaseException as e:  # noqa: BLE001
            raised = e
        took = self._clock() - began
        with self._lock:
            job.done = True
            if not job.lost:
                self._open -= 1
        with suppress(RuntimeError):
            back(returned, raised, took)
        return job.lost
