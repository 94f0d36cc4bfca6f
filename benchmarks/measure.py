"""Measures a program's rate from outside: when the broker got each answer that a read_committed reader sees."""

from __future__ import annotations

import contextlib
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import psutil
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, KafkaException, Message

from benchmarks.cluster import Cluster

WARM_UP = 0.1
"""The share of answers at the start that is not counted: batches are still growing, and caches are cold."""

LOOK_EVERY = 0.1
"""Seconds between two checks of a program's progress; each costs the broker one request."""

SETTLED = 3.0
"""Seconds after the last answer before a program counts as idle: its last commit and its log lines are done."""

SCRAPED_WITHIN = 10.0
"""Seconds for a worker's metrics, which it serves from the loop that scores."""

STALLED = 60.0
"""Seconds without a new answer after which a program has failed."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers that a reader found.

    Attributes:
        stamps_ms: broker timestamps, sorted (ms).
        sources: the number of answers by source; "" for answers without one.
    """

    stamps_ms: np.ndarray
    sources: Counter[str]

    def rate(self) -> float:
        """Answers a second, from the end of the warm-up to the last answer."""
        begin = self.stamps_ms[int(WARM_UP * len(self.stamps_ms))]
        later = int((self.stamps_ms > begin).sum())
        return later / (float(self.stamps_ms[-1] - begin) / 1000)


@dataclass(frozen=True, slots=True)
class Watched:
    """A process at work.

    Attributes:
        cpu_per_answer: CPU seconds for an answer, including those of its models' processes.
        rss: samples of its own memory.
    """

    cpu_per_answer: float
    rss: list[tuple[int, int]]
    """(answers so far, resident set in bytes)."""


def watch(process: psutil.Popen, cluster: Cluster, sink: str, expected: int, done: Callable[[], bool]) -> Watched:
    """Watches until ``expected`` answers are written and ``done`` holds. Raises RuntimeError if that never happens."""
    samples: list[tuple[int, float, int]] = []
    below: list[psutil.Process] = []  # processes of models: listed once, after the first answers
    last, since = -1, time.monotonic()
    while True:
        written = cluster.written(sink)
        if process.poll() is not None:
            raise RuntimeError(f"it ended with {process.returncode} after {written:,} answers")
        if written and not below:
            below = process.children(recursive=True)
        samples.append((written, spent((process, *below)), process.memory_info().rss))
        if written >= expected and done():
            return Watched(_cpu(samples, expected), [(n, rss) for n, _, rss in samples])
        if written != last:
            last, since = written, time.monotonic()
        elif time.monotonic() - since > STALLED:
            raise RuntimeError(f"no new answer for {STALLED:.0f} s after {written:,} of {expected:,}")
        time.sleep(LOOK_EVERY)


def spent(processes: Iterable[psutil.Process]) -> float:
    """CPU seconds of ``processes`` so far. One that has ended, such as a vetting, counts nothing."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _cpu(samples: list[tuple[int, float, int]], expected: int) -> float:
    warm = [s for s in samples if WARM_UP * expected <= s[0]]
    first = warm[0]
    end = next(s for s in warm if s[0] >= expected)
    return (end[1] - first[1]) / (end[0] - first[0]) if end[0] > first[0] else float("nan")


def idle(worker: psutil.Popen, seconds: float) -> float:
    """The share of a core that ``worker`` takes without traffic, over ``seconds``; with its models' processes."""
    time.sleep(SETTLED)
    processes = [worker, *worker.children(recursive=True)]
    before, begin = spent(processes), time.monotonic()
    time.sleep(seconds)
    return (spent(processes) - before) / (time.monotonic() - begin)


def transactions(worker: psutil.Popen) -> float:
    """The number of a failsoft worker's transactions so far, from its own metrics. Raises RuntimeError."""
    ports = [c.laddr.port for c in worker.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    if len(ports) != 1:
        raise RuntimeError(f"it listens on {ports}, not on the one port of its metrics")
    with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/metrics", timeout=SCRAPED_WITHIN) as answer:
        return counted(answer.read().decode())


def counted(metrics: str) -> float:
    """The number of transactions in a worker's metrics, in Prometheus' text format. Raises RuntimeError."""
    found = re.search(r"^failsoft_transaction_seconds_count(?:\{[^}]*\})? (\S+)$", metrics, re.MULTILINE)
    if not found:
        raise RuntimeError("its metrics have no count of transactions")
    return float(found[1])


def read(cluster: Cluster, topic: str) -> Answers:
    """All of ``topic`` as a read_committed reader sees it. Raises KafkaException."""
    stamps: list[int] = []
    sources: Counter[str] = Counter()
    for message in _records(cluster, topic):
        stamps.append(_stamp(message))
        sources[dict(message.headers() or ()).get("failsoft-source", b"").decode()] += 1
    return Answers(np.sort(np.array(stamps, dtype=np.int64)), sources)


def arrivals(cluster: Cluster, topic: str) -> dict[str, float]:
    """The broker's time of each record (epoch seconds), by its key."""
    return {message.key().decode(): _stamp(message) / 1000 for message in _records(cluster, topic)}


def count(cluster: Cluster, topic: str) -> int:
    """The number of committed records of ``topic``, with timestamps of any kind."""
    return sum(1 for _ in _records(cluster, topic))


def _records(cluster: Cluster, topic: str) -> Iterator[Message]:
    reader = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": "benchmarks.read",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    reader.assign(cluster.assignment(topic))
    ended = 0
    try:
        while ended < cluster.partitions:
            for message in reader.consume(10_000, timeout=1.0):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended += 1
                else:
                    raise KafkaException(error)
    finally:
        reader.close()


def _stamp(message: Message) -> int:
    """The broker's timestamp in ms. Raises RuntimeError if the record has its producer's."""
    kind, stamp = message.timestamp()
    if kind != TIMESTAMP_LOG_APPEND_TIME:
        raise RuntimeError(f"{message.topic()} does not have the broker's timestamps")
    return int(stamp)
