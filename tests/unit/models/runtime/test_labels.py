"""Labels: which column is whose, and the refusals where that is not certain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.runtime.signature import Mismatch
from failsoft.schemas.failure import Failure, Kind
from tests.output_ports import Out, label, reader, scores, table

AB = {"a": "float", "b": "float"}
ABC = {**AB, "c": "float"}


@pytest.mark.parametrize(
    ("output", "labels", "score", "answered"),
    [
        ({}, None, 0.75, 1),
        ({}, (0, 1), 0.75, 1),
        ({}, (1, 0), 0.25, 0),
        ({"positive": 0}, None, 0.25, 1),
        ({"positive": True}, (False, True), 0.75, 1),
        ({"positive": "fraud"}, ("fraud", "legit"), 0.25, "legit"),
        ({"positive": "legit"}, ("fraud", "legit"), 0.75, "legit"),
        ({"positive": -1}, (-1, 1), 0.25, 1),
        ({"labels": ["legit", "fraud"], "positive": "fraud"}, None, 0.75, "fraud"),
        ({"labels": ["legit", "fraud"], "positive": "fraud"}, (0, 1), 0.75, "fraud"),
        ({"labels": [1, 0]}, None, 0.25, 0),
    ],
)
def test_the_positive_label_chooses_the_column(
    output: dict[str, Any], labels: Any, score: float, answered: int | str
) -> None:
    """Of two columns, the score is the positive label's; the answer's label is the model's own or the card's name."""
    found = reader({"kind": "binary", **output}, [scores()], labels).read([table([0.25, 0.75])], 1)
    assert isinstance(found, ModelOutput) and not found.bad
    row = found.predictions.row(0)
    assert (row.score, row.confidence) == (score, 0.75)
    assert row.label == answered


@pytest.mark.parametrize(
    ("output", "ports", "labels", "words"),
    [
        ({}, [scores()], ("fraud", "legit"), ['positive = "fraud" or positive = "legit"']),
        ({}, [scores()], (-1, 1), ["positive = -1 or positive = 1"]),
        ({"positive": "x"}, [scores()], ("fraud", "legit"), ['"x" is none of them', 'positive = "fraud"']),
        ({"positive": "fraud"}, [scores()], None, ['labels = ["…", "fraud"]', "order of the model's columns"]),
        ({"positive": "fraud"}, [scores(1)], None, ['labels = ["…", "fraud"]']),
        ({}, [label("string"), scores()], None, ["gives a string as label", "labels = "]),
        ({"labels": [0, 1]}, [label("string"), scores()], None, ["numbers [0, 1]", "write the strings"]),
        (
            {"labels": ["legit", "fraud"], "positive": "fraud"},
            [scores()],
            ("fraud", "legit"),
            ['["legit", "fraud"]', '["fraud", "legit"]'],
        ),
        ({"labels": ["a", "b"], "positive": "a"}, [scores()], ("x", "y"), ['["a", "b"]', 'labels = ["x", "y"]']),
        ({"labels": [1, 0]}, [scores()], (0, 1), ["[1, 0]", "[0, 1]"]),
        ({}, [scores()], (0, 1, 2), ["3 labels", 'kind = "multiclass"']),
        ({"kind": "multiclass", "labels": [0, 1, 2]}, [scores(3)], (0, 2, 1), ["[0, 2, 1]"]),
        ({"kind": "multiclass"}, [scores(3)], ("a", "b"), ["3 columns", '["a", "b"]']),
        ({"kind": "multilabel", "labels": ["a", "b"]}, [scores(2)], ("b", "a"), ['["b", "a"]']),
    ],
)
def test_labels_that_are_not_certain_are_refused(
    output: dict[str, Any], ports: list[Out], labels: Any, words: list[str]
) -> None:
    """Where the label of a score is known from nowhere, or card and model contradict, the message has what to write."""
    with pytest.raises(Mismatch) as refused:
        reader({"kind": "binary", **output}, ports, labels)
    assert [word for word in words if word not in str(refused.value)] == []


def test_binary_labels_that_the_model_gives_are_compared() -> None:
    """With labels that only the card or a default tells, the model's own label output must not contradict them."""
    plain = reader({"kind": "binary"}, [label(), scores()])
    assert plain.names == ["p", "label"]
    p = table([0.75, 0.25], [0.25, 0.75])
    assert isinstance(plain.read([p, np.array([0, 1])], 2), ModelOutput)
    # A threshold of its own does not matter, and one label alone shows nothing.
    assert isinstance(plain.read([p, np.array([[1], [1]])], 2), ModelOutput)
    for own, words in (([1, 0], "say the opposite of the card"), ([1, 2], "own label 2 is neither 1 nor 0")):
        failure = plain.read([p, np.array(own)], 2)
        assert isinstance(failure, Failure) and failure.kind is Kind.BAD_OUTPUT and words in failure.message
    named = reader({"kind": "binary", "labels": ["no", "yes"], "positive": "yes"}, [label("string"), scores(1)])
    assert isinstance(named.read([table([0.2], [0.8]), np.array(["no", "yes"], object)], 2), ModelOutput)
    failure = named.read([table([0.2], [0.8]), np.array(["yes", "no"], object)], 2)
    assert isinstance(failure, Failure) and '"yes" have a lower score' in failure.message
    failure = named.read([table([0.2], [0.8]), np.array(["yes"], object)], 2)
    assert isinstance(failure, Failure) and "not one label per row" in failure.message


