"""A worker's breaker and the fleet's row: who decides, and what the fleet is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failsoft.models.breaker.local import AGAIN_BY, EVERY, FIRST
from failsoft.models.breaker.rules import BreakerState
from failsoft.models.breaker.window import Counts
from failsoft.schemas.fleet.breaker import BreakerRow, ReportKind, Tally, WorkerWindow
from tests.desk import OPEN, Desk, lent
from tests.fleet_owner import KEY, POLICY, T0

# --- closed: the worker decides ------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [None, BreakerRow(KEY), BreakerRow(KEY, generation=3)])
def test_under_a_closed_row_the_workers_own_breaker_decides(row: BreakerRow | None) -> None:
    """It opens at once by its own counts, probes after its own wait, and closes, whatever the others do."""
    desk = Desk(row)
    assert desk.call(1000) == 1000 and desk.may_retry() and not desk.local.tripped
    desk.now += 31
    desk.call(20, 20)
    assert desk.local.state is BreakerState.OPEN and desk.local.tripped
    assert desk.admit(5) == 0 and not desk.may_retry()
    desk.now += 15
    assert desk.local.tick(desk.now)[0].to is BreakerState.HALF_OPEN and desk.local.tripped
    assert desk.may_retry() and desk.call(10) == 3
    assert desk.local.state is BreakerState.CLOSED and not desk.local.tripped
    assert ReportKind.ASK not in desk.kinds(), "nobody is asked for what is one's own"


def test_its_own_moves_are_told_with_numbers_that_never_come_twice() -> None:
    """Whoever shows them must tell a spell from another, over the fleet's rows too."""
    desk = Desk(BreakerRow(KEY))
    seen = [desk.local.generation]
    given = desk.local.admit(20, 0, desk.now, desk.now_ms)
    (move,) = desk.local.report(given.generation, Counts(20, 20), desk.now, 0.5)
    assert (move.from_, move.to, move.by_fleet) == (BreakerState.CLOSED, BreakerState.OPEN, False)
    assert move.generation == desk.local.generation and move.reason and "20 of 20" in move.reason
    for row in (OPEN, BreakerRow(KEY, generation=2), replace(OPEN, generation=3)):
        seen.append(desk.local.generation)
        desk.see(row)
    seen.append(desk.local.generation)
    assert seen == sorted(set(seen))


def test_probes_given_back_may_be_had_again() -> None:
    """Under its own breaker and under a lease alike; what an older state lent is not given back to this one."""
    desk = Desk()
    desk.call(20, 20)
    desk.now += 15
    given = desk.local.admit(3, 0, desk.now, desk.now_ms)
    desk.local.release(given.generation, 2)
    assert desk.admit(3) == 2
    desk = lent()
    old = given.generation
    given = desk.local.admit(3, 3, desk.now, desk.now_ms)
    desk.local.release(old - 1, 3)
    assert desk.admit(3, ladder=3) == 0
    desk.local.release(given.generation, 2)
    assert desk.admit(3, ladder=3) == 2


def test_the_ladder_has_the_first_probes_and_in_odd_spells_the_live_events() -> None:
    """Alone as under the fleet; a probe that is out leaves no more for the ladder."""
    desk = Desk()
    desk.call(20, 20)
    desk.now += 15
    desk.local.tick(desk.now)
    assert desk.may_retry()
    given = desk.local.admit(3, 3, desk.now, desk.now_ms)
    assert not desk.may_retry(), "all probes are out"
    desk.local.report(given.generation, Counts(3, 1), desk.now, 0.5)
    desk.now += 30
    desk.local.tick(desk.now)
    assert desk.local.state is BreakerState.HALF_OPEN and not desk.may_retry()
    desk.now += FIRST
    assert desk.may_retry()


# --- closed: what is told ------------------------------------------------------------------------------------------


