"""Imputation: which cells are filled, which rows are listed as imputed, and which stay invalid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from failsoft.models.answers.imputation import MOST_NAMED, Imputed, impute
from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.statistics import Statistic
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns


def card(*features: dict[str, Any]) -> ModelCard:
    return ModelCard.model_validate({"output": {"kind": "binary"}, "features": list(features)})


def run(made: ModelCard, *events: dict[str, object], **more: Any) -> Imputed:
    return impute(columns(list(events), made.specs), made, more.pop("statistics", {}), **more)


@pytest.mark.parametrize(
    ("feature", "statistic", "filled"),
    [
        ({"type": "float", "impute": 2.5}, Statistic(), 2.5),
        ({"type": "float", "impute": "mean"}, Statistic(mean=1.5), 1.5),
        ({"type": "float", "impute": "median", "median": 7.0}, Statistic(median=1.5), 7.0),
        ({"type": "int", "impute": "mean"}, Statistic(mean=2.6), 3),
        ({"type": "int", "impute": "mode"}, Statistic(mode=4), 4),
        ({"type": "bool", "impute": True}, Statistic(), True),
        ({"type": "bool", "impute": "mode"}, Statistic(mode=True), True),
        ({"type": "string", "impute": "mode"}, Statistic(mode="b"), "b"),
        ({"type": "string", "impute": {"value": "mode"}}, Statistic(mode="b"), "mode"),
    ],
)
def test_a_missing_cell_is_filled(feature: dict[str, Any], statistic: Statistic, filled: object) -> None:
    """A missing cell gets the card's value, or the statistic from the card or else from the version."""
    made = run(card({"name": "x", **feature}), {}, statistics={"x": statistic})
    assert made.columns.values["x"].tolist() == [filled]
    assert (made.imputed, made.invalid, made.columns.unusable) == ({0: ("x",)}, {}, {})


def test_unusable_values_are_imputed_too() -> None:
    """A value of a wrong type and an unseen category are imputed like a missing key."""
    features = ({"name": "n", "type": "float", "impute": 1.0}, {"name": "c", "type": "string", "categories": ["a"]})
    made = run(card(features[0], {**features[1], "impute": "a"}), {"n": "1", "c": "z"})
    assert made.columns.row(0) == {"n": 1.0, "c": "a"}
    assert made.imputed == {0: ("n", "c")}


def test_invalid_without_impute() -> None:
    """A row without a feature that the card does not impute is invalid, and not listed as imputed."""
    made = run(
        card({"name": "x", "type": "float"}, {"name": "y", "type": "float", "impute": 0.0}),
        {"x": 1.0},
        {},
        {"x": 1.0, "y": 2.0},
    )
    assert made.invalid == {1: Failure(Kind.INVALID, "feature 'x': missing; the card does not impute it")}
    assert made.imputed == {0: ("y",)}
    assert made.columns.why == {(1, "x"): "missing"}
    assert made.columns.values["y"].tolist() == [0.0, 0.0, 2.0]


def test_an_invalid_row_names_the_path_of_its_feature() -> None:
    """Whoever mends the event looks at the path: also of a number that is beyond the model's type."""
    made = run(card({"name": "x", "type": "float", "field": "a.b"}), {"a": {"b": "7"}}, {"a": {"b": 1e39}}, dtypes=F32)
    said = [failure.message for failure in made.invalid.values()]
    assert [message.partition(";")[0] for message in said] == [
        "feature 'x': a string, not a number (field 'a.b')",
        "feature 'x': 1e+39 is beyond the range of float32, which the model takes (field 'a.b')",
    ]


NAN = {"name": "x", "type": "float", "impute": "nan"}
F32 = {"x": "float32"}


@pytest.mark.parametrize("event", [{}, {"x": None}, {"x": float("nan")}, {"x": "1"}, {"x": [1]}, {"x": True}])
def test_an_unusable_cell_goes_to_a_model_that_knows_nan_as_nan(event: dict[str, object]) -> None:
    """It is named as missing and not as imputed, and the row is valid."""
    made = run(card(NAN, {"name": "y", "type": "float"}), {"y": 2.0} | event, {"x": 1.0, "y": 2.0})
    assert (made.imputed, made.invalid, made.missing) == ({}, {}, {0: ("x",)})
    assert made.columns.matrix is not None and not made.columns.unusable
    assert repr(made.columns.matrix.tolist()) == "[[nan, 2.0], [1.0, 2.0]]"


