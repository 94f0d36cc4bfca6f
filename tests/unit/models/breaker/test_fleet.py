"""The fleet breaker: when it opens, when a node is sick, which reports count, and what a worker may do."""

from __future__ import annotations

from failsoft.models.breaker.fleet import LONE_FAILURE_MS, MAX_WORKERS, FoldedBreaker, View, fold, view
from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.fleet.breaker import MAX_ROW, Action, BreakerRow, Report, ReportKind, WorkerWindow
from failsoft.schemas.fleet.counts import Counts
from tests.fleet_owner import BAD, GOOD, KEY, POLICY, T0, Owner, half_open, opened

# --- opening -----------------------------------------------------------------------------------------------------


def test_two_failing_workers_open_the_fleet_at_once() -> None:
    """Two workers that fail on their own counts open the fleet breaker at once."""
    owner = Owner()
    owner.window("c", GOOD)
    owner.window("a", BAD)
    assert owner.state() is BreakerState.CLOSED
    owner.window("b", BAD)
    assert owner.state() is BreakerState.OPEN
    assert owner.moves() == [("closed", "open")]
    assert owner.row is not None
    assert (owner.row.generation, owner.row.windows, owner.row.changed_by) == (1, {}, "b")
    assert owner.row.until_ms == T0 + 15_000
    assert owner.row.reason == "40 of 60 calls failed in 30 s (0.5 opens); 2 of 3 workers fail by themselves"


def test_a_failing_worker_may_have_few_calls() -> None:
    """A quarter of the minimum of calls is enough to judge one worker; the sum needs the whole minimum."""
    owner = Owner()
    owner.window("a", Counts(14, 14, 0, 14))
    owner.window("b", Counts(5, 5, 0, 5))
    assert owner.state() is BreakerState.CLOSED, "19 calls are fewer than the minimum"
    owner.window("b", Counts(6, 6, 0, 6))
    assert owner.state() is BreakerState.OPEN


def test_the_sum_has_to_be_over_the_threshold() -> None:
    """Two failing workers do not open the fleet breaker while the summed rate is under the threshold."""
    owner = Owner()
    owner.window("c", Counts(1000, 0, 0, 10))
    owner.window("a", BAD)
    owner.window("b", BAD)
    assert owner.state() is BreakerState.CLOSED


def test_slow_runs_open_too() -> None:
    """Slow runs open the fleet breaker as failures do."""
    slow = Counts(400, 0, 20, 20)
    owner = Owner()
    owner.window("a", slow)
    owner.window("b", slow)
    assert owner.state() is BreakerState.OPEN
    assert owner.row is not None and owner.row.reason is not None and "40 of 40 runs were slow" in owner.row.reason


def test_a_fleet_of_one_opens_after_a_wait() -> None:
    """A single reporting worker opens the fleet breaker after LONE_FAILURE_MS, and does not become a sick node."""
    owner = Owner()
    owner.window("a", BAD, tripped=True)
    owner.now += LONE_FAILURE_MS - 1
    owner.window("a", BAD, tripped=True)
    assert owner.state() is BreakerState.CLOSED
    owner.now += 1
    owner.window("a", BAD, tripped=True)
    assert owner.state() is BreakerState.OPEN
    assert owner.sickness() == []


def test_one_of_two_opens() -> None:
    """One failing worker of two opens the fleet breaker after LONE_FAILURE_MS."""
    owner = Owner()
    owner.window("b", GOOD)
    owner.window("a", BAD)
    owner.now += LONE_FAILURE_MS
    owner.window("a", BAD)
    assert owner.state() is BreakerState.OPEN


def test_one_of_three_is_sick_and_the_fleet_stays_closed() -> None:
    """One failing worker of three becomes a sick node, even if it makes most calls and reports first."""
    owner = Owner()
    owner.window("a", Counts(500, 500, 0, 50), tripped=True)
    for worker in ("b", "c"):
        owner.window(worker, Counts(30, 0, 0, 10))
    for _ in range(20):
        owner.now += 250
        owner.window("a", Counts(500, 500, 0, 50), tripped=True)
    assert owner.state() is BreakerState.CLOSED
    assert owner.row is not None and owner.row.sick == ("a",)
    assert owner.sickness() == [("a", "sick")], "one alert, not one for each report"
    assert owner.row.generation == 0


