"""A fleet of three workers, as tests look at it: what each said of its breakers, and what the topics say."""

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
"""Seconds between two looks at how the machine is."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a worker's log; ``at`` is epoch seconds."""

    at: float
    event: str
    said: dict[str, Any]


def lines(worker: Worker, event: str) -> list[Line]:
    """What a worker has logged under ``event``."""
    found = []
    for text in worker.log.read_text(errors="replace").splitlines():
        if f'"event": "{event}"' in text and text.endswith("}"):
            said = json.loads(text)
            found.append(Line(datetime.fromisoformat(said["timestamp"]).timestamp(), said["event"], said))
    return found


def state(worker: Worker) -> str:
    """The state of the breaker that a worker obeys, from its metrics; empty while it serves none."""
    for labels, value in _samples(worker, "failsoft_breaker_state"):
        if value == 1 and 'model="test"' in labels:
            return re.search(r'state="(\w+)"', labels)[1]  # type: ignore[index]
    return ""


def gauge(worker: Worker, name: str) -> float:
    """The sum of a metric's samples."""
    return sum(value for _, value in _samples(worker, name))


def _samples(worker: Worker, name: str) -> list[tuple[str, float]]:
    found = re.search(r"is ready:? (http://[\d.:]+)", worker.log.read_text(errors="replace"))
    if found is None:
        return []
    with urllib.request.urlopen(found[1] + "/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return [
        (line.rpartition(" ")[0], float(line.rpartition(" ")[2]))
        for line in text.splitlines()
        if re.match(name + r"[{ ]", line)
    ]


@contextmanager
def stalls() -> Iterator[list[float]]:
    """How late this machine wakes who sleeps, at the worst: one number, of seconds, which grows meanwhile."""
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
    """Until each has lanes, and reads the fleet's breakers."""
    for worker in workers:
        worker.wait_ready()
        wait_for(lambda w=worker: gauge(w, "failsoft_control_plane_up") == 1, 90, f"{worker.id} to read the table")


def rows(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Every row that is written to the table of breakers by now, in order."""
    return _written(pipeline, f"{pipeline.name}-breakers-changelog")


def rollouts(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Every row that is written to the table of rollouts by now, in order."""
    return _written(pipeline, f"{pipeline.name}-rollouts-changelog")


def serves(worker: Worker) -> set[int]:
    """The versions of the primary that a worker has loaded, from its metrics."""
    return {
        int(re.search(r'version="(\d+)"', labels)[1])  # type: ignore[index]
        for labels, _ in _samples(worker, "failsoft_model_info")
        if 'model="test"' in labels
    }


def workers(worker: Worker, version: int) -> float:
    """How many workers serve a version of the primary, as ``worker``'s metrics say."""
    found = _samples(worker, "failsoft_fleet_workers")
    return sum(value for labels, value in found if 'model="test"' in labels and f'version="{version}"' in labels)


def alerts(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Every alert by now."""
    return _written(pipeline, f"{pipeline.name}.alerts")


def _written(pipeline: Pipeline, topic: str) -> list[dict[str, Any]]:
    """The topic's one partition up to its end as it is now: it may well grow faster than an end could be reached."""
    consumer = Consumer({"bootstrap.servers": pipeline.bootstrap, "group.id": "looks", "log_level": 2})
    found: list[dict[str, Any]] = []
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
                    found.append(json.loads(message.value() or b""))
    finally:
        consumer.close()
    return found


def owner(pipeline: Pipeline, workers: list[Worker]) -> Worker | None:
    """The worker that owns the breakers, as Kafka's group has it."""
    admin = AdminClient({"bootstrap.servers": pipeline.bootstrap, "log_level": 2})
    group = f"{pipeline.name}.control-plane"
    described = admin.describe_consumer_groups([group])[group].result(timeout=30)
    for member in described.members:
        if any(tp.topic == f"{pipeline.name}.outcomes" for tp in (member.assignment.topic_partitions or [])):
            return next((w for w in workers if w.id == member.client_id), None)
    return None
