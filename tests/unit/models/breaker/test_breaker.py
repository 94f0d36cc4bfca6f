"""The breaker: its transition table, its rules, and sequences of transitions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failsoft.models.breaker.breaker import Admission, Breaker
from failsoft.models.breaker.rules import TRANSITIONS, BreakerEvent, BreakerPolicy, BreakerState, judge, wait
from failsoft.schemas.fleet.counts import Counts

POLICY = BreakerPolicy(
    failure_rate=0.5,
    window=30.0,
    minimum_calls=20,
    slow_call=0.1,
    slow_rate=0.8,
    open_for=15.0,
    max_open=300.0,
    probes=3,
)
MIDDLE = 0.5  # the draw that adds no jitter
GOOD, BAD, SLOW = Counts(1, 0, 0), Counts(1, 1, 0), Counts(1, 0, 1)


def opened(now: float = 0.0, policy: BreakerPolicy = POLICY) -> Breaker:
    """A breaker that was opened by failing calls at ``now``."""
    breaker = Breaker(policy, now)
    moved = breaker.report(breaker.admit(20, now).generation, Counts(20, 20, 0), now, MIDDLE)
    assert [t.to for t in moved] == [BreakerState.OPEN]
    return breaker


def half_open(now: float = 15.0) -> Breaker:
    """A breaker that just became half-open."""
    breaker = opened(now - POLICY.open_for)
    assert [t.to for t in breaker.tick(now)] == [BreakerState.HALF_OPEN]
    return breaker


# --- the table ---------------------------------------------------------------------------------------------------


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    """The table has a row for each state, and each state can be reached and left."""
    assert set(TRANSITIONS) == set(BreakerState)
    assert {to for row in TRANSITIONS.values() for to in row.values()} == set(BreakerState)


def test_every_event_does_something() -> None:
    """Each event causes a transition from at least one state."""
    assert {event for row in TRANSITIONS.values() for event in row} == set(BreakerEvent)


@pytest.mark.parametrize("state", [BreakerState.FORCED_OPEN, BreakerState.DISABLED])
def test_only_commands_leave_the_operator_states(state: BreakerState) -> None:
    """Neither time nor calls end a state that an operator set."""
    assert all(event.startswith("operator: ") for event in TRANSITIONS[state])


# --- judging -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "opens"),
    [
        (Counts(19, 19, 19), False),  # fewer than the minimum of calls
        (Counts(20, 9, 0), False),
        (Counts(20, 10, 0), True),  # exactly the threshold
        (Counts(20, 0, 15), False),
        (Counts(20, 0, 16), True),
        (Counts(20, 9, 15), False),  # the two rates are not added
        (Counts(), False),
    ],
)
def test_it_opens_at_a_rate_with_enough_calls(counts: Counts, opens: bool) -> None:
    """A breaker opens when a rate reaches its threshold with at least the minimum of calls."""
    assert (judge(POLICY, counts) is not None) is opens


def test_a_rate_without_an_exact_float_is_reached_exactly() -> None:
    """3 failures of 30 calls reach a failure rate of 0.1."""
    assert judge(replace(POLICY, failure_rate=0.1), Counts(30, 3, 0)) is not None


def test_one_slow_run_of_many_rows_does_not_open() -> None:
    """A slow run of a large batch counts as one slow run, not as thousands of slow calls."""
    assert judge(POLICY, Counts(4000, 0, 1, runs=1)) is None
    assert judge(POLICY, Counts(4000 * 20, 0, 15, runs=20)) is None
    assert judge(POLICY, Counts(4000 * 20, 0, 16, runs=20)) == "16 of 20 runs were slow in 30 s (0.8 opens)"


def test_the_reason_names_the_numbers() -> None:
    """The reason gives the counts, the window and the threshold."""
    assert judge(POLICY, Counts(40, 30, 0)) == "30 of 40 calls failed in 30 s (0.5 opens)"
    assert judge(POLICY, Counts(40, 0, 36)) == "36 of 40 runs were slow in 30 s (0.8 opens)"


# --- waiting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reopenings", "seconds"), [(0, 15), (1, 30), (2, 60), (4, 240), (5, 300), (10_000, 300)])
def test_the_wait_doubles_up_to_its_cap(reopenings: int, seconds: float) -> None:
    """Each reopening doubles the wait, up to max_open."""
    assert wait(POLICY, reopenings, MIDDLE) == seconds


@pytest.mark.parametrize(("reopenings", "last"), [(0, 18), (4, 288), (5, 240), (10_000, 240)])
def test_the_wait_is_jittered_by_a_fifth(reopenings: int, last: float) -> None:
    """The draw varies the wait by 20 % in both directions, and reflects a wait above max_open below it."""
    assert wait(POLICY, reopenings, 0.0) == pytest.approx(wait(POLICY, reopenings, MIDDLE) * 0.8)
    assert wait(POLICY, reopenings, 1.0) == pytest.approx(last)
    assert max(wait(POLICY, reopenings, n / 100) for n in range(100)) <= POLICY.max_open


@pytest.mark.parametrize(
    "wrong",
    [
        {"failure_rate": 0},
        {"failure_rate": 1.1},
        {"slow_rate": -1},
        {"window": 0},
        {"minimum_calls": 0},
        {"slow_call": 0},
        {"open_for": float("nan")},
        {"max_open": 1.0},
        {"probes": 0},
        {"jitter": 1},
        {"probe_lease": 0},
    ],
)
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, float]) -> None:
    """An invalid policy raises ValueError, which names the field."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(POLICY, **wrong)


