"""The local breaker while the fleet breaker is open: requests, probes and autonomous workers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failsoft.models.breaker.fleet import fold
from failsoft.models.breaker.local import AUTONOMOUS_AFTER, DEMAND_VALID_FOR, MAX_REQUESTS, REPORT_EVERY, RESERVED_FOR
from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.fleet.breaker import BreakerRow, Probes, ReportKind
from failsoft.schemas.fleet.counts import Counts
from tests.desk import OPEN, Desk, asked, with_lease
from tests.fleet_owner import KEY, POLICY

# --- requests ------------------------------------------------------------------------------------------------------


def test_no_request_before_the_wait_ends() -> None:
    """A worker requests probes only when the row's wait is over; the owner refuses earlier requests."""
    desk = Desk(OPEN)
    desk.now += 14.9
    desk.may_retry()
    desk.admit(3)
    assert desk.told() == []
    desk.now += 0.1
    (ask,) = desk.told()
    assert (ask.kind, ask.generation) == (ReportKind.ASK, 1)


def test_no_request_without_records_to_probe_with() -> None:
    """A lease without records to probe with would block the other workers."""
    desk = Desk(OPEN)
    desk.now += 15
    assert not desk.may_retry(waiting=False)
    assert desk.told() == []


def test_calls_refused_long_ago_are_not_counted_as_probes() -> None:
    """A live event that the fallback answered early in the outage cannot be used as a probe."""
    desk = Desk(OPEN)
    desk.admit(3)
    desk.may_retry()
    desk.now += 15
    assert desk.told() == []
    desk.now += DEMAND_VALID_FOR
    desk.admit(1)
    (ask,) = desk.told()
    assert ask.want == 1, "only the latest call counts"


@pytest.mark.parametrize(("calls", "want"), [(1, 1), (2, 2), (3, 3), (500, 3)])
def test_it_requests_as_many_probes_as_it_can_use(calls: int, want: int) -> None:
    """A worker requests one probe for each record, but no more than close the breaker."""
    desk = Desk(OPEN)
    desk.now += 15
    desk.admit(calls)
    assert [r.want for r in desk.told()] == [want]


def test_waiting_retries_request_all_probes() -> None:
    """The number of waiting retries is unknown until they may be read, so all probes are requested."""
    desk = Desk(OPEN)
    desk.now += 15
    desk.admit(1)
    desk.may_retry()
    assert [r.want for r in desk.told()] == [3]


def test_a_request_is_repeated_while_records_wait() -> None:
    """A request is repeated at most every quarter of a second."""
    desk = asked()
    assert desk.told() == [], "no record arrived since"
    desk.now += REPORT_EVERY - 0.01
    desk.may_retry()
    assert desk.told() == []
    desk.now += 0.01
    assert desk.kinds() == [ReportKind.ASK]


def test_no_request_while_another_worker_has_the_lease() -> None:
    """The worker neither probes nor requests probes until the other worker's lease ends."""
    desk = Desk(OPEN)
    desk.now += 15
    desk.lend(worker="b")
    assert desk.admit(3) == 0 and not desk.may_retry() and desk.told() == []
    desk.now += 10
    desk.admit(3)
    assert desk.kinds() == [ReportKind.ASK]


def test_a_used_lease_blocks_requests_until_it_ends() -> None:
    """If all its probes passed but were not enough, the row without a lease allows the next request."""
    desk = with_lease(probes=1)
    assert desk.call(5, ladder=5) == 1
    assert desk.may_retry() is False
    assert desk.kinds() == [ReportKind.PROBED]
    row = desk.local.row
    assert row is not None
    desk.see(replace(row, lease=None, passed=1))
    assert desk.kinds() == [ReportKind.ASK]


# --- probing -------------------------------------------------------------------------------------------------------


