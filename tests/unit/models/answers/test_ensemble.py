"""Ensembles: how members' outputs are combined, by output kind and by which members answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from failsoft.models.answers.ensemble import MemberGroup, MemberOutput, combine
from failsoft.models.answers.several_labels import several_labels
from failsoft.models.catalog.card import ModelCard
from failsoft.schemas.prediction import OutputColumn, Predictions
from tests.onnx_models import a_card

CLASSES = ("low", "middle", "high")


def ensemble(
    output: dict[str, Any], how: str = "mean", quorum: int = 1, weights: Sequence[float] = (1, 1)
) -> ModelCard:
    """An ensemble "e" with a member for each weight."""
    weighs = how in ("weighted_mean", "vote")
    members = [{"model": f"m{i}"} | ({"weight": float(w)} if weighs else {}) for i, w in enumerate(weights)]
    section = {"combine": how, "quorum": quorum, "members": members}
    return ModelCard.model_validate({"model": {"name": "e", "kind": "ensemble"}, "output": output, "ensemble": section})


def scored(scores: Sequence[float], rows: Sequence[int] | None = None, threshold: float | None = 0.5) -> MemberOutput:
    """The output of a member with one score a row, and with labels if it has a threshold."""
    column = np.array(scores, np.float32)
    labels = None if threshold is None else (column >= threshold).astype(int).tolist()
    return MemberOutput(np.array(range(len(scores)) if rows is None else rows, np.intp), Predictions(column, labels))


def classed(*probabilities: Sequence[float]) -> MemberOutput:
    table = np.array(probabilities, np.float32)
    return MemberOutput(np.arange(len(table)), Predictions(table.max(axis=1), None, table))


def only(groups: list[MemberGroup]) -> Predictions:
    (group,) = groups
    return group.predictions


BINARY = {"kind": "binary"}
MULTI = {"kind": "multiclass", "classes": list(CLASSES)}


@pytest.mark.parametrize(
    ("how", "weights", "score", "label"),
    [
        ("mean", (1, 1, 1), 0.5, 1),
        ("weighted_mean", (1, 1, 2), 0.6, 1),
        ("weighted_mean", (4, 1, 1), 0.35, 0),
        ("maximum", (1, 1, 1), 0.9, 1),
        ("vote", (1, 1, 1), 0.5, 0),
        ("vote", (1, 1, 3), 0.66, 1),
        ("vote", (1, 1, 2), 0.6, 1),
        ("vote", (2, 2, 4), 0.6, 1),
    ],
)
def test_a_binary_answer(how: str, weights: Sequence[float], score: float, label: int) -> None:
    """The score is the (weighted) mean or the maximum; the label follows the threshold, or the vote."""
    outputs = [scored([0.2]), scored([0.4]), scored([0.9])]
    found = only(combine(ensemble(BINARY, how, weights=weights), outputs, 1))
    assert found.scores == pytest.approx([score]) and found.labels == [label]
    assert found.scores.dtype == np.float32, "float32 as from a session, so that it is serialised alike"
    confidence = score if label else 1 - score
    assert found.confidences == pytest.approx([confidence])


def test_the_threshold_is_the_ensembles_own() -> None:
    """The ensemble's threshold applies to the combined score; only a vote uses the members' labels."""
    card = ensemble(BINARY | {"threshold": 0.7})
    assert only(combine(card, [scored([0.6, 0.8]), scored([0.6, 0.8])], 2)).labels == [0, 1]


def test_a_vote_against_the_mean_has_low_confidence() -> None:
    """The confidence is the mean probability of the winning label, here below one half."""
    found = only(combine(ensemble(BINARY, "vote", weights=(1, 1, 1)), [scored([s]) for s in (0.4, 0.4, 1.0)], 1))
    assert found.labels == [0] and found.confidences == pytest.approx([0.4])


def test_numbers_and_anomalies_have_no_confidence() -> None:
    """A regression has neither label nor confidence; an anomaly has a label if the card has a threshold."""
    outputs = [scored([10.0, -4.0], threshold=None), scored([20.0, -2.0], threshold=None)]
    number = only(combine(ensemble({"kind": "regression"}), outputs, 2))
    assert number.scores.tolist() == [15.0, -3.0] and number.labels is None and number.confidences is None
    anomaly = only(combine(ensemble({"kind": "anomaly", "threshold": 12.0}, "maximum"), outputs, 2))
    assert anomaly.scores.tolist() == [20.0, -2.0] and anomaly.labels == [1, 0] and anomaly.confidences is None


@pytest.mark.parametrize(
    ("how", "weights", "label", "probabilities"),
    [
        ("mean", (1, 1, 1), "middle", (0.2, 0.42, 0.38)),
        ("weighted_mean", (1, 1, 6), "high", (0.075, 0.22, 0.705)),
        ("vote", (1, 1, 1), "middle", (0.2, 0.42, 0.38)),
        ("vote", (1, 1, 2), "high", (0.15, 0.34, 0.51)),
        ("maximum", (1, 1, 1), "high", (0.0, 0.1, 0.9)),
    ],
)
def test_a_multiclass_answer(how: str, weights: Sequence[float], label: str, probabilities: Sequence[float]) -> None:
    """The (weighted) mean, the vote or the most certain member decides; the winner's probability is the score."""
    outputs = [classed((0.3, 0.58, 0.12)), classed((0.3, 0.58, 0.12)), classed((0.0, 0.1, 0.9))]
    found = only(combine(ensemble(MULTI, how, weights=weights), outputs, 1))
    assert found.labels == [label] and found.probabilities is not None
    assert found.probabilities[0] == pytest.approx(probabilities, abs=1e-6)
    assert found.scores == pytest.approx([probabilities[CLASSES.index(label)]]) and found.confidences is found.scores


