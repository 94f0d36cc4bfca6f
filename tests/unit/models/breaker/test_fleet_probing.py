"""The half-open fleet breaker: leases, probe results, and operators' commands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failsoft.models.breaker.fleet import COMMANDS_KEPT, fold, targets, view
from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.fleet.breaker import Action, BreakerRow, Command, Lease, Probes, Report, ReportKind
from tests.fleet_owner import BAD, KEY, POLICY, T0, Owner, half_open, opened

# --- probing -----------------------------------------------------------------------------------------------------


def test_closed_open_half_open_closed() -> None:
    """An outage that ends: each transition has a new generation and an alert."""
    owner = opened()
    assert not owner.ask("a"), "the wait is not over"
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
    """The wait doubles with each reopening, up to max_open, and is jittered by the draw."""
    owner, waits = half_open(), []
    for u in (0.5, 0.5, 0.0, 0.5, 0.5, 0.5):
        owner.hear(owner.report("a", ReportKind.PROBED, probes=Probes(2, 1)), u)
        assert owner.state() is BreakerState.OPEN and owner.row is not None and owner.row.until_ms is not None
        waits.append(owner.row.until_ms - owner.now)
        owner.now = owner.row.until_ms
        owner.ask("a")
    assert waits == [30_000, 60_000, 96_000, 240_000, 300_000, 300_000]


def test_slow_probes_reopen() -> None:
    """Slow probes reopen the fleet breaker when they reach the slow rate: here all three, not two."""
    owner = half_open()
    owner.probed("a", 2, 0, 2)
    assert owner.state() is BreakerState.HALF_OPEN
    owner.probed("a", 3, 0, 3)
    assert owner.state() is BreakerState.OPEN


def test_slow_probes_add_up_over_leases() -> None:
    """Slow probes of a finished or expired lease still count, and an older report does not remove them."""
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


def test_closing_resets_the_reopenings() -> None:
    """After the fleet breaker closed, the next wait is as long as the first."""
    owner = half_open()
    owner.probed("a", 0, 1)
    owner.now += 30_000
    owner.ask("a")
    owner.probed("a", 3)
    assert owner.state() is BreakerState.CLOSED and owner.row is not None
    assert owner.row.reopenings == 0


def test_no_second_lease_while_one_is_live() -> None:
    """Only one worker at a time has a lease."""
    owner = half_open()
    assert not owner.ask("b")
    assert not owner.ask("a")


def test_an_expired_lease_goes_to_the_next_request() -> None:
    """The next lease has a new generation, so a late report of the expired lease is dropped."""
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
    """Probe results count only from the worker that has the lease, under its generation."""
    owner = half_open()
    assert not owner.probed("b", 0, 3)
    assert not owner.probed("b", 3)
    assert not owner.probed("a", 0, 3, generation=1)


def test_probes_reported_twice_pass_once() -> None:
    """Probe results are totals, so repeats and older reports change nothing."""
    owner = half_open()
    one = owner.report("a", ReportKind.PROBED, probes=Probes(1))
    two = owner.report("a", ReportKind.PROBED, probes=Probes(2))
    assert owner.hear(two)
    assert not owner.hear(two)
    assert not owner.hear(one)
    assert owner.state() is BreakerState.HALF_OPEN


def test_no_more_probes_pass_than_were_leased() -> None:
    """A worker that reports more probes than its lease has does not close the fleet breaker."""
    owner = half_open(want=1)
    owner.probed("a", 50)
    assert owner.state() is BreakerState.HALF_OPEN and owner.row is not None
    assert (owner.row.passed, owner.row.lease) == (1, None)


def test_a_late_result_counts_until_the_next_lease() -> None:
    """A result that arrives after its lease expired counts if no new lease was granted."""
    owner = half_open()
    owner.now += 60_000
    owner.probed("a", 3)
    assert owner.state() is BreakerState.CLOSED


def test_probes_one_at_a_time_close_it() -> None:
    """Leases of single probes close the fleet breaker, and each lease has a new generation."""
    owner = half_open(want=1)
    first = owner.report("a", ReportKind.PROBED, probes=Probes(1))
    owner.hear(first)
    assert owner.ask("b", want=1)
    assert owner.row is not None and owner.row.generation == 3
    owner.probed("b", 1)
    assert owner.ask("a", want=9)
    assert owner.row.lease is not None and owner.row.lease.probes == 1, "only one more probe is needed"
    assert not owner.hear(first)
    owner.probed("a", 1)
    assert owner.state() is BreakerState.CLOSED
    assert len(owner.moves()) == 3, "only transitions raise alerts"


def test_one_event_a_lease_closes_it() -> None:
    """Probes that passed under an expired lease still count, so one event a lease is enough."""
    owner = half_open()
    for _ in range(2):
        owner.probed("a", 1)
        owner.now += 10_000
        assert owner.ask("a")
    owner.probed("a", 1)
    assert owner.state() is BreakerState.CLOSED


def test_without_a_request_it_stays_open() -> None:
    """Without requests for probes the breaker stays open past its wait, and a later request is granted."""
    owner = opened()
    owner.now += 86_400_000
    assert not owner.window("a", BAD)
    assert owner.state() is BreakerState.OPEN
    assert owner.ask("a") and owner.probed("a", 3)
    assert owner.state() is BreakerState.CLOSED


def test_a_clock_set_back_ends_the_wait() -> None:
    """If the clock is set back by more than the wait, the wait ends; a small difference does not end it."""
    owner = opened()
    owner.now -= 14_000
    assert not owner.ask("a")
    owner.now -= 3_600_000
    assert owner.ask("a")
    owner.now -= 3_600_000
    assert owner.ask("b"), "the lease has ended too"


def test_a_policy_with_fewer_probes_still_leases_one() -> None:
    """If the policy changes while half-open and no probe is missing, one more is leased and closes the breaker."""
    owner = half_open(want=2)
    owner.probed("a", 2)
    owner.policy = replace(POLICY, probes=2)
    assert owner.ask("b")
    assert view(owner.row, "b", owner.now).probes_granted == 1
    assert owner.probed("b", 1)
    assert owner.state() is BreakerState.CLOSED


# --- operators ---------------------------------------------------------------------------------------------------


def test_commands_follow_the_table_and_record_who_and_why() -> None:
    """A command sets the row's reason, and its state holds until the next command."""
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
    assert owner.state() is BreakerState.DISABLED, "counts are kept but not judged"
    assert set(owner.row.windows) == {"a", "b"}
    owner.order(Action.CLOSE)
    assert owner.state() is BreakerState.CLOSED and owner.row.windows == {}
    owner.order(Action.RESET)
    assert owner.row.generation == 4


