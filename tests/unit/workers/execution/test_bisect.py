"""Bisecting: the order of runs, their cost, and the message of rows that were not tried alone."""

from __future__ import annotations

from collections.abc import Callable, Set

import numpy as np
import pytest

from failsoft.models.runtime.outputs import ModelOutput
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.prediction import Predictions
from failsoft.workers.execution.bisect import MAX_RUNS_WITHOUT_ANSWER, TOGETHER, WAYS, Bisection, Piece

SLOW = Failure(Kind.TIMEOUT, "it hung")
BROKEN = Failure(Kind.MODEL_ERROR, "it raised")
UNRUN = Failure(Kind.UNAVAILABLE, "it was not run")


def answer(piece: Piece) -> ModelOutput:
    """Each row's score is its number."""
    return ModelOutput(Predictions(piece.rows.astype(np.float32)), {})


def walk(bisection: Bisection, bad: Set[int], why: Failure, now: float = 0.0, cost: float = 0.0) -> list[Piece]:
    """Runs every piece. A piece with a ``bad`` row fails with ``why`` and costs ``cost`` seconds."""
    pieces = []
    while given := bisection.next(now):
        outcomes: list[ModelOutput | Failure] = []
        for piece in given:
            pieces.append(piece)
            fails = not bad.isdisjoint(piece.rows.tolist())
            outcomes.append(why if fails else answer(piece))
            if fails:
                now += min(cost, piece.deadline)
        bisection.record_outcomes(given, outcomes)
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
    """Errors return quickly, so what counts is the number of rows that run again: the batch's rows once or twice."""
    for row in (0, 77, 511, 2048, 3999):
        bisection = Bisection(4000, BROKEN, 0.2, 2.0, 2.0)
        pieces = walk(bisection, {row}, BROKEN)
        assert bisection.bad == {row: BROKEN} and not bisection.undecided
        assert len(pieces) <= 26 and sum(sizes(pieces)) <= 2 * 4000 + 12
        assert scores(bisection) == [i for i in range(4000) if i != row]


def test_rows_that_raise_are_found_with_few_rows_run_again() -> None:
    """One row in a hundred: halves would run each row more than six times. With what the last batch found, no more
    than two and a half times, and without a run of the whole batch.
    """
    bad = set(np.random.default_rng(1).choice(4000, 40, replace=False).tolist())
    for spacing, most in ((None, 3.5), (100.0, 2.5)):
        bisection = Bisection(4000, BROKEN, 0.2, 2.0, 2.0, spacing)
        pieces = walk(bisection, bad, BROKEN)
        assert set(bisection.bad) == bad
        assert sum(sizes(pieces)) <= most * 4000
        assert bisection.spacing == 4000 / 40


def test_a_series_of_failing_rows_is_not_taken_for_a_broken_model() -> None:
    """A bad producer's events stand one after the other. Rows of the whole batch are tried, so the others pass."""
    bisection = Bisection(4000, BROKEN, 0.2, 20.0, 20.0)
    walk(bisection, set(range(2500)), BROKEN)
    assert set(bisection.bad) == set(range(2500)) and not bisection.undecided


def test_a_batch_that_is_well_again_takes_few_runs() -> None:
    """The last batch failed in every row, so the first groups are single rows. Groups that pass make larger ones."""
    bisection = Bisection(4000, UNRUN, 0.2, 2.0, 2.0, 1.0)
    pieces = walk(bisection, set(), BROKEN)
    assert sum(sizes(pieces)) == 4000 and len(pieces) < TOGETHER + 30
    assert not bisection.bad and bisection.spacing is None


def test_a_batch_that_was_never_run_does_not_blame_the_model() -> None:
    """Where the budget ends before the first run of a batch that was not run as a whole."""
    bisection = Bisection(10, UNRUN, 0.2, 2.0, 2.0, 1.0)
    assert not bisection.next(2.0)
    assert {f.kind for f in bisection.bad.values()} == {Kind.UNAVAILABLE} and len(bisection.undecided) == 10


@pytest.mark.parametrize(("fails", "runs", "rows_again"), [("size", 750, 6), ("pair", 750, 9)])
def test_rows_that_fail_only_together_are_all_answered(fails: str, runs: int, rows_again: int) -> None:
    """Too many rows for the model's memory, or rows that clash. Groups become as small as passes, also in the next
    batch.
    """
    marked = set(np.random.default_rng(5).choice(4000, 100, replace=False).tolist())
    spacing = None
    for _ in range(2):
        bisection = Bisection(4000, BROKEN, 0.2, 2.0, 2.0, spacing)
        pieces: list[Piece] = []
        while given := bisection.next(0.0):
            pieces += given
            together = [len(p.rows) > 8 if fails == "size" else len(marked & set(p.rows.tolist())) > 1 for p in given]
            bisection.record_outcomes(given, [BROKEN if f else answer(p) for f, p in zip(together, given, strict=True)])
        assert not bisection.bad and scores(bisection) == list(range(4000))
        assert len(pieces) <= runs and sum(sizes(pieces)) <= rows_again * 4000
        spacing, runs, rows_again = bisection.spacing, 600, 2
        assert spacing is not None


