"""This worker's view of breakers and versions: what serves, what is admitted, what was counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from models.breaker import Admission, Breaker, Policy, Snapshot, State, Transition
from models.card import ModelCard
from models.window import Counts
from workers.metrics import Metrics
from workers.plan import Served

log = structlog.get_logger("failsoft.board")


LIVE_FIRST = 1.0
"""Seconds for which live events are the probes when waiting retries were, and failed. After an outage the heads of the
rungs may be rows that no model can answer: they alone would keep a sound one out until each had used its attempts up.
A lane looks twice a second, so that on a quiet topic the ladder loses little."""


def policy(card: ModelCard) -> Policy:
    """The breaker's policy, as the card has it.

    A probe is reported when its call returns, at the latest at the deadline; twice that, and never under ten seconds
    (a batch may wait for a rebalance), is a probe that will not be heard of.
    """
    b = card.breaker
    return Policy(
        failure_rate=b.failure_rate,
        window=b.window,
        minimum_calls=b.minimum_calls,
        slow_call=b.slow_call,
        slow_rate=b.slow_rate,
        open_for=b.open_for,
        max_open=b.max_open,
        probes=b.probes,
        probe_lease=max(10.0, 2 * card.model.deadline),
    )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version in memory: what scoring needs of it, and its breaker."""

    served: Served
    breaker: Breaker


class LocalBoard:
    """Breakers of this worker alone, used by one event loop. ``clock`` is monotonic, ``draw`` gives u in [0, 1)."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float], draw: Callable[[], float]) -> None:
        self._metrics, self._clock, self._draw = metrics, clock, draw
        self._serving: dict[str, Served] = {}
        self._loaded: dict[str, Loaded] = {}

    def serve(self, served: Served, card: ModelCard) -> None:
        """From now on ``served`` answers for its model, with a closed and empty breaker."""
        self._serving[served.model] = served
        self._loaded[served.key] = Loaded(served, Breaker(policy(card), self._clock()))
        self._metrics.breaker(served.model, str(served.version), State.CLOSED)

    def serving(self, model: str) -> Served | None:
        """The version that answers for ``model``, or None when none is loaded."""
        return self._serving.get(model)

    def admit(self, key: str, n: int) -> Admission:
        """Asks the breaker of ``key`` for ``n`` calls."""
        return self._loaded[key].breaker.admit(n, self._clock())

    def report(self, key: str, generation: int, counts: Counts) -> None:
        """What became of admitted calls."""
        loaded = self._loaded[key]
        self._tell(loaded, loaded.breaker.report(generation, counts, self._clock(), self._draw()))

    def release(self, key: str, generation: int, n: int) -> None:
        """Gives back admitted calls that were never made."""
        self._loaded[key].breaker.release(generation, n)

    def may_retry(self, model: str) -> bool:
        """May the ladder be read? Not while no attempt could be made: none is burned on a model known to be down."""
        served = self._serving.get(model)
        if served is None:
            return False
        loaded = self._loaded[served.key]
        self._tell(loaded, loaded.breaker.tick(self._clock()))
        if loaded.breaker.state in (State.CLOSED, State.DISABLED):
            return True
        if loaded.breaker.state is not State.HALF_OPEN:
            return False
        if loaded.breaker.reopenings % 2 and self._clock() - loaded.breaker.since < LIVE_FIRST:
            return False
        now = loaded.breaker.snapshot(self._clock())
        return now.outstanding + now.passed < now.policy.probes

    def snapshots(self) -> Iterable[tuple[Served, Snapshot]]:
        """Every breaker as it is now."""
        now = self._clock()
        return [(loaded.served, loaded.breaker.snapshot(now)) for loaded in self._loaded.values()]

    def _tell(self, loaded: Loaded, transitions: list[Transition]) -> None:
        model, version = loaded.served.model, str(loaded.served.version)
        for t in transitions:
            labels = {"model": model, "version": version, "from": t.from_, "to": t.to}
            self._metrics.add("failsoft_breaker_transitions_total", 1, **labels)
            self._metrics.breaker(model, version, t.to)
            tell = log.warning if t.to is State.OPEN else log.info
            tell(
                "breaker moved",
                model=model,
                version=version,
                from_=t.from_,
                to=t.to,
                why=t.reason,
                generation=t.generation,
            )
