"""A card's static answer: the output must be able to give it."""

from __future__ import annotations

from pathlib import Path

import pytest

from failsoft.schemas.config.refusal import Refused
from tests.unit.models.catalog import test_ensemble_cards
from tests.unit.models.catalog.test_card import load

FRAUD = 'kind = "binary"\npositive = "fraud"'
NAMED = FRAUD + '\nlabels = ["legit", "fraud"]'
SEVERAL = 'kind = "multilabel"\nlabels = ["a", "b"]'
CLASSES = 'kind = "multiclass"\nclasses = ["a", "b", 3]'


def _card(output: str, static: str) -> str:
    feature = '[[features]]\nname = "x"\ntype = "float"\n'
    return f'[output]\n{output}\n{feature}[fallback]\nchain = ["static"]\nstatic = {{ {static} }}\n'


@pytest.mark.parametrize(
    ("output", "static"),
    [
        ('kind = "binary"', "score = 0, label = 1"),
        ('kind = "binary"\nrange = [0.2, 0.8]', "score = 0.8"),
        ('kind = "anomaly"', "score = -50.0, label = 0"),
        ('kind = "regression"', "score = 1e9"),
        ('kind = "regression"', "score = 9, label = 1"),
        ('kind = "binary"', 'score = 0.5, label = "unknown"'),
        (CLASSES, 'score = 0.5, label = "unknown"'),
        ('kind = "regression"\nrange = [-5, 5]', "score = -5"),
        ('kind = "multiclass"', 'score = 0.5, label = "unknown"'),
        ('kind = "multiclass"', "score = 0.5, probabilities = [0.33, 0.33, 0.33]"),
        (CLASSES, 'score = 0.5, label = "b", probabilities = [0.5, 0.25, 0.25]'),
        (CLASSES, "score = 1, label = 3, probabilities = [0, 0, 1]"),
        (NAMED, 'score = 0.5, label = "legit"'),
        (NAMED, "score = 0.5"),
        (FRAUD, 'score = 0.5, label = "legit"'),
        ('kind = "binary"\npositive = -1', "score = 0.5, label = -1"),
        (SEVERAL, 'score = 0.5, label = "a", probabilities = [0.5, 0.75]'),
    ],
)
def test_a_possible_answer_is_accepted(tmp_path: Path, output: str, static: str) -> None:
    """The score is within the range, a number as label is one of the output's, and each class has a probability."""
    assert load(tmp_path, _card(output, static)).fallback is not None


@pytest.mark.parametrize(
    ("output", "static", "message"),
    [
        ('kind = "binary"', "score = 7.5", "score: 7.5 is outside of the output's range: it may be 0 to 1"),
        ('kind = "binary"\nrange = [0.2, 0.8]', "score = 0.1", "score: 0.1 is outside of the output's range"),
        (
            'kind = "regression"\nrange = [-5, 5]',
            "score = 6",
            "score: 6 is outside of the output's range: it may be -5",
        ),
        ('kind = "multiclass"', "score = 1.1", "score: 1.1 is outside of the output's range: it may be 0 to 1"),
        ('kind = "binary"', "score = 0.5, label = 2", "label: 2 is no label of kind binary: write 0 or 1"),
        ('kind = "anomaly"', "score = 9, label = -1", "label: -1 is no label of kind anomaly: write 0 or 1"),
        ('kind = "binary"', "score = 0.5, probabilities = [0.5, 0.5]", "probabilities: only a multiclass output has"),
        ('kind = "binary"', "score = 0.5, probabilities = [9.0]", "probabilities[0]: Input should be less than or"),
        (NAMED, "score = 0.5, label = 1", 'label: 1 is none of the card\'s labels: write "legit" or "fraud"'),
        (NAMED, 'score = 0.5, label = "no"', "label: 'no' is none of the card's labels"),
        (FRAUD, "score = 0.5, label = 1", "label: 1 is no label of this model, whose positive label is"),
        (SEVERAL, "score = 0.5, probabilities = [0.5]", "probabilities: list at least two"),
        (CLASSES, "score = 0.5, probabilities = [0.5, 0.5]", "probabilities: 2 given, but there are 3 labels"),
        (CLASSES, "score = 0.5, probabilities = [0.5, 0.5, 0.5]", "probabilities: they sum to 1.5: they must sum to 1"),
        ('kind = "multiclass"', "score = 0.5, probabilities = []", "probabilities: list at least two"),
        ('kind = "multiclass"', "score = 0.5, probabilities = [1.0]", "probabilities: list at least two"),
    ],
)
def test_an_impossible_answer_is_refused(tmp_path: Path, output: str, static: str, message: str) -> None:
    """The refusal names the key and what would be right."""
    with pytest.raises(Refused) as refused:
        load(tmp_path, _card(output, static))
    assert f"fallback.static.{message}" in str(refused.value)


def test_an_ensembles_static_answer_is_checked_too(tmp_path: Path) -> None:
    """The same rules apply to an ensemble's card."""
    with pytest.raises(Refused, match=r"fallback\.static\.score: 2 is outside"):
        test_ensemble_cards.load(tmp_path, test_ensemble_cards.CARD.replace("score = 0.5", "score = 2"))