def test_a_hanging_row_among_rows_that_raise() -> None:
    """The piece that hangs is split into sixteen, and the search by halves goes on."""
    bisection = Bisection(512, BROKEN, 0.2, 9.0, 9.0)

    def outcome(piece: Piece) -> ModelOutput | Failure:
        rows = set(piece.rows.tolist())
        return SLOW if 100 in rows else BROKEN if rows & {99, 101, 300} else answer(piece)

    while pieces := bisection.next(0.0):
        bisection.record_outcomes(pieces, [outcome(piece) for piece in pieces])
    assert bisection.bad == {100: SLOW, 99: BROKEN, 101: BROKEN, 300: BROKEN}


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
    (first,) = bisection.next(0.2)
    assert first.deadline == pytest.approx(0.1)
    bisection.record_outcomes([first], [SLOW])
    assert not bisection.next(0.299)
    assert bisection.bad[0].message == "it hung (one of 2 rows that were not tried alone within 0.3 s)"


def test_a_piece_that_could_not_be_run_is_tried_again() -> None:
    """While the model's process restarts, the rows stay undecided and do not fail."""
    crashed = Failure(Kind.CRASHED, "signal 6")
    bisection = Bisection(2, crashed, 0.2, 2.0, 2.0)
    (first,) = bisection.next(0.1)
    bisection.record_outcomes([first], [Failure(Kind.UNAVAILABLE, "no process is up")])
    (again,) = bisection.next(0.2)
    assert again.rows.tolist() == first.rows.tolist()
    bisection.record_outcomes([again], [answer(again)])
    (last,) = bisection.next(0.3)
    bisection.record_outcomes([last], [crashed])
    assert not bisection.next(0.4) and bisection.bad == {1: crashed}


def test_a_bad_output_fails_its_row_only() -> None:
    """A piece that was answered may still contain rows whose output was refused."""
    bisection = Bisection(4, BROKEN, 0.2, 2.0, 2.0)
    (piece,) = bisection.next(0.0)
    nan = Failure(Kind.BAD_OUTPUT, "a score of nan")
    bisection.record_outcomes([piece], [ModelOutput(Predictions(piece.rows.astype(np.float32)), {1: nan})])
    refused = int(piece.rows[1])
    (other,) = {2, 3} - {refused} if refused in (2, 3) else {2}
    walk(bisection, {other}, BROKEN)
    assert bisection.bad == {refused: nan, other: BROKEN}


def test_a_model_that_fails_everything_is_not_asked_about_every_row() -> None:
    """After MAX_RUNS_WITHOUT_ANSWER runs without an answer the other rows fail together, and the breaker opens."""
    bisection = Bisection(4000, BROKEN, 0.2, 20.0, 20.0)
    pieces = walk(bisection, set(range(4000)), BROKEN)
    assert MAX_RUNS_WITHOUT_ANSWER <= len(pieces) + 1 < MAX_RUNS_WITHOUT_ANSWER + TOGETHER
    assert len(bisection.bad) == 4000 and bisection.predictions is None
    assert 950 < 4000 - len(bisection.undecided) < MAX_RUNS_WITHOUT_ANSWER + TOGETHER, "so many have failed alone"
    for row in bisection.undecided:
        assert bisection.bad[row].message.endswith(
            f"rows that were not tried alone after {len(pieces) + 1} runs without an answer)"
        )


@pytest.mark.parametrize("shape", [lambda n: {"labels": list(range(n))}, lambda n: {"confidences": np.arange(n) / n}])
def test_answers_come_back_in_the_order_of_the_rows(shape: Callable[[int], dict[str, object]]) -> None:
    """All parts of the answers are in the order of the rows, although the pieces ran in another order."""
    bisection = Bisection(64, BROKEN, 0.2, 2.0, 2.0)
    whole = Predictions(np.arange(64, dtype=np.float32), np.arange(64).tolist(), np.eye(64), np.arange(64) / 64)
    while pieces := bisection.next(0.0):
        fails = [not {3, 40}.isdisjoint(piece.rows.tolist()) for piece in pieces]
        outcomes = [BROKEN if f else ModelOutput(whole.take(p.rows), {}) for p, f in zip(pieces, fails, strict=True)]
        bisection.record_outcomes(pieces, outcomes)
    predictions = bisection.predictions
    assert predictions is not None and predictions.labels is not None and predictions.probabilities is not None
    assert predictions.confidences is not None
    good = [i for i in range(64) if i not in (3, 40)]
    assert [predictions.labels[i] for i in good] == good
    assert predictions.probabilities[good].tolist() == np.eye(64)[good].tolist()
    assert predictions.confidences[good].tolist() == (np.array(good) / 64).tolist()
