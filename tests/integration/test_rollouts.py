"""Versions of a model on several workers and a real Kafka: promotion, automatic rollback, and repeated switches."""

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
    """Publishes ``at_once`` events every ``every`` seconds until the block ends."""
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
    """The lines that ``failsoft models`` prints."""
    done = pipeline.run("models", *arguments)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def _listed(pipeline: Pipeline) -> dict[int, dict[str, Any]]:
    return {v["version"]: v for v in models(pipeline, "list")}


def judged(settlement: Settlement, pipeline: Pipeline, timeout: float = 120.0) -> Any:
    """The verdict, once every event has its final answer."""
    settlement.wait_final(pipeline.published, timeout)
    verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
    return verdict


def test_a_bad_version_under_live_traffic_rolls_itself_back(kafka: Broker, name: str, tmp_path: Path) -> None:
    """A version that passes vetting and fails on real events is rolled back automatically.

    The breaker opens, probes fail, and the owner rolls back. All three workers follow, and each event gets one final
    answer by the working version.
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
            wait_for(lambda: fleet.rollouts(pipeline)[-1]["active"] == 1, 120, "the owner to roll back")
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
        wait_for(lambda: _listed(pipeline)[1]["workers"] == 3, 60, "the reports of all three workers")
        listed = _listed(pipeline)
        assert (listed[1]["role"], listed[2]["role"]) == ("active", "left")
        assert listed[1]["calls"] > 0 and listed[1]["failures"] == 0 and listed[1]["confidence"] > 0.5
        for worker in workers:
            assert worker.drain() == 0, worker.tail()


def test_an_order_is_followed_by_all_and_outlives_them(kafka: Broker, name: str, tmp_path: Path) -> None:
    """All workers follow an order within seconds, and workers that start later follow it too.

    A later worker serves the fleet's version and not the newest. A version that cannot serve is not promoted. A
    rollback without a version goes to the one before.
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
        assert min(took(workers, version) for version in (1, 2)) < 5.0, "a stall of the machine delays one switch only"
        wait_for(lambda: skew(workers) == {1: 3.0}, 60, "all three to report version 1")
        for worker in workers:
            assert worker.drain() == 0, worker.tail()
        late = pipeline.start("w3")
        late.wait_ready()
        assert fleet.serves(late) == {1}, "the late worker must serve the fleet's version, not the newest"
        pipeline.publish(events(60))
        judged(settlement, pipeline)
        rolled_back = pipeline.run("models", "rollback", "test")
        assert rolled_back.returncode == 1 and b"name a version" in rolled_back.stderr, rolled_back.stderr.decode()
        assert late.drain() == 0, late.tail()


def test_ten_swaps_under_load_cost_no_answer_and_no_memory(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Ten switches between two versions of 20 MB cost no primary answer, and memory grows by at most a fifth."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    pipeline.save_version(1, megabytes=20)
    pipeline.save_version(2, megabytes=20)
    with running(pipeline) as settlement:
        worker = pipeline.start()
        fleet.wait_fleet([worker])
        memory = psutil.Process(worker.process.pid)
        pipeline.publish(events(12_000))  # a backlog first: it enlarges the batches, and their memory is kept
        settlement.wait_answered(12_000)
        with traffic(pipeline):
            settlement.wait_answered(14_000)
            swap(pipeline, worker, 1)  # the first switches allocate memory that later ones reuse
            swap(pipeline, worker, 2)
            before = memory.memory_info().rss
            for i in range(10):
                swap(pipeline, worker, 1 + i % 2)
            wait_for(lambda: memory.memory_info().rss < 1.2 * before, 60, f"memory under 1.2 of {before:,} bytes")
        verdict = judged(settlement, pipeline)
        assert verdict.counts == {"primary": pipeline.published}
        assert {a["version"] for a in answers(settlement)} == {1, 2}
        assert worker.drain() == 0, worker.tail()


def swap(pipeline: Pipeline, worker: Worker, version: int) -> None:
    """Writes the order of ``models promote`` directly, without starting the command line each time."""
    from failsoft.schemas.fleet.rollout import Direction, Order
    from tests.kafka import produce

    at = len(fleet.rollouts(pipeline))
    order = Order(f"test@{version}", Direction.PROMOTE, "a test", "", at).to_bytes()
    produce(pipeline.bootstrap, f"{pipeline.name}.control", [(b"test", order, [], 0)])
    wait_for(lambda: fleet.serves(worker) == {version}, 60, f"version {version} alone")


def answers(settlement: Settlement) -> list[dict[str, Any]]:
    return [json.loads(r.value or b"") for r in settlement.reader.records[settlement.scored]]


def took(workers: list[Worker], version: int) -> float:
    """Seconds from the owner's last switch to ``version`` until the last worker serves it."""
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
    """The number of workers that serve each version, according to the first worker's metrics."""
    return {v: n for v in (1, 2) if (n := fleet.workers(workers[0], v))}
