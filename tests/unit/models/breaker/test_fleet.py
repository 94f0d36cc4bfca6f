"""The fleet's breaker: when it opens and when a node is sick, which reports count, and what a worker may do."""

from __future__ import annotations

from failsoft.models.breaker.fleet import ALONE_MS, MAX_WORKERS, FoldedBreaker, View, fold, view
from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.fleet.breaker import MAX_ROW, Action, BreakerRow, Report, ReportKind, Tally, WorkerWindow
from tests.fleet_owner import BAD, GOOD, KEY, POLICY, T0, Owner, half_open, opened

# --- opening -----------------------------------------------------------------------------------------------------


def test_two_failing_workers_open_the_fleet_at_once() -> None:
    """Two that fail by themselves are no accident of one node."""
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
    """Where traffic is spread, a quarter of the minimum speaks for a worker; the sum still has to have all of it."""
    owner = Owner()
    owner.window("a", Tally(14, 14, 0, 14))
    owner.window("b", Tally(5, 5, 0, 5))
    assert owner.state() is BreakerState.CLOSED, "19 calls are under the minimum"
    owner.window("b", Tally(6, 6, 0, 6))
    assert owner.state() is BreakerState.OPEN


def test_the_sum_has_to_be_over_the_threshold() -> None:
    """Two failing workers do not open a fleet that by and large succeeds."""
    owner = Owner()
    owner.window("c", Tally(1000, 0, 0, 10))
    owner.window("a", BAD)
    owner.window("b", BAD)
    assert owner.state() is BreakerState.CLOSED


def test_slow_runs_open_likewise() -> None:
    """A model that has become slow is as useless as one that fails."""
    slow = Tally(400, 0, 20, 20)
    owner = Owner()
    owner.window("a", slow)
    owner.window("b", slow)
    assert owner.state() is BreakerState.OPEN
    assert owner.row is not None and owner.row.reason is not None and "40 of 40 runs were slow" in owner.row.reason


def test_a_fleet_of_one_opens_alone_when_no_other_was_heard() -> None:
    """The first failing report waits for the others; when none comes, the one is the fleet, and was never sick."""
    owner = Owner()
    owner.window("a", BAD, tripped=True)
    owner.now += ALONE_MS - 1
    owner.window("a", BAD, tripped=True)
    assert owner.state() is BreakerState.CLOSED
    owner.now += 1
    owner.window("a", BAD, tripped=True)
    assert owner.state() is BreakerState.OPEN
    assert owner.sickness() == []


def test_one_of_two_opens() -> None:
    """Half of those that reported is a quorum, once the other had time to report."""
    owner = Owner()
    owner.window("b", GOOD)
    owner.window("a", BAD)
    owner.now += ALONE_MS
    owner.window("a", BAD)
    assert owner.state() is BreakerState.OPEN


def test_one_of_three_is_sick_and_the_fleet_stays_closed() -> None:
    """One bad node must not poison the good ones, even if it makes most of the calls, and reports first."""
    owner = Owner()
    owner.window("a", Tally(500, 500, 0, 50), tripped=True)
    for worker in ("b", "c"):
        owner.window(worker, Tally(30, 0, 0, 10))
    for _ in range(20):
        owner.now += 250
        owner.window("a", Tally(500, 500, 0, 50), tripped=True)
    assert owner.state() is BreakerState.CLOSED
    assert owner.row is not None and owner.row.sick == ("a",)
    assert owner.sickness() == [("a", "sick")], "one alert, not one a report"
    assert owner.row.generation == 0


def test_a_sick_node_is_sick_while_it_is_open_at_home_and_until_its_rate_is_well() -> None:
    """A worker that makes no calls has no failures, and is not well for that."""
    owner = Owner()
    for worker in ("b", "c"):
        owner.window(worker, GOOD)
    owner.window("a", BAD, tripped=True)
    owner.now += ALONE_MS
    owner.window("a", Tally(), tripped=True)
    assert owner.row is not None and owner.row.sick == ("a",)
    owner.window("a", Tally(3, 2, 0, 3))
    assert owner.row.sick == ("a",), "few calls, but they fail"
    owner.window("a", Tally(3, 0, 0, 3))
    assert not owner.row.sick
    assert owner.sickness() == [("a", "sick"), ("a", "well")]


def test_a_few_failures_do_not_make_a_node_sick() -> None:
    """It takes what opens a breaker at home: the whole minimum of calls."""
    owner = Owner()
    owner.window("b", GOOD)
    owner.window("c", GOOD)
    owner.window("a", Tally(19, 19, 0, 19))
    owner.now += ALONE_MS
    owner.window("a", Tally(19, 19, 0, 19))
    assert owner.sickness() == []


def test_idle_workers_are_no_witnesses() -> None:
    """A worker that made no calls has not seen the model work."""
    owner = Owner()
    for counts in (Tally(1, 0, 0, 1), Tally()):
        owner.window("b", counts)
        owner.window("c", counts)
    owner.window("a", BAD)
    owner.now += ALONE_MS
    owner.window("a", BAD)
    assert owner.state() is BreakerState.OPEN


def test_a_sick_node_that_falls_silent_is_nobodys_worry_but_not_well() -> None:
    """Of a worker that was not heard of for a window, nothing is known."""
    owner = Owner()
    for worker in ("a", "b", "c"):
        owner.window(worker, BAD if worker == "a" else GOOD)
    owner.now += ALONE_MS
    owner.window("a", BAD)
    owner.now += 30_000
    owner.window("b", GOOD)
    assert owner.row is not None and owner.row.sick == ()
    assert owner.sickness() == [("a", "sick"), ("a", "unknown")]
    assert set(owner.row.windows) == {"b"}