def test_members_with_equal_maximum_are_averaged() -> None:
    """Members that tie on one class are averaged; between classes, the first in the card wins."""
    one, two, other = (0.8, 0.2, 0.0), (0.8, 0.0, 0.2), (0.1, 0.1, 0.8)
    found = only(
        combine(ensemble(MULTI, "maximum", weights=(1, 1, 1)), [classed(other), classed(one), classed(two)], 1)
    )
    assert found.labels == ["low"] and found.probabilities is not None
    assert found.probabilities[0] == pytest.approx((0.8, 0.1, 0.1))


def test_rows_are_grouped_by_the_members_that_answered() -> None:
    """Each row is combined from the members that answered it, and has no answer below the quorum."""
    outputs = [scored([0.1, 0.2, 0.3], [0, 1, 2]), scored([0.5, 0.6], [1, 4]), None]
    card = ensemble(BINARY, quorum=1, weights=(1, 1, 1))
    groups = {g.members: (g.rows.tolist(), g.predictions.scores.tolist()) for g in combine(card, outputs, 6)}
    assert groups == {
        (0,): ([0, 2], pytest.approx([0.1, 0.3])),
        (1,): ([4], pytest.approx([0.6])),
        (0, 1): ([1], pytest.approx([0.35])),
    }
    (group,) = combine(ensemble(BINARY, quorum=2, weights=(1, 1, 1)), outputs, 6)
    assert group.rows.tolist() == [1] and group.members == (0, 1)
    assert combine(ensemble(BINARY, quorum=3, weights=(1, 1, 1)), outputs, 6) == []
    assert combine(card, [None] * 3, 6) == combine(card, [scored([])] * 3, 0) == []


def test_a_card_without_ensemble_is_refused() -> None:
    """Combining with a model's card is the caller's mistake and raises ValueError."""
    with pytest.raises(ValueError, match=r"'m' has no \[ensemble\]"):
        combine(a_card(BINARY, x="float"), [], 1)


FRAUD = {"kind": "binary", "labels": ["legit", "fraud"], "positive": "fraud"}


@pytest.mark.parametrize(("how", "label"), [("mean", "fraud"), ("vote", "legit")])
def test_labels_of_a_binary_answer(how: str, label: str) -> None:
    """The answer has the card's labels, and a vote counts the members' positive labels."""
    members = [scored([s]) for s in (0.4, 0.4, 1.0)]
    votes = [["legit"], ["legit"], ["fraud"]]
    named = [MemberOutput(m.rows, replace(m.predictions, labels=v)) for m, v in zip(members, votes, strict=True)]
    assert only(combine(ensemble(FRAUD, how, weights=(1, 1, 1)), named, 1)).labels == [label]


