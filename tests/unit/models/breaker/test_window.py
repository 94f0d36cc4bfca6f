"""The rolling window: totals, expiry, and clocks that go backwards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failsoft.models.breaker.window import Window
from failsoft.schemas.fleet.counts import Counts

ONE = Counts(1, 0, 0)


def test_counts_add_up_and_give_rates() -> None:
    """Counts add field by field, and rates are relative to calls."""
    total = Counts(6, 3, 1) + Counts(4, 1, 0)
    assert total == Counts(10, 4, 1)
    assert (total.failure_rate, total.slow_rate) == (0.4, 0.1)


def test_no_calls_means_rates_of_zero() -> None:
    """Without calls, the rates are 0."""
    assert (Counts().failure_rate, Counts().slow_rate) == (0.0, 0.0)


@pytest.mark.parametrize("bad", [(-1, 0, 0), (1, 2, 0), (1, 0, 2), (3, -1, 0), (3, 0, -1)])
def test_impossible_counts_are_refused(bad: tuple[int, int, int]) -> None:
    """Negative counts, and more failures or slow runs than calls, raise ValueError."""
    with pytest.raises(ValueError):
        Counts(*bad)


@pytest.mark.parametrize("bad", [(float("inf"),), (2.0,), (True,), (2, 0, 0.0), (2, 0.0), (2, 0, 0, 1.0)])
def test_counts_are_ints(bad: tuple[int, ...]) -> None:
    """Floats and booleans raise ValueError."""
    with pytest.raises(ValueError, match="int"):
        Counts(*bad)


@pytest.mark.parametrize(
    ("counts", "slow"),
    [((3, 0, 1, 3), 1), ((3, 0, 1, 1), 3), ((3, 3, 1, 1), 0), ((2, 1, 1, 1), 1), ((3, 0, 1, 2), 1), ((3, 0, 0, 0), 0)],
)
def test_each_passed_row_of_a_slow_run_is_slow(counts: tuple[int, int, int, int], slow: int) -> None:
    """The share of slow runs is applied to the rows that passed. Failed rows are not slow too."""
    assert Counts(*counts).slow_passes == slow


@pytest.mark.parametrize(("span", "buckets"), [(0, 30), (-1, 30), (float("inf"), 30), (float("nan"), 30), (30, 0)])
def test_an_impossible_window_is_refused(span: float, buckets: int) -> None:
    """A window needs a positive, finite span and at least one bucket."""
    with pytest.raises(ValueError):
        Window(span, buckets)


def test_a_count_leaves_with_its_bucket() -> None:
    """A count at the start of a bucket stays for exactly the span."""
    window = Window(30.0)
    window.add(ONE, 100.0)
    assert window.totals(129.999) == ONE
    assert window.totals(130.0) == Counts()


def test_a_count_at_the_end_of_a_bucket_leaves_up_to_a_bucket_early() -> None:
    """A count leaves at most one bucket before the span has passed, and never late."""
    window = Window(30.0)
    window.add(ONE, 100.999)
    assert window.totals(129.999) == ONE
    assert window.totals(130.0) == Counts()


def test_bucket_edges_without_an_exact_float_are_exact() -> None:
    """0.3 s starts the fourth bucket of 0.1 s, although 0.3 / 0.1 is less than 3 in floating point."""
    window = Window(1.0, buckets=10)
    window.add(ONE, 0.3)
    assert window.totals(1.2) == ONE
    assert window.totals(1.3) == Counts()


def test_a_long_gap_empties_it() -> None:
    """After a gap longer than the span, only later counts are in the totals."""
    window = Window(30.0)
    window.add(Counts(50, 50, 50), 0.0)
    window.add(ONE, 1e9)
    assert window.totals(1e9) == ONE


def test_time_going_backwards_loses_nothing() -> None:
    """Counts with a time before the newest bucket go into the newest bucket, and leave with it."""
    window = Window(30.0)
    window.add(ONE, 100.0)
    window.add(ONE, 60.0)
    assert window.totals(60.0) == Counts(2)
    assert window.totals(129.0) == Counts(2)
    assert window.totals(130.0) == Counts()


def test_reset_removes_all_counts() -> None:
    """A reset window is empty and counts again."""
    window = Window(30.0)
    window.add(ONE, 0.0)
    window.reset()
    assert window.totals(0.0) == Counts()
    window.add(ONE, 0.0)
    assert window.totals(0.0) == ONE


@given(
    steps=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.integers(0, 3)), max_size=60),
    buckets=st.integers(1, 30),
)
def test_it_agrees_with_a_list_of_all_counts(steps: list[tuple[int, int, int]], buckets: int) -> None:
    """The totals are always the counts that lie in the newest ``buckets`` buckets."""
    window, everything, now = Window(30.0, buckets), [], 0.0
    for gap, calls, failures in steps:
        now += gap / 8
        counts = Counts(calls, min(calls, failures), 0)
        everything.append((int(now * buckets / 30), counts))
        window.add(counts, now)
        inside = [c for index, c in everything if index > int(now * buckets / 30) - buckets]
        assert window.totals(now) == sum(inside, Counts())
