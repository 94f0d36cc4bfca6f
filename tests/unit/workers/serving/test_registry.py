"""The serving registry: this worker's local breakers, what they admit, and which changes are shown."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from failsoft.models.breaker.local import AUTONOMOUS_AFTER, REPORT_EVERY, RESERVED_FOR
from failsoft.models.breaker.policy import policy
from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.fleet.breaker import BreakerRow, Lease, Probes, ReportKind
from failsoft.schemas.fleet.counts import Counts
from failsoft.workers.scoring.calls import report
from failsoft.workers.scoring.plan import Served
from failsoft.workers.serving.registry import ServingRegistry
from failsoft.workers.telemetry.metrics import Metrics
from tests.kit import card


class _Bench:
    """A registry with a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.collector = CollectorRegistry()
        self.registry = ServingRegistry(
            "w", Metrics(self.collector), lambda: self.now, lambda: 1000 + self.now, lambda: 0.5
        )
        self.registry.knows_fleet = True
        self.news = 0

        def on_news() -> None:
            self.news += 1

        self.registry.on_news = on_news

    def serve(self, version: int = 2) -> None:
        self.registry.serve(Served("m", version, {}), card("m"))

    def may_retry(self, waiting: bool = True) -> bool:
        """As a lane asks. ``waiting``: the lane has retries that wait."""
        if waiting:
            self.registry.request_probes("m")
        return self.registry.may_retry("m")

    def use(self, calls: int, failures: int) -> int:
        """Asks for calls and reports them; returns how many were admitted."""
        admission = self.registry.admit("m@2", calls)
        if admission.granted:
            counts = Counts(admission.granted, min(failures, admission.granted))
            self.registry.report("m@2", admission.generation, counts)
        return admission.granted

    @property
    def now_ms(self) -> int:
        return int((1000 + self.now) * 1000)

    def sees(self, state: str, generation: int, **fields: Any) -> None:
        """Absorbs a row of the fleet; an open row ends 15 s from now."""
        until = self.now_ms + 15_000 if state == "open" else None
        self.registry.absorb(BreakerRow("m@2", state, generation, self.now_ms, until, **fields))  # type: ignore[arg-type]

    def shown(self, state: BreakerState) -> float | None:
        labels = {"model": "m", "version": "2", "state": str(state)}
        return self.collector.get_sample_value("failsoft_breaker_state", labels)

    def moved(self, from_: BreakerState, to: BreakerState) -> float | None:
        labels = {"model": "m", "version": "2", "from": str(from_), "to": str(to)}
        return self.collector.get_sample_value("failsoft_breaker_transitions_total", labels)


@pytest.fixture
def bench() -> _Bench:
    return _Bench()


def test_without_a_version_nothing_serves_and_the_ladder_waits(bench: _Bench) -> None:
    """No model is asked before a version is loaded."""
    assert bench.registry.serving("m") is None and not bench.may_retry()


def test_a_served_version_is_closed_and_admits_all(bench: _Bench) -> None:
    """A new breaker is closed from the first call on, and its state is shown."""
    bench.serve()
    assert bench.registry.serving("m") == Served("m", 2, {}) and bench.may_retry()
    assert bench.use(1000, 0) == 1000
    assert bench.shown(BreakerState.CLOSED) == 1 and bench.shown(BreakerState.OPEN) == 0


def test_closed_open_half_open_closed(bench: _Bench) -> None:
    """The ladder waits while the breaker is open, gets its probes, and goes on when they have passed."""
    bench.serve()
    bench.use(20, 10)
    assert bench.use(1, 0) == 0 and not bench.may_retry()
    assert bench.shown(BreakerState.OPEN) == 1 and bench.moved(BreakerState.CLOSED, BreakerState.OPEN) == 1
    bench.now += 15
    assert bench.may_retry(), "the wait is over: a retry may be the probe"
    assert bench.moved(BreakerState.OPEN, BreakerState.HALF_OPEN) == 1
    lent = bench.registry.admit("m@2", 10)
    assert lent.granted == 3 and not bench.may_retry(), "all probes are in use"
    bench.registry.report("m@2", lent.generation, Counts(3))
    assert bench.may_retry() and bench.shown(BreakerState.CLOSED) == 1


