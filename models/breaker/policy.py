"""The policies of breakers: of a model, by the ``[breaker]`` section of its card, and of a dependency."""

from __future__ import annotations

import math

from failsoft.models.breaker.rules import BreakerPolicy
from failsoft.models.catalog.card import ModelCard

LEAST_LEASE = 10.0
"""Shortest lease of a probe, in seconds: a stalled machine may take long to run a call and to report it."""


def policy(card: ModelCard) -> BreakerPolicy:
    """The breaker policy of ``card``.

    A probe is reported when its call returns. That takes at most the card's bisect budget, because a failed batch is
    split within it. A probe without a report after that budget plus one deadline, and at least LEAST_LEASE, is lost.
    """
    b = card.breaker
    return BreakerPolicy(
        failure_rate=b.failure_rate,
        window=b.window,
        minimum_calls=b.minimum_calls,
        slow_call=b.slow_call,
        slow_rate=b.slow_rate,
        open_for=b.open_for,
        max_open=b.max_open,
        probes=b.probes,
        probe_lease=max(LEAST_LEASE, card.model.budget + card.model.deadline),
    )


def dependency_policy(open_for: float, max_open: float) -> BreakerPolicy:
    """The breaker policy of a dependency that answers look-ups; both times in seconds.

    Look-ups are few, because their results are cached: three that fail are enough, and one that passes is. A slow one
    ends at its deadline and is a failure, so slowness is not counted by itself.
    """
    return BreakerPolicy(
        failure_rate=0.5,
        window=30.0,
        minimum_calls=3,
        slow_call=math.inf,
        slow_rate=1.0,
        open_for=open_for,
        max_open=max_open,
        probes=1,
        probe_lease=LEAST_LEASE,
    )
