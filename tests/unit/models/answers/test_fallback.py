"""The fallback chain: parsing of links, and the answers of static, rule and last_known links."""

from __future__ import annotations

import numpy as np
import pytest

from failsoft.models.answers import fallback
from failsoft.models.answers.last_known import LastKnown
from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.chain import Link, LinkKind, parse
from failsoft.schemas.prediction import OutputColumn, Prediction, Predictions
from failsoft.workers.demo.rules import by_ratio


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("model:repayment-lite", Link(LinkKind.MODEL, "repayment-lite")),
        ("last_known", Link(LinkKind.LAST_KNOWN)),
        ("rule:failsoft.workers.demo.rules:by_ratio", Link(LinkKind.RULE, "failsoft.workers.demo.rules:by_ratio")),
        ("static", Link(LinkKind.STATIC)),
    ],
)
def test_a_link_is_parsed(text: str, link: Link) -> None:
    """A parsed link has the text that it was parsed from."""
    assert parse(text) == link
    assert str(link) == text


@pytest.mark.parametrize(
    "text",
    ["", "model", "model:", "model:../x", "rule:x", "rule:x:", "rule:a b:c", "static:0", "last_known:x", "Static"],
)
def test_an_invalid_link_is_refused(text: str) -> None:
    """The error lists the allowed forms."""
    with pytest.raises(ValueError, match='"model:NAME", "last_known", "rule:'):
        parse(text)


def test_the_static_answer() -> None:
    """The static answer is the card's; a card without a fallback has none."""
    given = {"output": {"kind": "multiclass"}, "features": [{"name": "x", "type": "float"}]}
    section = {"chain": ["static"], "static": {"score": 0.25, "label": 0, "probabilities": [0.75, 0.25]}}
    assert fallback.static(ModelCard.model_validate({**given, "fallback": section})) == Prediction(
        0.25, 0, (0.75, 0.25)
    )
    with pytest.raises(ValueError, match="no static answer"):
        fallback.static(ModelCard.model_validate(given))


@pytest.mark.parametrize(
    ("value", "prediction"),
    [
        (0.5, Prediction(0.5)),
        (1, Prediction(1.0)),
        (np.float32(0.5), Prediction(0.5)),
        ({"score": 0.5, "label": "low"}, Prediction(0.5, "low")),
        ({"score": 1, "label": 0, "confidence": 1, "probabilities": [0, 1]}, Prediction(1.0, 0, (0.0, 1.0), 1.0)),
    ],
)
def test_a_rule_that_answers(value: object, prediction: Prediction) -> None:
    """A rule returns a score, or a mapping with a score and more."""
    assert fallback.from_rule(value) == prediction


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "0.5",
        float("nan"),
        float("inf"),
        10**400,
        [0.5],
        {},
        {"label": 1},
        {"score": None},
        {"score": float("nan")},
        {"score": 0.5, "label": True},
        {"score": 0.5, "label": 1.5},
        {"score": 0.5, "confidence": "high"},
        {"score": 0.5, "probabilities": "01"},
        {"score": 0.5, "probabilities": [0.5, None]},
        {"score": 0.5, "lable": 1},
    ],
)
def test_a_rule_that_cannot_answer(value: object) -> None:
    """None, a number that is not finite, and a value of a wrong type are no answer."""
    assert fallback.from_rule(value) is None


@pytest.mark.parametrize(
    ("ratio", "score", "label"), [(0.0, 0.03, 0), (0.5, 0.407, 0), (0.6, 0.592, 1), (9.0, 0.70, 1)]
)
def test_the_demos_rule_answers(ratio: float, score: float, label: int) -> None:
    """The demo's rule rises with the ratio between its bounds, and the chain accepts its answer."""
    made = fallback.from_rule(by_ratio({"debt_to_income_ratio": ratio}))
    assert made is not None
    assert (made.score, made.label) == (pytest.approx(score), label)
    assert fallback.from_rule(by_ratio({"debt_to_income_ratio": None})) is None


def scores(*values: float) -> Predictions:
    return Predictions(np.array(values, dtype=np.float32))


