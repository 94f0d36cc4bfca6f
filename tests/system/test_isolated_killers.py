"""A model in a process of its own that crashes, hangs or is being restarted: poison records, and SIGTERM."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.integration.failing import HANGS, KILLS, save_failing
from tests.integration.pipeline import Pipeline, Worker, body, events, running
from tests.isolated_models import ended, processes, user_time
from tests.kafka import Broker, wait_for

N = 2400
KILLER = 1200
CARD = 'isolation = "process"\n'


def _pipeline(folder: Path, kafka: Broker, name: str, deadline: str = "10s", card: str = CARD) -> Pipeline:
    pipeline = Pipeline(folder, kafka.bootstrap, name, deadline=deadline, model_lines=card)
    save_failing(folder / "models" / "test" / "1" / "model.onnx")
    return pipeline


def _up(worker: Worker, n: int) -> list[psutil.Process]:
    """The ``n`` processes of the worker's models, once they run."""
    return wait_for(lambda: len(found := processes(worker.process.pid)) == n and found, 90, f"{n} processes") or []


def _term(worker: Worker, children: list[psutil.Process]) -> None:
    """Drains the worker within 30 s, Kubernetes' default grace period, and checks that no child process is left."""
    children += processes(worker.process.pid)
    assert worker.drain(30) == 0, worker.tail()
    wait_for(lambda: all(map(ended, children)), 30, "the model's processes to end")


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_event_that_kills_its_models_process_twice_is_poison(
    kafka: Broker, name: str, tmp_path: Path, replicas: int
) -> None:
    """An event that kills its model's process twice becomes a dead letter of kind ``poison``.

    The primary answers the other 2,399 events at once. The event gets a provisional answer from the fallback, is
    retried in a call of its own, and is then a dead letter with its answer confirmed. The worker survives, does not
    grow, and leaves no process.
    """
    pipeline = _pipeline(tmp_path, kafka, name, card=f"{CARD}replicas = {replicas}")
    with running(pipeline) as settlement:
        worker = pipeline.start()
        worker.wait_ready()
        children = _up(worker, 1 + replicas)
        pipeline.publish(events(N, start=10_000))
        settlement.wait_final(N)
        memory = psutil.Process(worker.process.pid)
        before = memory.memory_info().rss
        poison = (b"k", body(KILLER, x=KILLS), [], None)
        pipeline.publish([*events(KILLER), poison, *events(N - KILLER - 1, start=KILLER + 1)])
        settlement.wait_final(2 * N)
        assert worker.process.poll() is None, worker.tail()
        assert memory.memory_info().rss < before + 30_000_000
        assert len(_up(worker, 1 + replicas)) == 1 + replicas
        _term(worker, children)
        verdict = settlement.verdict()
        scored = [json.loads(r.value or b"") for r in settlement.reader.records[settlement.scored]]
        (letter,) = settlement.reader.records[settlement.dead]
        (retry,) = settlement.reader.records[settlement.rungs[0]]
    assert not verdict.broken, str(verdict)
    assert verdict.counts == Counter({"primary": 2 * N - 1, "confirmed: poison": 1})
    answers = sorted((a for a in scored if a["event_id"] == f"e{KILLER}"), key=lambda a: int(a["revision"]))
    assert [(a["source"], a["reason"], a["final"]) for a in answers] == [
        ("static", "crashed", False),
        ("static", "poison", True),
    ]
    assert retry.number("failsoft-crashes") == 1 and letter.number("failsoft-crashes") == 2
    assert (letter.header("failsoft-error-kind"), letter.number("failsoft-attempt")) == ("poison", 1)
    assert "SIGFPE" in (letter.header("failsoft-error-message") or "")


def test_sigterm_while_an_isolated_model_hangs(kafka: Broker, name: str, tmp_path: Path) -> None:
    """A worker with an endless loop in each lane drains on SIGTERM: running calls end by their deadlines, and the rest
    waits for the next worker.

    The same holds for two workers under a supervisor.
    """
    pipeline = _pipeline(tmp_path, kafka, name, deadline="1s", card=f"{CARD}replicas = 2")
    with running(pipeline) as settlement:
        supervisor = pipeline.start("w", "--processes", "2")
        children = _up(supervisor, 6)
        wait_for(lambda: supervisor.log.read_text().count("is ready") == 2, 90, "both workers")
        before = {p: user_time(p) for p in children}
        pipeline.publish([(b"k", body(lane, row=HANGS), [], lane) for lane in range(4)])
        at_work = lambda: any(user_time(p) > before.get(p, 0) + 0.1 for p in processes(supervisor.process.pid))  # noqa: E731
        wait_for(at_work, 60, "a loop to run")
        workers = psutil.Process(supervisor.process.pid).children()
        _term(supervisor, children)
        assert all(map(ended, workers))
        after = pipeline.start("w1")
        settlement.wait_final(4)
        _term(after, [])
        verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
    # One process serves all lanes: a row whose lane waits for a hanging row of another lane runs out of time unasked.
    assert verdict.counts.keys() <= {"confirmed: timeout", "confirmed: unavailable"} and verdict.counts.total() == 4


@pytest.mark.long
@pytest.mark.parametrize("which", [0, 1], ids=["forkserver", "replica"])
def test_sigterm_while_a_model_is_being_restarted(kafka: Broker, name: str, tmp_path: Path, which: int) -> None:
    """A worker whose model process was just killed drains on SIGTERM and leaves no process, loading ones included."""
    pipeline = _pipeline(tmp_path, kafka, name)
    with running(pipeline) as settlement:
        worker = pipeline.start()
        worker.wait_ready()
        children = _up(worker, 2)
        pipeline.publish(events(N))
        children[which].kill()
        _term(worker, children)
        after = pipeline.start("w1")
        settlement.wait_final(N)
        _term(after, [])
        verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
    assert set(verdict.counts) <= {"primary", "corrected"}, verdict.counts
