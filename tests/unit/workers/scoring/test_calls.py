"""The columns of a batch: made once for the models that share them, and never changed."""

from __future__ import annotations

import numpy as np

from failsoft.models.answers.imputation import impute
from failsoft.schemas.features.spec import FeatureType, Spec
from failsoft.workers.scoring.calls import RawColumns
from tests.kit import card

X, Y = Spec("x", FeatureType.FLOAT), Spec("y", FeatureType.FLOAT)
EVENTS: list[dict[str, object]] = [{"x": 1.0, "y": 10.0}, {"x": 2.0, "y": 20.0}, {"x": 3.0, "y": 30.0}]


def test_the_same_rows_of_the_same_features_are_read_once() -> None:
    """A fallback with the primary's features, and each member of an ensemble."""
    raw = RawColumns(EVENTS)
    first = raw.of([0, 1, 2], (X, Y))
    assert raw.of([0, 1, 2], (Spec("x", FeatureType.FLOAT), Y)) is first


def test_other_rows_or_features_have_columns_of_their_own() -> None:
    """Also the same number of other rows, and the same features in another order."""
    raw = RawColumns(EVENTS)
    assert raw.of([0, 1], (X, Y)).values["y"].tolist() == [10.0, 20.0]
    assert raw.of([1, 2], (X, Y)).values["y"].tolist() == [20.0, 30.0]
    assert raw.of([1, 2], (Y,)).values["y"].tolist() == [20.0, 30.0]
    assert list(raw.of([1, 2], (Y, X)).values) == ["y", "x"]
    assert raw.of([0, 1, 2], (X, Y)).values["x"].size == 3


def test_imputing_for_one_model_does_not_change_what_the_next_one_gets() -> None:
    """Else the fallback would take the primary's made-up value for the event's own."""
    raw, model = RawColumns([*EVENTS[:2], {"x": 3.0}]), card("m")
    made = raw.of([0, 1, 2], model.specs)
    before = {name: column.copy() for name, column in made.values.items()}
    assert impute(made, model, {}).imputed == {2: ("y",)}
    after = raw.of([0, 1, 2], model.specs)
    assert after is made and after.unusable.keys() == made.unusable.keys()
    for name, column in before.items():
        np.testing.assert_array_equal(after.values[name], column)
