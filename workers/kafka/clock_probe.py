"""Measures the broker's clock: writes a record to a topic that has the broker's time, which the answer contains."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidTimestampError, KafkaError

from failsoft.workers.kafka.broker_clock import BrokerClock
from failsoft.workers.kafka.request_errors import CLOCKS_APART

log = structlog.get_logger("failsoft.clock")

MEASURE_EVERY = 10.0
"""Seconds between two measurements. In this time the clocks drift apart by 5 ms at most."""

FIRST_PROBES = 3
"""Measurements at the start: the first answer of a new connection comes late, and says the least."""

FIRST_WITHIN = 5.0
"""Seconds that a start waits for the first measurements. Then the host's clock counts until one succeeds."""

SAID_FROM = 2.0
"""Seconds of skew from which the log says so, as the alert does (ops/alerts.yml). NTP keeps clocks within 0.1 s."""

KEY = b"clock"
"""The key of the records that are written. They have no value, and the owner of the breakers skips them."""

APPENDED = 1
"""aiokafka's number for a record whose timestamp is the broker's (LogAppendTime)."""


class ClockProbe:
    """Asks the broker for its time now and then.

    Args:
        clock: takes the answers.
        topic: a topic with the broker's time and one partition.
        monotonic: the monotonic clock (seconds).
    """

    def __init__(self, clock: BrokerClock, topic: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._topic, self._monotonic = topic, monotonic
        self._next = -MEASURE_EVERY
        self._apart: bool | None = None  # whether the log said last that the clocks differ
        self._unknown_said = False

    @property
    def due(self) -> bool:
        """Whether it is time to measure again."""
        return self._monotonic() >= self._next

    async def measure(self, producer: AIOKafkaProducer) -> None:
        """Measure once, with a started producer. Raises KafkaError."""
        self._next = self._monotonic() + MEASURE_EVERY
        sent = self._monotonic()
        try:
            answer = await producer.send_and_wait(self._topic, value=None, key=KEY, partition=0)
        except InvalidTimestampError as e:
            raise InvalidTimestampError(f"{self._topic}: {CLOCKS_APART}") from e
        received = self._monotonic()
        if answer.timestamp_type != APPENDED:
            if not self._unknown_said:
                self._unknown_said = True
                log.warning(
                    "the broker's clock is not known, so retries are due by this host's clock: the topic's "
                    "message.timestamp.type is not LogAppendTime; change it with: failsoft topics apply",
                    topic=self._topic,
                )
            return
        self.clock.answered(sent, received, answer.timestamp)
        self._say()

    async def start(self, make_producer: Callable[[], AIOKafkaProducer]) -> None:
        """Measure before anything is due. A start goes on without it after FIRST_WITHIN seconds: scoring does not wait
        for clocks.
        """
        try:
            async with asyncio.timeout(FIRST_WITHIN):
                producer = make_producer()
                try:
                    await producer.start()
                    for _ in range(FIRST_PROBES):
                        await self.measure(producer)
                finally:
                    await producer.stop()
        except (KafkaError, TimeoutError) as e:
            log.warning("the broker's clock is not known yet; this host's clock counts", error=repr(e))

    def _say(self) -> None:
        skew = self.clock.skew()
        assert skew is not None
        apart = abs(skew) >= SAID_FROM
        if apart and not self._apart:
            log.warning(
                "this host's clock is not the broker's; retries and records go by the broker's: set this host's clock",
                skew_seconds=round(skew, 3),
            )
        elif self._apart is not apart:
            log.info("this host's clock is the broker's", skew_seconds=round(skew, 3))
        self._apart = apart
