"""Workers whose clocks differ from the broker's by hours: no retry is early, none is refused, and the skew is told."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from failsoft.topics.embedded.broker import free_port
from tests.integration.pipeline import Pipeline, Worker, events, running
from tests.integration.reader import Seen
from tests.integration.verifier import Settlement
from tests.kafka import Broker, wait_for

HOUR = 3600.0

SHIM = """
import os, time
_time, _file = time.time, os.environ["TEST_CLOCK"]
def shifted():
    with open(_file) as file:
        return _time() + float(file.read() or 0)
time.time = shifted
"""
"""Python imports it at its start: every clock of the process is off by what the file says now."""


@dataclass
class Skewed:
    """A pipeline whose workers have clocks of their own.

    Attributes:
        pipeline: the pipeline.
        ports: of the workers' HTTP servers, by id.
    """

    pipeline: Pipeline
    ports: dict[str, int] = field(default_factory=dict)

    def start(self, id: str, ahead: float) -> Worker:
        """A worker whose clock is ``ahead`` seconds ahead of the broker's."""
        folder = self.pipeline.folder / "shim"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(SHIM)
        self.set(id, ahead)
        self.ports[id] = free_port()
        path = ":".join([str(folder), *filter(None, sys.path)])
        command = [sys.executable, "-m", "failsoft.workers.cli", "worker", "--id", id]
        options = ["--pipeline", str(self.pipeline.file), "--metrics-port", str(self.ports[id])]
        clock = ["env", f"PYTHONPATH={path}", f"TEST_CLOCK={folder / id}"]
        worker = self.pipeline.spawn(id, [*clock, *command, *options])
        worker.wait_ready()
        return worker

    def set(self, id: str, ahead: float) -> None:
        """Set a worker's clock while it runs. A rename, so that no half-written file is read."""
        folder = self.pipeline.folder / "shim"
        (folder / "new").write_text(str(ahead))
        (folder / "new").rename(folder / id)

    def metric(self, id: str, name: str) -> float:
        """A worker's metric without labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[id]}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


@pytest.fixture
def skewed(kafka: Broker, name: str, tmp_path: Path) -> Iterator[tuple[Skewed, Settlement]]:
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=2, minimum_calls=1_000_000)
    with running(pipeline) as settlement:
        yield Skewed(pipeline), settlement


def rungs(settlement: Settlement) -> list[list[Seen]]:
    """The records of each rung."""
    return [settlement.reader.records[rung] for rung in settlement.rungs]


def test_no_clock_makes_a_retry_early_or_dead(skewed: tuple[Skewed, Settlement]) -> None:
    """One worker is two hours ahead and one two hours behind, and each takes over retries that the other wrote.

    Their records have the broker's time, so none is refused, although a topic takes no time over an hour ahead. A clock
    that is set while a worker runs changes nothing but the skew that it tells.
    """
    tested, settlement = skewed
    ahead, behind = tested.start("ahead", 2 * HOUR), tested.start("behind", -2 * HOUR)
    assert tested.metric("ahead", "failsoft_clock_skew_seconds") == pytest.approx(2 * HOUR, abs=1)
    assert tested.metric("behind", "failsoft_clock_skew_seconds") == pytest.approx(-2 * HOUR, abs=1)
    assert "this host's clock is not the broker's" in ahead.log.read_text()
    # 1. Events that fail, and the worker that wrote their first retries ends before these are due.
    began = time.time()
    tested.pipeline.publish(events(200, bad_every=10))
    settlement.wait_answered(200)
    assert ahead.drain() == 0
    # 2. The clock of the other one is set while it waits for them.
    tested.set("behind", 5 * HOUR)
    settlement.wait_final(200)
    assert tested.metric("behind", "failsoft_clock_skew_seconds") == pytest.approx(5 * HOUR, abs=1)
    assert behind.process.poll() is None
    # 3. By the broker's clock, which is this test's own, nothing was early. No record has the time of a worker's host.
    verdict = settlement.verdict()
    assert not verdict.broken, verdict
    own = [r for topic, found in settlement.reader.records.items() if topic not in settlement.inputs for r in found]
    assert {began - 5 < r.timestamp / 1000 < time.time() + 5 for r in own} == {True}
    first, second = ({(r.partition, r.header("failsoft-origin-offset")): r for r in rung} for rung in rungs(settlement))
    assert len(first) == len(second) == 20
    for origin, record in second.items():
        assert record.timestamp >= first[origin].number("failsoft-due-ms"), origin


def test_an_own_topic_with_the_brokers_time_is_refused(kafka: Broker, name: str, tmp_path: Path) -> None:
    """``topics show`` and a worker name the topic, and the command that mends it."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=1)
    with running(pipeline):
        topic = f"{name}.retry.1s"
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        entry = ConfigEntry("message.timestamp.type", "LogAppendTime", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        admin.incremental_alter_configs([resource])[resource].result(30)

        def shown() -> list[str]:
            lines = pipeline.run("topics", "show", "--json").stdout.decode().splitlines()
            found = {row["name"]: row["problems"] for row in map(json.loads, lines)}
            return [problem for problem in found[topic] if "LogAppendTime" in problem]

        [problem] = wait_for(shown, 30, "the problem of the rung")
        assert f"--entity-name {topic} --add-config message.timestamp.type=CreateTime" in problem
        worker = pipeline.run("worker")
        assert worker.returncode == 1 and topic.encode() in worker.stderr
