"""The threads that models run on: daemons, so that one that never comes back does not keep the process alive.

``concurrent.futures`` joins its threads when the interpreter ends, and has no way to replace one that is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

NAME = "failsoft-model"

Back = Callable[[Any, BaseException | None, float], object]


class Job:
    """Work for a thread. ``began`` is when one took it up, by the pool's clock; None while it waits for one."""

    __slots__ = ("_task", "began", "done", "lost")

    def __init__(self, work: Callable[[], Any], back: Back) -> None:
        self._task: tuple[Callable[[], Any], Back] | None = (work, back)
        self.began: float | None = None
        self.done = self.lost = False

    def take(self) -> tuple[Callable[[], Any], Back] | None:
        """What to do, once: whoever waits holds the job, and a batch would live on in that circle until the collector
        comes by.
        """
        task, self._task = self._task, None
        return task


class Threads:
    """At most ``size`` threads that serve, started when they are needed; ``clock`` is monotonic seconds."""

    def __init__(self, size: int, clock: Callable[[], float]) -> None:
        self._size, self._clock = size, clock
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()  # of what follows, and of each job
        self._serving = 0
        self._open = 0  # jobs that wait for a thread that serves, or are run by one
        self._made = 0

    def start(self, work: Callable[[], Any], back: Back) -> Job:
        """``work`` on the next free thread. There, ``back`` is called with what it returned, or raised, and the seconds
        that it took; a RuntimeError of ``back`` (a loop that is closed) means that nobody waits any more.
        """
        job = Job(work, back)
        with self._lock:
            self._open += 1
            self._grow()
        self._jobs.put(job)
        return job

    def drop(self, job: Job) -> bool:
        """Takes back a job that no thread has begun; False if one has."""
        with self._lock:
            if job.began is not None:
                return False
            job.take()
            self._open -= 1
            return True

    def lose(self, job: Job) -> bool:
        """Gives up the thread that runs ``job``: another may serve in its place, and it ends when it comes back.

        False if it has just come back, so that nothing is lost.
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
        """Threads end when they have nothing to do; nothing is started any more."""
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
            del job  # it would live until the next one comes

    def _run(self, job: Job) -> bool:
        """True if the thread was given up meanwhile."""
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
