"""200 partitions: one worker, two, and sixteen, through starts, kills and drains."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from tests.integration.pipeline import Pipeline, Worker, events, running
from tests.kafka import Broker

PARTITIONS = 200
N = 20_000
FAILING = 200
"""The primary never answers one event in FAILING, so that the ladder is in use."""

MOST_BYTES = 300 * 1_048_576
"""The resident set of one worker with 200 lanes and a backlog."""


def _resident(worker: Worker) -> int:
    return int(psutil.Process(worker.process.pid).memory_info().rss)


def _say(what: str, began: float) -> None:
    print(f"{what}: {time.monotonic() - began:.1f} s")  # pytest -s shows them; the page on sizing quotes them


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 16])
def test_many_lanes_keep_the_promise(kafka: Broker, name: str, tmp_path: Path, workers: int) -> None:
    """Each fault comes with events unanswered: a worker killed, another started beside it, all drained in turn."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=PARTITIONS)
    with running(pipeline) as settlement:
        began = time.monotonic()
        running_workers = {f"w{i}": pipeline.start(f"w{i}") for i in range(workers)}
        for worker in running_workers.values():
            worker.wait_ready(240)
        _say(f"{workers} workers ready with {PARTITIONS} lanes", began)
        pipeline.publish(events(N // 2, bad_every=FAILING))
        settlement.wait_answered(N // 20)
        most = max(_resident(worker) for worker in running_workers.values())
        began = time.monotonic()
        running_workers["w0"].kill()
        running_workers["w0"] = pipeline.start("w0")
        settlement.wait_answered(N // 2)
        _say("after kill -9, all of the backlog answered", began)
        began = time.monotonic()
        running_workers["late"] = pipeline.start("late")
        running_workers["late"].wait_ready(240)
        _say("one more worker ready", began)
        pipeline.publish(events(N // 2, start=N // 2, bad_every=FAILING))
        settlement.wait_answered(N // 2 + N // 10)
        most = max(most, *(_resident(worker) for worker in running_workers.values()))
        began = time.monotonic()
        assert running_workers["w0"].drain() == 0, running_workers["w0"].tail()
        _say("drained with events unanswered", began)
        running_workers["w0"] = pipeline.start("w0")
        settlement.wait_final(N)
        print(f"most memory of a worker: {most / 1_048_576:.0f} MiB")
        for worker in running_workers.values():
            assert worker.drain() == 0, worker.tail()
        verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
    assert verdict.counts == {"primary": N - N // FAILING, "confirmed: bad_output": N // FAILING}
    assert most < MOST_BYTES