def test_a_sick_node_is_forgotten_when_the_whole_fleet_opens() -> None:
    """Each of the node's alerts is ended: the breaker of the fleet says the rest."""
    owner = Owner()
    for worker in ("a", "b", "c"):
        owner.window(worker, BAD if worker == "a" else GOOD)
    owner.now += ALONE_MS
    owner.window("a", BAD)
    owner.window("b", BAD)
    assert owner.state() is BreakerState.OPEN and owner.row is not None and owner.row.sick == ()
    assert owner.sickness() == [("a", "sick"), ("a", "unknown")]


def test_many_workers_with_few_calls_each_open_together() -> None:
    """None of them can be judged alone, and no one of them makes the sum fail: without the worst it fails as well."""
    owner = Owner()
    for n in range(7):
        owner.window(f"w{n}", Tally(3, 3, 0, 3))
    assert owner.state() is BreakerState.OPEN


def test_chance_failures_elsewhere_do_not_make_a_sick_node_a_quorum() -> None:
    """A healthy worker whose only call failed does not outvote the rest."""
    owner = Owner()
    owner.window("b", Tally(1, 1, 0, 1))
    owner.window("c", Tally(30, 0, 0, 3))
    owner.window("a", Tally(100, 100, 0, 9))
    owner.now += ALONE_MS
    owner.window("a", Tally(100, 100, 0, 9))
    assert owner.state() is BreakerState.CLOSED


# --- windows: late, repeated, old -------------------------------------------------------------------------------


def test_a_newer_report_replaces_and_an_older_changes_nothing() -> None:
    """Reports are totals, so what comes twice or late is not counted twice."""
    owner = Owner()
    first = owner.report("a", ReportKind.WINDOW, counts=Tally(19, 19, 0, 19))
    second = owner.report("a", ReportKind.WINDOW, counts=Tally(19, 0, 0, 19))
    assert owner.hear(second)
    assert not owner.hear(first)
    assert not owner.hear(second)
    assert owner.row is not None and owner.row.windows["a"].counts.failures == 0


def test_counts_of_another_generation_are_dropped() -> None:
    """They are of calls made before the breaker moved."""
    owner = Owner()
    owner.order(Action.RESET)
    assert not owner.window("a", BAD, generation=0)
    assert not owner.window("a", BAD, generation=2)
    assert owner.window("a", BAD, generation=1)


def test_nothing_that_is_news_to_nobody_is_written() -> None:
    """An idle worker without a window does not make a row."""
    owner = Owner()
    assert not owner.window("a", Tally())
    assert not owner.ask("a")
    assert not owner.probed("a", 3)
    assert owner.row is None


def test_old_windows_fall_out() -> None:
    """A worker's counts weigh for a window after it reported them, and no longer."""
    owner = Owner()
    owner.window("a", BAD)
    owner.now += 30_000
    owner.window("b", Tally(10, 10, 0, 10))
    assert owner.state() is BreakerState.CLOSED
    assert owner.row is not None and set(owner.row.windows) == {"b"}
    assert not owner.window("c", BAD, at_ms=owner.now - 30_000), "it was old when it came"


def test_a_clock_ahead_does_not_keep_counts_for_longer() -> None:
    """By the owner's clock a report was made when it came, at the latest."""
    owner = Owner()
    owner.window("a", BAD, at_ms=T0 + 3_600_000)
    owner.now += 30_000
    owner.window("b", GOOD)
    assert owner.row is not None and set(owner.row.windows) == {"b"}


def test_counts_from_before_the_owners_clock_was_set_back_fall_out() -> None:
    """They would otherwise stay until it is as late again."""
    owner = Owner()
    owner.window("a", BAD)
    owner.now -= 3_600_000
    owner.window("b", GOOD)
    assert owner.row is not None and set(owner.row.windows) == {"b"}


def test_a_restarted_worker_is_heard_even_if_it_counts_from_one() -> None:
    """Its sequence should go on, and if not, its silence ends with the window."""
    owner = Owner()
    owner.sequence = 1_000
    owner.window("a", GOOD)
    owner.sequence = 0
    assert not owner.window("a", GOOD)
    owner.now += 30_000
    assert owner.window("a", GOOD)


def test_a_row_has_room_for_so_many_workers() -> None:
    """Invented workers cannot make a row that the table's topic does not take; known ones are heard on."""
    full = BreakerRow(KEY, windows={f"w{n}": WorkerWindow(0, T0, GOOD) for n in range(MAX_WORKERS)})
    owner = Owner(full)
    assert not owner.window("one too many", GOOD)
    assert owner.window("w0", GOOD)
    long = {
        "w" * 193 + f"{n:07}": WorkerWindow(2**50, T0, Tally(10**6, 10**6, 10**6, 10**6), True, T0) for n in range(999)
    }
    assert len(BreakerRow(KEY, windows=long).to_bytes()) < MAX_ROW / 2


# --- what a worker may do ----------------------------------------------------------------------------------------


def test_a_worker_does_what_the_row_says() -> None:
    """All while closed or disabled, its own live lease while half-open, else nothing; and it knows when to ask."""
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


def test_a_fold_does_not_change_what_it_was_given() -> None:
    """The row that is in the table stays as it is until another is written."""
    row = BreakerRow(KEY, windows={"a": WorkerWindow(0, T0, GOOD)})
    before = row.to_bytes()
    folded = fold(row, Report(KEY, "b", 1, T0, 0, ReportKind.WINDOW, counts=GOOD), POLICY, T0, 0.5)
    assert isinstance(folded, FoldedBreaker) and folded.row is not row
    assert row.to_bytes() == before
