"""Bisecting: the order of runs, their cost, and the message of rows that were not tried alone."""

from __future__ import annotations

from collections.abc import Callable, Set

import numpy as np
import pytest

from failsoft.models.runtime.signature import ModelOutput
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.prediction import Predictions
from failsoft.workers.execution.bisect import MAX_RUNS_WITHOUT_ANSWER, WAYS, Bisection, Piece

SLOW = Failure(Kind.TIMEOUT, "it hung")
BROKEN = Failure(Kind.MODEL_ERROR, "it raised")


def answer(piece: Piece) -> ModelOutput:
    """Each row's score is its number."""
    return ModelOutput(Predictions(piece.rows.astype(np.float32)), {})


def walk(bisection: Bisection, bad: Set[int], why: Failure, now: float = 0.0, cost: float = 0.0) -> list[Piece]:
    """Runs every piece. A piece with a ``bad`` row fails with ``why`` and costs ``cost`` seconds."""
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
    """The scores of the rows that are not bad."""
    predictions = bisection.predictions
    return (
        [] if predictions is None else [s for i, s in enumerate(predictions.scores.tolist()) if i not in bisection.bad]
    )


def sizes(pieces: list[Piece]) -> list[int]:
    return [len(piece.rows) for piece in pieces]


def test_one_hanging_row_of_four_thousand_costs_three_levels() -> None:
    """The pieces have 250, 16 and 1 rows; each level costs a deadline, beside the first run's."""
    bisection = Bisection(4000, SLOW, 0.2, 2.0, 2.0)
    pieces = walk(bisection, {1234}, SLOW, now=0.2, cost=0.2)
    assert bisection.bad == {1234: SLOW}
    assert scores(bisection) == [i for i in range(4000) if i != 1234]
    assert sizes(pieces) == [250] * 16 + [16] * 10 + [15] * 6 + [1] * len(pieces[32:])
    assert len(pieces[32:]) in (15, 16)


def test_three_hanging_rows_fit_into_ten_deadlines() -> None:
    """With the card's default budget: one deadline for the first run and three for each row."""
    bisection = Bisection(4000, SLOW, 0.2, 2.0, 2.0)
    walk(bisection, {5, 1700, 3900}, SLOW, now=0.2, cost=0.19)
    assert bisection.bad == dict.fromkeys((5, 1700, 3900), SLOW)


def test_a_row_that_raises_is_found_by_halves() -> None:
    """Errors return quickly, so one bad row of a thousand takes two runs per level."""
    bisection = Bisection(1024, BROKEN, 0.2, 2.0, 2.0)
    pieces = walk(bisection, {77}, BROKEN)
    assert sizes(pieces) == [n for level in range(1, 11) for n in [1024 >> level] * 2]
    assert bisection.bad == {77: BROKEN} and not bisection.undecided


def test_a_crashing_row_is_found_by_sixteenths() -> None:
    """Each piece with the row costs a restart of the model's process, so a crash is treated like a hang."""
    bisection = Bisection(256, Failure(Kind.CRASHED, "signal 6"), 0.2, 2.0, 2.0)
    assert sizes(walk(bisection, {0}, Failure(Kind.CRASHED, "signal 6"))) == [WAYS] * 16 + [1] * 16


def test_after_the_budget_the_undecided_rows_fail_with_their_pieces_failure() -> None:
    """Their message has their number and the budget; rows decided before keep their results."""
    bisection = Bisection(32, SLOW, 0.2, 0.5, 0.5)
    pieces = walk(bisection, {0, 31}, SLOW, now=0.2, cost=0.2)
    failure = Failure(Kind.TIMEOUT, "it hung (one of 4 rows that were not tried alone within 0.5 s)")
    assert bisection.bad == dict.fromkeys((0, 1, 30, 31), failure)
    assert bisection.undecided == {0, 1, 30, 31}
    assert scores(bisection) == list(range(2, 30))
    assert pieces[-1].deadline == pytest.approx(0.1), "the last one was cut short by the budget's end"


def test_a_timeout_under_a_shortened_deadline_does_not_count() -> None:
    """A piece that had less than its deadline stays undecided, even if it is one row."""
    bisection = Bisection(2, SLOW, 0.2, 0.3, 0.3)
    first = bisection.next(0.2)
    assert first is not None and first.deadline == pytest.approx(0.1)
    bisection.record_outcome(first, SLOW)
    assert bisection.next(0.299) is None
    assert bisection.bad[0].message == "it hung (one of 2 rows that were not tried alone within 0.3 s)"


def test_a_piece_that_could_not_be_run_is_tried_again() -> None:
    """While the model's process restarts, the rows stay undecided and do not fail."""
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


def test_a_bad_output_fails_its_row_only() -> None:
    """A piece that was answered may still contain rows whose output was refused."""
    bisection = Bisection(4, BROKEN, 0.2, 2.0, 2.0)
    piece = bisection.next(0.0)
    assert piece is not None
    nan = Failure(Kind.BAD_OUTPUT, "a score of nan")
    bisection.record_outcome(piece, ModelOutput(Predictions(piece.rows.astype(np.float32)), {1: nan}))
    walk(bisection, {3}, BROKEN)
    assert bisection.bad == {1: nan, 3: BROKEN}


def test_a_model_that_fails_everything_is_not_asked_about_every_row() -> None:
    """After MAX_RUNS_WITHOUT_ANSWER runs without an answer the other rows fail together, and the breaker opens."""
    bisection = Bisection(4000, BROKEN, 0.2, 20.0, 20.0)
    pieces = walk(bisection, set(range(4000)), BROKEN)
    assert len(pieces) == MAX_RUNS_WITHOUT_ANSWER - 1
    assert len(bisection.bad) == 4000 and bisection.predictions is None
    assert bisection.bad[0].message.endswith(
        f"rows that were not tried alone after {MAX_RUNS_WITHOUT_ANSWER} runs without an answer)"
    )


@pytest.mark.parametrize("shape", [lambda n: {"labels": list(range(n))}, lambda n: {"confidences": np.arange(n) / n}])
def test_answers_come_back_in_the_order_of_the_rows(shape: Callable[[int], dict[str, object]]) -> None:
    """All parts of the answers are in the order of the rows, although the pieces ran in another order."""
    bisection = Bisection(64, BROKEN, 0.2, 2.0, 2.0)
    whole = Predictions(np.arange(64, dtype=np.float32), np.arange(64).tolist(), np.eye(64), np.arange(64) / 64)
    while (piece := bisection.next(0.0)) is not None:
        fails = {3, 40} & set(piece.rows.tolist())
        bisection.record_outcome(piece, BROKEN if fails else ModelOutput(whole.take(piece.rows), {}))
    predictions = bisection.predictions
    assert predictions is not None and predictions.labels is not None and predictions.probabilities is not None
    assert predictions.confidences is not None
    good = [i for i in range(64) if i not in (3, 40)]
    assert [predictions.labels[i] for i in good] == good
    assert predictions.probabilities[good].tolist() == np.eye(64)[good].tolist()
    assert predictions.confidences[good].tolist() == (np.array(good) / 64).tolist()