def test_counts_are_told_every_quarter_of_a_second_and_in_totals() -> None:
    """Sums over the window, so that a repeat or a loss changes nothing."""
    desk = Desk(BreakerRow(KEY, generation=4))
    assert desk.told() == []
    desk.call(7, 1)
    (first,) = desk.told()
    assert (first.kind, first.generation, first.counts, first.tripped) == (
        ReportKind.WINDOW,
        4,
        Tally(7, 1, 0, 1),
        False,
    )
    assert (first.key, first.worker, first.at_ms) == (KEY, "a", desk.now_ms)
    desk.call(5, 0, slow=1)
    assert desk.told() == []
    desk.now += EVERY
    (second,) = desk.told()
    assert second.counts == Tally(12, 1, 1, 2) and second.sequence > first.sequence


def test_totals_that_stay_are_told_again_before_they_are_forgotten() -> None:
    """A report may be lost; and one that is as old as its window would be as if nobody had called."""
    desk = Desk(BreakerRow(KEY))
    desk.call(7)
    assert len(desk.told()) == 1
    desk.now += AGAIN_BY * POLICY.window - 0.01
    assert desk.told() == []
    desk.now += 0.02
    (again,) = desk.told()
    assert again.counts == Tally(7, 0, 0, 1) and again.at_ms == desk.now_ms


def test_an_empty_window_is_told_once() -> None:
    """So that its counts do not stand for a worker that has nothing to do; then there is nothing to tell."""
    desk = Desk(BreakerRow(KEY))
    desk.call(7)
    desk.told()
    desk.now += POLICY.window
    assert [r.counts for r in desk.told()] == [Tally()]
    desk.now += POLICY.window
    assert desk.told() == []


def test_a_trip_is_told_at_once_with_the_counts_that_made_it() -> None:
    """The own breaker forgets its counts when it opens; the fleet's quorum is made of them."""
    desk = Desk(BreakerRow(KEY))
    desk.call(10, 10)
    desk.told()
    desk.now += 0.01
    desk.call(10, 10)
    (trip,) = desk.told()
    assert trip.tripped and trip.counts == Tally(20, 20, 0, 2)


def test_a_trip_is_told_again_as_long_as_it_lasts() -> None:
    """A fleet that did not hear it would go on calling; half-open by itself is tripped still, and closed no more."""
    desk = Desk(BreakerRow(KEY))
    desk.call(20, 20)
    assert len(desk.told()) == 1
    desk.now += EVERY - 0.01
    assert desk.told() == []
    desk.now += 0.01
    (again,) = desk.told()
    assert again.tripped and again.counts == Tally(20, 20, 0, 1)
    desk.now += 15
    desk.local.tick(desk.now)
    assert desk.told()[0].tripped
    desk.call(3)
    desk.now += EVERY
    (well,) = desk.told()
    assert not well.tripped and well.counts == Tally(23, 20, 0, 2)


def test_a_trip_is_told_when_its_counts_are_over_too() -> None:
    """It fails, though it has no fresh counts."""
    desk = Desk(BreakerRow(KEY))
    desk.call(20, 20)
    desk.now += 15
    desk.local.tick(desk.now)
    desk.now += 30
    (report,) = desk.told()
    assert report.tripped and report.counts == Tally()


# --- the fleet's row -----------------------------------------------------------------------------------------------


def test_an_open_row_is_obeyed_and_not_left_alone() -> None:
    """However long ago its time came: nobody probes who was not lent probes."""
    desk = Desk()
    assert desk.see(OPEN) == [(BreakerState.CLOSED, BreakerState.OPEN, True)]
    for seconds in (0, 14, 1, 3600):
        desk.now += seconds
        assert desk.local.tick(desk.now) == []
        assert desk.admit(5) == 0 and not desk.may_retry() and desk.local.state is BreakerState.OPEN
    assert not desk.local.tripped


