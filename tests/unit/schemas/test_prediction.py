"""Predictions: a batch in columns, and its rows."""

from __future__ import annotations

import numpy as np

from failsoft.schemas.prediction import Prediction, Predictions, Source


def test_a_row_has_the_decimals_of_its_float32() -> None:
    """0.1 in float32 is 0.1 again, not 0.10000000149."""
    column = np.array([0.1, 0.7], np.float32)
    batch = Predictions(column, [0, 1], np.array([[0.9, 0.1], [0.3, 0.7]], np.float32), column)
    assert batch.row(0) == Prediction(0.1, 0, (0.9, 0.1), 0.1) and len(batch) == 2


def test_what_a_batch_does_not_have_is_none() -> None:
    """No labels, probabilities or confidences; and a NaN confidence is none of that row's."""
    assert Predictions(np.array([2.5])).row(0) == Prediction(2.5)
    assert Predictions(np.array([2.5]), confidences=np.array([float("nan")])).row(0).confidence is None


def test_take_gives_the_rows_asked_for_in_that_order() -> None:
    """Of every column; a row may be asked for twice."""
    column = np.array([0.25, 0.5, 0.75], np.float32)
    batch = Predictions(column, ["a", "b", "c"], np.stack([1 - column, column], axis=1), column)
    taken = batch.take(np.array([2, 0, 0]))
    assert [taken.row(i) for i in range(3)] == [batch.row(2), batch.row(0), batch.row(0)]
    assert Predictions(column).take(np.array([1])).row(0) == Prediction(0.5)


def test_single_answers_become_columns_and_come_back() -> None:
    """With labels and confidences on some rows only."""
    rows = [Prediction(0.5, 1, None, 0.8), Prediction(2.0), Prediction(0.1, "no")]
    batch = Predictions.of(rows)
    assert [batch.row(i) for i in range(3)] == rows
    several = [Prediction(0.5, None, (0.5, 0.5)), Prediction(0.9, None, (0.1, 0.9))]
    assert [Predictions.of(several).row(i) for i in range(2)] == several
    assert len(Predictions.of([])) == 0


def test_sources_are_the_contracts() -> None:
    """The values that readers filter by."""
    assert list(Source) == ["primary", "fallback_model", "ensemble", "last_known", "rule", "static"]
