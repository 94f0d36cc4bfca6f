"""A worker's breaker while the fleet's is open: who asks for probes, who makes them, and who goes on alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failsoft.models.breaker.local import ALONE_AFTER, ASKS, EVERY, FIRST, WAITING_SEEN
from failsoft.models.breaker.rules import BreakerState
from failsoft.models.breaker.window import Counts
from failsoft.schemas.fleet.breaker import BreakerRow, Probes, ReportKind
from tests.desk import OPEN, Desk, asked, lent
from tests.fleet_owner import KEY

# --- asking --------------------------------------------------------------------------------------------------------


def test_nobody_asks_before_the_row_says_so() -> None:
    """The owner would not hear it."""
    desk = Desk(OPEN)
    desk.now += 14.9
    desk.may_retry()
    desk.admit(3)
    assert desk.told() == []
    desk.now += 0.1
    (ask,) = desk.told()
    assert (ask.kind, ask.generation) == (ReportKind.ASK, 1)


def test_nobody_asks_who_has_nothing_to_probe_with() -> None:
    """Its lease would keep those who have from probing."""
    desk = Desk(OPEN)
    desk.now += 15
    assert not desk.may_retry(waiting=False)
    assert desk.told() == []


def test_what_came_long_before_the_time_is_nothing_to_probe_with() -> None:
    """A live event of the outage's first second was answered by the fallback, and comes no more."""
    desk = Desk(OPEN)
    desk.admit(3)
    desk.may_retry()
    desk.now += 15
    assert desk.told() == []
    desk.now += WAITING_SEEN
    desk.admit(1)
    (ask,) = desk.told()
    assert ask.want == 1, "only the last is at hand"


@pytest.mark.parametrize(("calls", "want"), [(1, 1), (2, 2), (3, 3), (500, 3)])
def test_it_asks_for_what_it_can_use(calls: int, want: int) -> None:
    """And for no more than close it."""
    desk = Desk(OPEN)
    desk.now += 15
    desk.admit(calls)
    assert [r.want for r in desk.told()] == [want]


def test_waiting_retries_ask_for_all_probes() -> None:
    """How many there are nobody knows before they may be read."""
    desk = Desk(OPEN)
    desk.now += 15
    desk.admit(1)
    desk.may_retry()
    assert [r.want for r in desk.told()] == [3]


def test_an_ask_is_repeated_while_there_is_a_reason() -> None:
    """Not more often than every quarter of a second."""
    desk = asked()
    assert desk.told() == [], "nothing came since"
    desk.now += EVERY - 0.01
    desk.may_retry()
    assert desk.told() == []
    desk.now += 0.01
    assert desk.kinds() == [ReportKind.ASK]


def test_while_another_probes_nobody_asks() -> None:
    """And nobody probes; the lease's end is the time to ask."""
    desk = Desk(OPEN)
    desk.now += 15
    desk.lend(worker="b")
    assert desk.admit(3) == 0 and not desk.may_retry() and desk.told() == []
    desk.now += 10
    desk.admit(3)
    assert desk.kinds() == [ReportKind.ASK]


def test_who_used_up_its_lease_waits_for_its_end_or_for_the_row() -> None:
    """When all passed and were not enough, the row says so by a lease that is gone."""
    desk = lent(probes=1)
    assert desk.call(5, ladder=5) == 1
    assert desk.may_retry() is False
    assert desk.kinds() == [ReportKind.PROBED]
    row = desk.local.row
    assert row is not None
    desk.see(replace(row, lease=None, passed=1))
    assert desk.kinds() == [ReportKind.ASK]


# --- probing -------------------------------------------------------------------------------------------------------


def test_a_lease_is_used_up_to_its_number() -> None:
    """Over all calls together; each is a probe."""
    desk = lent()
    first = desk.local.admit(2, 2, desk.now, desk.now_ms)
    assert (first.granted, first.probe) == (2, True) and desk.may_retry()
    assert desk.admit(5, ladder=5) == 1
    assert desk.admit(5, ladder=5) == 0 and not desk.may_retry()


def test_a_lease_that_is_over_is_not_used() -> None:
    """Another may have it by now."""
    desk = lent()
    desk.now += 9.9
    assert desk.may_retry()
    desk.now += 0.1
    assert not desk.may_retry() and desk.admit(1, ladder=1) == 0


