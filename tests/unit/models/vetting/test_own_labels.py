"""A model's own labels against the card's, from plain numbers: what is refused, and that the mend it names is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from failsoft.models.catalog.graph import GraphFacts
from failsoft.models.catalog.output_section import OutputSection
from failsoft.models.vetting.own_labels import LabelFinding, compare, own_labels
from failsoft.models.vetting.own_marks import compare_marks
from failsoft.models.vetting.verdict import CheckResult
from failsoft.schemas.prediction import Label, Predictions

PASSED, NOTE, SKIPPED, FAILED = CheckResult.PASSED, CheckResult.NOTE, CheckResult.SKIPPED, CheckResult.FAILED


def binary(
    own: Sequence[Label],
    scores: Sequence[float],
    known: tuple[Label, ...] | None = None,
    columns: int = 1,
    **output: Any,
) -> LabelFinding:
    card = OutputSection.model_validate({"kind": "binary", **output})
    return compare(own, Predictions(np.array(scores, np.float32)), card, GraphFacts(labels=known), columns)


def test_scores_of_the_likelier_label_are_no_probability_of_one() -> None:
    """A confidence and a class: each score is over a half, so every answer would be the positive one."""
    found = binary([1, 0, 1, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.95])
    assert found.result is FAILED and "likelier label" in found.message and 'kind = "regression"' in found.message


def test_a_turned_model_with_its_own_threshold_fails() -> None:
    """Few rows contradict, since its threshold is far from a half; no threshold at all makes them agree."""
    found = binary([1, 0, 0, 0, 0], [0.05, 0.2, 0.3, 0.4, 0.9])
    assert found.result is FAILED and "positive = 0" in found.message


def test_labels_that_are_all_the_same_do_not_tell_a_turned_card_from_a_threshold() -> None:
    """The mend might be the wrong one, so the message says what tells."""
    found = binary([0, 0, 0], [0.7, 0.8, 0.9])
    assert found.result is FAILED and "golden.ndjson would tell" in found.message


def test_another_positive_does_not_mend_two_columns() -> None:
    """It is read from the other column, which is as wrong: only the order of labels mends it."""
    found = binary([0, 1, 0], [0.9, 0.1, 0.8], columns=2, labels=["ok", "bad"], positive="bad")
    assert found.result is FAILED and 'labels = ["bad", "ok"] and positive = "bad"' in found.message


@pytest.mark.parametrize("labels", [(1, 2), (-1, 1)])
def test_numbers_of_columns_are_known_where_the_file_has_the_labels(labels: tuple[int, int]) -> None:
    """CatBoost's label output numbers the columns, and its maps have the labels. A card alone cannot rename numbers."""
    given = {"labels": list(labels), "positive": labels[1]}
    assert binary([0, 1, 0], [0.1, 0.9, 0.2], labels, 2, **given).result is PASSED
    assert binary([1, 0, 1], [0.1, 0.9, 0.2], labels, 2, **given).result is FAILED
    assert binary([0, 1, 0], [0.1, 0.9, 0.2], None, 2, **given).result is FAILED


def test_columns_without_names_are_numbered() -> None:
    """Their label is their number, so an own label that is another column's contradicts the probabilities."""
    table = np.array([[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0, 0.2, 0.8]], np.float32)
    card = OutputSection.model_validate({"kind": "multiclass"})
    for own, result in (([0, 1, 2], PASSED), ([1, 2, 0], FAILED), ([7, 8, 9], PASSED)):
        ours = Predictions(table.max(axis=1), list(own), table, table.max(axis=1))
        found = compare(own, ours, card, GraphFacts(), 3)
        assert found.result is result
    assert "labels = [1, 2, 0]" in compare([1, 2, 0], ours, card, GraphFacts(), 3).message


def test_a_label_may_be_a_number_with_a_fraction() -> None:
    """Of an output that says that it is one; another output of such numbers is none."""
    card = OutputSection.model_validate({"kind": "binary", "output": "p", "carry": ["label", "std"]})
    raw = {"p": np.zeros((2, 1), np.float32), "label": np.float32([0, 1]), "std": np.float32([1, 2])}
    assert own_labels(raw, card, "p", 2) == [0, 1]


def marks(own: Any, scores: Any, **output: Any) -> LabelFinding:
    card = OutputSection.model_validate({"kind": "multilabel", **output})
    return compare_marks({"label": np.array(own), "p": scores}, card, "p", 2)


PAIRS = np.array([[[0.1, 0.9], [0.8, 0.2]], [[0.6, 0.4], [0.7, 0.3]]], np.float32)
"""Two labels, for each the pairs of two rows."""


def test_marks_of_several_labels_are_compared() -> None:
    """The model marks each label by itself: the opposite is refused, another threshold is noted."""
    assert marks([[1, 0], [0, 0]], PAIRS).result is PASSED
    assert marks([[0, 1], [1, 1]], PAIRS).result is FAILED
    assert marks([[1, 1], [0, 0]], PAIRS).result is NOTE
    logits = np.array([[2.0, -1], [-3, -0.5]], np.float32)
    assert marks([[1, 0], [0, 0]], logits, activation="sigmoid").result is PASSED
    assert marks([[7, 9], [3, 4]], logits, activation="sigmoid").result is SKIPPED


def test_a_pair_of_no_probabilities_is_refused() -> None:
    """skl2onnx writes ones for both columns of a single tree with several labels."""
    found = marks([[1, 0], [0, 0]], np.ones((2, 2, 2), np.float32))
    assert found.result is FAILED and "do not sum to 1 in 2 of 2 rows" in found.message


def test_pairs_of_texts_do_not_tell_which_label_is_there() -> None:
    """The second of "bad" and "good" by the alphabet is not the one that was meant."""
    found = marks(np.array([["good", "bad"], ["bad", "bad"]], object), PAIRS)
    assert found.result is FAILED and "'bad' and 'good'" in found.message and "golden.ndjson" in found.message