def test_after_failed_probes_live_events_go_first_and_the_ladder_after_them(bench: _Bench) -> None:
    """Rows at the heads of the rungs that no model can answer must not be the only probes of a working model."""
    bench.serve()
    bench.use(20, 20)
    bench.now += 15
    assert bench.may_retry(), "the ladder comes first, so that live events are not at risk"
    bench.use(1, 1)
    bench.now += 30
    assert not bench.may_retry() and bench.moved(BreakerState.OPEN, BreakerState.HALF_OPEN) == 2
    bench.now += RESERVED_FOR
    assert bench.may_retry(), "no live event came"
    bench.use(1, 1)
    bench.now += 60
    assert bench.may_retry(), "the next half-open period begins with the ladder again"


def test_released_probes_are_granted_again(bench: _Bench) -> None:
    """A call that was not made leaves its probe for another call."""
    bench.serve()
    bench.use(20, 20)
    bench.now += 15
    lent = bench.registry.admit("m@2", 3)
    bench.registry.release("m@2", lent.generation, 2)
    assert bench.may_retry() and bench.registry.admit("m@2", 3).granted == 2


def test_a_new_version_starts_closed_while_the_old_ones_breaker_is_open(bench: _Bench) -> None:
    """Each version has its own breaker, so failures of the old version do not count against the new one."""
    bench.serve()
    bench.use(20, 20)
    bench.serve(version=3)
    assert bench.registry.admit("m@3", 5).granted == 5 and bench.may_retry()
    assert {key: local.state for key, local in bench.registry.breakers.items()} == {
        "m@2": BreakerState.OPEN,
        "m@3": BreakerState.CLOSED,
    }


def test_the_ladder_waits_until_the_fleet_is_known(bench: _Bench) -> None:
    """A worker that starts during an outage would otherwise use up an attempt of each waiting retry."""
    bench.serve()
    bench.registry.knows_fleet = False
    assert not bench.may_retry() and bench.use(10, 0) == 10, "live events do not wait"
    assert bench.news == 0, "the registry requests no probes before it knows the fleet's rows"
    bench.registry.knows_fleet = True
    assert bench.may_retry()


def test_a_row_is_obeyed_and_shown(bench: _Bench) -> None:
    """A change by the fleet counts as a transition here; a row that renews the same state does not."""
    bench.serve()
    bench.sees("open", 1)
    assert bench.use(10, 0) == 0 and not bench.may_retry()
    assert bench.shown(BreakerState.OPEN) == 1 and bench.moved(BreakerState.CLOSED, BreakerState.OPEN) == 1
    bench.sees("open", 2)
    assert bench.moved(BreakerState.OPEN, BreakerState.OPEN) is None
    bench.sees("closed", 3)
    assert (
        bench.use(10, 0) == 10
        and bench.shown(BreakerState.CLOSED) == 1
        and bench.moved(BreakerState.OPEN, BreakerState.CLOSED) == 1
    )


def test_a_row_of_a_version_that_is_not_loaded_changes_nothing(bench: _Bench) -> None:
    """Another worker serves that version."""
    bench.registry.absorb(BreakerRow("m@2", "forced_open", 1))
    bench.serve(version=3)
    bench.sees("forced_open", 1)
    assert bench.registry.breakers["m@3"].state is BreakerState.CLOSED and bench.may_retry()


def test_a_sick_node_is_shown_until_it_is_well(bench: _Bench) -> None:
    """The fleet's row says which workers fail alone, without a new generation."""
    bench.serve()
    labels = {"model": "m", "version": "2"}
    for sick, value in ((("b",), None), (("b", "w"), 1.0), (("w",), 1.0), ((), 0.0)):
        bench.sees("closed", 0, sick=sick)
        assert bench.collector.get_sample_value("failsoft_node_sick", labels) == value


