"""Owns this worker's view of versions and breakers: what serves, what is admitted, and what is reported to the
fleet. A dependency, such as a schema registry, has a breaker too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import structlog

from failsoft.models.breaker.breaker import Admission
from failsoft.models.breaker.local import LocalBreaker, Move
from failsoft.models.breaker.policy import policy
from failsoft.models.breaker.rules import BreakerPolicy, BreakerState
from failsoft.models.catalog.card import ModelCard
from failsoft.schemas.fleet.breaker import BreakerRow, Report
from failsoft.schemas.fleet.counts import Counts
from failsoft.schemas.model_version import ModelVersion
from failsoft.workers.scoring.plan import Served
from failsoft.workers.telemetry.metrics import Metrics

log = structlog.get_logger("failsoft.serving")


class ServingRegistry:
    """The versions that serve and their breakers. Used by one event loop.

    ``on_news`` is called when the fleet should get a report at once: this worker's local breaker changed its state,
    probes have ended, a call was refused, or retries wait that may not be attempted. ``clock`` is monotonic seconds,
    ``wall`` epoch seconds, ``draw`` gives u in [0, 1).
    """

    def __init__(
        self,
        worker: str,
        metrics: Metrics,
        clock: Callable[[], float],
        wall: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self._worker, self._metrics = worker, metrics
        self._clock, self._wall, self._draw = clock, wall, draw
        self._serving: dict[str, Served] = {}
        self._breakers: dict[str, LocalBreaker] = {}
        self._rows: dict[str, BreakerRow] = {}  # also of versions that are not loaded yet
        # Starts from the clock so that it also grows over restarts: the owner takes the larger number as the newer.
        self._sequence = int(wall() * 1000)
        self.on_news: Callable[[], None] = lambda: None
        # True once the fleet's rows are read, or the worker has given up on reading them. The ladder waits until then.
        self.knows_fleet = False

    def serve(self, served: Served, card: ModelCard) -> None:
        """Makes ``served`` the version that answers for its model, with a new local breaker under the fleet's row."""
        self._serving[served.model] = served
        self._guard(served.key, policy(card))

    def depend(self, on: ModelVersion, policy: BreakerPolicy) -> None:
        """Counts and admits calls to a dependency too; its key is ``str(on)``."""
        self._guard(str(on), policy)

    def _guard(self, key: str, policy: BreakerPolicy) -> None:
        local = self._breakers[key] = LocalBreaker(key, self._worker, policy, self._clock())
        self._metrics.breaker(**self._labels(local), state=BreakerState.CLOSED)
        if key in self._rows:
            self.absorb(self._rows[key])

    def retire(self, key: str) -> None:
        """Drops a version that serves no more and has no call under way."""
        self._metrics.forget(**self._labels(self._breakers.pop(key)))

    @property
    def breakers(self) -> Mapping[str, LocalBreaker]:
        """The local breakers by key: ``model@version``, or that of a dependency."""
        return self._breakers

    def serving(self, model: str) -> Served | None:
        """The version that answers for ``model``, or None if no version is loaded."""
        return self._serving.get(model)

    def admit(self, key: str, n: int, ladder: int = 0) -> Admission:
        """Asks the breaker of ``key`` to admit ``n`` calls, of which ``ladder`` are waiting retries."""
        local = self._breakers[key]
        admission = local.admit(n, ladder, self._clock(), self._now_ms())
        if admission.granted < n:
            self.on_news()
        return admission

    def report(self, key: str, generation: int, counts: Counts) -> None:
        """Counts the results of admitted calls."""
        local = self._breakers[key]
        before = local.state
        moves = local.report(generation, counts, self._clock(), self._draw())
        self._record_moves(local, moves)
        if moves or before is not BreakerState.CLOSED:
            self.on_news()

    def release(self, key: str, generation: int, n: int) -> None:
        """Gives back admitted calls that were not made."""
        self._breakers[key].release(generation, n)

    def may_retry(self, model: str) -> bool:
        """True if retries of ``model`` may be attempted now. While the model is down, retries wait and use no
        attempt.
        """
        served = self._serving.get(model)
        if served is None or not self.knows_fleet:
            return False
        local = self._breakers[served.key]
        self._record_moves(local, local.tick(self._clock()))
        return local.may_retry(self._clock(), self._now_ms())

    def request_probes(self, model: str) -> None:
        """Called while retries of ``model`` wait. Its breaker asks the owner for probes if no leased one is left."""
        served = self._serving.get(model)
        if served is None or not self.knows_fleet:
            return
        self._breakers[served.key].request_probes(self._clock(), self._now_ms())
        if not self.may_retry(model):
            self.on_news()

    def absorb(self, row: BreakerRow) -> None:
        """Takes the fleet's row of one breaker. The row of a version that is not loaded here is kept for later."""
        self._rows[row.key] = row
        local = self._breakers.get(row.key)
        if local is None:
            return
        was_sick = local.sick
        self._record_moves(local, local.absorb(row, self._clock()))
        if local.sick is not was_sick:
            self._metrics.set("failsoft_node_sick", float(local.sick), **self._labels(local))
            log_at = log.warning if local.sick else log.info
            log_at("node sick" if local.sick else "node well", key=row.key, worker=self._worker)

    def reports(self) -> Iterable[Report]:
        """The reports to send to the fleet breaker now. Each is counted as sent."""
        now, now_ms = self._clock(), self._now_ms()
        for local in self._breakers.values():
            self._record_moves(local, local.tick(now))
            for report in local.reports(self._sequence + 1, now, now_ms):
                self._sequence += 1
                yield report

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)

    def _labels(self, local: LocalBreaker) -> dict[str, str]:
        named = ModelVersion.of_key(local.key)
        return {"model": named.model, "version": str(named.version)}

    def _record_moves(self, local: LocalBreaker, moves: Iterable[Move]) -> None:
        labels = self._labels(local)
        for m in moves:
            if m.from_ is not m.to or not m.by_fleet:
                self._metrics.add("failsoft_breaker_transitions_total", 1, **{**labels, "from": m.from_, "to": m.to})
            self._metrics.breaker(labels["model"], labels["version"], m.to)
            log_at = log.warning if m.to is BreakerState.OPEN else log.info
            log_at(
                "breaker moved",
                **labels,
                from_=m.from_,
                to=m.to,
                why=m.reason,
                generation=m.generation,
                by="the fleet" if m.by_fleet else "this worker",
            )