def test_the_low_side_is_anomalous() -> None:
    """With ``anomalous = "low"`` a combined score under the threshold is 1."""
    card = ensemble({"kind": "anomaly", "threshold": 0.0, "anomalous": "low"})
    outputs = [scored([-1.0, 1.0], threshold=None), scored([0.5, -0.5], threshold=None)]
    assert only(combine(card, outputs, 2)).labels == [1, 0]


def test_doubles_stay_doubles() -> None:
    """The mean of doubles has all their digits; a single float32 member does not narrow it."""
    large = Predictions(np.array([1790000186.4]))
    card = ensemble({"kind": "regression"}, weights=(1, 1))
    same = only(combine(card, [MemberOutput(np.arange(1), large)] * 2, 1))
    assert same.scores.dtype == np.float64 and same.row(0).score == 1790000186.4
    mixed = only(combine(card, [MemberOutput(np.arange(1), large), scored([0.0], threshold=None)], 1))
    assert mixed.row(0).score == 895000093.2


def labelled(*probabilities: Sequence[float], threshold: float = 0.5) -> MemberOutput:
    table = np.array(probabilities, np.float32)
    return MemberOutput(np.arange(len(table)), several_labels(table, CLASSES, table >= threshold))


@pytest.mark.parametrize(
    ("how", "score", "label", "labels"),
    [
        ("mean", 0.6, "high", ["high"]),
        ("weighted_mean", 0.6, "high", ["high"]),
        ("maximum", 0.9, "low", ["low", "middle", "high"]),
        ("vote", 0.6, "high", ["middle", "high"]),
    ],
)
def test_a_multilabel_answer(how: str, score: float, label: str, labels: list[str]) -> None:
    """Each label is combined by itself: its mean, its maximum, or the vote for it."""
    outputs = [labelled((0.9, 0.5, 0.6)), labelled((0.2, 0.5, 0.6)), labelled((0.2, 0.1, 0.6))]
    found = only(combine(ensemble({**MULTI, "kind": "multilabel"}, how, weights=(1, 1, 1)), outputs, 1))
    row = found.row(0)
    assert (row.score, row.label, row.confidence) == (pytest.approx(score), label, None)
    assert row.outputs == {"labels": labels}
    assert row.probabilities is not None and len(row.probabilities) == 3


def test_a_row_may_have_none_of_several_labels() -> None:
    """Without a label that reaches the threshold the label is null, and the score the highest probability."""
    card = ensemble({**MULTI, "kind": "multilabel"}, weights=(1, 1))
    row = only(combine(card, [labelled((0.1, 0.3, 0.2))] * 2, 1)).row(0)
    assert (row.score, row.label, row.outputs) == (pytest.approx(0.3), None, {"labels": []})


def test_the_columns_of_a_regression_are_combined() -> None:
    """Each named column is combined by itself, and the first is the score."""
    card = ensemble({"kind": "regression", "outputs": ["lat", "lon"]}, "maximum")
    members = []
    for lat, lon in ((1.0, 9.0), (5.0, 2.0)):
        column = np.array([lat], np.float32)
        outputs: dict[str, OutputColumn] = {"lat": column, "lon": np.array([lon], np.float32)}
        members.append(MemberOutput(np.arange(1), Predictions(column, outputs=outputs)))
    assert only(combine(card, members, 1)).row(0).outputs == {"lat": 5.0, "lon": 9.0}


def test_what_members_carry_is_named_after_them() -> None:
    """An output that a member carries is in the answer as ``member.output``, for the rows that this member answered."""
    first, second = scored([0.25, 0.75]), scored([0.75], [1])
    first = MemberOutput(first.rows, replace(first.predictions, outputs={"std": np.array([0.5, 1.0])}))
    second = MemberOutput(second.rows, replace(second.predictions, outputs={"std": ["x"]}))
    groups = combine(ensemble(BINARY), [first, second], 2)
    found = {tuple(g.rows.tolist()): g.predictions.row(0).outputs for g in groups}
    assert found == {(0,): {"m0.std": 0.5}, (1,): {"m0.std": 1.0, "m1.std": "x"}}