def test_reports_are_numbered_over_restarts_and_versions(bench: _Bench) -> None:
    """The owner takes the larger number as the newer. Numbers start at the clock, and none is used twice."""
    bench.serve()
    bench.serve(version=3)
    for key in ("m@2", "m@3"):
        admission = bench.registry.admit(key, 5)
        bench.registry.report(key, admission.generation, Counts(5))
    first = list(bench.registry.reports())
    assert [(r.key, r.worker, r.counts) for r in first] == [(k, "w", Counts(5, 0, 0, 5)) for k in ("m@2", "m@3")]
    assert [r.at_ms for r in first] == [bench.now_ms] * 2
    assert bench.now_ms < first[0].sequence < first[1].sequence
    assert list(bench.registry.reports()) == [], "a report is sent once"
    bench.now += REPORT_EVERY
    bench.use(1, 0)
    (later,) = bench.registry.reports()
    assert later.sequence > first[1].sequence
    wall = 1001 + bench.now
    registry = ServingRegistry("w", Metrics(CollectorRegistry()), lambda: 0.0, lambda: wall, lambda: 0.5)
    registry.serve(Served("m", 2, {}), card("m"))
    registry.report("m@2", registry.admit("m@2", 1).generation, Counts(1))
    assert next(iter(registry.reports())).sequence > later.sequence


def test_urgent_reports_call_on_news(bench: _Bench) -> None:
    """A trip, refused calls, waiting retries and ended probes are urgent; counts are not."""
    bench.serve()
    bench.use(10, 0)
    bench.may_retry()
    assert bench.news == 0
    bench.use(20, 20)
    assert bench.news == 1
    assert [r.tripped for r in bench.registry.reports()] == [True]
    bench.sees("open", 1)
    bench.now += 15
    bench.may_retry(waiting=False)
    assert bench.news == 1 and list(bench.registry.reports()) == []
    bench.may_retry()
    assert bench.news == 2
    assert [r.kind for r in bench.registry.reports()] == [ReportKind.ASK]
    bench.sees("half_open", 2, lease=Lease("w", 3, bench.now_ms, bench.now_ms + 10_000))
    admission = bench.registry.admit("m@2", 9, ladder=9)
    assert (admission.granted, bench.news) == (3, 3)
    bench.registry.report("m@2", admission.generation, Counts(3))
    assert bench.news == 4
    assert [(r.kind, r.probes) for r in bench.registry.reports()] == [(ReportKind.PROBED, Probes(3))]


def test_an_autonomous_breaker_probes_and_shows_its_states(bench: _Bench) -> None:
    """After requests for probes without an answer, the worker probes alone and counts its own transitions."""
    bench.serve()
    bench.sees("open", 1)
    bench.now += 15
    for _ in range(round(AUTONOMOUS_AFTER / REPORT_EVERY) + 2):
        bench.may_retry()
        list(bench.registry.reports())
        bench.now += REPORT_EVERY
    assert bench.may_retry() and bench.shown(BreakerState.HALF_OPEN) == 1
    assert bench.use(3, 0) == 3 and bench.shown(BreakerState.CLOSED) == 1


def test_the_policy_is_the_cards() -> None:
    """Every threshold of the card is the breaker's, and a probe's lease is longer than a call's budget."""
    section = card("m").breaker
    breaker_policy = policy(card("m"))
    for name in ("failure_rate", "window", "minimum_calls", "slow_call", "slow_rate", "open_for", "max_open", "probes"):
        assert getattr(breaker_policy, name) == getattr(section, name)
    assert breaker_policy.probe_lease > card("m").model.budget


def test_probes_that_were_not_run_are_granted_again_within_their_lease(bench: _Bench) -> None:
    """Released probes go to the next batch. Probes reported with no calls are lost until the lease ends."""
    bench.serve()
    bench.sees("open", 1)
    bench.now += 15
    bench.may_retry()
    assert [r.kind for r in bench.registry.reports()] == [ReportKind.ASK]
    bench.sees("half_open", 2, lease=Lease("w", 3, bench.now_ms, bench.now_ms + 10_000))
    nothing = Counts()
    first = bench.registry.admit("m@2", 3, ladder=3)
    assert first.granted == 3 and first.probe
    report(bench.registry, "m@2", first, nothing)
    again = bench.registry.admit("m@2", 3, ladder=3)
    assert again.granted == 3
    bench.registry.report("m@2", again.generation, nothing)
    assert bench.registry.admit("m@2", 3, ladder=3).granted == 0