@pytest.mark.parametrize("asks", [False, True])
def test_a_lease_that_an_earlier_life_asked_for_is_not_used(asks: bool) -> None:
    """The probes of that life may be out yet; an ask of long ago is no ask for this one."""
    desk = asked() if asks else Desk(OPEN)
    if asks:
        desk.see(replace(OPEN, generation=2, since_ms=desk.now_ms, until_ms=desk.now_ms + 15_000))
        desk.now += 15
    desk.lend()
    assert desk.local.state is BreakerState.HALF_OPEN
    assert desk.admit(3, ladder=3) == 0 and not desk.may_retry()
    desk.now += 10
    desk.may_retry()
    assert desk.kinds() == [ReportKind.ASK], "when it has ended, it may be asked for"
    desk.lend()
    assert desk.admit(5, ladder=5) == 3


def test_waiting_retries_probe_first() -> None:
    """Live events need not pay for a probe; what is left after a second goes to whoever comes."""
    desk = lent()
    assert desk.may_retry()
    assert desk.admit(5) == 0, "live events wait"
    assert desk.admit(5, ladder=1) == 3, "a batch with a retry in it does not"
    desk = lent()
    desk.now += FIRST
    assert desk.admit(5) == 3


def test_live_events_probe_at_once_when_nothing_waits() -> None:
    """A lane looks twice a second: what it said longer ago is no more."""
    desk = lent(by_ladder=False)
    assert desk.admit(5) == 3
    desk = lent()
    desk.now += WAITING_SEEN
    desk.lend()
    assert desk.local.state is BreakerState.HALF_OPEN
    assert desk.admit(1) == 0, "nobody asked for this lease"
    desk = asked()
    desk.now += WAITING_SEEN
    desk.lend()
    assert desk.admit(5) == 3


def test_in_odd_spells_live_events_probe_first() -> None:
    """Rows at the heads of the rungs that no model can answer would keep a sound one out for ever."""
    desk = lent(reopenings=1)
    assert not desk.may_retry() and desk.told() == []
    assert desk.admit(1) == 1
    desk.now += FIRST
    assert desk.may_retry() and desk.admit(5) == 2
    assert lent(reopenings=2).may_retry(), "and in turn"


@pytest.mark.parametrize("reopenings", [0, 1, 2, 3])
def test_probes_are_drawn_from_anywhere_in_the_spells_of_live_events(reopenings: int) -> None:
    """When no live event comes, what no model can answer stands at the head of its rung, and is not all there is."""
    desk = lent(reopenings=reopenings)
    desk.now += FIRST
    given = desk.local.admit(2, 2, desk.now, desk.now_ms)
    assert (given.granted, given.probe, given.anywhere) == (2, True, reopenings % 2 == 1)


def test_who_probes_by_itself_draws_them_in_the_same_spells() -> None:
    """Every second one, as under the fleet's row; calls of a closed breaker are no probes."""
    desk = Desk()
    assert not desk.local.admit(1, 1, desk.now, desk.now_ms).anywhere
    desk.call(100, failures=100)
    drawn = []
    for _ in range(4):
        desk.now += 3600
        given = desk.local.admit(1, 1, desk.now, desk.now_ms)
        assert (given.granted, given.probe) == (1, True)
        drawn.append(given.anywhere)
        desk.local.report(given.generation, Counts(1, 1, 0, 1), desk.now, 0.5)
    assert drawn == [False, True, False, True]


def test_probes_are_told_at_once_and_again_until_the_row_moves() -> None:
    """In totals of the lease: a repeat adds nothing."""
    desk = lent()
    assert desk.call(1, ladder=1) == 1
    (first,) = desk.told()
    assert (first.kind, first.generation, first.probes) == (ReportKind.PROBED, 2, Probes(1))
    desk.now += 0.01
    assert desk.told() == []
    desk.call(2, 1, slow=1, ladder=2)
    (second,) = desk.told()
    assert second.probes == Probes(2, 1, 1) and second.sequence > first.sequence
    for _ in range(3):
        desk.now += EVERY
        assert [r.probes for r in desk.told()] == [Probes(2, 1, 1)]
    desk.see(replace(OPEN, generation=3, since_ms=desk.now_ms, until_ms=desk.now_ms + 30_000))
    desk.now += EVERY
    assert desk.told() == []


def test_every_answer_of_a_slow_run_was_slow() -> None:
    """Failed ones are failed, and not slow too."""
    desk = lent()
    desk.call(3, 0, slow=1, ladder=3)
    assert [r.probes for r in desk.told()] == [Probes(3, 0, 3)]
    desk = lent()
    desk.call(3, 3, slow=1, ladder=3)
    assert [r.probes for r in desk.told()] == [Probes(0, 3, 0)]


