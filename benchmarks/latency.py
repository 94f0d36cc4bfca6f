"""Latency at a steady rate: from an event's arrival in its topic to its answer at a read_committed reader.

The table also shows the whole way, from the time the event was due to be published. That includes the publisher's
delay on the same busy cores.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Set
from dataclasses import dataclass

import numpy as np
import orjson
import psutil
from confluent_kafka import Consumer, Producer

from benchmarks import candidates, measure
from benchmarks.candidates import Bench, Candidate
from benchmarks.cluster import Cluster
from benchmarks.events import events

LASTS = 20.0
"""Seconds of traffic: 20,000 samples at 1,000 a second, so that p99 rests on 200 of them."""

SMOKE = 3.0

WARM = 1.0
"""Seconds at the start that do not count, because the worker is still cold."""

LINGER_MS = 5
"""librdkafka's own default. With 0 each event would be a request of its own, and the figures would measure the broker.
"""

ANSWERED_WITHIN = 60.0
"""Seconds that the reader waits for the worker's start and for the last answers."""


CELLS = ("p50 ms", "p90", "p99", "max", "whole p50", "whole p99")
"""The first four from the broker's timestamp; the ``whole`` ones from the time the event was due to be published."""


@dataclass(frozen=True, slots=True)
class Latency:
    """The latencies of all answers after the warm-up.

    Attributes:
        title: the program.
        rate: events a second.
        seconds: from the broker's timestamp of the event to the reader (seconds).
        whole: from the event's due time to the reader (seconds).
        transactions: of failsoft, a second; None for other programs.
    """

    title: str
    rate: int
    seconds: np.ndarray
    whole: np.ndarray
    transactions: float | None = None

    def percentiles(self, *wanted: float) -> tuple[float, ...]:
        """Percentiles of the time from the broker's timestamp to the reader (ms)."""
        return tuple(1000 * float(x) for x in np.percentile(self.seconds, wanted))

    def cells(self) -> tuple[str, ...]:
        """The figures in milliseconds, in the order of CELLS."""
        whole = (1000 * float(x) for x in np.percentile(self.whole, (50, 99)))
        return tuple(f"{ms:,.0f}" for ms in (*self.percentiles(50, 90, 99, 100), *whole))

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {cell}" for name, cell in zip(CELLS, self.cells(), strict=True))
        return f"latency at {self.rate:,} events/s, {self.title}: {figures} ({len(self.seconds):,} events)"


@dataclass(frozen=True, slots=True)
class Subject:
    """A program at work.

    Attributes:
        candidate: the program.
        group: its consumer group.
        source: its input topic.
        sink: its output topic.
        worker: its process.
    """

    candidate: Candidate
    group: str
    source: str
    sink: str
    worker: psutil.Popen


def one(bench: Bench, candidate: Candidate, rate: int, lasts: float, label: str) -> Latency:
    """Measures ``candidate`` at ``rate`` events a second for ``lasts`` seconds. RuntimeError if it falls short."""
    name = f"{bench.prefix}{label}"
    source = f"{name}-events"
    bench.cluster.create(source, stamped=True)
    with candidates.started(bench, candidate, name, source) as ((worker,), sink):
        found = steady(bench.cluster, Subject(candidate, name, source, sink, worker), rate, lasts)
    bench.cluster.delete(name)
    return found


def steady(cluster: Cluster, subject: Subject, rate: int, lasts: float) -> Latency:
    """The same for a program that has just been started, on an empty topic with the broker's timestamps. It gets one
    event in each partition first, so that it is up.
    """
    candidate, worker = subject.candidate, subject.worker
    reader = _Reader(cluster, subject.sink)
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": LINGER_MS, "log_level": 0})
    _first(cluster, producer, subject)
    before, begin = measure.transactions(worker) if candidate.ours else 0.0, time.monotonic()
    due = _publish(producer, subject.source, rate, round(rate * lasts))
    arrived = reader.all(due.keys(), worker)
    took = time.monotonic() - begin
    transactions = (measure.transactions(worker) - before) / took if candidate.ours else None
    taken = measure.arrivals(cluster, subject.source)
    counted = list(due)[round(rate * WARM) :]
    seconds = np.array([arrived[event_id] - taken[event_id] for event_id in counted])
    whole = np.array([arrived[event_id] - due[event_id] for event_id in counted])
    return Latency(candidate.title, rate, seconds, whole, transactions)


def _first(cluster: Cluster, producer: Producer, subject: Subject) -> None:
    """Waits for one event in each partition to be processed, so that the worker is up before the measurement starts."""
    for partition, (key, value) in enumerate(events(cluster.partitions)):
        key, value = key.replace(b"evt-", b"wrm-"), value.replace(b"evt-", b"wrm-")
        producer.produce(subject.source, value, key, partition=partition)
    producer.flush()
    deadline = time.monotonic() + ANSWERED_WITHIN
    while cluster.committed(subject.group, subject.source) < cluster.partitions:
        if subject.worker.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("it did not process its first events")
        time.sleep(0.1)


def _publish(producer: Producer, source: str, rate: int, n: int) -> dict[str, float]:
    """Publishes ``n`` events; returns their due times (epoch seconds), by id. A slow send does not delay others."""
    due: dict[str, float] = {}
    begin = time.time()
    for i, (key, value) in enumerate(events(n)):
        at = begin + i / rate
        wait = at - time.time()
        if wait > 0:
            time.sleep(wait)
        due[key.decode()] = at
        producer.produce(source, value, key)
        producer.poll(0)
    producer.flush()
    return due


class _Reader(threading.Thread):
    """Records when each answer could be read, on a thread of its own, since the publisher has a schedule to keep."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        super().__init__(name="reader", daemon=True)
        self._consumer = Consumer(
            {
                "bootstrap.servers": cluster.bootstrap,
                "group.id": "benchmarks.latency",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 10,
                "log_level": 0,
            }
        )
        self._consumer.assign(cluster.assignment(topic))
        self._arrived: dict[str, float] = {}
        self._failed: str | None = None
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        """Runs until ``all`` has its answers."""
        while not self._over.is_set():
            message = self._consumer.poll(0.1)
            if message is None:
                continue
            now = time.time()
            if message.error() is not None:
                self._failed = str(message.error())
                return
            self._arrived.setdefault(orjson.loads(message.value())["event_id"], now)

    def all(self, wanted: Set[str], worker: psutil.Popen) -> dict[str, float]:
        """The arrival of each answer (epoch seconds), by id, once all ``wanted`` are there. Raises RuntimeError."""
        deadline = time.monotonic() + ANSWERED_WITHIN
        while not wanted <= self._arrived.keys():
            if self._failed or worker.poll() is not None or time.monotonic() > deadline:
                missing = len(wanted - self._arrived.keys())
                raise RuntimeError(f"{missing:,} of {len(wanted):,} answers did not come; {self._failed or ''}")
            time.sleep(0.1)
        self._over.set()
        self.join()
        self._consumer.close()
        return self._arrived
