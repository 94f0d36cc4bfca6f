"""The workers of a soak: started again when they end, by whoever's hand; each end is noted."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from tests.integration.pipeline import Pipeline, Worker
from tests.system.soak.worker import BROKEN

LOOK = 0.1
"""Seconds between two looks at who has ended."""

BACK_AFTER = 0.5
"""Seconds before a worker is started again, as the supervisor does the first time."""

DRAIN_WITHIN = 60.0
"""Seconds; ``failsoft worker --processes`` gives 45, and this machine stalls."""

ASSIGNED, REVOKED = '"event": "lanes assigned"', '"event": "lanes revoked"'


@dataclass(frozen=True, slots=True)
class End:
    """A worker's process that ended, at ``at`` (epoch seconds); ``code`` is negative for a signal."""

    at: float
    id: str
    code: int
    asked: str
    """What the soak had done to it, empty if nothing."""
    said: str
    """Its last words, if it was not asked."""


@dataclass
class Crew:
    """Workers ``w0`` to ``w<n-1>`` of a pipeline. ``broken``: their lanes' protocol is."""

    pipeline: Pipeline
    n: int
    broken: bool = False
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
        """One more worker, which nobody starts again unless it is of the crew."""
        self.starts += 1
        options = [BROKEN] if self.broken else []
        where = [str(self.pipeline.file), str(self.pipeline.folder), id]
        return self.pipeline.spawn(id, [sys.executable, "-m", "tests.system.soak.worker", *where, *options])

    def __getitem__(self, number: int) -> Worker:
        with self._lock:
            return self.workers[f"w{number % self.n}"]

    def all(self) -> list[Worker]:
        with self._lock:
            return list(self.workers.values())

    def asked(self, worker: Worker, what: str) -> None:
        """Its end will be put down to ``what``."""
        self._asked[worker.process.pid] = what

    def kill(self, worker: Worker, what: str = "kill -9") -> bool:
        """Was it alive to be killed?"""
        alive = worker.process.poll() is None
        if alive:
            self.asked(worker, what)
            worker.kill()
        return alive

    def drain(self, worker: Worker, what: str = "SIGTERM") -> None:
        """SIGTERM, and its end; one that does not end in time is killed, which its code says."""
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
        """Drains all, and starts nobody again."""
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
        """Puts its end down."""
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


def said(worker: Worker) -> str:
    """What this process of the worker's has logged."""
    return worker.log.read_bytes()[worker.begins :].decode(errors="replace")


def lanes(worker: Worker) -> list[int]:
    """The lanes that a worker was last given and did not give up, by its log."""
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
    except ValueError:  # the end of a line that is being written
        return []