def test_a_node_stays_sick_until_its_rates_recover() -> None:
    """A node stays sick while its local breaker is open, and until its rates are under the thresholds."""
    owner = Owner()
    for worker in ("b", "c"):
        owner.window(worker, GOOD)
    owner.window("a", BAD, tripped=True)
    owner.now += LONE_FAILURE_MS
    owner.window("a", Counts(), tripped=True)
    assert owner.row is not None and owner.row.sick == ("a",)
    owner.window("a", Counts(3, 2, 0, 3))
    assert owner.row.sick == ("a",), "few calls, but most fail"
    owner.window("a", Counts(3, 0, 0, 3))
    assert not owner.row.sick
    assert owner.sickness() == [("a", "sick"), ("a", "well")]


def test_a_few_failures_do_not_make_a_node_sick() -> None:
    """A node becomes sick only with the whole minimum of calls, as a local breaker opens."""
    owner = Owner()
    owner.window("b", GOOD)
    owner.window("c", GOOD)
    owner.window("a", Counts(19, 19, 0, 19))
    owner.now += LONE_FAILURE_MS
    owner.window("a", Counts(19, 19, 0, 19))
    assert owner.sickness() == []


def test_idle_workers_do_not_outvote() -> None:
    """Workers without calls in their window do not keep the fleet breaker closed."""
    owner = Owner()
    for counts in (Counts(1, 0, 0, 1), Counts()):
        owner.window("b", counts)
        owner.window("c", counts)
    owner.window("a", BAD)
    owner.now += LONE_FAILURE_MS
    owner.window("a", BAD)
    assert owner.state() is BreakerState.OPEN


def test_the_status_of_a_silent_sick_node_is_unknown() -> None:
    """A sick node that has not reported for one window changes to unknown, not to well."""
    owner = Owner()
    for worker in ("a", "b", "c"):
        owner.window(worker, BAD if worker == "a" else GOOD)
    owner.now += LONE_FAILURE_MS
    owner.window("a", BAD)
    owner.now += 30_000
    owner.window("b", GOOD)
    assert owner.row is not None and owner.row.sick == ()
    assert owner.sickness() == [("a", "sick"), ("a", "unknown")]
    assert set(owner.row.windows) == {"b"}


def test_opening_the_fleet_ends_the_alert_of_a_sick_node() -> None:
    """When the fleet breaker opens, no node is sick any more and each node_sick alert ends as unknown."""
    owner = Owner()
    for worker in ("a", "b", "c"):
        owner.window(worker, BAD if worker == "a" else GOOD)
    owner.now += LONE_FAILURE_MS
    owner.window("a", BAD)
    owner.window("b", BAD)
    assert owner.state() is BreakerState.OPEN and owner.row is not None and owner.row.sick == ()
    assert owner.sickness() == [("a", "sick"), ("a", "unknown")]


def test_many_workers_with_few_calls_each_open_together() -> None:
    """Workers that have too few calls to be judged alone open the fleet breaker by their sum."""
    owner = Owner()
    for n in range(7):
        owner.window(f"w{n}", Counts(3, 3, 0, 3))
    assert owner.state() is BreakerState.OPEN


def test_a_chance_failure_does_not_complete_the_quorum() -> None:
    """A healthy worker whose only call failed does not make a sick node a quorum."""
    owner = Owner()
    owner.window("b", Counts(1, 1, 0, 1))
    owner.window("c", Counts(30, 0, 0, 3))
    owner.window("a", Counts(100, 100, 0, 9))
    owner.now += LONE_FAILURE_MS
    owner.window("a", Counts(100, 100, 0, 9))
    assert owner.state() is BreakerState.CLOSED


# --- windows: late, repeated, old -------------------------------------------------------------------------------


def test_a_newer_report_replaces_and_an_older_changes_nothing() -> None:
    """A newer report replaces an older one, because reports are totals; repeats and older ones change nothing."""
    owner = Owner()
    first = owner.report("a", ReportKind.WINDOW, counts=Counts(19, 19, 0, 19))
    second = owner.report("a", ReportKind.WINDOW, counts=Counts(19, 0, 0, 19))
    assert owner.hear(second)
    assert not owner.hear(first)
    assert not owner.hear(second)
    assert owner.row is not None and owner.row.windows["a"].counts.failures == 0


def test_counts_of_another_generation_are_dropped() -> None:
    """Counts of another generation belong to calls before or after another transition, and are dropped."""
    owner = Owner()
    owner.order(Action.RESET)
    assert not owner.window("a", BAD, generation=0)
    assert not owner.window("a", BAD, generation=2)
    assert owner.window("a", BAD, generation=1)