def test_a_bad_row_does_not_disturb_the_comparison() -> None:
    """A row without a usable score is bad by itself; its placeholder is not compared."""
    plain = reader({"kind": "binary"}, [label(), scores(1)])
    found = plain.read([table([0.25], [np.nan], [0.75]), np.array([0, 1, 1])], 3)
    assert isinstance(found, ModelOutput) and sorted(found.bad) == [1]


def test_labels_that_the_file_tells_are_not_fetched() -> None:
    """With the model's own labels and a column for each, the label output costs nothing."""
    assert reader({"kind": "binary"}, [label(), scores()], (0, 1)).names == ["p"]
    known = reader({"kind": "multiclass"}, [label("string"), scores(3)], ("x", "y", "z"))
    found = known.read([table([0, 0.25, 0.75])], 1)
    assert known.names == ["p"] and isinstance(found, ModelOutput) and found.predictions.labels == ["z"]


def test_a_class_order_that_the_model_contradicts() -> None:
    """A row whose own label is not the card's most probable one is bad; a tie is none of these."""
    named = reader({"kind": "multiclass", "labels": ["x", "y"]}, [label("string"), scores()])
    given = table([0.25, 0.75], [0.25, 0.75], [0.5, 0.5])
    found = named.read([given, np.array(["y", "x", "y"], object)], 3)
    assert isinstance(found, ModelOutput) and sorted(found.bad) == [1]
    assert 'own label is "x", and the most probable one by the card is "y"' in found.bad[1].message
    failure = named.read([given, np.array(["y", "z", "y"], object)], 3)
    assert isinstance(failure, Failure) and "none of the card's" in failure.message


def test_two_columns_that_are_no_distribution_are_bad() -> None:
    """Two columns that do not sum to one are two logits or something else, and never half of an answer."""
    found = reader({"kind": "binary"}, [scores()]).read([table([0.25, 0.75], [0.75, 0.75], [np.nan, 0.5])], 3)
    assert isinstance(found, ModelOutput) and sorted(found.bad) == [1, 2]
    assert found.bad[1].message == "invalid probabilities: they sum to 1.5"


@pytest.mark.parametrize(("positive", "chosen"), [(1, 0), (0, 0)])
def test_of_two_equal_columns_the_first_is_the_label(positive: int, chosen: int) -> None:
    """As the libraries' own label has it: a neighbours' vote of two against two is common."""
    found = reader({"kind": "binary", "positive": positive}, [label(), scores()], (0, 1)).read([table([0.5, 0.5])], 1)
    assert isinstance(found, ModelOutput) and found.predictions.labels == [chosen]
    one = reader({"kind": "binary"}, [scores(1)]).read([table([0.5])], 1)
    assert isinstance(one, ModelOutput) and one.predictions.labels == [1]


def test_a_tie_of_several_is_the_models_own_to_settle() -> None:
    """Where its label is read."""
    named = reader({"kind": "multiclass", "labels": ["x", "y", "z"]}, [label("string"), scores(3)])
    found = named.read([table([0.25, 0.375, 0.375]), np.array(["z"], object)], 1)
    assert isinstance(found, ModelOutput) and found.predictions.labels == ["z"] and not found.bad
