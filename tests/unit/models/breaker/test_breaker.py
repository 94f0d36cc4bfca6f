"""The breaker, as walks through its states."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failsoft.models.breaker.breaker import Admission, Breaker
from failsoft.models.breaker.rules import TRANSITIONS, BreakerEvent, BreakerPolicy, BreakerState, judge, wait
from failsoft.models.breaker.window import Counts

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
MIDDLE = 0.5  # the draw that jitters nothing
GOOD, BAD, SLOW = Counts(1, 0, 0), Counts(1, 1, 0), Counts(1, 0, 1)


def opened(now: float = 0.0, policy: BreakerPolicy = POLICY) -> Breaker:
    """A breaker that failing calls opened at ``now``."""
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
    """The table has a row a state, and no state is a dead end or out of reach."""
    assert set(TRANSITIONS) == set(BreakerState)
    assert {to for row in TRANSITIONS.values() for to in row.values()} == set(BreakerState)


def test_every_event_does_something() -> None:
    """No event is in the enumeration without an arrow in the diagram."""
    assert {event for row in TRANSITIONS.values() for event in row} == set(BreakerEvent)


@pytest.mark.parametrize("state", [BreakerState.FORCED_OPEN, BreakerState.DISABLED])
def test_forced_states_are_left_by_commands_alone(state: BreakerState) -> None:
    """What an operator decided, neither time nor calls undo."""
    assert all(event.startswith("operator: ") for event in TRANSITIONS[state])


# --- judging -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "opens"),
    [
        (Counts(19, 19, 19), False),  # too few calls to tell
        (Counts(20, 9, 0), False),
        (Counts(20, 10, 0), True),  # exactly the rate
        (Counts(20, 0, 15), False),
        (Counts(20, 0, 16), True),
        (Counts(20, 9, 15), False),  # rates are not added to each other
        (Counts(), False),
    ],
)
def test_it_opens_at_a_rate_with_enough_calls(counts: Counts, opens: bool) -> None:
    """A rate counts from the minimum of calls on, and opens when it is reached."""
    assert (judge(POLICY, counts) is not None) is opens


def test_a_rate_that_floats_cannot_hold_is_reached_exactly() -> None:
    """3 of 30 reach a rate of 0.1."""
    assert judge(replace(POLICY, failure_rate=0.1), Counts(30, 3, 0)) is not None


def test_one_slow_run_of_many_rows_opens_nothing() -> None:
    """A stall of one large batch is one slow run, not thousands of slow calls."""
    assert judge(POLICY, Counts(4000, 0, 1, runs=1)) is None
    assert judge(POLICY, Counts(4000 * 20, 0, 15, runs=20)) is None
    assert judge(POLICY, Counts(4000 * 20, 0, 16, runs=20)) == "16 of 20 runs were slow in 30 s (0.8 opens)"


def test_the_reason_names_the_numbers() -> None:
    """Who reads why it opened sees the counts, the window and the threshold."""
    assert judge(POLICY, Counts(40, 30, 0)) == "30 of 40 calls failed in 30 s (0.5 opens)"
    assert judge(POLICY, Counts(40, 0, 36)) == "36 of 40 runs were slow in 30 s (0.8 opens)"


# --- waiting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reopenings", "seconds"), [(0, 15), (1, 30), (2, 60), (4, 240), (5, 300), (10_000, 300)])
def test_the_wait_doubles_up_to_its_cap(reopenings: int, seconds: float) -> None:
    """Each reopening doubles the wait, until max_open."""
    assert wait(POLICY, reopenings, MIDDLE) == seconds


@pytest.mark.parametrize(("reopenings", "last"), [(0, 18), (4, 288), (5, 240), (10_000, 240)])
def test_the_wait_is_jittered_by_a_fifth(reopenings: int, last: float) -> None:
    """The draw spreads the wait over 20 % on either side, and what would lie beyond max_open beneath it."""
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
    """The refusal names the field."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(POLICY, **wrong)


# --- walks -------------------------------------------------------------------------------------------------------


def test_closed_open_half_open_closed() -> None:
    """The whole walk: failures open it, time lets probes through, good probes close it."""
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
    """A failed probe reopens at once, for twice as long, and again."""
    breaker, now = opened(), 0.0
    for cycle, seconds in enumerate([15, 30, 60, 120, 240, 300, 300]):
        assert breaker.until == pytest.approx(now + seconds)
        assert breaker.reopenings == cycle
        now += seconds
        granted = breaker.admit(1, now)
        assert granted.granted == 1
        breaker.report(granted.generation, BAD, now, MIDDLE)
        assert breaker.state is BreakerState.OPEN


def test_closing_forgets_the_doubling() -> None:
    """After probes closed it, the next opening is as short as the first."""
    breaker = half_open(15.0)
    breaker.report(breaker.admit(1, 15.0).generation, BAD, 15.0, MIDDLE)
    breaker.report(breaker.admit(3, 45.0).generation, Counts(3, 0, 0), 45.0, MIDDLE)
    assert (breaker.state, breaker.reopenings) == (BreakerState.CLOSED, 0)
    breaker.report(breaker.generation, Counts(20, 20, 0), 46.0, MIDDLE)
    assert breaker.until == 46.0 + 15.0