def test_a_double_is_remembered_whole() -> None:
    """A float64 score keeps its digits; rounded to a float32 it would be another answer that looks right."""
    known = LastKnown(10.0)
    known.remember([b"a"], Predictions(np.array([1234567.890123456])), "m", 1, 0.0)
    found = known.recall(b"a", 1.0)
    assert found is not None and found.prediction.score == 1234567.890123456


def test_last_known_is_the_latest() -> None:
    """The latest answer of a key is returned with its model, version and time; rows without a key are skipped."""
    known = LastKnown(max_age=10)
    batch = Predictions(
        np.array([0.1, 0.9], dtype=np.float32),
        [0, 1],
        np.array([[0.9, 0.1], [0.1, 0.9]], dtype=np.float32),
        np.array([0.9, 0.9], dtype=np.float32),
    )
    known.remember([b"a", None], batch, "m", 1, now=0.0)
    assert known.recall(b"a", 1.0) == (Prediction(0.1, 0, (0.9, 0.1), 0.9), "m", 1, 0.0)
    assert known.recall(None, 1.0) is None and known.recall(b"b", 1.0) is None
    known.remember([b"a"], scores(0.3), "m", 2, now=2.0)
    assert known.recall(b"a", 3.0) == (Prediction(0.3), "m", 2, 2.0)
    assert len(known) == 1


def test_last_known_answers_expire() -> None:
    """An answer is returned until it is older than the maximum age; the next batch removes it."""
    known = LastKnown(max_age=10)
    known.remember([b"a"], scores(0.1), "m", 1, now=0.0)
    assert known.recall(b"a", 10.0) is not None
    assert known.recall(b"a", 10.1) is None
    known.remember([b"b"], scores(0.2), "m", 1, now=10.1)
    assert len(known) == 1


def test_last_known_is_bounded() -> None:
    """Over the maximum count, the key that was answered longest ago is removed; a new answer renews a key."""
    known = LastKnown(max_age=100, max_count=2)
    known.remember([b"a", b"b"], scores(0.1, 0.2), "m", 1, now=0.0)
    known.remember([b"a"], scores(0.3), "m", 1, now=1.0)
    known.remember([b"c"], scores(0.4), "m", 1, now=2.0)
    assert known.recall(b"b", 2.0) is None
    assert [known.recall(key, 2.0) is not None for key in (b"a", b"c")] == [True, True]


def test_last_known_needs_one_key_a_row() -> None:
    """A number of keys that differs from the number of rows raises ValueError."""
    with pytest.raises(ValueError, match="1 keys for 2"):
        LastKnown(max_age=1).remember([b"a"], scores(0.1, 0.2), "m", 1, now=0.0)


def test_further_outputs_are_remembered() -> None:
    """The last known answer has the further outputs of that answer, with the numbers of the scored record."""
    known = LastKnown(10.0)
    outputs: dict[str, OutputColumn] = {"std": np.array([0.1, np.nan], np.float32), "labels": [["a"], []]}
    known.remember([b"a", b"b"], Predictions(np.array([0.5, 0.5]), outputs=outputs), "m", 1, 0.0)
    found = [known.recall(key, 1.0) for key in (b"a", b"b")]
    assert [f.prediction.outputs for f in found if f] == [{"std": 0.1, "labels": ["a"]}, {"std": None, "labels": []}]


def test_a_fallback_models_probabilities_are_in_the_primarys_order() -> None:
    """Nothing in an answer says the order of its probabilities, so a pipeline has one. Others are left out."""
    table = np.array([[0.25, 0.75, 0]], np.float32)
    given = Predictions(np.float32([0.75]), ["b"], table, np.float32([0.75]))
    turned = fallback.in_order(given, ("a", "b", "c"), ("c", "a", "b")).row(0)
    assert (turned.label, turned.probabilities) == ("b", (0, 0.25, 0.75))
    assert fallback.in_order(given, ("a", "b", "c"), ("a", "b", "x")).probabilities is None
    for own, wanted in ((("a", "b", "c"), ("a", "b", "c")), (None, ("c", "a", "b")), (("a", "b", "c"), None)):
        assert fallback.in_order(given, own, wanted) is given
