"""A crash, a hang, too much memory or kill -9 affects only the model's own process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from operator import le
from pathlib import Path
from typing import Any

import onnx
import psutil
import pytest

from failsoft.models.isolation import codec, isolated_session, pool
from failsoft.models.isolation.backoff import DEATHS_WITHOUT_WAIT
from failsoft.models.isolation.isolated_session import Isolated
from failsoft.models.isolation.replica import Death
from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.runtime.session import Cancel
from failsoft.schemas.failure import Failure, Kind
from tests.isolated_models import (
    Start,
    a_card,
    artifact,
    deadly,
    ended,
    forkservers,
    greedy,
    hanging,
    heavy,
    processes,
    replicas,
    user_time,
)
from tests.kafka import wait_for
from tests.onnx_models import onnx_model, rows

ROOT = Path(__file__).resolve().parents[4]

PATIENCE = pool.WAIT
"""How long a call waits for a process in production (seconds)."""


class Clock:
    """Monotonic seconds that a test can move forward, to skip a back-off."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Deaths(list[Death]):
    """Collects the reported deaths."""

    def __call__(self, death: Death) -> None:
        self.append(death)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a model, loaded and warmed, with all its replicas. At the end it is closed and no process may be left.

    Calls wait up to 30 s for a fork and for the report of a death, because the machine may stall.
    """
    made: list[Isolated] = []
    monkeypatch.setattr(pool, "WAIT", 30.0)
    monkeypatch.setattr(pool, "REPORT", 30.0)

    def one(
        model: onnx.ModelProto, on_death: Any = lambda death: None, clock: Any = time.monotonic, **card: Any
    ) -> Isolated:
        made.append(Isolated(artifact(tmp_path, model), a_card(**card), on_death, clock, lambda: 0.5))
        made[-1].warm()
        _all_up(made[-1])
        return made[-1]

    yield one
    for each in made:
        each.close()
    assert not processes()


def _all_up(isolated: Isolated) -> list[psutil.Process]:
    count = isolated.card.model.replicas
    return wait_for(lambda: len(found := replicas()) == count and found, 60, f"{count} replicas") or []


def ask(isolated: Isolated, *values: tuple[object, ...], within: float | None = None) -> ModelOutput | Failure:
    """Runs a batch and cancels it after ``within`` seconds."""
    cancel = Cancel()
    timer = threading.Timer(within or 60, cancel.set)
    timer.start()
    try:
        return isolated.run(rows(isolated.card, *values), cancel)
    finally:
        timer.cancel()


def test_a_native_crash_fails_its_batch_and_the_next_is_answered(start: Start) -> None:
    """The failure names the signal, the process is replaced at once, and the death is reported."""
    deaths = Deaths()
    isolated = start(deadly(), deaths)
    failure = ask(isolated, (1, 0.5), (-1, 0.5))
    assert failure == Failure(Kind.CRASHED, "m@3: its process died (signal SIGFPE)")
    assert isinstance(ask(isolated, (1, 0.5)), ModelOutput)
    wait_for(lambda: len(deaths) == 1, 30, "the report of the death")
    assert deaths[0].why == "crashed"


def test_a_crashing_row_is_found_by_halving(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The crashes needed to find one row of the largest batch cause no wait; further deaths do."""
    isolated = start(deadly())
    batch = [(i, 0.25) for i in range(4000)]
    batch[1234] = (-1, 0.25)
    begin, low, high = time.monotonic(), 0, len(batch)
    while high - low > 1:
        middle = (low + high) // 2
        lower = ask(isolated, *batch[low:middle])
        assert isinstance(lower, ModelOutput) or lower.kind is Kind.CRASHED, lower
        low, high = (low, middle) if isinstance(lower, Failure) else (middle, high)
    assert (low, high) == (1234, 1235)
    assert time.monotonic() - begin < 60
    monkeypatch.setattr(pool, "WAIT", PATIENCE)
    for _ in range(DEATHS_WITHOUT_WAIT):
        ask(isolated, (-1, 0.25))

    def waited_for() -> bool:
        failure = ask(isolated, (-1, 0.25))
        return isinstance(failure, Failure) and failure.kind is Kind.UNAVAILABLE and "SIGFPE" in failure.message

    wait_for(waited_for, 60, "a process that goes on dying to be waited for")


