"""Reads the state of a fleet of workers: their logs and metrics, the breaker table and the rollout table."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.integration.pipeline import Pipeline, Worker
from tests.integration.reader import watermarks
from tests.kafka import wait_for

KEY = "test@1"

TICK = 0.01
"""Seconds between two measurements of the machine's delay."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a worker's log.

    Attributes:
        at: the line's time (epoch seconds).
        event: the line's ``event``.
        said: all fields of the line.
    """

    at: float
    event: str
    said: dict[str, Any]


def lines(worker: Worker, event: str) -> list[Line]:
    """The lines that a worker has logged with this ``event``."""
    lines_found = []
    for text in worker.log.read_text(errors="replace").splitlines():
        if f'"event": "{event}"' in text and text.endswith("}"):
            fields = json.loads(text)
            lines_found.append(Line(datetime.fromisoformat(fields["timestamp"]).timestamp(), fields["event"], fields))
    return lines_found


def state(worker: Worker) -> str:
    """The state of the primary's breaker in a worker's metrics; empty while the worker serves no version."""
    for labels, value in _samples(worker, "failsoft_breaker_state"):
        if value == 1 and 'model="test"' in labels:
            return re.search(r'state="(\w+)"', labels)[1]  # type: ignore[index]
    return ""


def gauge(worker: Worker, name: str) -> float:
    """The sum of a metric's samples."""
    return sum(value for _, value in _samples(worker, name))


def _samples(worker: Worker, name: str) -> list[tuple[str, float]]:
    address = re.search(r"is ready:? (http://[\d.:]+)", worker.log.read_text(errors="replace"))
    if address is None:
        return []
    with urllib.request.urlopen(address[1] + "/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return [
        (line.rpartition(" ")[0], float(line.rpartition(" ")[2]))
        for line in text.splitlines()
        if re.match(name + r"[{ ]", line)
    ]


@contextmanager
def stalls() -> Iterator[list[float]]:
    """Yields the longest delay of a sleeping thread so far (seconds, in a list of one element).

    It measures how late the machine wakes a thread, and updates the number until the block ends.
    """
    worst, over = [0.0], threading.Event()

    def look() -> None:
        due = time.monotonic() + TICK
        while not over.wait(TICK):
            worst[0] = max(worst[0], time.monotonic() - due)
            due = time.monotonic() + TICK

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield worst
    finally:
        over.set()
        thread.join()


def wait_fleet(workers: list[Worker]) -> None:
    """Waits until each worker has lanes and reads the breaker table."""
    for worker in workers:
        worker.wait_ready()
        wait_for(lambda w=worker: gauge(w, "failsoft_control_plane_up") == 1, 90, f"{worker.id} to read the table")


def rows(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Every row written to the breaker table so far, in order."""
    return _written(pipeline, f"{pipeline.name}-breakers-changelog")


def rollouts(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Every row written to the rollout table so far, in order."""
    return _written(pipeline, f"{pipeline.name}-rollouts-changelog")


def serves(worker: Worker) -> set[int]:
    """The versions of the primary that a worker has loaded, according to its metrics."""
    return {
        int(re.search(r'version="(\d+)"', labels)[1])  # type: ignore[index]
        for labels, _ in _samples(worker, "failsoft_model_info")
        if 'model="test"' in labels
    }


def workers(worker: Worker, version: int) -> float:
    """The number of workers that serve a version of the primary, according to the metrics of ``worker``."""
    samples = _samples(worker, "failsoft_fleet_workers")
    return sum(value for labels, value in samples if 'model="test"' in labels and f'version="{version}"' in labels)


def alerts(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Every alert written so far."""
    return _written(pipeline, f"{pipeline.name}.alerts")


def _written(pipeline: Pipeline, topic: str) -> list[dict[str, Any]]:
    """Reads the topic's single partition to its present end. The topic may grow faster than this can read it."""
    consumer = Consumer({"bootstrap.servers": pipeline.bootstrap, "group.id": "looks", "log_level": 2})
    values: list[dict[str, Any]] = []
    try:
        place = TopicPartition(topic, 0, OFFSET_BEGINNING)
        low, end = watermarks(consumer, topic, 0)
        consumer.assign([place])
        after, deadline = low, time.monotonic() + 60
        while after < end:
            assert time.monotonic() < deadline, f"{topic}: read up to {after} of {end}"
            for message in consumer.consume(500, timeout=0.05):
                assert message.error() is None, message.error()
                after = (message.offset() or 0) + 1
                if message.value() is not None:
                    values.append(json.loads(message.value() or b""))
    finally:
        consumer.close()
    return values


def owner(pipeline: Pipeline, workers: list[Worker]) -> Worker | None:
    """The worker that owns the breakers, according to the assignment of the control plane's group."""
    admin = AdminClient({"bootstrap.servers": pipeline.bootstrap, "log_level": 2})
    group = f"{pipeline.name}.control-plane"
    described = admin.describe_consumer_groups([group])[group].result(timeout=30)
    for member in described.members:
        if any(tp.topic == f"{pipeline.name}.outcomes" for tp in (member.assignment.topic_partitions or [])):
            return next((w for w in workers if w.id == member.client_id), None)
    return None