@pytest.mark.parametrize("action", [Action.CLOSE, Action.RESET])
def test_commands_close_an_open_or_half_open_breaker(action: Action) -> None:
    """The lease, the wait and the count of reopenings are removed."""
    for owner in (opened(), half_open()):
        owner.now += 1
        owner.order(action)
        assert owner.state() is BreakerState.CLOSED and owner.row is not None
        assert (owner.row.lease, owner.row.until_ms, owner.row.reopenings) == (None, None, 0)


def test_a_command_read_again_is_applied_once() -> None:
    """A new owner reads some commands twice; the second reading changes nothing, even if the first did not."""
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


def test_a_command_selects_all_versions_of_a_model_or_one() -> None:
    """A target is a key or a model; the version of a key follows its last @."""
    keys = ["repayment@1", "repayment@2", "repayment-lite@1", "a@b@1"]
    assert targets("repayment", keys) == ["repayment@1", "repayment@2"]
    assert targets("repayment@2", keys) == ["repayment@2"]
    assert targets("a@b", keys) == ["a@b@1"]
    assert targets("nobody", keys) == []
    assert fold(BreakerRow(KEY), Command("repayment", Action.DISABLE, "ann", "", T0), POLICY, T0, 0.5).row is not None


def test_a_message_for_another_row_is_refused() -> None:
    """A message for another key, or for a model without a row, raises ValueError."""
    with pytest.raises(ValueError, match="does not belong to"):
        fold(BreakerRow("other@1"), Report(KEY, "a", 1, T0, 0, ReportKind.WINDOW, counts=BAD), POLICY, T0, 0.5)
    with pytest.raises(ValueError, match="names no version"):
        fold(None, Command("repayment", Action.DISABLE, "ann", "", T0), POLICY, T0, 0.5)
