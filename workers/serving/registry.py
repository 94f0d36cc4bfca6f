"""This worker's view of breakers and versions: what serves, what is admitted, what was counted, what to tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import structlog

from failsoft.models.breaker.breaker import Admission
from failsoft.models.breaker.local import Home, Move
from failsoft.models.breaker.policy import policy
from failsoft.models.breaker.rules import State
from failsoft.models.breaker.window import Counts
from failsoft.models.catalog.card import ModelCard
from failsoft.schemas.fleet.breaker import BreakerRow, Report
from failsoft.workers.scoring.plan import Served
from failsoft.workers.telemetry.metrics import Metrics

log = structlog.get_logger("failsoft.board")


class LocalBoard:
    """Versions that serve and their breakers, used by one event loop.

    ``clock`` is monotonic seconds, ``wall`` epoch seconds, ``draw`` gives u in [0, 1). ``on_news`` is called when there
    is something that the fleet should hear at once: this worker's own breaker moved, or probes came back.
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
        self._served: dict[str, Served] = {}
        self._homes: dict[str, Home] = {}
        self._rows: dict[str, BreakerRow] = {}  # also of versions that are not loaded: one may be served tomorrow
        # Grows over restarts: the owner takes the larger for the newer.
        self._sequence = int(wall() * 1000)
        self.on_news: Callable[[], None] = lambda: None
        self.knows_fleet = False  # the fleet's rows were read, or given up on: until then the ladder waits

    def serve(self, served: Served, card: ModelCard) -> None:
        """From now on ``served`` answers for its model, with a new breaker at home under the fleet's row."""
        self._serving[served.model] = served
        self._served[served.key] = served
        self._homes[served.key] = Home(served.key, self._worker, policy(card), self._clock())
        self._metrics.breaker(served.model, str(served.version), State.CLOSED)
        if served.key in self._rows:
            self.absorb(self._rows[served.key])

    def retire(self, key: str) -> None:
        """Forgets a version that answers no more and has no call under way."""
        served = self._served.pop(key)
        del self._homes[key]
        self._metrics.forget(model=served.model, version=str(served.version))

    @property
    def homes(self) -> Mapping[str, Home]:
        """Every breaker, by its key."""
        return self._homes

    def serving(self, model: str) -> Served | None:
        """The version that answers for ``model``, or None when none is loaded."""
        return self._serving.get(model)

    def admit(self, key: str, n: int, ladder: int = 0) -> Admission:
        """Asks the breaker of ``key`` for ``n`` calls, of which ``ladder`` are waiting retries."""
        home = self._homes[key]
        admission = home.admit(n, ladder, self._clock(), self._now_ms())
        if admission.granted < n:
            self.on_news()
        return admission

    def report(self, key: str, generation: int, counts: Counts) -> None:
        """What became of admitted calls."""
        home = self._homes[key]
        before = home.state
        moves = home.report(generation, counts, self._clock(), self._draw())
        self._tell(home, moves)
        if moves or before is not State.CLOSED:
            self.on_news()

    def release(self, key: str, generation: int, n: int) -> None:
        """Gives back admitted calls that were never made."""
        self._homes[key].release(generation, n)

    def may_retry(self, model: str, waiting: bool = True) -> bool:
        """May the ladder be read? Not while no attempt could be made: none is burned on a model known to be down.

        ``waiting``: there is something on it, as far as the lane that asks knows.
        """
        served = self._serving.get(model)
        if served is None or not self.knows_fleet:
            return False
        home = self._homes[served.key]
        self._tell(home, home.tick(self._clock()))
        may = home.may_retry(waiting, self._clock(), self._now_ms())
        if waiting and not may:
            self.on_news()
        return may

    def absorb(self, row: BreakerRow) -> None:
        """The fleet's row of one breaker, as it is now; that of a version not loaded here is kept for when it is."""
        self._rows[row.key] = row
        home = self._homes.get(row.key)
        if home is None:
            return
        was_sick = home.sick
        self._tell(home, home.absorb(row, self._clock()))
        if home.sick is not was_sick:
            self._metrics.set("failsoft_node_sick", float(home.sick), **self._labels(home))
            tell = log.warning if home.sick else log.info
            tell("node sick" if home.sick else "node well", key=row.key, worker=self._worker)

    def reports(self) -> Iterable[Report]:
        """What the fleet should be told now. Each is counted as told."""
        now, now_ms = self._clock(), self._now_ms()
        for home in self._homes.values():
            self._tell(home, home.tick(now))
            for report in home.reports(self._sequence + 1, now, now_ms):
                self._sequence += 1
                yield report

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)

    def _labels(self, home: Home) -> dict[str, str]:
        served = self._served[home.key]
        return {"model": served.model, "version": str(served.version)}

    def _tell(self, home: Home, moves: Iterable[Move]) -> None:
        labels = self._labels(home)
        for m in moves:
            if m.from_ is not m.to or not m.by_fleet:
                self._metrics.add("failsoft_breaker_transitions_total", 1, **{**labels, "from": m.from_, "to": m.to})
            self._metrics.breaker(labels["model"], labels["version"], m.to)
            tell = log.warning if m.to is State.OPEN else log.info
            tell(
                "breaker moved",
                **labels,
                from_=m.from_,
                to=m.to,
                why=m.reason,
                generation=m.generation,
                by="the fleet" if m.by_fleet else "this worker",
            )
