"""The broker's time, reckoned from the monotonic clock. Pure: the clocks are passed in.

Workers compare a retry's due time with this clock, and not with that of their host: the hosts' clocks may differ by
hours, and may be set while workers run. Kafka has no request for the time. A produce response of a topic whose records
have the broker's time (LogAppendTime) tells it, and all workers ask the leader of one partition.
"""

from __future__ import annotations

from collections.abc import Callable

DRIFT = 0.0005
"""Seconds that the two clocks may part in a second. NTP slews a clock by at most 500 ppm, and quartz drifts less."""

BROKER_STEP = 0.001  # seconds: the broker's time has whole milliseconds, and is cut off


class BrokerClock:
    """What is known of the broker's clock: an interval, narrowed by each answer and widened by drift.

    Until the first answer it is the wall clock of this host.

    Args:
        wall: the host's wall clock (epoch seconds).
        monotonic: the monotonic clock (seconds).
    """

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._bounds: tuple[float, float] | None = None  # of the broker's time less the monotonic clock
        self._at = 0.0  # when they held (monotonic seconds)

    def answered(self, sent: float, received: float, broker_ms: int) -> None:
        """A broker named its time, ``broker_ms`` (epoch milliseconds), between ``sent`` and ``received``, which are
        monotonic seconds.

        An answer that contradicts the earlier ones replaces them: a clock was set, or another broker answers.
        """
        low, high = broker_ms / 1000 - received, broker_ms / 1000 + BROKER_STEP - sent
        if self._bounds is not None:
            before = self._widened(received)
            if max(low, before[0]) <= min(high, before[1]):
                low, high = max(low, before[0]), min(high, before[1])
        self._bounds, self._at = (low, high), received

    @property
    def known(self) -> bool:
        """Whether a broker has named its time."""
        return self._bounds is not None

    def earliest(self) -> float:
        """The broker's time, at least (epoch seconds). What is due by this clock is due."""
        now = self._monotonic()
        return self._wall() if self._bounds is None else now + self._widened(now)[0]

    def latest(self) -> float:
        """The broker's time, at most (epoch seconds). A due time is reckoned from it, so that no worker, which may know
        the broker's clock better, is early.
        """
        now = self._monotonic()
        return self._wall() if self._bounds is None else now + self._widened(now)[1]

    def skew(self) -> float | None:
        """Seconds by which this host's clock is ahead of the broker's; None until a broker has named its time."""
        return None if self._bounds is None else self._wall() - (self.earliest() + self.latest()) / 2

    def _widened(self, now: float) -> tuple[float, float]:
        assert self._bounds is not None
        drift = DRIFT * max(0.0, now - self._at)
        return self._bounds[0] - drift, self._bounds[1] + drift
