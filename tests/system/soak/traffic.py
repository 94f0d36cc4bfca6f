"""Live events at a set rate, good ones and a few of every bad kind, from a publisher that outlives the broker."""

from __future__ import annotations

import threading
import time

from confluent_kafka import KafkaError, Message, Producer

from tests.integration.pipeline import body
from tests.integration.reader import Header
from tests.system.soak.worker import DEADLY

EVERY = 0.05
"""Seconds between two bursts."""

TRICKLE = 20
"""Events a second, good ones, that go on after the last until ``enough``. While a breaker is open only they can tell
a sound model from one that fails, if what is left to ask about is what no model can answer (docs/breaker.md)."""

GIVES_UP_MS = 300_000
"""An outage that the publisher waits out: far longer than any that the soak makes."""

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-%016x-01"


def event(i: int) -> tuple[bytes, bytes | None, list[Header]]:
    """Key, value and headers of event ``i``: a function of ``i`` alone."""
    key = b"k%d" % (i % 9973)
    headers: list[Header] = [("own", b"%d" % i)]
    if i % 3 == 0:
        headers.append(("traceparent", (TRACE % (i + 1)).encode()))
    if i % 10 == 0:
        headers += [("own", b"\xff\x00"), ("empty", None)]
    match i % 1000:
        case 111:
            return key, body(i, x=2.0), headers  # out of range, whoever asks
        case 222:
            return key, body(i, row=7), headers  # raises for its whole batch
        case 333:
            return key, b'{"id": ', headers
        case 444:
            return key, body(i, x=None), headers  # nothing to impute it from
        case 555:
            return key, None, headers
    return key, body(i, row=-1) if i % 20_000 == 7_777 else body(i), headers  # that one hangs


class Traffic:
    """A thread that publishes ``events`` at ``rate`` a second, evenly over ``partitions``."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, events: int, rate: float) -> None:
        self._topic, self._partitions, self._events, self._rate = topic, partitions, events, rate
        # Not idempotent: that gives up for good after some crashes of a broker. An event written twice is two events
        # to the verifier, which goes by what is on the topic.
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "acks": "all",
                "linger.ms": 5,
                "message.timeout.ms": GIVES_UP_MS,
                "reconnect.backoff.max.ms": 500,
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 2,
            }
        )
        self._refused: list[KafkaError] = []
        self._deadly = 0
        self._over = threading.Event()
        self._enough = threading.Event()
        self.sent = 0
        self.begun = 0.0
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def start(self) -> None:
        self.begun = time.time()
        self._thread.start()

    def poison(self) -> None:
        """The next event kills whoever asks its model about it."""
        self._deadly += 1

    def wait(self) -> int:
        """How many were published, once all are acknowledged. Raises RuntimeError if some were refused."""
        self._thread.join()
        self._acknowledged()
        return self.sent

    def trickle(self) -> None:
        """Goes on with a few good events, until ``enough``."""
        self._thread = threading.Thread(target=self._trickle, name="trickle", daemon=True)
        self._thread.start()

    def enough(self) -> int:
        """Ends the trickle; how many were published altogether. Raises as ``wait`` does."""
        self._enough.set()
        return self.wait()

    def stop(self) -> None:
        """Gives up what was not published yet."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        begun = time.monotonic()
        while self.sent < self._events and not self._over.wait(EVERY):
            due = min(self._events, int(self._rate * (time.monotonic() - begun)))
            for i in range(self.sent, due):
                key, value, headers = event(i)
                if self._deadly:
                    self._deadly -= 1
                    value = body(i, x=DEADLY)
                self._producer.produce(self._topic, value, key, i % self._partitions, self._told, headers=headers)
            self.sent = max(self.sent, due)
            self._producer.poll(0)

    def _trickle(self) -> None:
        while not self._enough.wait(1 / TRICKLE) and not self._over.is_set():
            i = self.sent
            self._producer.produce(self._topic, body(i), b"k%d" % i, i % self._partitions, self._told)
            self.sent += 1
            self._producer.poll(0)

    def _acknowledged(self) -> None:
        left = self._producer.flush(GIVES_UP_MS / 1000)
        if left or self._refused:
            raise RuntimeError(f"{left} events unacknowledged, {len(self._refused)} refused: {self._refused[:1]}")

    def _told(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._refused.append(error)
