"""The breaker's rules: states, the transition table, when a breaker opens and how long it stays open."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from failsoft.schemas.backoff import doubled, jittered
from failsoft.schemas.fleet.counts import Counts


class BreakerState(StrEnum):
    """The states of a breaker. Metrics, messages and commands carry the values."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"


class BreakerEvent(StrEnum):
    """The causes of a transition. The value labels the arrow in the state diagram."""

    TRIPPED = "rate over threshold"
    WAITED = "wait is over"
    PROBE_FAILED = "a probe failed"
    PROBES_PASSED = "all probes passed"
    PROBES_LOST = "a probe's lease expired"
    FORCE_OPEN = "operator: open"
    DISABLE = "operator: disable"
    CLOSE = "operator: close"
    RESET = "operator: reset"


# An event that the table does not list for a state changes nothing, for example "open" while forced open.
# A closed breaker can be reset (its window is emptied) but not closed. Only commands leave the two operator states.
TRANSITIONS: Mapping[BreakerState, Mapping[BreakerEvent, BreakerState]] = MappingProxyType(
    {
        BreakerState.CLOSED: {
            BreakerEvent.TRIPPED: BreakerState.OPEN,
            BreakerEvent.FORCE_OPEN: BreakerState.FORCED_OPEN,
            BreakerEvent.DISABLE: BreakerState.DISABLED,
            BreakerEvent.RESET: BreakerState.CLOSED,
        },
        BreakerState.OPEN: {
            BreakerEvent.WAITED: BreakerState.HALF_OPEN,
            BreakerEvent.FORCE_OPEN: BreakerState.FORCED_OPEN,
            BreakerEvent.DISABLE: BreakerState.DISABLED,
            BreakerEvent.CLOSE: BreakerState.CLOSED,
            BreakerEvent.RESET: BreakerState.CLOSED,
        },
        BreakerState.HALF_OPEN: {
            BreakerEvent.PROBE_FAILED: BreakerState.OPEN,
            BreakerEvent.PROBES_PASSED: BreakerState.CLOSED,
            # Lost, not failed: the probing worker may have died, which is no evidence about the model. The state stays
            # but the generation changes, so that a late report of the lost probe is dropped.
            BreakerEvent.PROBES_LOST: BreakerState.HALF_OPEN,
            BreakerEvent.FORCE_OPEN: BreakerState.FORCED_OPEN,
            BreakerEvent.DISABLE: BreakerState.DISABLED,
            BreakerEvent.CLOSE: BreakerState.CLOSED,
            BreakerEvent.RESET: BreakerState.CLOSED,
        },
        BreakerState.FORCED_OPEN: {
            BreakerEvent.DISABLE: BreakerState.DISABLED,
            BreakerEvent.CLOSE: BreakerState.CLOSED,
            BreakerEvent.RESET: BreakerState.CLOSED,
        },
        BreakerState.DISABLED: {
            BreakerEvent.FORCE_OPEN: BreakerState.FORCED_OPEN,
            BreakerEvent.CLOSE: BreakerState.CLOSED,
            BreakerEvent.RESET: BreakerState.CLOSED,
        },
    }
)


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, for how long, and what closes it. Durations are in seconds, rates in (0, 1].

    Raises ValueError if a value is out of range, or if ``max_open`` is shorter than ``open_for``.

    Attributes:
        failure_rate: the breaker opens when at least this share of the calls failed.
        window: the time over which calls are counted.
        minimum_calls: fewer calls never open the breaker for failures, nor fewer runs for slowness.
        slow_call: a longer run is slow. The code that counts applies this; the rules do not.
        slow_rate: the breaker opens when at least this share of the runs was slow.
        open_for: the first wait in the open state.
        max_open: the longest wait; waits double up to it.
        probes: calls that must succeed before the breaker closes.
        jitter: each wait varies by this share of its length, up or down.
        probe_lease: probes without a result after this time are lost.
    """

    failure_rate: float
    window: float
    minimum_calls: int
    slow_call: float
    slow_rate: float
    open_for: float
    max_open: float
    probes: int
    # Workers that opened together must not probe together. One fifth spreads 15 s over 6 s.
    jitter: float = 0.2
    # ``models.breaker.policy`` derives the lease from the card: a probe is reported when its call returns.
    probe_lease: float = 30.0

    def __post_init__(self) -> None:
        for name in ("failure_rate", "slow_rate"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be over 0 and at most 1, not {getattr(self, name)}")
        for name in ("window", "open_for", "max_open", "probe_lease"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a positive number of seconds, not {getattr(self, name)}")
        for name in ("minimum_calls", "probes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.slow_call > 0:
            raise ValueError(f"slow_call must be positive, not {self.slow_call}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter must be at least 0 and under 1, not {self.jitter}")
        if self.max_open < self.open_for:
            raise ValueError(f"max_open ({self.max_open:g} s) must be at least open_for ({self.open_for:g} s)")


def judge(policy: BreakerPolicy, counts: Counts) -> str | None:
    """The reason why these counts of one window open a breaker, or None if they do not."""
    # Divide, then compare. In floating point, 3 / 30 >= 0.1 is true, but 3 >= 0.1 * 30 is false.
    if counts.calls < policy.minimum_calls:
        return None
    if counts.failure_rate >= policy.failure_rate:
        return (
            f"{counts.failures} of {counts.calls} calls failed in {policy.window:g} s ({policy.failure_rate:g} opens)"
        )
    if counts.runs >= policy.minimum_calls and counts.slow_rate >= policy.slow_rate:
        return f"{counts.slow} of {counts.runs} runs were slow in {policy.window:g} s ({policy.slow_rate:g} opens)"
    return None


def wait(policy: BreakerPolicy, reopenings: int, u: float) -> float:
    """Seconds to stay open: ``open_for`` doubled for each reopening, jittered by ``u`` in [0, 1), at most ``max_open``.

    A draw above ``max_open`` is reflected to the same distance below it. If it were clipped, half of the workers would
    probe at the same moment.
    """
    drawn = jittered(doubled(policy.open_for, policy.max_open, reopenings), policy.jitter, u)
    return min(drawn, 2 * policy.max_open - drawn)