def test_the_same_row_again_moves_nothing() -> None:
    """Its windows change with every report, and say nothing to a worker but who is sick."""
    desk = Desk(BreakerRow(KEY))
    desk.call(19, 19)
    window = WorkerWindow(9, T0, Tally(5))
    assert desk.see(BreakerRow(KEY, windows={"b": window}, sick=("a",))) == []
    assert desk.local.sick
    assert desk.see(BreakerRow(KEY, windows={"b": window}, sick=("b",))) == []
    assert not desk.local.sick and desk.local.state is BreakerState.CLOSED
    desk.call(1, 1)
    assert desk.local.state is BreakerState.OPEN, "its counts were kept"


def test_a_new_generation_ends_everything() -> None:
    """Counts, trips and what was told belong to the state that is over; calls that are out will not be counted."""
    desk = Desk(BreakerRow(KEY))
    out = desk.local.admit(20, 0, desk.now, desk.now_ms)
    desk.call(19, 19)
    desk.told()
    assert desk.see(BreakerRow(KEY, generation=1)) == [(BreakerState.CLOSED, BreakerState.CLOSED, True)]
    assert desk.told() == []
    assert desk.local.report(out.generation, Counts(20, 20), desk.now, 0.5) == []
    assert desk.local.state is BreakerState.CLOSED
    desk.call(20, 20)
    assert desk.local.tripped
    desk.see(BreakerRow(KEY, generation=2))
    assert desk.local.state is BreakerState.CLOSED and not desk.local.tripped and desk.told() == []


def test_what_was_admitted_under_an_older_state_is_dropped() -> None:
    """Calls made while it was closed are no probes, and a lease's probes are none of the next one's."""
    desk = Desk(BreakerRow(KEY))
    closed = desk.local.admit(20, 0, desk.now, desk.now_ms)
    desk.see(replace(OPEN, generation=1))
    desk.now += 15
    desk.may_retry()
    desk.told()
    desk.lend()
    desk.local.report(closed.generation, Counts(20, 20), desk.now, 0.5)
    assert desk.kinds() == []
    probes = desk.local.admit(3, 3, desk.now, desk.now_ms)
    desk.now += 10
    desk.may_retry()
    assert desk.kinds() == [ReportKind.ASK]
    desk.lend()
    desk.local.report(probes.generation, Counts(3, 3), desk.now, 0.5)
    assert desk.kinds() == []


def test_a_table_that_is_read_again_is_no_news() -> None:
    """A new owner reads its whole history: this worker is not to go through the outage again, nor to probe again."""
    desk = lent()
    row = desk.local.row
    assert row is not None and desk.call(3, ladder=3) == 3
    for old in (BreakerRow(KEY, since_ms=T0 - 5), OPEN, row):
        assert desk.see(old) == [] and desk.local.row == row and desk.local.state is BreakerState.HALF_OPEN
    assert desk.admit(3, ladder=3) == 0
    desk.now += 1
    anew = BreakerRow(KEY, since_ms=desk.now_ms)
    assert desk.see(anew) == [(BreakerState.HALF_OPEN, BreakerState.CLOSED, True)], "a table made anew begins again"


def test_forced_open_lets_nobody_call_nor_ask() -> None:
    """Until another order: no time ends it, and no wait for an answer."""
    desk = Desk(BreakerRow(KEY, "forced_open", 1, T0))
    assert desk.local.state is BreakerState.FORCED_OPEN
    for _ in range(100):
        desk.now += 1
        assert desk.admit(5) == 0 and not desk.may_retry() and desk.told() == []
    assert desk.local.state is BreakerState.FORCED_OPEN and not desk.local.tripped


def test_disabled_lets_everybody_call_and_counts() -> None:
    """It never opens, here or in the fleet, but what happens is known."""
    desk = Desk(BreakerRow(KEY, "disabled", 1, T0))
    assert desk.call(1000, 1000) == 1000 and desk.may_retry()
    assert desk.local.state is BreakerState.DISABLED and not desk.local.tripped
    (report,) = desk.told()
    assert (report.kind, report.counts, report.tripped) == (ReportKind.WINDOW, Tally(1000, 1000, 0, 1), False)
    assert not desk.local.admit(1, 0, desk.now, desk.now_ms).probe