def test_probes_that_come_after_their_lease_are_told() -> None:
    """As long as nobody has a newer one they are as good as any."""
    desk = lent()
    given = desk.local.admit(3, 3, desk.now, desk.now_ms)
    desk.now += 11
    desk.local.report(given.generation, Counts(3), desk.now, 0.5)
    assert [r.probes for r in desk.told()] == [Probes(3)]


def test_each_lease_begins_anew() -> None:
    """With all of its probes, and with nothing told of those of the one before."""
    desk = lent()
    assert desk.call(2, ladder=2) == 2
    desk.told()
    desk.now += 10
    desk.may_retry()
    assert desk.kinds() == [ReportKind.PROBED, ReportKind.ASK]
    desk.lend()
    assert desk.told() == [] and desk.call(5, ladder=5) == 3
    assert [r.probes for r in desk.told()] == [Probes(3)]


def test_a_row_that_closes_lets_everybody_call() -> None:
    """From an empty window, and with the worker's own breaker closed."""
    desk = lent()
    desk.call(3, ladder=3)
    closed = BreakerRow(KEY, "closed", 3, desk.now_ms)
    assert desk.see(closed) == [(BreakerState.HALF_OPEN, BreakerState.CLOSED, True)]
    assert desk.admit(1000) == 1000 and desk.may_retry()


# --- alone ---------------------------------------------------------------------------------------------------------


def alone(desk: Desk) -> Desk:
    """It asks, and nobody answers."""
    until = desk.now + ALONE_AFTER + EVERY
    while desk.now < until:
        desk.now += EVERY
        desk.may_retry()
        desk.told()
    return desk


def test_who_hears_nothing_goes_on_alone() -> None:
    """With its own breaker, that begins half-open: a model that answers is not left for want of a fleet."""
    desk = asked()
    desk.now += ALONE_AFTER - 0.1 - EVERY
    for _ in range(ASKS):
        desk.may_retry()
        desk.told()
        assert desk.local.state is BreakerState.OPEN
        desk.now += EVERY / ASKS
    desk = alone(desk)
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
    assert desk.local.tick(desk.now) == [], "and waits longer each time"


def test_one_ask_without_an_answer_is_not_enough() -> None:
    """Where an event comes once a minute, one that was lost, or came early by the owner's clock, proves nothing."""
    desk = Desk(OPEN)
    desk.now += 15
    for i in range(ASKS):
        assert desk.local.tick(desk.now) == [] and desk.local.state is BreakerState.OPEN, i
        desk.admit(1)
        assert desk.kinds() == [ReportKind.ASK]
        desk.now += 60
    desk.local.tick(desk.now)
    assert desk.local.state is BreakerState.HALF_OPEN


def test_an_answer_to_another_is_an_answer() -> None:
    """Somebody folds: whoever was lent the probes."""
    desk = asked()
    desk.now += ALONE_AFTER - 1
    desk.may_retry()
    desk.told()
    desk.lend(worker="b")
    desk.now += 12
    for _ in range(ASKS + 1):
        desk.may_retry()
        desk.told()
        desk.now += EVERY
    assert desk.local.state is BreakerState.HALF_OPEN and not desk.local.tripped


def test_who_is_alone_asks_on_and_rejoins_when_the_row_moves() -> None:
    """The fleet that is back decides; calls of the time alone are not its matter."""
    desk = alone(asked())
    desk.local.tick(desk.now)
    desk.call(3)
    assert desk.local.state is BreakerState.CLOSED
    out = desk.local.admit(20, 0, desk.now, desk.now_ms)
    assert out.granted == 20
    desk.now += EVERY
    assert desk.kinds() == [ReportKind.ASK]
    row = desk.local.row
    assert row is not None
    assert desk.see(replace(row, sick=())) == [] and desk.local.state is BreakerState.CLOSED, "the row did not move"
    desk.lend()
    assert desk.local.state is BreakerState.HALF_OPEN and not desk.local.tripped
    desk.local.report(out.generation, Counts(20, 20), desk.now, 0.5)
    assert desk.kinds() == [] and desk.local.state is BreakerState.HALF_OPEN
    assert desk.admit(5, ladder=5) == 3


def test_alone_while_another_is_said_to_probe() -> None:
    """A lease that ended, and nobody to lend it anew."""
    desk = Desk(OPEN)
    desk.now += 15
    desk.lend(worker="b")
    desk.now += 10
    desk = alone(desk)
    desk.local.tick(desk.now)
    assert desk.local.tripped and desk.call(10) == 3
