"""The breaker's rules: its states, its one table of transitions, when it trips and how long it waits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from failsoft.models.breaker.window import Counts


class BreakerState(StrEnum):
    """What a breaker does with calls; the value is what metrics, messages and commands carry."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"


class BreakerEvent(StrEnum):
    """What moves a breaker; the value is the label on the diagram's arrow."""

    TRIPPED = "rate over threshold"
    WAITED = "wait is over"
    PROBE_FAILED = "a probe failed"
    PROBES_PASSED = "all probes passed"
    PROBES_LOST = "a probe's lease expired"
    FORCE_OPEN = "operator: open"
    DISABLE = "operator: disable"
    CLOSE = "operator: close"
    RESET = "operator: reset"


# What is not in the table does not happen: a command that is not there (open what is forced open) changes nothing.
# A closed breaker can be reset (its window is emptied) but not closed; forced states are left by commands alone.
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
            # Lost, not failed: the prober died, which says nothing of the model. A new generation of the same state
            # makes the lost probe's report, should it come after all, harmless.
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
    """When a breaker opens, for how long, and what closes it. Durations in seconds, rates in (0, 1].

    ``slow_call`` is for whoever counts: a run longer than this is slow, and ``minimum_calls`` runs have to be known
    before slowness opens. Raises ValueError for what cannot work.
    """

    failure_rate: float
    window: float
    minimum_calls: int
    slow_call: float
    slow_rate: float
    open_for: float
    max_open: float
    probes: int
    # Workers that opened together must not probe together; a fifth spreads 15 s over 6 s, and is still "about 15 s".
    jitter: float = 0.2
    # A probe is reported after its batch's transaction, whose timeout is 15 s: twice that is not merely slow, it is
    # lost. A model whose deadline is not small beside 30 s needs a longer lease.
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
            raise ValueError(f"max_open ({self.max_open:g} s) must not be under open_for ({self.open_for:g} s)")


def judge(policy: BreakerPolicy, counts: Counts) -> str | None:
    """Why these counts of a window open a breaker, or None when they do not."""
    # Rates are divided and then compared: 3 / 30 >= 0.1 holds, 3 >= 0.1 * 30 does not.
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
    """Seconds to stay open after so many reopenings: doubled each time, jittered by ``u`` in [0, 1), at most max_open.

    A draw beyond the cap is as far beneath it instead: at the cap itself half of the workers would else probe together.
    """
    # 64 doublings reach any cap from any positive time; the bound keeps the float from overflowing after years open.
    doubled = math.ldexp(policy.open_for, min(reopenings, 64))
    drawn = min(doubled, policy.max_open) * (1 + policy.jitter * (2 * u - 1))
    return min(drawn, 2 * policy.max_open - drawn)