def test_small_reports_add_up() -> None:
    """Counts of many batches open it as one batch's would, within the window."""
    breaker = Breaker(POLICY, 0.0)
    for i in range(19):
        assert breaker.report(0, BAD, i * 0.1, MIDDLE) == []
    assert len(breaker.report(0, BAD, 2.0, MIDDLE)) == 1


def test_old_failures_do_not_open_it() -> None:
    """What left the window no longer counts."""
    breaker = Breaker(POLICY, 0.0)
    breaker.report(0, Counts(19, 19, 0), 0.0, MIDDLE)
    assert breaker.report(0, BAD, 31.0, MIDDLE) == []


def test_slow_calls_open_it() -> None:
    """A model that answers too slowly opens its breaker although nothing failed."""
    breaker = Breaker(POLICY, 0.0)
    assert [t.to for t in breaker.report(0, Counts(20, 0, 20), 0.0, MIDDLE)] == [BreakerState.OPEN]


def test_a_transition_empties_the_window() -> None:
    """After closing, the failures from before it opened do not count."""
    breaker = half_open()
    breaker.report(breaker.admit(3, 15.0).generation, Counts(3, 0, 0), 15.0, MIDDLE)
    assert breaker.snapshot(15.0).counts == Counts()
    assert breaker.report(breaker.generation, Counts(19, 19, 0), 15.1, MIDDLE) == []


@pytest.mark.parametrize("counts", [Counts(20, 20, 0), Counts(3, 0, 0)])
def test_late_reports_of_an_older_generation_are_dropped(counts: Counts) -> None:
    """Neither failures nor successes of an older generation move or fill anything."""
    breaker = half_open()
    breaker.admit(2, 15.0)
    before = breaker.snapshot(15.0)
    assert breaker.report(0, counts, 15.0, MIDDLE) == []
    breaker.release(0, 3)
    assert breaker.snapshot(15.0) == before


def test_an_empty_report_changes_nothing() -> None:
    """No calls say nothing of a model."""
    breaker = half_open()
    before = breaker.snapshot(15.0)
    assert breaker.report(breaker.generation, Counts(), 15.0, MIDDLE) == []
    assert breaker.snapshot(15.0) == before


# --- probes ------------------------------------------------------------------------------------------------------


def test_admit_sees_that_the_wait_is_over() -> None:
    """The first caller after the wait is a prober, and the next tick says what happened."""
    breaker = opened()
    assert breaker.admit(10, 15.0).granted == 3
    assert [t.to for t in breaker.tick(15.0)] == [BreakerState.HALF_OPEN]
    assert breaker.tick(15.0) == []


def test_probes_are_lent_once() -> None:
    """Callers share the probes; successes do not free new ones."""
    breaker = half_open()
    assert [breaker.admit(2, 15.0).granted for _ in range(3)] == [2, 1, 0]
    breaker.report(breaker.generation, GOOD, 15.1, MIDDLE)
    assert breaker.admit(2, 15.2).granted == 0


def test_a_probe_given_back_is_lent_again() -> None:
    """A caller that did not call after all does not cost a probe."""
    breaker = half_open()
    lent = breaker.admit(3, 15.0)
    breaker.release(lent.generation, 2)
    assert breaker.admit(5, 15.0).granted == 2
    breaker.release(lent.generation, 50)
    assert breaker.admit(5, 15.0).granted == 3


def test_one_failed_probe_reopens_although_others_are_out() -> None:
    """The first failure decides; the others' reports come too late to matter."""
    breaker = half_open()
    lent = breaker.admit(3, 15.0)
    assert [t.to for t in breaker.report(lent.generation, BAD, 15.1, MIDDLE)] == [BreakerState.OPEN]
    assert breaker.report(lent.generation, Counts(2, 0, 0), 15.2, MIDDLE) == []


def test_a_slow_first_probe_is_forgiven_slow_probes_are_not() -> None:
    """Slow probes reopen at the rate at which slow calls open: here three of three."""
    breaker = half_open()
    generation = breaker.admit(3, 15.0).generation
    assert breaker.report(generation, SLOW, 15.1, MIDDLE) == []
    assert breaker.report(generation, SLOW, 15.2, MIDDLE) == []
    [again] = breaker.report(generation, SLOW, 15.3, MIDDLE)
    assert (again.to, again.reason) == (BreakerState.OPEN, "3 of 3 probes were slow")
    assert breaker.reopenings == 1


def test_one_slow_probe_among_good_ones_closes() -> None:
    """Fewer slow probes than the slow rate do not stand in the way."""
    breaker = half_open()
    assert [t.to for t in breaker.report(breaker.admit(3, 15.0).generation, Counts(3, 0, 1), 15.1, MIDDLE)] == [
        BreakerState.CLOSED
    ]


