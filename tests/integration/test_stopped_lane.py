"""One partition of a live pipeline has a batch that cannot be read: its lane stops, and all others go on."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.pipeline import Event, Pipeline, Worker, events, running
from tests.kafka import EmbeddedBroker, read_all, wait_for

BAD = 2
"""The partition with the batch that cannot be read."""

MARK = b'"id": "e100003"'
"""Bytes of one record of that batch."""


@contextmanager
def damaged(broker: EmbeddedBroker, topic: str) -> Iterator[None]:
    """While it is open, a byte of the batch with MARK is another one on the broker's disk; the checksum stays."""
    segment = broker.data / "logs" / f"{topic}-{BAD}" / "00000000000000000000.log"
    at = wait_for(lambda: segment.read_bytes().find(MARK) + 1, 30, "the batch on the disk") - 1
    with segment.open("r+b", buffering=0) as file:
        for value in (b"X", MARK[:1]):
            file.seek(at)
            file.write(value)
            if value == b"X":
                yield


def _of(partition: int, found: list[Event]) -> list[Event]:
    return [(key, value, headers, partition) for key, value, headers, _ in found]


def _metrics(worker: Worker) -> str:
    address = re.search(r'"http": "([^"]+)"', worker.log.read_text())
    assert address is not None, worker.tail()
    with urllib.request.urlopen(f"{address[1]}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _stopped(workers: list[Worker]) -> list[str]:
    lines = [line for worker in workers for line in _metrics(worker).splitlines()]
    return [line for line in lines if line.startswith("failsoft_lane_stopped{")]


def test_a_batch_that_cannot_be_read_stops_its_lane_alone(name: str, tmp_path: Path) -> None:
    """The metric, the alert and the log name place, cause and mend; when the batch is whole again, the lane goes on and
    every event was answered once.
    """
    with EmbeddedBroker(tmp_path / "kafka") as broker:
        pipeline = Pipeline(tmp_path / "pipeline", broker.bootstrap, name)
        with running(pipeline) as settlement:
            workers = [pipeline.start(f"w{i}") for i in range(3)]
            pipeline.publish(events(400))
            for worker in workers:
                worker.wait_ready()
            settlement.wait_answered(400)
            for worker in workers:  # so that none reads the batch before it is damaged
                worker.signal(signal.SIGSTOP)
            pipeline.publish(_of(BAD, events(10, start=100_000)))
            with damaged(broker, pipeline.inputs[0]):
                for worker in workers:
                    worker.signal(signal.SIGCONT)
                wait_for(lambda: _stopped(workers), 60, "a stopped lane")
                for part in range(5):
                    others = [e for p in range(4) if p != BAD for e in _of(p, events(100, start=1000 * p + 100 * part))]
                    pipeline.publish(others)
                    pipeline.publish(_of(BAD, events(10, start=50_000 + 10 * part)))
                answers = read_all(
                    broker.bootstrap, f"{name}.scored", until=lambda found: len(found) >= 400 + 1500, timeout=60
                )
                assert len(answers) == 400 + 1500
                alerts = read_all(broker.bootstrap, f"{name}.alerts", until=bool)
                assert _stopped(workers) == [
                    f'failsoft_lane_stopped{{cause="unreadable",lane="{BAD}",topic="{name}.events"}} 1.0'
                ]
            settlement.wait_final(pipeline.published)
            wait_for(lambda: not _stopped(workers), 30, "the lane to go on")
            said = [json.loads(line) for worker in workers for line in worker.log.read_text().splitlines()]
            for worker in workers:
                assert worker.drain() == 0, worker.tail()
            verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
    stops = [line for line in said if line["event"] == "a lane is stopped"]
    assert [(s["topic"], s["partition"], s["cause"]) for s in stops] == [(f"{name}.events", BAD, "unreadable")]
    assert "checksum" in stops[0]["why"] and f"offsets skip --topic {name}.events:{BAD}" in stops[0]["mend"]
    [alert] = [json.loads(record.value() or b"") for record in alerts]
    assert (alert["name"], alert["key"]) == ("lane", f"{name}.events-{BAD}")
    assert (alert["from"], alert["to"], alert["first_offset"]) == ("running", "unreadable", stops[0]["offset"])
    assert [line["was"] for line in said if line["event"] == "a lane goes on"] == ["unreadable"]