# --- transitions ------------------------------------------------------------------------------------------------------


def test_closed_open_half_open_closed() -> None:
    """Failures open the breaker, time makes it half-open, and successful probes close it."""
    breaker = Breaker(POLICY, now=100.0)
    assert breaker.admit(500, 100.0) == Admission(500, 0)
    [trip] = breaker.report(0, Counts(500, 400, 0), 100.2, MIDDLE)
    assert (trip.from_, trip.to, trip.generation, trip.at) == (BreakerState.CLOSED, BreakerState.OPEN, 1, 100.2)
    assert breaker.until == 115.2

    assert breaker.admit(500, 115.1) == Admission(0, 1)
    assert breaker.tick(115.1) == []
    [over] = breaker.tick(115.2)
    assert (over.from_, over.to, over.generation) == (BreakerState.OPEN, BreakerState.HALF_OPEN, 2)

    assert breaker.admit(500, 115.3) == Admission(3, 2, probe=True)
    assert breaker.report(2, Counts(2, 0, 0), 115.4, MIDDLE) == []
    [closed] = breaker.report(2, Counts(1, 0, 0), 115.5, MIDDLE)
    assert (closed.from_, closed.to, closed.generation) == (BreakerState.HALF_OPEN, BreakerState.CLOSED, 3)
    assert breaker.admit(500, 115.6) == Admission(500, 3)
    assert breaker.until is None


def test_closed_open_half_open_open_for_longer() -> None:
    """Each failed probe reopens the breaker at once and doubles the wait."""
    breaker, now = opened(), 0.0
    for cycle, seconds in enumerate([15, 30, 60, 120, 240, 300, 300]):
        assert breaker.until == pytest.approx(now + seconds)
        assert breaker.reopenings == cycle
        now += seconds
        granted = breaker.admit(1, now)
        assert granted.granted == 1
        breaker.report(granted.generation, BAD, now, MIDDLE)
        assert breaker.state is BreakerState.OPEN


def test_closing_resets_the_doubling() -> None:
    """After probes closed the breaker, the next wait is as long as the first."""
    breaker = half_open(15.0)
    breaker.report(breaker.admit(1, 15.0).generation, BAD, 15.0, MIDDLE)
    breaker.report(breaker.admit(3, 45.0).generation, Counts(3, 0, 0), 45.0, MIDDLE)
    assert (breaker.state, breaker.reopenings) == (BreakerState.CLOSED, 0)
    breaker.report(breaker.generation, Counts(20, 20, 0), 46.0, MIDDLE)
    assert breaker.until == 46.0 + 15.0


