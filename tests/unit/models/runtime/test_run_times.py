"""The times of runs: their measurement, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from failsoft.models.runtime.run_times import ENOUGH, MOST_ROWS, RunTimes, measure


def model(times: RunTimes, first: float = 0.0) -> tuple[Callable[[int], float], list[int]]:
    """A model with these times, whose first run of each size takes ``first`` longer; and the rows of its runs."""
    ran: list[int] = []

    def run(rows: int) -> float:
        ran.append(rows)
        return times.seconds(rows) + (0.0 if rows in ran[:-1] else first)

    return run, ran


@pytest.mark.parametrize("times", [RunTimes(0.0005, 0.0001), RunTimes(0.01, 0.0), RunTimes(0.0, 0.0004)])
def test_a_quick_model_is_measured_without_the_first_run_of_a_size(times: RunTimes) -> None:
    """The first run allocates memory."""
    run, ran = model(times, first=0.01)
    measured = measure(run, None)
    assert measured is not None and ran == [1, 1, MOST_ROWS, MOST_ROWS]
    assert (measured.run, measured.row) == pytest.approx((times.run, times.row), abs=1e-9)


def test_a_slow_model_is_measured_with_few_rows() -> None:
    """A load should not wait a minute for a model that takes a second a row."""
    run, ran = model(RunTimes(0.0, 0.1))
    measured = measure(run, None)
    assert measured is not None and measured.row == pytest.approx(0.1) and ran == [1, 1, int(ENOUGH / 0.1)]
    run, ran = model(RunTimes(0.0, 3.0))
    assert measure(run, None) is not None and ran == [1, 1, 2]


def test_no_measured_run_has_more_rows_than_the_card_allows() -> None:
    """Such a model may need its memory for few rows."""
    run, ran = model(RunTimes(0.001, 0.001))
    assert measure(run, 8) is not None and max(ran) == 8
    run, ran = model(RunTimes(0.001, 0.001))
    assert measure(run, 1) == RunTimes(0.0, 0.002) and max(ran) == 1


@pytest.mark.parametrize("fails_at", [1, MOST_ROWS])
def test_nothing_is_known_of_a_model_that_fails_made_up_rows(fails_at: int) -> None:
    """Zeros may be no valid rows of it."""
    assert measure(lambda rows: None if rows == fails_at else 0.001, None) is None