def test_a_lease_limits_the_number_of_probes() -> None:
    """All calls together make at most the leased number of probes."""
    desk = with_lease()
    first = desk.local.admit(2, 2, desk.now, desk.now_ms)
    assert (first.granted, first.probe) == (2, True) and desk.may_retry()
    assert desk.admit(5, ladder=5) == 1
    assert desk.admit(5, ladder=5) == 0 and not desk.may_retry()


def test_an_expired_lease_is_not_used() -> None:
    """After the lease expired, another worker may have the next one."""
    desk = with_lease()
    desk.now += 9.9
    assert desk.may_retry()
    desk.now += 0.1
    assert not desk.may_retry() and desk.admit(1, ladder=1) == 0


@pytest.mark.parametrize("asks", [False, True])
def test_a_lease_requested_by_a_previous_process_is_not_used(asks: bool) -> None:
    """Probes of the previous process may still be running, and a request of an older generation does not count."""
    desk = asked() if asks else Desk(OPEN)
    if asks:
        desk.see(replace(OPEN, generation=2, since_ms=desk.now_ms, until_ms=desk.now_ms + 15_000))
        desk.now += 15
    desk.lend()
    assert desk.local.state is BreakerState.HALF_OPEN
    assert desk.admit(3, ladder=3) == 0 and not desk.may_retry()
    desk.now += 10
    desk.may_retry()
    assert desk.kinds() == [ReportKind.ASK], "probes may be requested again when the lease has ended"
    desk.lend()
    assert desk.admit(5, ladder=5) == 3


def test_waiting_retries_probe_first() -> None:
    """In the first second of a half-open period only retries probe; then live events may use the rest."""
    desk = with_lease()
    assert desk.may_retry()
    assert desk.admit(5) == 0, "live events wait"
    assert desk.admit(5, ladder=1) == 3, "a batch with a retry may probe"
    desk = with_lease()
    desk.now += RESERVED_FOR
    assert desk.admit(5) == 3


def test_live_events_probe_at_once_without_waiting_retries() -> None:
    """If no lane has reported waiting retries within DEMAND_VALID_FOR, live events probe at once."""
    desk = with_lease(by_ladder=False)
    assert desk.admit(5) == 3
    desk = with_lease()
    desk.now += DEMAND_VALID_FOR
    desk.lend()
    assert desk.local.state is BreakerState.HALF_OPEN
    assert desk.admit(1) == 0, "this worker did not request the lease"
    desk = asked()
    desk.now += DEMAND_VALID_FOR
    desk.lend()
    assert desk.admit(5) == 3


def test_after_an_odd_number_of_reopenings_live_events_probe_first() -> None:
    """Retries that no model can answer would otherwise keep the breaker of a healthy version open."""
    desk = with_lease(reopenings=1)
    assert not desk.may_retry() and desk.told() == []
    assert desk.admit(1) == 1
    desk.now += RESERVED_FOR
    assert desk.may_retry() and desk.admit(5) == 2
    assert with_lease(reopenings=2).may_retry(), "after an even number, retries come first"


@pytest.mark.parametrize("reopenings", [0, 1, 2, 3])
def test_probes_are_drawn_from_anywhere_when_live_events_come_first(reopenings: int) -> None:
    """The records at the heads of the rungs may be ones that no model can answer."""
    desk = with_lease(reopenings=reopenings)
    desk.now += RESERVED_FOR
    admission = desk.local.admit(2, 2, desk.now, desk.now_ms)
    assert (admission.granted, admission.probe, admission.anywhere) == (2, True, reopenings % 2 == 1)


def test_the_own_breaker_alternates_in_the_same_way() -> None:
    """Every second half-open period draws probes from anywhere; calls of a closed breaker do not."""
    desk = Desk()
    assert not desk.local.admit(1, 1, desk.now, desk.now_ms).anywhere
    desk.call(100, failures=100)
    drawn = []
    for _ in range(4):
        desk.now += 3600
        admission = desk.local.admit(1, 1, desk.now, desk.now_ms)
        assert (admission.granted, admission.probe) == (1, True)
        drawn.append(admission.anywhere)
        desk.local.report(admission.generation, Counts(1, 1, 0, 1), desk.now, 0.5)
    assert drawn == [False, True, False, True]


