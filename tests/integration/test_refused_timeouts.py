"""A broker that does not take the default timeouts: the key and the bound are named, and nothing restarts for ever."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

from tests.integration.pipeline import Pipeline, Worker, events, running
from tests.kafka import EmbeddedBroker, wait_for

SETTINGS = {"group.min.session.timeout.ms": "10000", "transaction.max.timeout.ms": "7000"}


def _control_plane(worker: Worker) -> str:
    address = re.search(r'"http": "([^"]+)"', worker.log.read_text())
    assert address is not None
    with urllib.request.urlopen(f"{address[1]}/metrics", timeout=10) as answer:
        found = re.search(r"^failsoft_control_plane_up (.*)$", answer.read().decode(), re.MULTILINE)
    return found[1] if found else ""


def test_a_timeout_that_the_broker_refuses_ends_all_workers(name: str, tmp_path: Path) -> None:
    """With exit code 3, one key after the other. With both keys set, events are answered and the table is read."""
    with EmbeddedBroker(tmp_path / "kafka", settings=SETTINGS) as broker:
        pipeline = Pipeline(tmp_path / "pipeline", broker.bootstrap, name)
        with running(pipeline) as settlement:
            for lines, said in (
                (
                    "",
                    "kafka.transaction_timeout: the broker refuses 8s: it allows at most 7s (transaction.max",
                ),
                (
                    'transaction_timeout = "5s"',
                    "kafka.session_timeout: the broker refuses 6s: it allows 10s (group.min.session.timeout.ms) to 30m",
                ),
            ):
                pipeline.kafka_lines = lines
                pipeline.write()
                ended = pipeline.run("worker", "--processes", "2")
                assert ended.returncode == 3, ended.stderr
                log = ended.stderr.decode()
                assert said in log and "a restart cannot fix this exit code" in log and "a worker crashed" not in log
            pipeline.kafka_lines = 'transaction_timeout = "5s"\nsession_timeout = "10s"\nheartbeat_interval = "2s"'
            pipeline.write()
            worker = pipeline.start()
            worker.wait_ready()
            pipeline.publish(events(50))
            settlement.wait_final(50)
            wait_for(lambda: _control_plane(worker) == "1.0", 60, "the control plane")
            assert worker.drain() == 0, worker.tail()
            verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
