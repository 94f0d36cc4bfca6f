"""The fleet's breaker half-open: who probes, who is believed, and what operators order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failsoft.models.breaker.fleet import COMMANDS_KEPT, fold, targets, view
from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.fleet.breaker import Action, BreakerRow, Command, Lease, Probes, Report, ReportKind
from tests.fleet_owner import BAD, KEY, POLICY, T0, Owner, half_open, opened

# --- probing -----------------------------------------------------------------------------------------------------


def test_closed_open_half_open_closed() -> None:
    """The walk of an outage that ends: each step a generation and an alert."""
    owner = opened()
    assert not owner.ask("a"), "it is not time"
    owner.now += 15_000
    assert not owner.ask("a", want=0), "there is nothing to probe with"
    assert owner.ask("a")
    assert owner.row is not None
    assert owner.row.lease == Lease("a", 3, owner.now, owner.now + 10_000)
    assert owner.probed("a", 2)
    assert owner.state() is BreakerState.HALF_OPEN
    assert owner.probed("a", 3)
    assert owner.state() is BreakerState.CLOSED
    assert owner.moves() == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]
    assert owner.row.generation == 3 and owner.row.reopenings == 0 and owner.row.windows == {}


def test_a_failed_probe_reopens_for_twice_as_long() -> None:
    """The wait doubles with each reopening, up to its cap, and is jittered by the draw."""
    owner, waits = half_open(), []
    for u in (0.5, 0.5, 0.0, 0.5, 0.5, 0.5):
        owner.hear(owner.report("a", ReportKind.PROBED, probes=Probes(2, 1)), u)
        assert owner.state() is BreakerState.OPEN and owner.row is not None and owner.row.until_ms is not None
        waits.append(owner.row.until_ms - owner.now)
        owner.now = owner.row.until_ms
        owner.ask("a")
    assert waits == [30_000, 60_000, 96_000, 240_000, 300_000, 300_000]


def test_slow_probes_reopen() -> None:
    """One slow probe may be a cold model; all of them are a slow one."""
    owner = half_open()
    owner.probed("a", 2, 0, 2)
    assert owner.state() is BreakerState.HALF_OPEN
    owner.probed("a", 3, 0, 3)
    assert owner.state() is BreakerState.OPEN


def test_slow_probes_add_up_over_leases_and_are_not_forgotten() -> None:
    """Those of a lease that is done or expired count with the next one's, and an older total takes none back."""
    owner = half_open(want=1)
    owner.probed("a", 1, 0, 1)
    owner.ask("a", want=2)
    older = owner.report("a", ReportKind.PROBED, probes=Probes(1))
    owner.probed("a", 1, 0, 1)
    assert not owner.hear(older)
    owner.now += 10_000
    owner.ask("b")
    owner.probed("b", 1, 0, 1)
    assert owner.state() is BreakerState.OPEN


def test_closing_forgets_the_reopenings() -> None:
    """The next outage is a new one, and waits as the first did."""
    owner = half_open()
    owner.probed("a", 0, 1)
    owner.now += 30_000
    owner.ask("a")
    owner.probed("a", 3)
    assert owner.state() is BreakerState.CLOSED and owner.row is not None
    assert owner.row.reopenings == 0


def test_an_asker_gets_nothing_while_another_probes() -> None:
    """One worker at a time has probes."""
    owner = half_open()
    assert not owner.ask("b")
    assert not owner.ask("a")


def test_a_dead_probers_lease_goes_to_the_next_asker() -> None:
    """Under a new generation: what the dead one says after all is of the old, and harmless."""
    owner = half_open()
    late = owner.report("a", ReportKind.PROBED, probes=Probes(0, 3))
    owner.now += 9_999
    assert not owner.ask("b")
    owner.now += 1
    assert owner.ask("b")
    assert owner.row is not None and owner.row.lease is not None
    assert (owner.row.generation, owner.row.lease.worker, owner.row.reopenings) == (3, "b", 0)
    assert owner.moves()[-1] == ("half_open", "half_open")
    assert not owner.hear(late)
    owner.probed("b", 3)
    assert owner.state() is BreakerState.CLOSED


def test_only_the_leases_holder_reports_probes() -> None:
    """Whoever made no probes has nothing to say of them."""
    owner = half_open()
    assert not owner.probed("b", 0, 3)
    assert not owner.probed("b", 3)
    assert not owner.probed("a", 0, 3, generation=1)


def test_probes_told_twice_pass_once() -> None:
    """A lease's outcomes are totals too."""
    owner = half_open()
    one = owner.report("a", ReportKind.PROBED, probes=Probes(1))
    two = owner.report("a", ReportKind.PROBED, probes=Probes(2))
    assert owner.hear(two)
    assert not owner.hear(two)
    assert not owner.hear(one)
    assert owner.state() is BreakerState.HALF_OPEN


def test_no_more_probes_pass_than_were_lent() -> None:
    """A worker that counts on does not close the fleet alone."""
    owner = half_open(want=1)
    owner.probed("a", 50)
    assert owner.state() is BreakerState.HALF_OPEN and owner.row is not None
    assert (owner.row.passed, owner.row.lease) == (1, None)


def test_a_result_late_but_before_the_next_lease_counts() -> None:
    """Nobody else has probes yet, so it is the best that is known."""
    owner = half_open()
    owner.now += 60_000
    owner.probed("a", 3)
    assert owner.state() is BreakerState.CLOSED