def test_probe_results_are_reported_at_once_and_again_until_the_row_changes() -> None:
    """Probe results are totals of the lease, so that a repeated report adds nothing."""
    desk = with_lease()
    assert desk.call(1, ladder=1) == 1
    (first,) = desk.told()
    assert (first.kind, first.generation, first.probes) == (ReportKind.PROBED, 2, Probes(1))
    desk.now += 0.01
    assert desk.told() == []
    desk.call(2, 1, slow=1, ladder=2)
    (second,) = desk.told()
    assert second.probes == Probes(2, 1, 1) and second.sequence > first.sequence
    for _ in range(3):
        desk.now += REPORT_EVERY
        assert [r.probes for r in desk.told()] == [Probes(2, 1, 1)]
    desk.see(replace(OPEN, generation=3, since_ms=desk.now_ms, until_ms=desk.now_ms + 30_000))
    desk.now += REPORT_EVERY
    assert desk.told() == []


def test_every_answered_row_of_a_slow_run_is_slow() -> None:
    """Each row that passed in a slow run is slow; failed rows count as failed only."""
    desk = with_lease()
    desk.call(3, 0, slow=1, ladder=3)
    assert [r.probes for r in desk.told()] == [Probes(3, 0, 3)]
    desk = with_lease()
    desk.call(3, 3, slow=1, ladder=3)
    assert [r.probes for r in desk.told()] == [Probes(0, 3, 0)]


def test_only_the_rows_of_slow_runs_are_slow() -> None:
    """With three runs of one row each, one slow run makes one slow probe, and the fleet breaker closes."""
    desk = with_lease()
    row = desk.local.row
    assert row is not None
    admission = desk.local.admit(3, 3, desk.now, desk.now_ms)
    desk.local.report(admission.generation, Counts(3, 0, 1, runs=3), desk.now, 0.5)
    (report,) = desk.told()
    assert report.probes == Probes(3, 0, 1)
    folded = fold(row, report, POLICY, desk.now_ms, 0.5).row
    assert folded is not None and folded.state == "closed"


def test_probes_without_runs_are_not_slow() -> None:
    """Counts from the wire may have no runs. They report no slow probe."""
    desk = with_lease()
    admission = desk.local.admit(3, 3, desk.now, desk.now_ms)
    desk.local.report(admission.generation, Counts(3, 0, 0, 0), desk.now, 0.5)
    assert [r.probes for r in desk.told()] == [Probes(3)]


def test_probes_that_end_after_their_lease_are_reported() -> None:
    """Late results are reported as long as the row has no newer lease."""
    desk = with_lease()
    admission = desk.local.admit(3, 3, desk.now, desk.now_ms)
    desk.now += 11
    desk.local.report(admission.generation, Counts(3), desk.now, 0.5)
    assert [r.probes for r in desk.told()] == [Probes(3)]


def test_each_lease_starts_from_zero() -> None:
    """A new lease allows all of its probes and does not include results of the last one."""
    desk = with_lease()
    assert desk.call(2, ladder=2) == 2
    desk.told()
    desk.now += 10
    desk.may_retry()
    assert desk.kinds() == [ReportKind.PROBED, ReportKind.ASK]
    desk.lend()
    assert desk.told() == [] and desk.call(5, ladder=5) == 3
    assert [r.probes for r in desk.told()] == [Probes(3)]


def test_a_row_that_closes_allows_all_calls() -> None:
    """The worker starts with an empty window and its own breaker closed."""
    desk = with_lease()
    desk.call(3, ladder=3)
    closed = BreakerRow(KEY, "closed", 3, desk.now_ms)
    assert desk.see(closed) == [(BreakerState.HALF_OPEN, BreakerState.CLOSED, True)]
    assert desk.admit(1000) == 1000 and desk.may_retry()


# --- autonomous ----------------------------------------------------------------------------------------------------


