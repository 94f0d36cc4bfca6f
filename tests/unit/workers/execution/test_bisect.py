"""Telling rows apart: in which order, at what cost, and the message of rows that were not tried alone."""

from __future__ import annotations

from collections.abc import Callable, Set

import numpy as np
import pytest

from failsoft.models.runtime.signature import ModelOutput
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.prediction import Predictions
from failsoft.workers.execution.bisect import FRUITLESS, WAYS, Bisection, Piece

SLOW = Failure(Kind.TIMEOUT, "it hung")
BROKEN = Failure(Kind.MODEL_ERROR, "it raised")


def answer(piece: Piece) -> ModelOutput:
    """Each row's score is its number."""
    return ModelOutput(Predictions(piece.rows.astype(np.float32)), {})


def walk(bisection: Bisection, bad: Set[int], why: Failure, now: float = 0.0, cost: float = 0.0) -> list[Piece]:
    """Runs every piece; one that holds a ``bad`` row fails with ``why`` and costs ``cost`` seconds."""
    pieces = []
    while (piece := bisection.next(now)) is not None:
        pieces.append(piece)
        if bad.isdisjoint(piece.rows.tolist()):
            bisection.record_outcome(piece, answer(piece))
        else:
            now += min(cost, piece.deadline)
            bisection.record_outcome(piece, why)
    return pieces


def scores(bisection: Bisection) -> list[float]:
    """Of the rows that are not bad."""
    found = bisection.predictions
    return [] if found is None else [s for i, s in enumerate(found.scores.tolist()) if i not in bisection.bad]


def sizes(pieces: list[Piece]) -> list[int]:
    return [len(piece.rows) for piece in pieces]


def test_one_hanging_row_of_four_thousand_costs_three_levels() -> None:
    """4,000 rows, 250, 16, 1: a deadline each, beside the first run's own."""
    bisection = Bisection(4000, SLOW, 0.2, 2.0, 2.0)
    pieces = walk(bisection, {1234}, SLOW, now=0.2, cost=0.2)
    assert bisection.bad == {1234: SLOW}
    assert scores(bisection) == [i for i in range(4000) if i != 1234]
    assert sizes(pieces) == [250] * 16 + [16] * 10 + [15] * 6 + [1] * len(pieces[32:])
    assert len(pieces[32:]) in (15, 16)


def test_three_hanging_rows_fit_into_ten_deadlines() -> None:
    """The card's default: the first run, and three a row."""
    bisection = Bisection(4000, SLOW, 0.2, 2.0, 2.0)
    walk(bisection, {5, 1700, 3900}, SLOW, now=0.2, cost=0.19)
    assert bisection.bad == dict.fromkeys((5, 1700, 3900), SLOW)


def test_an_error_is_told_apart_by_halves() -> None:
    """Errors come back quickly: one bad row of a thousand takes two runs a level."""
    bisection = Bisection(1024, BROKEN, 0.2, 2.0, 2.0)
    pieces = walk(bisection, {77}, BROKEN)
    assert sizes(pieces) == [n for level in range(1, 11) for n in [1024 >> level] * 2]
    assert bisection.bad == {77: BROKEN}


def test_a_crash_costs_a_restart_and_is_told_apart_sixteen_ways() -> None:
    """As a hang is: each piece that holds the row takes the model's process with it."""
    bisection = Bisection(256, Failure(Kind.CRASHED, "signal 6"), 0.2, 2.0, 2.0)
    assert sizes(walk(bisection, {0}, Failure(Kind.CRASHED, "signal 6"))) == [WAYS] * 16 + [1] * 16


def test_past_the_budget_the_undecided_rows_fail_with_what_happened_to_them() -> None:
    """Each says how many they were, and how long it was tried; what was told apart before stays so."""
    bisection = Bisection(32, SLOW, 0.2, 0.5, 0.5)
    pieces = walk(bisection, {0, 31}, SLOW, now=0.2, cost=0.2)
    said = Failure(Kind.TIMEOUT, "it hung (one of 4 rows that were not tried alone within 0.5 s)")
    assert bisection.bad == dict.fromkeys((0, 1, 30, 31), said)
    assert scores(bisection) == list(range(2, 30))
    assert pieces[-1].deadline == pytest.approx(0.1), "the last one was cut short by the budget's end"


