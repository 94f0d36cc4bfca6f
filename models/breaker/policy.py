"""A breaker's policy, as a model's card has it."""

from __future__ import annotations

from failsoft.models.breaker.rules import BreakerPolicy
from failsoft.models.catalog.card import ModelCard

LEAST_LEASE = 10.0
"""Seconds for which probes are lent, at least: a batch may wait for a rebalance."""


def policy(card: ModelCard) -> BreakerPolicy:
    """The breaker's policy, as the card has it.

    A probe is reported when its call returns: at the latest when the rows to blame are found, within their budget. One
    deadline more, and never under LEAST_LEASE, is a probe that will not be heard of.
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
