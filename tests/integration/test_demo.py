"""The whole demo as a process without a terminal: run to its end, interrupted, and killed."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import psutil
import pytest

WITHIN = 270.0
"""Seconds for the fast demo; it takes about 45 on a quiet machine."""


class Demo:
    """A running ``failsoft demo --fast``.

    Attributes:
        process: the demo's process.
        said: the lines of stderr read so far.
        children: every process seen below the demo so far.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []
        self.children: set[psutil.Process] = set()
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)
        self._lines.put(None)

    def hear(self, what: str | None = None) -> None:
        """Reads stderr until a line contains ``what``, or to its end; records the demo's processes at each line."""
        deadline = time.monotonic() + WITHIN
        while True:
            line = self._lines.get(timeout=deadline - time.monotonic())
            if line is None:
                assert what is None, f"it never said {what!r}:\n{''.join(self.said)}"
                return
            self.said.append(line)
            self._count()
            if what is not None and what in line:
                return

    def signal(self, number: signal.Signals) -> None:
        """Records the demo's processes and sends the signal ``number``."""
        self._count()
        self.process.send_signal(number)

    def _count(self) -> None:
        if self.process.poll() is None:
            self.children.update(psutil.Process(self.process.pid).children(recursive=True))

    def left(self) -> list[psutil.Process]:
        """The demo's processes that still run after 60 seconds."""
        _, alive = psutil.wait_procs(self.children, timeout=60)
        return list(alive)


@contextmanager
def demo(*flags: str) -> Iterator[Demo]:
    # A cluster of the user's in the environment must not receive the demo's events.
    environment = os.environ | {"FAILSOFT_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1", "FAILSOFT_NAME": "in-earnest"}
    process = subprocess.Popen(
        [sys.executable, "-m", "failsoft.workers.cli", "demo", "--fast", *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield Demo(process)
    finally:
        process.kill()
        process.wait()


def test_the_demo_tells_its_story_and_adds_up() -> None:
    """The demo exits 0, every step of the scenario is reported, the sums add up and are not empty, and no process is
    left.
    """
    with demo() as playing:
        playing.hear()
        assert playing.process.stdout is not None
        sums = [orjson.loads(line) for line in playing.process.stdout]
        code, stderr = playing.process.wait(WITHIN), "".join(playing.said)
        assert code == 0, stderr
        assert len(playing.children) >= 4  # Kafka's watcher, Kafka, two workers
        assert playing.left() == []
    for fact in ("closed → open", "open → half_open", "half_open → closed", "dead letters replayed", "It adds up"):
        assert fact in stderr
    assert "the fleet moves repayment: version 2 → 3 (promote by the demo: better on paper)" in stderr
    assert (
        "the fleet moves repayment: version 3 → 2 (automatic by failsoft: 2 half-open periods of repayment@3" in stderr
    )
    assert all(s["holds"] and s["total"] == sum(s["parts"].values()) for s in sums)
    parts = {s["name"]: s["parts"] for s in sums if s["name"]}
    assert parts["published"]["first answers"] > 500
    assert parts["published"]["dead at once"] > 0
    assert parts["provisional"]["corrections"] > 100
    assert parts["provisional"]["confirmed"] >= parts["confirmed"]["dead after all retries"] >= 6
    assert parts["replayed"]["corrected"] >= 6
    assert parts["replayed"]["dead again"] > 0
    for version in (2, 3):
        assert parts[f"fleet's breaker of repayment@{version} opened"]["by the workers' counts"] >= 1
    assert parts["workers"] == {"opened with it": 2}
    assert parts["versions promoted"] == {"rolled back by itself": 1}
    assert parts["moves of versions"] == {"promotion announced": 1, "rollback announced": 1}
    assert parts["provisional for repayment@3"]["corrected by repayment@2"] > 100


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "Kafka starts"),
        (signal.SIGHUP, "Two workers start"),
        (signal.SIGTERM, "The primary starts to fail"),
    ],
)
def test_an_interrupted_demo_leaves_nothing(number: signal.Signals, moment: str) -> None:
    """Ctrl-C and other signals end workers and broker at any stage, with exit code 130."""
    with demo() as playing:
        playing.hear(moment)
        playing.signal(number)
        playing.hear()
        assert playing.process.wait(WITHIN) == 130
        assert playing.left() == []
        assert "Traceback" not in "".join(playing.said)


def test_a_killed_demo_leaves_nothing() -> None:
    """kill -9 of the demo also ends its workers and broker."""
    with demo() as playing:
        playing.hear("The primary starts to fail")
        playing.signal(signal.SIGKILL)
        playing.process.wait(WITHIN)
        assert playing.left() == []


@pytest.mark.long
def test_a_worker_that_dies_fails_the_demo() -> None:
    """The demo exits 1 and gives the reason when one of its workers ends."""
    with demo() as playing:
        playing.hear("The primary starts to fail")
        alive = {p.cmdline()[-1]: p for p in playing.children if p.is_running()}
        assert {"demo-1", "demo-2"} <= alive.keys()
        alive["demo-2"].kill()
        playing.hear()
        assert playing.process.wait(WITHIN) == 1
        assert "the worker demo-2 ended with exit code -9" in "".join(playing.said)
        assert playing.left() == []