def unanswered(desk: Desk) -> Desk:
    """``desk`` after requests for probes that the owner did not answer, so that it is autonomous."""
    until = desk.now + AUTONOMOUS_AFTER + REPORT_EVERY
    while desk.now < until:
        desk.now += REPORT_EVERY
        desk.may_retry()
        desk.told()
    return desk


def test_a_worker_without_an_answer_becomes_autonomous() -> None:
    """Its own breaker starts half-open and then probes, closes and opens without the fleet."""
    desk = asked()
    desk.now += AUTONOMOUS_AFTER - 0.1 - REPORT_EVERY
    for _ in range(MAX_REQUESTS):
        desk.may_retry()
        desk.told()
        assert desk.local.state is BreakerState.OPEN
        desk.now += REPORT_EVERY / MAX_REQUESTS
    desk = unanswered(desk)
    desk.local.tick(desk.now)
    assert desk.local.state is BreakerState.HALF_OPEN and desk.local.tripped
    assert desk.may_retry() and desk.call(10) == 3
    assert desk.local.state is BreakerState.CLOSED
    desk.call(20, 20)
    assert desk.local.state is BreakerState.OPEN
    desk.now += 16
    desk.local.tick(desk.now)
    assert desk.call(1, 1) == 1 and desk.local.state is BreakerState.OPEN
    desk.now += 16
    assert desk.local.tick(desk.now) == [], "each wait is longer"


def test_one_unanswered_request_is_not_enough() -> None:
    """A single request may be lost or too early by the owner's clock, so it takes MAX_REQUESTS of them."""
    desk = Desk(OPEN)
    desk.now += 15
    for i in range(MAX_REQUESTS):
        assert desk.local.tick(desk.now) == [] and desk.local.state is BreakerState.OPEN, i
        desk.admit(1)
        assert desk.kinds() == [ReportKind.ASK]
        desk.now += 60
    desk.local.tick(desk.now)
    assert desk.local.state is BreakerState.HALF_OPEN


def test_a_lease_for_another_worker_is_an_answer() -> None:
    """A lease for any worker shows that an owner folds."""
    desk = asked()
    desk.now += AUTONOMOUS_AFTER - 1
    desk.may_retry()
    desk.told()
    desk.lend(worker="b")
    desk.now += 12
    for _ in range(MAX_REQUESTS + 1):
        desk.may_retry()
        desk.told()
        desk.now += REPORT_EVERY
    assert desk.local.state is BreakerState.HALF_OPEN and not desk.local.tripped


def test_an_autonomous_worker_rejoins_when_the_row_changes() -> None:
    """It keeps requesting probes, follows a row of a new generation, and drops results of its own period."""
    desk = unanswered(asked())
    desk.local.tick(desk.now)
    desk.call(3)
    assert desk.local.state is BreakerState.CLOSED
    outstanding = desk.local.admit(20, 0, desk.now, desk.now_ms)
    assert outstanding.granted == 20
    desk.now += REPORT_EVERY
    assert desk.kinds() == [ReportKind.ASK]
    row = desk.local.row
    assert row is not None
    assert desk.see(replace(row, sick=())) == [] and desk.local.state is BreakerState.CLOSED, (
        "the row's generation did not change"
    )
    desk.lend()
    assert desk.local.state is BreakerState.HALF_OPEN and not desk.local.tripped
    desk.local.report(outstanding.generation, Counts(20, 20), desk.now, 0.5)
    assert desk.kinds() == [] and desk.local.state is BreakerState.HALF_OPEN
    assert desk.admit(5, ladder=5) == 3


def test_a_worker_becomes_autonomous_after_anothers_lease_expired() -> None:
    """An expired lease that is not granted again leads to autonomy too."""
    desk = Desk(OPEN)
    desk.now += 15
    desk.lend(worker="b")
    desk.now += 10
    desk = unanswered(desk)
    desk.local.tick(desk.now)
    assert desk.local.tripped and desk.call(10) == 3
