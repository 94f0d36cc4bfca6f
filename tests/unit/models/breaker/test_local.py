"""The local breaker and the breaker row: which of them decides, and what the worker reports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failsoft.models.breaker.local import REPORT_EVERY, RESEND_AFTER, RESERVED_FOR
from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.fleet.breaker import BreakerRow, ReportKind, WorkerWindow
from failsoft.schemas.fleet.counts import Counts
from tests.desk import OPEN, Desk, with_lease
from tests.fleet_owner import KEY, POLICY, T0

# --- closed: the worker decides ------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [None, BreakerRow(KEY), BreakerRow(KEY, generation=3)])
def test_under_a_closed_row_the_workers_own_breaker_decides(row: BreakerRow | None) -> None:
    """While the row is closed or missing, the worker's own breaker opens, probes and closes without the fleet."""
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
    assert ReportKind.ASK not in desk.kinds(), "its own probes need no request"


def test_generations_of_own_moves_never_repeat() -> None:
    """Generations grow over the moves of the own breaker and of the row."""
    desk = Desk(BreakerRow(KEY))
    seen = [desk.local.generation]
    admission = desk.local.admit(20, 0, desk.now, desk.now_ms)
    (move,) = desk.local.report(admission.generation, Counts(20, 20), desk.now, 0.5)
    assert (move.from_, move.to, move.by_fleet) == (BreakerState.CLOSED, BreakerState.OPEN, False)
    assert move.generation == desk.local.generation and move.reason and "20 of 20" in move.reason
    for row in (OPEN, BreakerRow(KEY, generation=2), replace(OPEN, generation=3)):
        seen.append(desk.local.generation)
        desk.see(row)
    seen.append(desk.local.generation)
    assert seen == sorted(set(seen))


def test_released_probes_are_granted_again() -> None:
    """Released probes can be granted again by the own breaker and by a lease, but only under their generation."""
    desk = Desk()
    desk.call(20, 20)
    desk.now += 15
    admission = desk.local.admit(3, 0, desk.now, desk.now_ms)
    desk.local.release(admission.generation, 2)
    assert desk.admit(3) == 2
    desk = with_lease()
    old = admission.generation
    admission = desk.local.admit(3, 3, desk.now, desk.now_ms)
    desk.local.release(old - 1, 3)
    assert desk.admit(3, ladder=3) == 0
    desk.local.release(admission.generation, 2)
    assert desk.admit(3, ladder=3) == 2


def test_retries_probe_first_except_after_an_odd_number_of_reopenings() -> None:
    """Under its own breaker too, live events come first after an odd number of reopenings."""
    desk = Desk()
    desk.call(20, 20)
    desk.now += 15
    desk.local.tick(desk.now)
    assert desk.may_retry()
    admission = desk.local.admit(3, 3, desk.now, desk.now_ms)
    assert not desk.may_retry(), "all probes are outstanding"
    desk.local.report(admission.generation, Counts(3, 1), desk.now, 0.5)
    desk.now += 30
    desk.local.tick(desk.now)
    assert desk.local.state is BreakerState.HALF_OPEN and not desk.may_retry()
    desk.now += RESERVED_FOR
    assert desk.may_retry()


# --- closed: reports ------------------------------------------------------------------------------------------


def test_counts_are_reported_every_quarter_second_as_totals() -> None:
    """Reports are sums over the window, so that a repeated or lost report changes nothing."""
    desk = Desk(BreakerRow(KEY, generation=4))
    assert desk.told() == []
    desk.call(7, 1)
    (first,) = desk.told()
    assert (first.kind, first.generation, first.counts, first.tripped) == (
        ReportKind.WINDOW,
        4,
        Counts(7, 1, 0, 1),
        False,
    )
    assert (first.key, first.worker, first.at_ms) == (KEY, "a", desk.now_ms)
    desk.call(5, 0, slow=1)
    assert desk.told() == []
    desk.now += REPORT_EVERY
    (second,) = desk.told()
    assert second.counts == Counts(12, 1, 1, 2) and second.sequence > first.sequence


def test_unchanged_totals_are_reported_again() -> None:
    """Unchanged totals are reported again, since reports get lost and the owner drops old ones."""
    desk = Desk(BreakerRow(KEY))
    desk.call(7)
    assert len(desk.told()) == 1
    desk.now += RESEND_AFTER * POLICY.window - 0.01
    assert desk.told() == []
    desk.now += 0.02
    (again,) = desk.told()
    assert again.counts == Counts(7, 0, 0, 1) and again.at_ms == desk.now_ms


def test_an_empty_window_is_reported_once() -> None:
    """When the window has become empty, this is reported once and then nothing more."""
    desk = Desk(BreakerRow(KEY))
    desk.call(7)
    desk.told()
    desk.now += POLICY.window
    assert [r.counts for r in desk.told()] == [Counts()]
    desk.now += POLICY.window
    assert desk.told() == []


def test_a_trip_is_reported_at_once_with_its_counts() -> None:
    """Although the own breaker empties its window when it opens, the report has the counts for the fleet's quorum."""
    desk = Desk(BreakerRow(KEY))
    desk.call(10, 10)
    desk.told()
    desk.now += 0.01
    desk.call(10, 10)
    (trip,) = desk.told()
    assert trip.tripped and trip.counts == Counts(20, 20, 0, 2)