def test_an_empty_report_writes_no_row() -> None:
    """An empty window, a request and probe results do not create a row."""
    owner = Owner()
    assert not owner.window("a", Counts())
    assert not owner.ask("a")
    assert not owner.probed("a", 3)
    assert owner.row is None


def test_old_windows_expire() -> None:
    """A worker's counts are used for one window's length after its report, and no longer."""
    owner = Owner()
    owner.window("a", BAD)
    owner.now += 30_000
    owner.window("b", Counts(10, 10, 0, 10))
    assert owner.state() is BreakerState.CLOSED
    assert owner.row is not None and set(owner.row.windows) == {"b"}
    assert not owner.window("c", BAD, at_ms=owner.now - 30_000), "it had expired when it arrived"


def test_a_clock_ahead_does_not_keep_counts_for_longer() -> None:
    """A report from a clock that is ahead counts as made when it arrived."""
    owner = Owner()
    owner.window("a", BAD, at_ms=T0 + 3_600_000)
    owner.now += 30_000
    owner.window("b", GOOD)
    assert owner.row is not None and set(owner.row.windows) == {"b"}


def test_counts_expire_when_the_owners_clock_is_set_back() -> None:
    """Counts with a time far in the owner's future expire at once."""
    owner = Owner()
    owner.window("a", BAD)
    owner.now -= 3_600_000
    owner.window("b", GOOD)
    assert owner.row is not None and set(owner.row.windows) == {"b"}


def test_a_worker_whose_sequence_restarts_is_accepted_again() -> None:
    """Reports with a restarted sequence are dropped only until the old window has expired."""
    owner = Owner()
    owner.sequence = 1_000
    owner.window("a", GOOD)
    owner.sequence = 0
    assert not owner.window("a", GOOD)
    owner.now += 30_000
    assert owner.window("a", GOOD)


def test_a_row_holds_a_bounded_number_of_workers() -> None:
    """A full row refuses new workers, accepts known ones, and stays under half of the record limit."""
    full = BreakerRow(KEY, windows={f"w{n}": WorkerWindow(0, T0, GOOD) for n in range(MAX_WORKERS)})
    owner = Owner(full)
    assert not owner.window("one too many", GOOD)
    assert owner.window("w0", GOOD)
    long = {
        "w" * 193 + f"{n:07}": WorkerWindow(2**50, T0, Counts(10**6, 10**6, 10**6, 10**6), True, T0) for n in range(999)
    }
    assert len(BreakerRow(KEY, windows=long).to_bytes()) < MAX_ROW / 2


# --- what a worker may do ----------------------------------------------------------------------------------------


def test_the_view_follows_the_row() -> None:
    """A worker may make all calls while closed or disabled, its leased probes while half-open, else none."""
    assert view(None, "a", T0) == View(BreakerState.CLOSED, 0, None)
    owner = opened()
    assert view(owner.row, "a", T0 + 14_999) == View(BreakerState.OPEN, 1, 0)
    assert view(owner.row, "a", T0 + 15_000) == View(BreakerState.OPEN, 1, 0, may_ask=True)
    owner = half_open(want=2)
    assert view(owner.row, "a", owner.now) == View(BreakerState.HALF_OPEN, 2, 2)
    assert view(owner.row, "b", owner.now) == View(BreakerState.HALF_OPEN, 2, 0)
    for worker in ("a", "b"):
        assert view(owner.row, worker, owner.now + 10_000) == View(BreakerState.HALF_OPEN, 2, 0, may_ask=True)
    owner.probed("a", 2)
    assert view(owner.row, "a", owner.now) == View(BreakerState.HALF_OPEN, 2, 0, may_ask=True)
    owner.order(Action.FORCE_OPEN)
    assert view(owner.row, "a", owner.now) == View(BreakerState.FORCED_OPEN, 3, 0)
    owner.order(Action.DISABLE)
    assert view(owner.row, "a", owner.now) == View(BreakerState.DISABLED, 4, None)


def test_a_fold_does_not_change_the_given_row() -> None:
    """Folding returns a new row and leaves the given row unchanged."""
    row = BreakerRow(KEY, windows={"a": WorkerWindow(0, T0, GOOD)})
    before = row.to_bytes()
    folded = fold(row, Report(KEY, "b", 1, T0, 0, ReportKind.WINDOW, counts=GOOD), POLICY, T0, 0.5)
    assert isinstance(folded, FoldedBreaker) and folded.row is not row
    assert row.to_bytes() == before
