"""Versions of a model under three workers, on a real Kafka: promoted together, left by themselves, swapped for free."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.integration import fleet
from tests.integration.pipeline import Pipeline, Worker, events, running
from tests.integration.verifier import Settlement
from tests.kafka import Broker, wait_for


@contextmanager
def traffic(pipeline: Pipeline, at_once: int = 100, every: float = 0.1) -> Iterator[None]:
    """Events come all the while, from the first on."""
    over = threading.Event()

    def publish() -> None:
        while not over.wait(every):
            pipeline.publish(events(at_once, start=pipeline.published))

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(120)


def models(pipeline: Pipeline, *arguments: str) -> list[dict[str, Any]]:
    """What ``failsoft models`` says, a line each."""
    done = pipeline.run("models", *arguments)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def _listed(pipeline: Pipeline) -> dict[int, dict[str, Any]]:
    return {v["version"]: v for v in models(pipeline, "list")}


def judged(settlement: Settlement, pipeline: Pipeline, timeout: float = 120.0) -> Any:
    """The verdict, once every event has its last word."""
    settlement.wait_final(pipeline.published, timeout)
    verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
    return verdict


def test_a_bad_version_under_live_traffic_rolls_itself_back(kafka: Broker, name: str, tmp_path: Path) -> None:
    """It passes what it has to prove, and fails on real events: the breaker opens, probes fail, the owner goes back,
    all three follow, and each event of that time ends with one final answer by the version that works.
    """
    pipeline = Pipeline(
        tmp_path, kafka.bootstrap, name, minimum_calls=20, partitions=6, after_failed_probes=2, open_for="500ms"
    )
    with running(pipeline) as settlement:
        workers = [pipeline.start(f"w{i}") for i in range(3)]
        fleet.wait_fleet(workers)
        pipeline.save_version(2, factor=10.0)
        with traffic(pipeline):
            settlement.wait_answered(300)
            (promoted,) = models(pipeline, "promote", "test@2", "--why", "better on paper", "--who", "ann")
            assert (promoted["from"], promoted["to"]) == (1, 2)
            wait_for(lambda: fleet.rollouts(pipeline)[-1]["active"] == 1, 120, "the owner to go back")
            wait_for(lambda: all(fleet.serves(w) == {1} for w in workers), 60, "all three to serve version 1")
            settlement.wait_answered(pipeline.published + 300)
        verdict = judged(settlement, pipeline)
        assert verdict.counts.keys() == {"primary", "corrected"}, verdict.counts
        assert {a["reason"] for a in answers(settlement)} == {None, "bad_output", "breaker_open"}
        history = models(pipeline, "history", "test")
        assert [(h["trigger"], h["from"], h["to"]) for h in history] == [
            ("automatic", 2, 1),
            ("promote", 1, 2),
            ("first", None, 1),
        ]
        assert "half-open periods of test@2 failed" in history[0]["why"] and history[0]["who"] == "failsoft"
        assert (history[1]["who"], history[1]["why"]) == ("ann", "better on paper")
        moves = [(a["name"], a["key"]) for a in fleet.alerts(pipeline) if a["name"] in ("promotion", "rollback")]
        assert moves == [("promotion", "test@2"), ("rollback", "test@1")]
        assert sum(fleet.gauge(w, "failsoft_rollbacks_total") for w in workers) == 1
        wait_for(lambda: _listed(pipeline)[1]["workers"] == 3, 60, "all three to have said what they serve")
        listed = _listed(pipeline)
        assert (listed[1]["role"], listed[2]["role"]) == ("active", "left")
        assert listed[1]["calls"] > 0 and listed[1]["failures"] == 0 and listed[1]["confidence"] > 0.5
        for worker in workers:
            assert worker.drain() == 0, worker.tail()


def test_an_order_is_followed_by_all_and_outlives_them(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Within moments; a worker that starts later serves what the fleet serves, and not the newest. What cannot serve is
    not promoted, and a rollback without a name goes to the version before.
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=6)
    with running(pipeline) as settlement:
        workers = [pipeline.start(f"w{i}") for i in range(3)]
        fleet.wait_fleet(workers)
        wait_for(lambda: fleet.rollouts(pipeline), 60, "the first row")
        pipeline.save_version(2, factor=0.5)
        pipeline.save_version(3)
        (tmp_path / "models" / "test" / "3" / "model.onnx").write_bytes(b"no model")
        refused = pipeline.run("models", "promote", "test@3")
        assert refused.returncode == 1 and b"may not serve" in refused.stderr, refused.stderr.decode()
        assert pipeline.run("models", "promote", "test@9").returncode == 2
        models(pipeline, "promote", "test@2")
        wait_for(lambda: all(fleet.serves(w) == {2} for w in workers), 60, "all three to serve version 2")
        models(pipeline, "rollback", "test", "--why", "a drill")
        wait_for(lambda: all(fleet.serves(w) == {1} for w in workers), 60, "all three to serve version 1")
        assert min(took(workers, version) for version in (1, 2)) < 5.0, "a machine that stalls does so once"
        wait_for(lambda: skew(workers) == {1: 3.0}, 60, "the skew to be gone")
        for worker in workers:
            assert worker.drain() == 0, worker.tail()
        late = pipeline.start("w3")
        late.wait_ready()
        assert fleet.serves(late) == {1}, "the newest is not what the fleet serves"
        pipeline.publish(events(60))
        judged(settlement, pipeline)
        nowhere = pipeline.run("models", "rollback", "test")
        assert nowhere.returncode == 1 and b"name one" in nowhere.stderr, nowhere.stderr.decode()
        assert late.drain() == 0, late.tail()


def test_twenty_swaps_under_load_cost_no_answer_and_no_memory(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Two versions of 20 MB in turn: every event is answered by the primary, and memory is back to within a fifth."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    pipeline.save_version(1, megabytes=20)
    pipeline.save_version(2, megabytes=20)
    with running(pipeline) as settlement:
        worker = pipeline.start()
        fleet.wait_fleet([worker])
        memory = psutil.Process(worker.process.pid)
        pipeline.publish(events(12_000))  # a worker that falls behind takes more at once, and keeps what that took
        settlement.wait_answered(12_000)
        with traffic(pipeline):
            settlement.wait_answered(14_000)
            swap(pipeline, worker, 1)  # the first swap allocates what later ones use again
            swap(pipeline, worker, 2)
            before = memory.memory_info().rss
            for i in range(20):
                swap(pipeline, worker, 1 + i % 2)
            wait_for(lambda: memory.memory_info().rss < 1.2 * before, 60, f"memory under 1.2 of {before:,} bytes")
        verdict = judged(settlement, pipeline)
        assert verdict.counts == {"primary": pipeline.published}
        assert {a["version"] for a in answers(settlement)} == {1, 2}
        assert worker.drain() == 0, worker.tail()


def swap(pipeline: Pipeline, worker: Worker, version: int) -> None:
    """An order as the command line writes it, without starting the command line each time."""
    from failsoft.schemas.fleet.rollout import Direction, Order
    from tests.kafka import produce

    at = len(fleet.rollouts(pipeline))
    order = Order(f"test@{version}", Direction.PROMOTE, "a test", "", at).to_bytes()
    produce(pipeline.bootstrap, f"{pipeline.name}.control", [(b"test", order, [], 0)])
    wait_for(lambda: fleet.serves(worker) == {version}, 60, f"version {version} alone")


def answers(settlement: Settlement) -> list[dict[str, Any]]:
    return [json.loads(r.value or b"") for r in settlement.reader.records[settlement.scored]]


def took(workers: list[Worker], version: int) -> float:
    """Seconds from the owner's last move to ``version`` to the last worker that serves it."""
    served = [
        line.at for w in workers for line in fleet.lines(w, "a version serves") if line.said["version"] == version
    ]
    moved = [
        line.at
        for w in workers
        for line in fleet.lines(w, "a model moves to another version")
        if line.said["to"] == version
    ]
    return max(served) - max(moved)


def skew(workers: list[Worker]) -> dict[int, float]:
    """How many workers serve each version, as the first one's metrics say."""
    return {v: n for v in (1, 2) if (n := fleet.workers(workers[0], v))}
