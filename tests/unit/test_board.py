"""The board: this worker's breakers, what they admit, and what is told of their moves."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from models.breaker import State
from models.home import FIRST
from models.window import Counts
from tests.kit import card
from workers.board import LocalBoard, policy
from workers.metrics import Metrics
from workers.plan import Served


class _Bench:
    """A board with a clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.registry = CollectorRegistry()
        self.board = LocalBoard("w", Metrics(self.registry), lambda: self.now, lambda: 1000 + self.now, lambda: 0.5)
        self.board.knows_fleet = True

    def serve(self, version: int = 2) -> None:
        self.board.serve(Served("m", version, {}), card("m"))

    def use(self, calls: int, failures: int) -> int:
        """Asks for calls and reports them; how many were granted."""
        admission = self.board.admit("m@2", calls)
        if admission.granted:
            counts = Counts(admission.granted, min(failures, admission.granted))
            self.board.report("m@2", admission.generation, counts)
        return admission.granted

    def shown(self, state: State) -> float | None:
        labels = {"model": "m", "version": "2", "state": str(state)}
        return self.registry.get_sample_value("failsoft_breaker_state", labels)

    def moved(self, from_: State, to: State) -> float | None:
        labels = {"model": "m", "version": "2", "from": str(from_), "to": str(to)}
        return self.registry.get_sample_value("failsoft_breaker_transitions_total", labels)


@pytest.fixture
def bench() -> _Bench:
    return _Bench()


def test_without_a_version_nothing_serves_and_the_ladder_waits(bench: _Bench) -> None:
    """Nobody is asked before a version is there."""
    assert bench.board.serving("m") is None and not bench.board.may_retry("m")


def test_a_served_version_is_closed_and_admits_all(bench: _Bench) -> None:
    """From the first call on, and its state is shown."""
    bench.serve()
    assert bench.board.serving("m") == Served("m", 2, {}) and bench.board.may_retry("m")
    assert bench.use(1000, 0) == 1000
    assert bench.shown(State.CLOSED) == 1 and bench.shown(State.OPEN) == 0


def test_closed_open_half_open_closed(bench: _Bench) -> None:
    """The whole walk: the ladder waits while it is open, gets its probes, and goes on once they passed."""
    bench.serve()
    bench.use(20, 10)
    assert bench.use(1, 0) == 0 and not bench.board.may_retry("m")
    assert bench.shown(State.OPEN) == 1 and bench.moved(State.CLOSED, State.OPEN) == 1
    bench.now += 15
    assert bench.board.may_retry("m"), "the wait is over: a retry may be the probe"
    assert bench.moved(State.OPEN, State.HALF_OPEN) == 1
    lent = bench.board.admit("m@2", 10)
    assert lent.granted == 3 and not bench.board.may_retry("m"), "the probes are out"
    bench.board.report("m@2", lent.generation, Counts(3))
    assert bench.board.may_retry("m") and bench.shown(State.CLOSED) == 1


def test_after_failed_probes_live_events_go_first_and_the_ladder_after_them(bench: _Bench) -> None:
    """Rows that nothing can answer, at the heads of the rungs, may not be the only ones to try a sound model."""
    bench.serve()
    bench.use(20, 20)
    bench.now += 15
    assert bench.board.may_retry("m"), "first the ladder: live events need not pay"
    bench.use(1, 1)
    bench.now += 30
    assert not bench.board.may_retry("m") and bench.moved(State.OPEN, State.HALF_OPEN) == 2
    bench.now += FIRST
    assert bench.board.may_retry("m"), "no live event came"
    bench.use(1, 1)
    bench.now += 60
    assert bench.board.may_retry("m"), "and in turn"


def test_probes_given_back_may_be_had_again(bench: _Bench) -> None:
    """A call that was never made leaves its place to another."""
    bench.serve()
    bench.use(20, 20)
    bench.now += 15
    lent = bench.board.admit("m@2", 3)
    bench.board.release("m@2", lent.generation, 2)
    assert bench.board.may_retry("m") and bench.board.admit("m@2", 3).granted == 2


def test_a_new_version_starts_closed_while_the_old_ones_breaker_is_open(bench: _Bench) -> None:
    """Breakers are per version: what the old one did is not held against the new one."""
    bench.serve()
    bench.use(20, 20)
    bench.serve(version=3)
    assert bench.board.admit("m@3", 5).granted == 5 and bench.board.may_retry("m")
    assert {key: home.state for key, home in bench.board.homes.items()} == {"m@2": State.OPEN, "m@3": State.CLOSED}


def test_the_policy_is_the_cards() -> None:
    """Every threshold of the card is the breaker's, and a probe's lease outlasts its call."""
    section = card("m").breaker
    found = policy(card("m"))
    for name in ("failure_rate", "window", "minimum_calls", "slow_call", "slow_rate", "open_for", "max_open", "probes"):
        assert getattr(found, name) == getattr(section, name)
    assert found.probe_lease > card("m").model.deadline
