"""Converts the ``[breaker]`` section of a model card into a breaker policy."""

from __future__ import annotations

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