def test_a_row_may_have_missing_imputed_and_lacking_features() -> None:
    """Each is named where it belongs; an invalid row is in no other list."""
    made = run(card(NAN, {**NAN, "name": "y", "impute": 0.0}, {"name": "z", "type": "string"}), {"z": "a"}, {})
    assert (made.missing, made.imputed, list(made.invalid)) == ({0: ("x",)}, {0: ("y",)}, [1])
    assert made.columns.take(np.array([0])).values["z"].tolist() == ["a"]


TENSOR = {"name": "v", "type": "tensor", "dtype": "float32", "shape": [2, 2]}


@pytest.mark.parametrize(
    ("impute_with", "shape", "dtype", "filled"),
    [
        (0.5, [2, 2], "float32", [[0.5, 0.5], [0.5, 0.5]]),
        (7, [3], "int64", [7, 7, 7]),
        (True, [2], "bool", [True, True]),
        ("?", [2], "string", ["?", "?"]),
    ],
)
def test_one_value_fills_all_elements_of_a_tensor(
    impute_with: object, shape: list[int], dtype: str, filled: list[object]
) -> None:
    """The rows that have a tensor keep it."""
    made = card({"name": "v", "type": "tensor", "dtype": dtype, "shape": shape, "impute": impute_with})
    values = np.zeros((2, *shape), object if dtype == "string" else dtype)
    given = Columns(made.specs, 2, {"v": values}, None, {"v": np.array([True, False])}, {(0, "v"): "missing"})
    done = impute(given, made, {})
    assert done.imputed == {0: ("v",)} and done.missing == {}
    assert done.columns.values["v"].tolist() == [filled, values[1].tolist()]


def test_a_missing_tensor_is_nan_in_every_element() -> None:
    """The model gets a tensor of NaN, and the answer names the feature as missing."""
    made = card({**TENSOR, "impute": "nan"})
    values = np.zeros((2, 2, 2), np.float32)
    given = Columns(made.specs, 2, {"v": values}, None, {"v": np.array([False, True])}, {(1, "v"): "missing"})
    done = impute(given, made, {})
    assert done.missing == {1: ("v",)} and done.imputed == {}
    assert np.isnan(done.columns.values["v"]).all(axis=(1, 2)).tolist() == [False, True]


def test_the_given_columns_do_not_change() -> None:
    """Imputation does not change the given columns, and copies only those that it fills."""
    made = card({"name": "x", "type": "int", "impute": 5}, {"name": "s", "type": "string"})
    given = columns([{"s": "a"}, {"x": 1, "s": "b"}], made.specs)
    filled = impute(given, made, {}).columns
    assert given.values["x"].tolist() == [0, 1] and (0, "x") in given.why
    assert filled.values["x"].tolist() == [5, 1]
    assert filled.values["s"] is given.values["s"]


def test_a_complete_batch_is_returned_as_it_is() -> None:
    """A batch without missing values is returned as the same object."""
    made = card({"name": "x", "type": "float", "impute": 5})
    given = columns([{"x": 1.0}], made.specs)
    assert impute(given, made, {}).columns is given


def test_filled_columns_stay_one_matrix() -> None:
    """Filled float columns are still views of one matrix, so that no other copy is needed for the model."""
    made = run(card({"name": "x", "type": "float", "impute": 5}, {"name": "y", "type": "float"}), {"y": 1.0})
    assert made.columns.matrix is not None
    assert made.columns.matrix.tolist() == [[5.0, 1.0]]
    assert np.shares_memory(made.columns.matrix, made.columns.values["x"])


def test_a_last_known_value_is_not_imputed() -> None:
    """Nothing keeps the values of features yet: the row is invalid, and its message says that no value is known."""
    made = run(card({"name": "x", "type": "float", "impute": "last_known"}), {}, {"x": 1.0})
    assert made.imputed == {}
    assert {row: f.message for row, f in made.invalid.items()} == {
        0: "feature 'x': missing; no last known value is available"
    }


def test_a_missing_statistic_raises() -> None:
    """A missing statistic raises LookupError, because the repository should have refused the version."""
    with pytest.raises(LookupError, match="no median"):
        run(card({"name": "x", "type": "float", "impute": "median"}), {})


def test_many_unusable_features_are_counted_in_the_message() -> None:
    """The message names as many features as a header has room for, and counts the others; each keeps its mask."""
    names = [f"x{i}" for i in range(MOST_NAMED + 5)]
    made = run(card(*({"name": name, "type": "float"} for name in names)), {}, dict.fromkeys(names, 1.0))
    message = made.invalid[0].message
    assert all(f"feature {name!r}: missing;" in message for name in names[:MOST_NAMED])
    assert message.endswith("; and 5 more features") and names[MOST_NAMED] not in message
    assert {name: mask.tolist() for name, mask in made.columns.unusable.items()} == {
        name: [True, False] for name in names
    }
