"""The rolling window: what is in it, what has left it, and clocks that misbehave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failsoft.models.breaker.window import Counts, Window

ONE = Counts(1, 0, 0)


def test_counts_add_up_and_give_rates() -> None:
    """Counts add field by field, and rates are by calls."""
    total = Counts(6, 3, 1) + Counts(4, 1, 0)
    assert total == Counts(10, 4, 1)
    assert (total.failure_rate, total.slow_rate) == (0.4, 0.1)


def test_no_calls_means_rates_of_zero() -> None:
    """Without calls there is no rate to divide: it is 0."""
    assert (Counts().failure_rate, Counts().slow_rate) == (0.0, 0.0)


@pytest.mark.parametrize("bad", [(-1, 0, 0), (1, 2, 0), (1, 0, 2), (3, -1, 0), (3, 0, -1)])
def test_impossible_counts_are_refused(bad: tuple[int, int, int]) -> None:
    """No more can fail or be slow than were called, and nothing is negative."""
    with pytest.raises(ValueError):
        Counts(*bad)


@pytest.mark.parametrize(("span", "buckets"), [(0, 30), (-1, 30), (float("inf"), 30), (float("nan"), 30), (30, 0)])
def test_an_impossible_window_is_refused(span: float, buckets: int) -> None:
    """A window needs a positive, finite span and a bucket."""
    with pytest.raises(ValueError):
        Window(span, buckets)


def test_a_count_leaves_with_its_bucket() -> None:
    """A count at the start of a bucket stays for the whole span, and is gone exactly when it ends."""
    window = Window(30.0)
    window.add(ONE, 100.0)
    assert window.totals(129.999) == ONE
    assert window.totals(130.0) == Counts()


def test_a_count_at_the_end_of_a_bucket_leaves_up_to_a_bucket_early() -> None:
    """The rounding is at most one bucket, and to the early side."""
    window = Window(30.0)
    window.add(ONE, 100.999)
    assert window.totals(129.999) == ONE
    assert window.totals(130.0) == Counts()


def test_edges_that_floats_cannot_hold_are_still_edges() -> None:
    """0.3 s is the start of the fourth tenth of a second, although 0.3 / 0.1 is less than 3."""
    window = Window(1.0, buckets=10)
    window.add(ONE, 0.3)
    assert window.totals(1.2) == ONE
    assert window.totals(1.3) == Counts()


def test_a_long_gap_empties_it() -> None:
    """After any time longer than the span, only what came after the gap counts."""
    window = Window(30.0)
    window.add(Counts(50, 50, 50), 0.0)
    window.add(ONE, 1e9)
    assert window.totals(1e9) == ONE


def test_time_going_backwards_loses_nothing() -> None:
    """Counts stamped before the newest bucket go into the newest, and leave with it."""
    window = Window(30.0)
    window.add(ONE, 100.0)
    window.add(ONE, 60.0)
    assert window.totals(60.0) == Counts(2)
    assert window.totals(129.0) == Counts(2)
    assert window.totals(130.0) == Counts()


def test_reset_forgets() -> None:
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
def test_it_agrees_with_a_list_of_everything(steps: list[tuple[int, int, int]], buckets: int) -> None:
    """At any time, the totals are those of the counts whose bucket is one of the newest ``buckets``."""
    window, everything, now = Window(30.0, buckets), [], 0.0
    for gap, calls, failures in steps:
        now += gap / 8
        counts = Counts(calls, min(calls, failures), 0)
        everything.append((int(now * buckets / 30), counts))
        window.add(counts, now)
        inside = [c for index, c in everything if index > int(now * buckets / 30) - buckets]
        assert window.totals(now) == sum(inside, Counts())