def test_small_reports_add_up() -> None:
    """Counts from many batches within the window open the breaker as those of one batch do."""
    breaker = Breaker(POLICY, 0.0)
    for i in range(19):
        assert breaker.report(0, BAD, i * 0.1, MIDDLE) == []
    assert len(breaker.report(0, BAD, 2.0, MIDDLE)) == 1


def test_old_failures_do_not_open_it() -> None:
    """Failures that left the window no longer count."""
    breaker = Breaker(POLICY, 0.0)
    breaker.report(0, Counts(19, 19, 0), 0.0, MIDDLE)
    assert breaker.report(0, BAD, 31.0, MIDDLE) == []


def test_slow_calls_open_it() -> None:
    """Slow calls open the breaker although none failed."""
    breaker = Breaker(POLICY, 0.0)
    assert [t.to for t in breaker.report(0, Counts(20, 0, 20), 0.0, MIDDLE)] == [BreakerState.OPEN]


def test_a_transition_empties_the_window() -> None:
    """After closing, failures from before the breaker opened do not count."""
    breaker = half_open()
    breaker.report(breaker.admit(3, 15.0).generation, Counts(3, 0, 0), 15.0, MIDDLE)
    assert breaker.snapshot(15.0).counts == Counts()
    assert breaker.report(breaker.generation, Counts(19, 19, 0), 15.1, MIDDLE) == []


@pytest.mark.parametrize("counts", [Counts(20, 20, 0), Counts(3, 0, 0)])
def test_late_reports_of_an_older_generation_are_dropped(counts: Counts) -> None:
    """Results and released probes of an older generation change nothing."""
    breaker = half_open()
    breaker.admit(2, 15.0)
    before = breaker.snapshot(15.0)
    assert breaker.report(0, counts, 15.0, MIDDLE) == []
    breaker.release(0, 3)
    assert breaker.snapshot(15.0) == before


def test_an_empty_report_changes_nothing() -> None:
    """A report without calls changes nothing."""
    breaker = half_open()
    before = breaker.snapshot(15.0)
    assert breaker.report(breaker.generation, Counts(), 15.0, MIDDLE) == []
    assert breaker.snapshot(15.0) == before


# --- probes ------------------------------------------------------------------------------------------------------


def test_admit_sees_that_the_wait_is_over() -> None:
    """The first request after the wait gets probes, and the next tick returns the transition."""
    breaker = opened()
    assert breaker.admit(10, 15.0).granted == 3
    assert [t.to for t in breaker.tick(15.0)] == [BreakerState.HALF_OPEN]
    assert breaker.tick(15.0) == []


def test_probes_are_granted_once() -> None:
    """All requests share the probes, and successful probes do not add new ones."""
    breaker = half_open()
    assert [breaker.admit(2, 15.0).granted for _ in range(3)] == [2, 1, 0]
    breaker.report(breaker.generation, GOOD, 15.1, MIDDLE)
    assert breaker.admit(2, 15.2).granted == 0


def test_a_released_probe_is_granted_again() -> None:
    """A released probe can be granted again."""
    breaker = half_open()
    probes = breaker.admit(3, 15.0)
    breaker.release(probes.generation, 2)
    assert breaker.admit(5, 15.0).granted == 2
    breaker.release(probes.generation, 50)
    assert breaker.admit(5, 15.0).granted == 3


def test_one_failed_probe_reopens_while_others_are_outstanding() -> None:
    """The first failed probe reopens the breaker, and later reports of other probes are dropped."""
    breaker = half_open()
    probes = breaker.admit(3, 15.0)
    assert [t.to for t in breaker.report(probes.generation, BAD, 15.1, MIDDLE)] == [BreakerState.OPEN]
    assert breaker.report(probes.generation, Counts(2, 0, 0), 15.2, MIDDLE) == []