def test_a_trip_is_reported_again_while_it_lasts() -> None:
    """A worker reports tripped repeatedly while its own breaker is open or half-open, and stops when it closes."""
    desk = Desk(BreakerRow(KEY))
    desk.call(20, 20)
    assert len(desk.told()) == 1
    desk.now += REPORT_EVERY - 0.01
    assert desk.told() == []
    desk.now += 0.01
    (again,) = desk.told()
    assert again.tripped and again.counts == Counts(20, 20, 0, 1)
    desk.now += 15
    desk.local.tick(desk.now)
    assert desk.told()[0].tripped
    desk.call(3)
    desk.now += REPORT_EVERY
    (recovered,) = desk.told()
    assert not recovered.tripped and recovered.counts == Counts(23, 20, 0, 2)


def test_a_trip_is_reported_after_its_counts_expired() -> None:
    """A worker still reports tripped when its window is empty."""
    desk = Desk(BreakerRow(KEY))
    desk.call(20, 20)
    desk.now += 15
    desk.local.tick(desk.now)
    desk.now += 30
    (report,) = desk.told()
    assert report.tripped and report.counts == Counts()


# --- the fleet's row -----------------------------------------------------------------------------------------------


def test_a_worker_does_not_leave_an_open_row_by_itself() -> None:
    """Without a lease the worker makes no probes, however long ago the wait ended."""
    desk = Desk()
    assert desk.see(OPEN) == [(BreakerState.CLOSED, BreakerState.OPEN, True)]
    for seconds in (0, 14, 1, 3600):
        desk.now += seconds
        assert desk.local.tick(desk.now) == []
        assert desk.admit(5) == 0 and not desk.may_retry() and desk.local.state is BreakerState.OPEN
    assert not desk.local.tripped


def test_a_row_of_the_same_generation_changes_nothing() -> None:
    """A row with new windows keeps the worker's counts; only its list of sick nodes matters."""
    desk = Desk(BreakerRow(KEY))
    desk.call(19, 19)
    window = WorkerWindow(9, T0, Counts(5))
    assert desk.see(BreakerRow(KEY, windows={"b": window}, sick=("a",))) == []
    assert desk.local.sick
    assert desk.see(BreakerRow(KEY, windows={"b": window}, sick=("b",))) == []
    assert not desk.local.sick and desk.local.state is BreakerState.CLOSED
    desk.call(1, 1)
    assert desk.local.state is BreakerState.OPEN, "its counts were kept"


def test_a_new_generation_discards_all_counts() -> None:
    """A new generation discards counts, trips and reports; results of earlier calls are dropped."""
    desk = Desk(BreakerRow(KEY))
    outstanding = desk.local.admit(20, 0, desk.now, desk.now_ms)
    desk.call(19, 19)
    desk.told()
    assert desk.see(BreakerRow(KEY, generation=1)) == [(BreakerState.CLOSED, BreakerState.CLOSED, True)]
    assert desk.told() == []
    assert desk.local.report(outstanding.generation, Counts(20, 20), desk.now, 0.5) == []
    assert desk.local.state is BreakerState.CLOSED
    desk.call(20, 20)
    assert desk.local.tripped
    desk.see(BreakerRow(KEY, generation=2))
    assert desk.local.state is BreakerState.CLOSED and not desk.local.tripped and desk.told() == []


def test_results_of_an_older_state_are_dropped() -> None:
    """Calls admitted while closed are no probes, and probes of one lease do not count for the next."""
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


def test_a_replayed_table_is_ignored() -> None:
    """A new owner replays the table's history; older rows do not repeat an outage or renew a lease."""
    desk = with_lease()
    row = desk.local.row
    assert row is not None and desk.call(3, ladder=3) == 3
    for old in (BreakerRow(KEY, since_ms=T0 - 5), OPEN, row):
        assert desk.see(old) == [] and desk.local.row == row and desk.local.state is BreakerState.HALF_OPEN
    assert desk.admit(3, ladder=3) == 0
    desk.now += 1
    recreated = BreakerRow(KEY, since_ms=desk.now_ms)
    assert desk.see(recreated) == [(BreakerState.HALF_OPEN, BreakerState.CLOSED, True)], (
        "a table that was created again starts over"
    )


def test_forced_open_allows_no_calls_and_no_requests() -> None:
    """A forced-open row stays in force until the next command."""
    desk = Desk(BreakerRow(KEY, "forced_open", 1, T0))
    assert desk.local.state is BreakerState.FORCED_OPEN
    for _ in range(100):
        desk.now += 1
        assert desk.admit(5) == 0 and not desk.may_retry() and desk.told() == []
    assert desk.local.state is BreakerState.FORCED_OPEN and not desk.local.tripped


def test_disabled_allows_all_calls_and_counts() -> None:
    """A disabled breaker never opens, but its counts are reported."""
    desk = Desk(BreakerRow(KEY, "disabled", 1, T0))
    assert desk.call(1000, 1000) == 1000 and desk.may_retry()
    assert desk.local.state is BreakerState.DISABLED and not desk.local.tripped
    (report,) = desk.told()
    assert (report.kind, report.counts, report.tripped) == (ReportKind.WINDOW, Counts(1000, 1000, 0, 1), False)
    assert not desk.local.admit(1, 0, desk.now, desk.now_ms).probe
