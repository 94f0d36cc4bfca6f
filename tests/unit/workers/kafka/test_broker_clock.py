"""The broker's clock as answers tell it, and how it is measured."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import InvalidTimestampError, KafkaError
from hypothesis import given
from hypothesis import strategies as st

from failsoft.workers.kafka import clock_probe
from failsoft.workers.kafka.broker_clock import DRIFT, BrokerClock
from failsoft.workers.kafka.clock_probe import MEASURE_EVERY, ClockProbe

TRUE = 1_790_000_000.0
"""The broker's time when the monotonic clock is 0 (epoch seconds)."""


class Host:
    """A host whose wall clock is ``ahead`` seconds ahead of the broker's, and whose monotonic clock is ``now``."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead, self.now = ahead, 0.0
        self.clock = BrokerClock(lambda: TRUE + self.now + self.ahead, lambda: self.now)

    def ask(self, there: float, back: float) -> None:
        """One answer: the request takes ``there`` seconds, the answer ``back``."""
        sent = self.now
        self.now += there
        named = int((TRUE + self.now) * 1000)
        self.now += back
        self.clock.answered(sent, self.now, named)


def test_before_the_first_answer_the_hosts_clock_counts() -> None:
    """Nothing else is known then, and no skew is reported."""
    host = Host(ahead=5)
    assert (host.clock.earliest(), host.clock.latest(), host.clock.skew()) == (TRUE + 5, TRUE + 5, None)


@given(
    st.floats(-1e5, 1e5),
    st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 100)), min_size=1, max_size=10),
)
def test_the_brokers_time_is_within_the_bounds(ahead: float, asked: list[tuple[float, float, float]]) -> None:
    """However long requests and answers take. So a due time by ``latest`` is never passed early by ``earliest``."""
    host = Host(ahead)
    for there, back, pause in asked:
        host.ask(there, back)
        assert host.clock.earliest() - 1e-5 <= TRUE + host.now <= host.clock.latest() + 1e-5
        width = host.clock.latest() - host.clock.earliest()
        assert width <= there + back + 0.0011 and host.clock.skew() == pytest.approx(ahead, abs=width / 2 + 1e-4)
        host.now += pause
        assert host.clock.earliest() - 1e-5 <= TRUE + host.now <= host.clock.latest() + 1e-5


def test_a_quick_answer_counts_longer_than_a_slow_one() -> None:
    """The bounds of a slow answer are wide, and take nothing from what is known."""
    host = Host()
    host.ask(0.001, 0.001)
    host.now += 1
    host.ask(2, 2)
    assert host.clock.latest() - host.clock.earliest() == pytest.approx(0.003 + 2 * DRIFT * 5, abs=1e-3)


def test_the_hosts_clock_may_be_set() -> None:
    """Once measured, a clock that jumps by hours moves nothing but the skew."""
    host = Host()
    host.ask(0.001, 0.001)
    before = host.clock.earliest()
    host.ahead = 7200
    assert host.clock.earliest() == before and host.clock.skew() == pytest.approx(7200, abs=0.01)


def test_a_broker_whose_clock_was_set_is_believed() -> None:
    """An answer that contradicts the earlier ones replaces them."""
    host = Host()
    host.ask(0.001, 0.001)
    host.clock.answered(host.now, host.now, int((TRUE + host.now - 60) * 1000))
    assert host.clock.latest() == pytest.approx(TRUE + host.now - 60, abs=0.01)


# --- the probe --------------------------------------------------------------------------------------------------------


class Producer:
    """A producer whose topic has the broker's time, or not, or that cannot write."""

    def __init__(self, host: Host, timestamp_type: int = 1, error: Exception | None = None) -> None:
        self.host, self.timestamp_type, self.error = host, timestamp_type, error
        self.sent: list[tuple[str, object, object]] = []
        self.stopped = False

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True

    async def send_and_wait(self, topic: str, *, value: object, key: object, partition: int) -> Any:
        if self.error is not None:
            raise self.error
        self.sent.append((topic, value, key))
        return SimpleNamespace(timestamp_type=self.timestamp_type, timestamp=int((TRUE + self.host.now) * 1000))


async def test_the_probe_measures_before_anything_is_due_and_every_ten_seconds() -> None:
    """A worker that is two hours ahead knows it when its lanes open."""
    host = Host(ahead=7200)
    producer = Producer(host)
    probe = ClockProbe(host.clock, "loans.outcomes", lambda: host.now)
    assert probe.due
    await probe.start(lambda: cast(Any, producer))
    assert host.clock.skew() == pytest.approx(7200, abs=0.01) and producer.stopped
    assert set(producer.sent) == {("loans.outcomes", None, b"clock")} and not probe.due
    host.now += MEASURE_EVERY
    assert probe.due


async def test_without_the_brokers_time_the_hosts_clock_counts() -> None:
    """A topic from before has the producer's time, which says nothing."""
    host = Host(ahead=7200)
    probe = ClockProbe(host.clock, "loans.outcomes", lambda: host.now)
    await probe.start(lambda: cast(Any, Producer(host, timestamp_type=0)))
    assert not host.clock.known


@pytest.mark.parametrize("error", [KafkaError("no permission"), TimeoutError()])
async def test_a_start_goes_on_without_the_clock(error: Exception) -> None:
    """Scoring does not wait for clocks."""
    host = Host()
    probe = ClockProbe(host.clock, "loans.outcomes", lambda: host.now)
    await probe.start(lambda: cast(Any, Producer(host, error=error)))
    assert not host.clock.known


async def test_a_start_does_not_wait_for_a_broker_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for seconds, not for as long as the broker is away."""
    host = Host()
    producer = Producer(host)

    async def hangs() -> None:
        await asyncio.Event().wait()

    producer.start = hangs  # type: ignore[method-assign]
    monkeypatch.setattr(clock_probe, "FIRST_WITHIN", 0.01)
    await ClockProbe(host.clock, "loans.outcomes").start(lambda: cast(Any, producer))
    assert producer.stopped


async def test_a_refused_timestamp_names_the_clock_and_the_setting() -> None:
    """A bare InvalidTimestamp does not say whose clock is wrong."""
    host = Host()
    probe = ClockProbe(host.clock, "loans.outcomes", lambda: host.now)
    with pytest.raises(InvalidTimestampError, match=r"loans\.outcomes: this host's clock .*timestamp\.after\.max\.ms"):
        await probe.measure(cast(Any, Producer(host, error=InvalidTimestampError())))