def test_probes_one_at_a_time_close_it() -> None:
    """A worker is lent what it can use, and the next need not wait for an expiry; a new lease is a new generation."""
    owner = half_open(want=1)
    first = owner.report("a", ReportKind.PROBED, probes=Probes(1))
    owner.hear(first)
    assert owner.ask("b", want=1)
    assert owner.row is not None and owner.row.generation == 3
    owner.probed("b", 1)
    assert owner.ask("a", want=9)
    assert owner.row.lease is not None and owner.row.lease.probes == 1, "one is missing"
    assert not owner.hear(first)
    owner.probed("a", 1)
    assert owner.state() is BreakerState.CLOSED
    assert len(owner.moves()) == 3, "only states are alerted"


def test_a_trickle_closes_it() -> None:
    """What passed under a lease that expired has passed: one event a lease is enough in the end."""
    owner = half_open()
    for _ in range(2):
        owner.probed("a", 1)
        owner.now += 10_000
        assert owner.ask("a")
    owner.probed("a", 1)
    assert owner.state() is BreakerState.CLOSED


def test_nobody_asks_and_nothing_happens() -> None:
    """Open past its time is harmless: there is nothing to probe with, and when there is, it goes on."""
    owner = opened()
    owner.now += 86_400_000
    assert not owner.window("a", BAD)
    assert owner.state() is BreakerState.OPEN
    assert owner.ask("a") and owner.probed("a", 3)
    assert owner.state() is BreakerState.CLOSED


def test_a_clock_set_back_ends_the_wait() -> None:
    """Nobody waits an hour longer because the time became an hour less; a small difference of clocks is not that."""
    owner = opened()
    owner.now -= 14_000
    assert not owner.ask("a")
    owner.now -= 3_600_000
    assert owner.ask("a")
    owner.now -= 3_600_000
    assert owner.ask("b"), "and the lease is over too"


def test_fewer_probes_by_a_new_card_do_not_lend_nothing() -> None:
    """A policy may change while a breaker is half-open, and then one more probe closes it."""
    owner = half_open(want=2)
    owner.probed("a", 2)
    owner.policy = replace(POLICY, probes=2)
    assert owner.ask("b")
    assert view(owner.row, "b", owner.now).probes_granted == 1
    assert owner.probed("b", 1)
    assert owner.state() is BreakerState.CLOSED


# --- operators ---------------------------------------------------------------------------------------------------


def test_commands_move_as_the_table_says_and_name_who_and_why() -> None:
    """An operator's word is the row's reason, and holds until the next one."""
    owner = Owner()
    assert owner.order(Action.FORCE_OPEN, "ann", "bad features")
    assert owner.row is not None
    assert (owner.state(), owner.row.reason, owner.row.changed_by) == (
        BreakerState.FORCED_OPEN,
        "ann: bad features",
        "ann",
    )
    owner.now += 86_400_000
    assert not owner.ask("a")
    owner.order(Action.DISABLE)
    assert owner.state() is BreakerState.DISABLED
    for worker in ("a", "b"):
        owner.window(worker, BAD)
    assert owner.state() is BreakerState.DISABLED, "counted, and not judged"
    assert set(owner.row.windows) == {"a", "b"}
    owner.order(Action.CLOSE)
    assert owner.state() is BreakerState.CLOSED and owner.row.windows == {}
    owner.order(Action.RESET)
    assert owner.row.generation == 4


@pytest.mark.parametrize("action", [Action.CLOSE, Action.RESET])
def test_an_operator_closes_what_is_open_or_probing(action: Action) -> None:
    """Its lease and its reopenings are gone."""
    for owner in (opened(), half_open()):
        owner.now += 1
        owner.order(action)
        assert owner.state() is BreakerState.CLOSED and owner.row is not None
        assert (owner.row.lease, owner.row.until_ms, owner.row.reopenings) == (None, None, 0)


def test_a_command_read_again_is_obeyed_once() -> None:
    """An owner that takes over reads some messages twice; even a command that did nothing then, must not now."""
    owner = Owner()
    close = Command(KEY, Action.CLOSE, "ann", "just to be sure", T0)
    force = Command(KEY, Action.FORCE_OPEN, "ann", "it is wrong", T0 + 1)
    for command in (close, force, close, force):
        owner.hear(command)
    assert owner.state() is BreakerState.FORCED_OPEN
    assert owner.moves() == [("closed", "forced_open")]
    for n in range(20):
        owner.hear(replace(force, at_ms=T0 + 2 + n))
    assert owner.row is not None and len(owner.row.commands) == COMMANDS_KEPT


def test_a_command_means_each_version_of_a_model_or_one() -> None:
    """The version is what stands behind the last @."""
    keys = ["repayment@1", "repayment@2", "repayment-lite@1", "a@b@1"]
    assert targets("repayment", keys) == ["repayment@1", "repayment@2"]
    assert targets("repayment@2", keys) == ["repayment@2"]
    assert targets("a@b", keys) == ["a@b@1"]
    assert targets("nobody", keys) == []
    assert fold(BreakerRow(KEY), Command("repayment", Action.DISABLE, "ann", "", T0), POLICY, T0, 0.5).row is not None


def test_a_message_for_another_row_is_refused() -> None:
    """Whoever hands it over has made a mistake, and no row is made of it."""
    with pytest.raises(ValueError, match="does not belong to"):
        fold(BreakerRow("other@1"), Report(KEY, "a", 1, T0, 0, ReportKind.WINDOW, counts=BAD), POLICY, T0, 0.5)
    with pytest.raises(ValueError, match="names no version"):
        fold(None, Command("repayment", Action.DISABLE, "ann", "", T0), POLICY, T0, 0.5)