def test_lost_probes_do_not_leave_it_stuck() -> None:
    """Probes not heard of by the end of their lease are lent anew, and their late report is harmless."""
    breaker = half_open(15.0)
    lost = breaker.admit(3, 16.0)
    assert breaker.admit(3, 45.9).granted == 0
    fresh = breaker.admit(3, 46.0)
    assert fresh.granted == 3
    [anew] = breaker.report(lost.generation, BAD, 46.1, MIDDLE)
    assert (anew.from_, anew.to) == (BreakerState.HALF_OPEN, BreakerState.HALF_OPEN)
    assert breaker.state is BreakerState.HALF_OPEN
    assert [t.to for t in breaker.report(fresh.generation, Counts(3, 0, 0), 46.2, MIDDLE)] == [BreakerState.CLOSED]


def test_a_lease_runs_from_the_oldest_probe() -> None:
    """Probes lent later do not extend the life of a lost one."""
    breaker = half_open(15.0)
    breaker.admit(1, 15.0)
    breaker.admit(1, 40.0)
    assert [t.to for t in breaker.tick(45.0)] == [BreakerState.HALF_OPEN]


def test_probes_wait_for_traffic_as_long_as_it_takes() -> None:
    """With nothing lent, no lease runs out: a quiet night moves nothing."""
    breaker = half_open(15.0)
    assert breaker.tick(1e6) == []
    assert breaker.admit(1, 1e6).granted == 1


# --- commands ----------------------------------------------------------------------------------------------------


def test_forced_open_stays_open() -> None:
    """Neither time nor reports let calls through; closing does."""
    breaker = Breaker(POLICY, 0.0)
    [forced] = breaker.force_open(1.0, "ann", "bad labels since noon")
    assert (forced.to, forced.reason) == (BreakerState.FORCED_OPEN, "ann: bad labels since noon")
    assert breaker.admit(5, 1e9).granted == 0
    assert breaker.report(breaker.generation, Counts(50, 0, 0), 1e9, MIDDLE) == []
    assert breaker.force_open(1e9, "bob", "again") == []
    assert [t.to for t in breaker.close(1e9, "ann", "fixed")] == [BreakerState.CLOSED]
    assert breaker.admit(5, 1e9).granted == 5


def test_disabled_counts_and_never_opens() -> None:
    """Every call is admitted, whatever its rate, and the rate is still to be seen."""
    breaker = Breaker(POLICY, 0.0)
    breaker.disable(0.0, "ann", "false alarms")
    assert breaker.report(breaker.generation, Counts(100, 100, 0), 1.0, MIDDLE) == []
    assert breaker.admit(7, 1.0) == Admission(7, breaker.generation)
    assert breaker.snapshot(1.0).counts == Counts(100, 100, 0)


def test_enabling_again_starts_from_an_empty_window() -> None:
    """Failures counted while disabled do not open it afterwards."""
    breaker = Breaker(POLICY, 0.0)
    breaker.disable(0.0, "ann", "false alarms")
    breaker.report(breaker.generation, Counts(100, 100, 0), 1.0, MIDDLE)
    breaker.close(2.0, "ann", "tuned")
    assert breaker.report(breaker.generation, Counts(19, 19, 0), 2.0, MIDDLE) == []


@pytest.mark.parametrize("command", ["close", "reset"])
def test_closing_by_hand_does_not_wait_for_probes(command: str) -> None:
    """An operator closes an open breaker at once, and its doubling is forgotten."""
    breaker = half_open()
    breaker.report(breaker.admit(1, 15.0).generation, BAD, 15.0, MIDDLE)
    assert [t.to for t in getattr(breaker, command)(16.0, "ann", "fixed")] == [BreakerState.CLOSED]
    assert (breaker.reopenings, breaker.until) == (0, None)


def test_a_closed_breaker_can_be_reset_but_not_closed() -> None:
    """Closing what is closed does nothing; a reset empties its window and makes results under way harmless."""
    breaker = Breaker(POLICY, 0.0)
    breaker.report(0, Counts(19, 19, 0), 0.0, MIDDLE)
    assert breaker.close(0.0, "ann", "?") == []
    assert [t.generation for t in breaker.reset(0.0, "ann", "test data")] == [1]
    assert breaker.report(0, BAD, 0.1, MIDDLE) == []
    assert breaker.snapshot(0.1).counts == Counts()


def test_commands_return_what_admit_saw() -> None:
    """Each transition is returned exactly once, and in order."""
    breaker = opened()
    breaker.admit(1, 15.0)
    assert [t.to for t in breaker.disable(15.0, "ann", "?")] == [BreakerState.HALF_OPEN, BreakerState.DISABLED]


# --- snapshots ---------------------------------------------------------------------------------------------------


def test_a_snapshot_survives_another_clock() -> None:
    """Restored elsewhere, a breaker waits, lends and closes as the original would have."""
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
    """Looking at an open breaker whose time has come does not make it half-open."""
    breaker = opened()
    assert breaker.snapshot(1e6).state is BreakerState.OPEN
    assert breaker.state is BreakerState.OPEN