def test_slow_probes_reopen_at_the_slow_rate() -> None:
    """Slow probes reopen the breaker when their share reaches the slow rate, here three of three."""
    breaker = half_open()
    generation = breaker.admit(3, 15.0).generation
    assert breaker.report(generation, SLOW, 15.1, MIDDLE) == []
    assert breaker.report(generation, SLOW, 15.2, MIDDLE) == []
    [again] = breaker.report(generation, SLOW, 15.3, MIDDLE)
    assert (again.to, again.reason) == (BreakerState.OPEN, "3 of 3 probes were slow")
    assert breaker.reopenings == 1


def test_one_slow_probe_does_not_prevent_closing() -> None:
    """The breaker closes when fewer probes are slow than the slow rate."""
    breaker = half_open()
    assert [t.to for t in breaker.report(breaker.admit(3, 15.0).generation, Counts(3, 0, 1), 15.1, MIDDLE)] == [
        BreakerState.CLOSED
    ]


def test_probes_without_runs_close() -> None:
    """Counts from the wire may have no runs. Such probes are not slow."""
    breaker = half_open()
    [closed] = breaker.report(breaker.admit(3, 15.0).generation, Counts(3, 0, 0, 0), 15.1, MIDDLE)
    assert closed.to is BreakerState.CLOSED


def test_lost_probes_are_granted_again() -> None:
    """When a lease expires, its probes are granted again and their late report is dropped."""
    breaker = half_open(15.0)
    lost = breaker.admit(3, 16.0)
    assert breaker.admit(3, 45.9).granted == 0
    fresh = breaker.admit(3, 46.0)
    assert fresh.granted == 3
    [renewed] = breaker.report(lost.generation, BAD, 46.1, MIDDLE)
    assert (renewed.from_, renewed.to) == (BreakerState.HALF_OPEN, BreakerState.HALF_OPEN)
    assert breaker.state is BreakerState.HALF_OPEN
    assert [t.to for t in breaker.report(fresh.generation, Counts(3, 0, 0), 46.2, MIDDLE)] == [BreakerState.CLOSED]


def test_a_lease_runs_from_the_oldest_probe() -> None:
    """Probes granted later do not extend the lease of an earlier probe."""
    breaker = half_open(15.0)
    breaker.admit(1, 15.0)
    breaker.admit(1, 40.0)
    assert [t.to for t in breaker.tick(45.0)] == [BreakerState.HALF_OPEN]


def test_a_half_open_breaker_waits_for_traffic() -> None:
    """Without outstanding probes no lease expires, and the breaker stays half-open."""
    breaker = half_open(15.0)
    assert breaker.tick(1e6) == []
    assert breaker.admit(1, 1e6).granted == 1


# --- snapshots ---------------------------------------------------------------------------------------------------


def test_a_snapshot_can_be_restored_on_another_clock() -> None:
    """A restored breaker waits, grants probes and expires leases as the original would."""
    breaker = opened(now=1_000.0)
    restored = Breaker.restore(breaker.snapshot(1_005.0), now=7.0)
    assert restored.snapshot(7.0) == breaker.snapshot(1_005.0)
    assert restored.admit(5, 16.9).granted == 0
    assert restored.admit(5, 17.0).granted == 3

    again = Breaker.restore(restored.snapshot(20.0), now=500.0)
    assert again.snapshot(500.0) == restored.snapshot(20.0)
    assert again.admit(5, 500.0).granted == 0
    assert again.admit(5, 527.0).granted == 3  # the lease ran out 30 s after it began


def test_a_snapshot_changes_nothing() -> None:
    """A snapshot does not make an open breaker half-open, even after its wait."""
    breaker = opened()
    assert breaker.snapshot(1e6).state is BreakerState.OPEN
    assert breaker.state is BreakerState.OPEN
