"""The workers of a soak test: starts them again when they end, and records each end."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.integration.pipeline import Pipeline, Worker
from tests.system.stops import said

LOOK = 0.1
"""Seconds between two checks for ended workers."""

BACK_AFTER = 0.5
"""Seconds before a worker is started again; equal to the supervisor's first delay."""

DRAIN_WITHIN = 60.0
"""Seconds. ``failsoft worker --processes`` allows 45; a stalling machine needs more."""

ASSIGNED, REVOKED = '"event": "lanes assigned"', '"event": "lanes revoked"'


@dataclass(frozen=True, slots=True)
class End:
    """The end of a worker's process.

    Attributes:
        at: the time (epoch seconds).
        id: the worker's id.
        code: the exit code; negative for a signal.
    """

    at: float
    id: str
    code: int
    asked: str
    """The fault of the soak that ended it; empty if none did."""
    said: str
    """The last lines of its log if no fault ended it."""


@dataclass
class Crew:
    """Workers ``w0`` to ``w<n-1>`` of a pipeline.

    Attributes:
        options: how they differ from the product's (tests.system.stops.OPTIONS).
        workers: the present worker of each id.
        ends: every end so far.
        starts: the number of starts so far.
    """

    pipeline: Pipeline
    n: int
    options: Sequence[str] = ()
    workers: dict[str, Worker] = field(default_factory=dict)
    ends: list[End] = field(default_factory=list)
    starts: int = 0

    def __post_init__(self) -> None:
        self._asked: dict[int, str] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="crew", daemon=True)

    def start(self) -> None:
        for i in range(self.n):
            self.workers[f"w{i}"] = self.spawn(f"w{i}")
        for worker in self.workers.values():
            worker.wait_ready(90)
        self._keeper.start()

    def spawn(self, id: str) -> Worker:
        """Starts one more worker; it is started again only if its id is one of the crew's."""
        self.starts += 1
        where = [str(self.pipeline.file), str(self.pipeline.folder), id]
        return self.pipeline.spawn(id, [sys.executable, "-m", "tests.system.soak.worker", *where, *self.options])

    def __getitem__(self, number: int) -> Worker:
        with self._lock:
            return self.workers[f"w{number % self.n}"]

    def all(self) -> list[Worker]:
        with self._lock:
            return list(self.workers.values())

    def asked(self, worker: Worker, what: str) -> None:
        """Records that the worker's next end is due to ``what``."""
        self._asked[worker.process.pid] = what

    def kill(self, worker: Worker, what: str = "kill -9") -> bool:
        """Kills the worker; returns whether it was alive."""
        alive = worker.process.poll() is None
        if alive:
            self.asked(worker, what)
            worker.kill()
        return alive

    def drain(self, worker: Worker, what: str = "SIGTERM") -> None:
        """Sends SIGTERM and waits for the end. A worker that does not end in time is killed; its code shows that."""
        if worker.process.poll() is not None:
            return
        self.asked(worker, what)
        with suppress(ProcessLookupError):
            worker.signal(signal.SIGTERM)
        with suppress(Exception):
            worker.process.wait(DRAIN_WITHIN)
        if worker.process.poll() is None:
            worker.kill()

    def stop(self) -> None:
        """Drains all workers and starts none again."""
        self._over.set()
        self._keeper.join()
        threads = [threading.Thread(target=self.drain, args=(w, "the end")) for w in self.workers.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for worker in self.workers.values():
            self.note(worker)

    def note(self, worker: Worker) -> None:
        """Adds the worker's end to ``ends``."""
        asked = self._asked.pop(worker.process.pid, "")
        code = worker.process.returncode
        self.ends.append(End(time.time(), worker.id, code, asked, "" if asked else worker.tail(8)))

    def _keep(self) -> None:
        back: dict[str, float] = {}
        while not self._over.wait(LOOK):
            for id, worker in list(self.workers.items()):
                if worker.process.poll() is None:
                    continue
                if id not in back:
                    self.note(worker)
                    back[id] = time.monotonic() + BACK_AFTER
                elif time.monotonic() >= back[id]:
                    del back[id]
                    with self._lock:
                        self.workers[id] = self.spawn(id)


def lanes(worker: Worker) -> list[int]:
    """The lanes that were last assigned to a worker and not revoked, according to its log."""
    found: list[int] = []
    for line in said(worker).splitlines():
        if ASSIGNED in line:
            found = _lanes(line)
        elif REVOKED in line:
            found = []
    return found


def _lanes(line: str) -> list[int]:
    try:
        return [int(i) for i in json.loads(line)["lanes"]]
    except ValueError:  # an incomplete line that is still being written
        return []
