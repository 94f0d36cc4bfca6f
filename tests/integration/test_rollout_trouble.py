"""Rollouts while the owner dies and while a worker ends, on a real Kafka."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil

from failsoft.schemas.fleet.rollout import Direction, Order
from tests.integration import fleet
from tests.integration.pipeline import Pipeline, Worker, events, running
from tests.isolated_models import cmdline, ended
from tests.kafka import Broker, produce, wait_for

REFUSED = "the version that the fleet wants cannot serve here"
"""The log message of a worker when a vetting has failed."""


def order(pipeline: Pipeline, version: int) -> None:
    """Writes the order directly; the command line would vet the version first."""
    sent = Order(f"test@{version}", Direction.PROMOTE, "a test", "", int(time.time() * 1000)).to_bytes()
    produce(pipeline.bootstrap, f"{pipeline.name}.control", [(b"test", sent, [], 0)])


def served(worker: Worker) -> list[int]:
    """The versions that a worker switched to, in order."""
    return [line.said["version"] for line in fleet.lines(worker, "a version serves")]


def test_moves_are_not_made_again_when_the_owner_dies(kafka: Broker, name: str, tmp_path: Path) -> None:
    """A new owner reads the table's whole history and repeats no earlier switch; workers follow new orders only."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    for version in (2, 3):
        pipeline.save_version(version, factor=1.0 / version)
    with running(pipeline) as settlement:
        workers = [pipeline.start(f"w{i}") for i in range(2)]
        fleet.wait_fleet(workers)
        wait_for(lambda: fleet.rollouts(pipeline), 60, "the first row")  # of version 3, the newest
        for version in (2, 1, 2):
            order(pipeline, version)
            wait_for(lambda v=version: all(fleet.serves(w) == {v} for w in workers), 60, f"both to serve {version}")
        owner = wait_for(lambda: fleet.owner(pipeline, workers), 60, "an owner")
        owner.kill()
        late = pipeline.start("w2")
        (alive,) = [w for w in workers if w is not owner]
        fleet.wait_fleet([late])
        wait_for(lambda: fleet.owner(pipeline, [alive, late]) is not None, 60, "another owner")
        order(pipeline, 3)
        wait_for(lambda: all(fleet.serves(w) == {3} for w in (alive, late)), 60, "both to serve 3")
        assert served(alive) == [2, 1, 2, 3] and served(late) == [3]
        pipeline.publish(events(100))
        settlement.wait_final(100)
        verdict = settlement.verdict()
        assert not verdict.broken and verdict.counts == {"primary": 100}, str(verdict)
        for worker in (alive, late):
            assert worker.drain() == 0, worker.tail()


def test_a_worker_ends_while_it_vets(kafka: Broker, name: str, tmp_path: Path) -> None:
    """SIGTERM does not wait for a vetting that takes a minute to fail, and no process is left."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    with running(pipeline) as settlement:
        worker = pipeline.start()
        fleet.wait_fleet([worker])
        wait_for(lambda: fleet.rollouts(pipeline), 60, "the first row")
        pipeline.save_version(2)
        hangs = {"features": {"x": 0.5, "row": -1}, "expected": {"score": 0.5}}
        (tmp_path / "models" / "test" / "2" / "golden.ndjson").write_text(json.dumps(hangs) + "\n")
        order(pipeline, 2)
        process = psutil.Process(worker.process.pid)

        def vetting() -> list[psutil.Process]:
            return [p for p in process.children() if "failsoft.models.vetting.gate" in cmdline(p)]

        (child,) = wait_for(vetting, 60, "the vetting to be under way")
        pipeline.publish(events(50))
        settlement.wait_final(50)
        assert not ended(child), "the vetting ended too early"
        assert worker.drain(30) == 0, worker.tail()
        assert not fleet.lines(worker, REFUSED), "the worker waited for the vetting"
        wait_for(lambda: ended(child), 30, "the vetting's process to end")
        assert settlement.verdict().counts == {"primary": 50}
