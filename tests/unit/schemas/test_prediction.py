"""Predictions: batches in columns, and single rows."""

from __future__ import annotations

import numpy as np

from failsoft.schemas.prediction import OutputColumn, Prediction, Predictions, Source


def test_a_row_has_the_shortest_decimals_of_its_float32() -> None:
    """A float32 becomes the shortest decimal that converts back to it: 0.1, not 0.10000000149."""
    column = np.array([0.1, 0.7], np.float32)
    batch = Predictions(column, [0, 1], np.array([[0.9, 0.1], [0.3, 0.7]], np.float32), column)
    assert batch.row(0) == Prediction(0.1, 0, (0.9, 0.1), 0.1) and len(batch) == 2


def test_absent_fields_are_none() -> None:
    """Without labels, probabilities or confidences a row's fields are None; so is a NaN confidence."""
    assert Predictions(np.array([2.5])).row(0) == Prediction(2.5)
    assert Predictions(np.array([2.5]), confidences=np.array([float("nan")])).row(0).confidence is None


def test_take_gives_the_rows_in_the_given_order() -> None:
    """Every column has the taken rows in the given order; a row may be taken twice."""
    column = np.array([0.25, 0.5, 0.75], np.float32)
    batch = Predictions(column, ["a", "b", "c"], np.stack([1 - column, column], axis=1), column)
    taken = batch.take(np.array([2, 0, 0]))
    assert [taken.row(i) for i in range(3)] == [batch.row(2), batch.row(0), batch.row(0)]
    assert Predictions(column).take(np.array([1])).row(0) == Prediction(0.5)


def test_single_answers_become_columns_and_back() -> None:
    """Rows read from columns equal the answers they were made of, also when only some have labels and confidences."""
    rows = [Prediction(0.5, 1, None, 0.8), Prediction(2.0), Prediction(0.1, "no")]
    batch = Predictions.of(rows)
    assert [batch.row(i) for i in range(3)] == rows
    several = [Prediction(0.5, None, (0.5, 0.5)), Prediction(0.9, None, (0.1, 0.9))]
    assert [Predictions.of(several).row(i) for i in range(2)] == several
    assert len(Predictions.of([])) == 0


def test_sources_are_those_of_the_contract() -> None:
    """The source values, by which readers filter, are those of the contract."""
    assert list(Source) == ["primary", "fallback_model", "ensemble", "last_known", "rule", "static"]


def test_a_double_is_not_cut_short() -> None:
    """A float64 score keeps all its digits; a float32 score is written as its shortest decimal."""
    wide = Predictions(np.array([1234567.890123456]))
    assert wide.row(0).score == 1234567.890123456
    assert Predictions(np.array([0.93], np.float32)).row(0).score == 0.93


def test_outputs_go_with_their_rows() -> None:
    """Further outputs are taken, cut and joined with their rows, and a row has their JSON values."""
    columns: dict[str, OutputColumn] = {
        "std": np.array([0.1, np.nan, 3], np.float32),
        "ids": np.array([[1, 2], [3, 4], [5, 6]]),
        "w": [{}, 1, "x"],
    }
    batch = Predictions(np.array([0.25, 0.5, 0.75], np.float32), outputs=columns)
    assert batch.row(0).outputs == {"std": 0.1, "ids": [1, 2], "w": {}}
    assert batch.row(1).outputs == {"std": None, "ids": [3, 4], "w": 1}
    assert [batch.take(np.array([2, 0])).row(i) for i in range(2)] == [batch.row(2), batch.row(0)]
    assert [batch.part(1, 3).row(i) for i in range(2)] == [batch.row(1), batch.row(2)]
    again = Predictions.concat([batch.part(0, 2), batch.part(2, 3)])
    assert [again.row(i) for i in range(3)] == [batch.row(i) for i in range(3)]
    assert again.outputs is not None and isinstance(again.outputs["ids"], np.ndarray)
    rows = [batch.row(i) for i in range(3)]
    assert [Predictions.of(rows).row(i).outputs for i in range(3)] == [p.outputs for p in rows]


def test_outputs_of_other_widths_are_joined() -> None:
    """An output whose width depends on the batch keeps each row's own width."""
    score = np.array([0.5], np.float32)
    narrow, wide = (Predictions(score, outputs={"ids": np.array([ids])}) for ids in ([1], [2, 3]))
    joined = Predictions.concat([narrow, wide])
    assert [joined.row(i).outputs for i in range(2)] == [{"ids": [1]}, {"ids": [2, 3]}]