def test_a_piece_that_the_budget_cut_short_is_not_blamed() -> None:
    """It had less than its deadline, so nothing is proved: not even when it is one row."""
    bisection = Bisection(2, SLOW, 0.2, 0.3, 0.3)
    first = bisection.next(0.2)
    assert first is not None and first.deadline == pytest.approx(0.1)
    bisection.record_outcome(first, SLOW)
    assert bisection.next(0.299) is None
    assert bisection.bad[0].message == "it hung (one of 2 rows that were not tried alone within 0.3 s)"


def test_what_nobody_could_run_is_tried_again() -> None:
    """A model's process comes back after a second: until then its rows are undecided, not failed."""
    crashed = Failure(Kind.CRASHED, "signal 6")
    bisection = Bisection(2, crashed, 0.2, 2.0, 2.0)
    first = bisection.next(0.1)
    assert first is not None
    bisection.record_outcome(first, Failure(Kind.UNAVAILABLE, "no process is up"))
    again = bisection.next(0.2)
    assert again is not None and again.rows.tolist() == first.rows.tolist()
    bisection.record_outcome(again, answer(again))
    last = bisection.next(0.3)
    assert last is not None
    bisection.record_outcome(last, crashed)
    assert bisection.next(0.4) is None and bisection.bad == {1: crashed}


def test_a_failure_of_a_row_by_itself_stays_its_own() -> None:
    """A piece that was answered may hold rows that the guard on outputs refused."""
    bisection = Bisection(4, BROKEN, 0.2, 2.0, 2.0)
    piece = bisection.next(0.0)
    assert piece is not None
    nan = Failure(Kind.BAD_OUTPUT, "a score of nan")
    bisection.record_outcome(piece, ModelOutput(Predictions(piece.rows.astype(np.float32)), {1: nan}))
    walk(bisection, {3}, BROKEN)
    assert bisection.bad == {1: nan, 3: BROKEN}


def test_a_model_that_fails_everything_is_not_asked_about_every_row() -> None:
    """After so many runs without an answer it is the model: the rest fail together, and the breaker opens."""
    bisection = Bisection(4000, BROKEN, 0.2, 20.0, 20.0)
    pieces = walk(bisection, set(range(4000)), BROKEN)
    assert len(pieces) == FRUITLESS - 1
    assert len(bisection.bad) == 4000 and bisection.predictions is None
    assert bisection.bad[0].message.endswith(
        f"rows that were not tried alone after {FRUITLESS} runs without an answer)"
    )


@pytest.mark.parametrize("shape", [lambda n: {"labels": list(range(n))}, lambda n: {"confidences": np.arange(n) / n}])
def test_answers_come_back_in_the_order_of_the_rows(shape: Callable[[int], dict[str, object]]) -> None:
    """With all that they have: the pieces were answered in another order."""
    bisection = Bisection(64, BROKEN, 0.2, 2.0, 2.0)
    whole = Predictions(np.arange(64, dtype=np.float32), np.arange(64).tolist(), np.eye(64), np.arange(64) / 64)
    while (piece := bisection.next(0.0)) is not None:
        fails = {3, 40} & set(piece.rows.tolist())
        bisection.record_outcome(piece, BROKEN if fails else ModelOutput(whole.take(piece.rows), {}))
    found = bisection.predictions
    assert found is not None and found.labels is not None and found.probabilities is not None
    assert found.confidences is not None
    good = [i for i in range(64) if i not in (3, 40)]
    assert [found.labels[i] for i in good] == good
    assert found.probabilities[good].tolist() == np.eye(64)[good].tolist()
    assert found.confidences[good].tolist() == (np.array(good) / 64).tolist()