def test_a_loop_that_does_not_end_is_stopped_and_its_process_goes_on(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two operators the process stops the call by itself, and answers the next call."""
    monkeypatch.setattr(isolated_session, "GRACE", 30.0)  # usually 40 ms; this machine may stall for longer
    deaths = Deaths()
    isolated = start(hanging(), deaths)
    before = _all_up(isolated)
    failure = ask(isolated, (10**15, 0.5), within=0.1)
    assert isinstance(failure, Failure) and failure.kind is Kind.TIMEOUT and "its deadline of 200 ms" in failure.message
    assert isinstance(ask(isolated, (1, 0.5)), ModelOutput)
    assert replicas() == before and not deaths


def test_an_operator_that_does_not_end_is_killed_at_its_deadline(start: Start) -> None:
    """Inside one operator a process cannot be stopped, so it is killed, and another process answers the next call."""
    deaths = Deaths()
    isolated = start(heavy(), deaths)
    (before,) = _all_up(isolated)
    began = time.monotonic()
    failure = ask(isolated, (12_000, 0.5), within=0.2)
    assert isinstance(failure, Failure) and failure.kind is Kind.TIMEOUT
    assert time.monotonic() - began < 20, "the operator alone takes a minute"
    assert isinstance(ask(isolated, (2, 0.5)), ModelOutput)
    wait_for(lambda: ended(before), 30, "the end of the first")
    wait_for(lambda: [d.why for d in deaths] == ["timeout"], 30, "the report of the death")


def test_a_cancel_that_came_before_its_run_is_obeyed(start: Start) -> None:
    """Under a cancel that is already set no process is asked, as in a session."""
    isolated = start(hanging())
    cancel = Cancel()
    cancel.set()
    failure = isolated.run(rows(isolated.card, (10**15, 0.5)), cancel)
    assert isinstance(failure, Failure) and failure.kind is Kind.TIMEOUT


def test_a_run_over_the_memory_limit_fails_alone(start: Start) -> None:
    """A row that takes 4 GB fails under a limit of 512 MB; process and worker go on and have not grown."""
    isolated = start(greedy(), memory="512MB")
    before = _all_up(isolated)
    failure = ask(isolated, (10**9, 0.5))
    assert isinstance(failure, Failure) and failure.kind is Kind.MODEL_ERROR
    assert failure.message.startswith("over its memory limit of 512MB: ")
    assert isinstance(ask(isolated, (1000, 0.5)), ModelOutput) and replicas() == before
    assert all(p.memory_info().rss < 512_000_000 for p in processes())


def test_without_a_limit_the_same_run_is_answered(start: Start) -> None:
    """Without ``memory`` the same model takes the memory, so it was the limit that stopped it."""
    isolated = start(greedy())
    assert isinstance(ask(isolated, (200_000_000, 0.5)), ModelOutput)


def test_a_process_that_runs_out_of_memory_names_the_limit(start: Start) -> None:
    """If the process dies at the memory limit, the failure names the limit and not only the exit code."""
    deaths = Deaths()
    model = onnx_model(
        [("s", "string", ["n", 1])],
        [("y", "float", ["n", 1])],
        onnx.helper.make_node(
            "LabelEncoder",
            ["s"],
            ["y"],
            domain="ai.onnx.ml",
            keys_strings=["a"],
            values_floats=[0.5],
            default_float=0.0,
        ),
    )
    isolated = start(model, deaths, memory="192MB", types={"s": "string"})
    failure = ask(isolated, ("x" * 120_000_000,))
    assert failure == Failure(Kind.CRASHED, "m@3: its process was over its memory limit of 192MB (exit code 70)")
    assert isinstance(ask(isolated, ("a",)), ModelOutput)
    wait_for(lambda: [d.why for d in deaths] == ["memory"], 30, "the report of the death")


def test_a_process_killed_between_calls_costs_no_answer(start: Start) -> None:
    """After kill -9 of an idle process, another process takes the next call: the dead one had not begun it."""
    isolated = start(deadly(), Deaths())
    for _ in range(5):
        (process,) = _all_up(isolated)
        process.kill()
        assert isinstance(ask(isolated, (1, 0.5)), ModelOutput)


def test_a_process_killed_within_a_call_fails_that_call(start: Start) -> None:
    """The failure names SIGKILL and says that the kernel sends it when memory runs out."""
    isolated = start(hanging())
    (process,) = _all_up(isolated)
    busy = user_time(process) + 0.05
    outcomes: list[ModelOutput | Failure] = []
    caller = threading.Thread(target=lambda: outcomes.append(ask(isolated, (10**15, 0.5))))
    caller.start()
    wait_for(lambda: user_time(process) > busy, 60, "the call to run")
    process.kill()
    caller.join(60)
    (failure,) = outcomes
    assert isinstance(failure, Failure) and failure.kind is Kind.CRASHED
    assert "signal SIGKILL, as the kernel sends when memory runs out" in failure.message


def test_an_invalid_reply_counts_as_a_crash(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is killed and reported as crashed, not as a timeout; another process answers the next call."""
    deaths = Deaths()
    isolated = start(deadly(), deaths)
    (before,) = _all_up(isolated)
    read = codec.answer
    with monkeypatch.context() as spoiled:
        spoiled.setattr(codec, "answer", lambda about, blocks, n: read(about, blocks, n + 1))
        failure = ask(isolated, (1, 0.5))
    assert isinstance(failure, Failure) and failure.kind is Kind.CRASHED
    assert "an invalid reply: 1 numbers instead of 2" in failure.message
    assert isinstance(ask(isolated, (1, 0.5)), ModelOutput)
    wait_for(lambda: [d.why for d in deaths] == ["crashed"], 30, "the report of the death")
    assert f"m@3: {deaths[0].message}" == failure.message
    wait_for(lambda: ended(before), 30, "its end")


def test_one_of_two_replicas_is_killed_and_the_other_answers_at_once(start: Start) -> None:
    """No call waits for the replica that is restarted."""
    isolated = start(deadly(), replicas=2)
    for _ in range(3):
        _all_up(isolated)[0].kill()
        for _ in range(4):
            assert isinstance(ask(isolated, (1, 0.5)), ModelOutput)


def test_a_killed_forkserver_is_started_again(start: Start) -> None:
    """Its replicas end with it. Until the model is loaded again, calls are unavailable and give the reason."""
    deaths = Deaths()
    isolated = start(deadly(), deaths, replicas=2)
    (forkserver,) = forkservers()
    forkserver.kill()
    wait_for(lambda: deaths, 60, "the report of the death")
    wait_for(lambda: isinstance(ask(isolated, (1, 0.5)), ModelOutput), 60, "an answer")
    assert forkservers() != [forkserver] and len(deaths) == 1


def test_a_version_is_unavailable_while_its_file_is_missing(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading is retried with growing waits. Calls do not wait for it, and give the reason."""
    clock = Clock()
    isolated = start(deadly(), clock=clock)
    monkeypatch.setattr(pool, "WAIT", PATIENCE)
    file = isolated.artifact.path
    content = file.read_bytes()
    file.unlink()
    forkservers()[0].kill()

    def reason() -> str:
        outcome = ask(isolated, (1, 0.5))
        return outcome.message if isinstance(outcome, Failure) and outcome.kind is Kind.UNAVAILABLE else ""

    wait_for(lambda: "cannot be read" in reason(), 60, "the reason")
    file.write_bytes(content)
    clock.ahead += 100
    wait_for(lambda: isinstance(ask(isolated, (1, 0.5)), ModelOutput), 60, "an answer")


PARENT = """
import sys, threading
from pathlib import Path
from failsoft.models.isolation.isolated_session import Isolated
from tests.isolated_models import a_card, artifact, heavy
from tests.onnx_models import rows
isolated = Isolated(artifact(Path(sys.argv[1]), heavy()), a_card(replicas=2))
isolated.warm()
threading.Thread(target=isolated.run, args=(rows(isolated.card, (12_000, 0.5)),), daemon=True).start()
print("up", flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    """The forkserver, an idle replica and a replica inside a long operator all end with the worker."""
    # Keep the caller's PYTHONPATH: in a worktree it decides which failsoft is imported.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert parent.stdout is not None and parent.stdout.readline() == b"up\n"
    found = wait_for(lambda: len(p := processes(parent.pid)) == 3 and p, 60, "its three processes") or []
    wait_for(lambda: any(user_time(p) > 0.5 for p in found[1:]), 60, "one of them to be busy")
    parent.send_signal(number)
    parent.wait(60)
    assert parent.stdout.read() == b"", "another process holds its output open"
    wait_for(lambda: all(map(ended, found)), 30, "their end")


def test_fifty_restarts_leave_nothing_behind(start: Start) -> None:
    """Fifty restarts leave no additional file descriptor, thread, shared memory or process, and almost no memory."""
    clock = Clock()
    isolated = start(deadly(), clock=clock)

    def crash() -> None:
        clock.ahead += 100  # each death counts as the first, so no back-off is part of the test
        assert isinstance(ask(isolated, (-1, 0.5)), Failure)
        assert isinstance(ask(isolated, (1, 0.5)), ModelOutput)

    def used() -> tuple[int, int, int, int]:
        (forkserver,) = forkservers()
        return here.num_fds(), threading.active_count(), forkserver.num_fds(), len(os.listdir("/dev/shm"))

    here = psutil.Process()
    for _ in range(5):
        crash()
    wait_for(lambda: len(replicas()) == 1, 60, "one replica")
    before, memory = used(), here.memory_info().rss + forkservers()[0].memory_info().rss
    for _ in range(50):
        crash()
    # Fewer is possible: a thread of the previous test may end in the meantime.
    wait_for(lambda: all(map(le, used(), before)), 30, f"no more than there was before: {before}")
    wait_for(lambda: len(processes()) == 2, 30, "two processes")
    assert here.memory_info().rss + forkservers()[0].memory_info().rss < memory + 8_000_000
    isolated.close()
    assert not [f for f in os.listdir("/proc/self/fd") if "failsoft-batch" in _target(f)]


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return ""
