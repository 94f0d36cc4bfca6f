"""Publishes live events at a set rate, good ones and some of every bad kind, and waits out broker outages."""

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
"""Good events a second that follow the last event until ``enough``. A breaker needs them to close: rows that no model
can answer do not tell a working model from a failing one (docs/breaker.md).
"""

GIVES_UP_MS = 300_000
"""Milliseconds of an outage that the publisher waits out; far longer than any outage of the soak."""

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-%016x-01"


def event(i: int) -> tuple[bytes, bytes | None, list[Header]]:
    """Key, value and headers of event ``i``; they depend on ``i`` alone."""
    key = b"k%d" % (i % 9973)
    headers: list[Header] = [("own", b"%d" % i)]
    if i % 3 == 0:
        headers.append(("traceparent", (TRACE % (i + 1)).encode()))
    if i % 10 == 0:
        headers += [("own", b"\xff\x00"), ("empty", None)]
    match i % 1000:
        case 111:
            return key, body(i, x=2.0), headers  # always out of range
        case 222:
            return key, body(i, row=7), headers  # raises for its whole batch
        case 333:
            return key, b'{"id": ', headers
        case 444:
            return key, body(i, x=None), headers  # missing, and the card does not impute it
        case 555:
            return key, None, headers
    return key, body(i, row=-1) if i % 20_000 == 7_777 else body(i), headers  # row = -1 hangs


class Traffic:
    """A thread that publishes ``events`` at ``rate`` a second, evenly over ``partitions``.

    Attributes:
        sent: the number of events published.
        begun: when publishing started (epoch seconds).
    """

    def __init__(self, bootstrap: str, topic: str, partitions: int, events: int, rate: float) -> None:
        self._topic, self._partitions, self._events, self._rate = topic, partitions, events, rate
        # Not idempotent: an idempotent producer fails for good after some broker crashes. An event written twice counts
        # as two events, because the verifier reads the topic.
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
        """Makes the next event a poison record (``x`` = DEADLY)."""
        self._deadly += 1

    def wait(self) -> int:
        """Waits for all acknowledgements; returns the number of published events. RuntimeError if some were refused."""
        self._thread.join()
        self._acknowledged()
        return self.sent

    def trickle(self) -> None:
        """Publishes a few more good events until ``enough``."""
        self._thread = threading.Thread(target=self._trickle, name="trickle", daemon=True)
        self._thread.start()

    def enough(self) -> int:
        """Ends ``trickle`` and returns how many events were published in all. Raises as ``wait`` does."""
        self._enough.set()
        return self.wait()

    def stop(self) -> None:
        """Stops publishing at once."""
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
