"""The restart policy, and real processes under a real supervisor."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from failsoft.workers.process.restart_policy import FIRST_WAIT, HEALTHY, LONGEST_WAIT, Ended, Restart, StopAll, decide
from tests.isolated_models import ended
from tests.kafka import wait_for

ROOT = Path(__file__).resolve().parents[4]
RUN = (
    "import json, sys; from failsoft.workers.process.supervisor import run; "
    "sys.exit(run(json.loads(sys.argv[1]), float(sys.argv[2])))"
)

# Writes its pid, then exits with a code, kills itself, waits for a signal, or ignores SIGTERM.
CHILD = """
import os, signal, sys
folder, name, mode = sys.argv[1:4]
if mode == "ignores":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "obeys":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
with open(os.path.join(folder, f"{name}.{os.getpid()}"), "w") as f:
    f.write(str(os.getpid()))
    f.flush()
if mode.isdigit():
    sys.exit(int(mode))
if mode == "kills":
    os.kill(os.getpid(), signal.SIGKILL)
while True:
    signal.pause()
"""


def test_waits_double_to_a_limit_and_are_jittered() -> None:
    """Waits grow 0.5 s, 1 s, 2 s … 30 s; jitter takes each to between half and all of it."""
    waits = []
    crashes = 0
    for _ in range(10):
        decision = decide(1, 0.1, crashes, u=0.999999)
        assert isinstance(decision, Restart)
        waits.append(round(decision.wait, 3))
        crashes = decision.crashes
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert decide(1, 0.1, 2, u=0.0) == Restart(1.0, 3)


def test_a_minute_without_a_crash_resets_the_count() -> None:
    """A crash after ``HEALTHY`` seconds waits as long as the first one."""
    assert decide(1, HEALTHY, 6, u=0.0) == Restart(FIRST_WAIT / 2, 1)
    assert decide(1, HEALTHY - 1, 6, u=0.0) == Restart(LONGEST_WAIT / 2, 7)


@pytest.mark.parametrize(
    ("code", "decided"),
    [
        (0, Ended()),
        (130, Ended()),
        (2, StopAll(2)),
        (3, StopAll(3)),
        (1, Restart(0.25, 1)),
        (4, Restart(0.25, 1)),
        (70, Restart(0.25, 1)),
        (-9, Restart(0.25, 1)),
        (-15, Restart(0.25, 1)),
    ],
)
def test_each_exit_code_has_its_decision(code: int, decided: object) -> None:
    """Codes 2 and 3 stop all workers, 0 and 130 leave the worker ended, and every other code is a crash."""
    assert decide(code, 1.0, 0, u=0.0) == decided


@given(st.integers(-64, 255), st.floats(0, 1e6), st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_every_wait_is_within_its_limits(code: int, lived: float, crashes: int, u: float) -> None:
    """A wait is between half of FIRST_WAIT and LONGEST_WAIT after any number of crashes."""
    decision = decide(code, lived, crashes, u)
    assert not isinstance(decision, Restart) or FIRST_WAIT / 2 <= decision.wait <= LONGEST_WAIT


@contextmanager
def _supervised(folder: Path, drain: float = 60.0, **children: str) -> Iterator[subprocess.Popen[bytes]]:
    pids = folder / "pids"
    pids.mkdir()
    commands = [[sys.executable, "-c", CHILD, str(pids), name, mode] for name, mode in children.items()]
    given = [json.dumps(commands), str(drain)]
    supervisor = subprocess.Popen([sys.executable, "-c", RUN, *given], cwd=ROOT, stderr=subprocess.PIPE)
    try:
        yield supervisor
    finally:
        supervisor.kill()
        supervisor.wait()
        assert supervisor.stderr is not None
        supervisor.stderr.close()
        for process in _running(folder):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _pids(folder: Path, name: str = "*") -> list[int]:
    """The pids of all processes that were ever started under ``name``."""
    return [int(path.suffix[1:]) for path in (folder / "pids").glob(f"{name}.*") if path.read_text()]


def _running(folder: Path) -> list[psutil.Process]:
    """The children that still run. The command line is compared, because a pid may have been reused."""
    children = []
    for pid in _pids(folder):
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if str(folder / "pids") in process.cmdline():
                children.append(process)
    return [process for process in children if not ended(process)]


@pytest.mark.parametrize("mode", ["1", "kills"])
def test_a_crashed_worker_is_restarted(tmp_path: Path, mode: str) -> None:
    """A crash by exit code or by signal restarts that worker only; other workers keep running."""
    with _supervised(tmp_path, bad=mode, good="obeys") as supervisor:
        wait_for(lambda: len(_pids(tmp_path, "bad")) >= 3, 60, "two restarts")
        assert len(_pids(tmp_path, "good")) == 1
        assert supervisor.poll() is None


@pytest.mark.parametrize("code", [2, 3])
def test_a_usage_error_stops_all_workers_with_its_code(tmp_path: Path, code: int) -> None:
    """A restart would end the same way, so the supervisor stops all workers and exits with that code."""
    with _supervised(tmp_path, wrong=str(code), good="obeys") as supervisor:
        assert supervisor.wait(60) == code
        assert len(_pids(tmp_path, "wrong")) == 1
        assert not _running(tmp_path)


def test_it_ends_when_every_worker_was_asked_to_end(tmp_path: Path) -> None:
    """A worker that exits with 0 is not restarted; the supervisor exits with 0 after the last one."""
    with _supervised(tmp_path, a="0", b="0") as supervisor:
        assert supervisor.wait(60) == 0
        assert len(_pids(tmp_path)) == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_is_passed_on_and_waited_for(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """The supervisor passes the signal on and waits for the workers; it exits with 0 for SIGTERM, 130 for SIGINT."""
    with _supervised(tmp_path, a="obeys", b="obeys") as supervisor:
        wait_for(lambda: len(_pids(tmp_path)) == 2, 60, "both workers")
        supervisor.send_signal(number)
        assert supervisor.wait(60) == code
        assert not _running(tmp_path)


def test_a_worker_that_does_not_end_is_killed(tmp_path: Path) -> None:
    """After ``drain`` seconds the worker gets SIGKILL, and the supervisor exits with 1."""
    with _supervised(tmp_path, drain=2.0, bad="ignores", good="obeys") as supervisor:
        wait_for(lambda: len(_pids(tmp_path)) == 2, 60, "both workers")
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(60) == 1
        assert not _running(tmp_path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's parent-death signal is Linux's")
def test_no_worker_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    """After kill -9 of the supervisor the kernel sends the workers SIGTERM."""
    with _supervised(tmp_path, a="obeys", b="obeys") as supervisor:
        wait_for(lambda: len(_pids(tmp_path)) == 2, 60, "both workers")
        supervisor.kill()
        assert wait_for(lambda: not _running(tmp_path), 60, "the workers' end")
