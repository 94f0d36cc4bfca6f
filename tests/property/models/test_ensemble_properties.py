"""Invariants of ensembles for any outputs: order of members, missing members, and bounds of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from failsoft.models.answers.ensemble import MemberGroup, MemberOutput, combine
from failsoft.models.answers.several_labels import several_labels
from failsoft.models.catalog.card import ModelCard
from failsoft.schemas.prediction import Predictions

OUTPUTS: tuple[dict[str, Any], ...] = (
    {"kind": "binary"},
    {"kind": "multiclass", "classes": [7, 8, 9]},
    {"kind": "multilabel", "labels": [7, 8, 9]},
    {"kind": "binary", "labels": ["no", "yes"], "positive": "no"},
    {"kind": "regression"},
    {"kind": "anomaly", "threshold": 0.25},
)
ROWS = 4


def card(output: dict[str, Any], method: str, quorum: int, weights: list[float]) -> ModelCard:
    weighs = method in ("weighted_mean", "vote")
    members = [{"model": f"m{i}"} | ({"weight": w} if weighs else {}) for i, w in enumerate(weights)]
    return ModelCard.model_validate(
        {
            "model": {"name": "e", "kind": "ensemble"},
            "output": output,
            "ensemble": {"combine": method, "quorum": quorum, "members": members},
        }
    )


@st.composite
def members(draw: st.DrawFn, kind: str, labels: Sequence[int | str] = (0, 1)) -> MemberOutput:
    """The output of a member for some of the rows. There are few distinct values, so that members often tie."""
    rows = np.array(sorted(draw(st.sets(st.integers(0, ROWS - 1)))), np.intp)
    n = len(rows)
    if kind == "multiclass":
        raw = draw(arrays.arrays(np.float64, (n, 3), elements=st.sampled_from([0.0, 1.0, 2.0, 0.7])))
        raw[:, 0] += raw.sum(axis=1) == 0
        table = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)
        return MemberOutput(rows, Predictions(table.max(axis=1), None, table))
    if kind == "multilabel":
        table = draw(arrays.arrays(np.float32, (n, 3), elements=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])))
        return MemberOutput(rows, several_labels(table, [7, 8, 9], table >= 0.5))
    wide = st.floats(width=32, allow_nan=False, allow_infinity=False) if kind == "regression" else st.just(0.5)
    scores = draw(arrays.arrays(np.float32, n, elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]) | wide))
    return MemberOutput(
        rows, Predictions(scores, None if kind == "regression" else [labels[s >= 0.5] for s in scores.tolist()])
    )


@st.composite
def ensembles(draw: st.DrawFn, least: int = 2, methods: tuple[str, ...] = ()) -> tuple[ModelCard, list[MemberOutput]]:
    output = draw(st.sampled_from(OUTPUTS))
    all_methods = ("mean", "weighted_mean", "maximum", "vote")
    method = draw(st.sampled_from([h for h in methods or all_methods if h != "vote" or output["kind"] != "regression"]))
    n = draw(st.integers(least, 5))
    weights = draw(st.lists(st.sampled_from([0.1, 0.2, 0.3, 1.0, 5.0]), min_size=n, max_size=n))
    made = card(output, method, draw(st.integers(1, n)), weights)
    return made, [draw(members(output["kind"], output.get("labels", (0, 1)))) for _ in range(n)]


def by_row(groups: list[MemberGroup]) -> dict[int, tuple[Any, ...]]:
    found: dict[int, tuple[Any, ...]] = {}
    for group in groups:
        for i, row in enumerate(group.rows.tolist()):
            assert row not in found, "a row has one answer"
            p = group.predictions.row(i)
            found[row] = (p.score, p.label, p.probabilities, p.confidence, p.outputs)
    return found


@given(ensembles(), st.randoms())
def test_the_order_of_members_does_not_matter(made: tuple[ModelCard, list[MemberOutput]], chance: Any) -> None:
    """The order of members in the card does not change the answer by a bit."""
    one, outputs = made
    assert one.ensemble is not None
    order = list(range(len(outputs)))
    chance.shuffle(order)
    section = one.ensemble.model_copy(update={"members": tuple(one.ensemble.members[i] for i in order)})
    other = one.model_copy(update={"ensemble": section})
    assert by_row(combine(one, outputs, ROWS)) == by_row(combine(other, [outputs[i] for i in order], ROWS))


@given(ensembles(methods=("mean",)), st.sampled_from([0.1, 0.3, 1.0, 7.0]))
def test_equal_weights_are_the_mean(made: tuple[ModelCard, list[MemberOutput]], weight: float) -> None:
    """With equal weights the weighted mean is the mean, whatever the weight."""
    plain, outputs = made
    assert plain.ensemble is not None
    output = plain.output.model_dump(exclude_none=True, mode="json")
    weighed = card(output, "weighted_mean", plain.ensemble.quorum, [weight] * len(outputs))
    for a, b in zip(combine(plain, outputs, ROWS), combine(weighed, outputs, ROWS), strict=True):
        assert (a.rows.tolist(), a.members) == (b.rows.tolist(), b.members)
        np.testing.assert_allclose(a.predictions.scores, b.predictions.scores, rtol=1e-6)


@given(ensembles(least=3))
def test_a_missing_member_does_not_count(made: tuple[ModelCard, list[MemberOutput]]) -> None:
    """If a member has no output, the answers are those of the ensemble without that member."""
    whole, outputs = made
    assert whole.ensemble is not None
    section = whole.ensemble
    quorum = min(section.quorum, len(outputs) - 1)
    fewer = section.model_copy(update={"members": section.members[:-1], "quorum": quorum})
    same = section.model_copy(update={"quorum": quorum})
    without = by_row(combine(whole.model_copy(update={"ensemble": fewer}), outputs[:-1], ROWS))
    assert by_row(combine(whole.model_copy(update={"ensemble": same}), [*outputs[:-1], None], ROWS)) == without


@given(ensembles())
def test_the_answer_lies_between_the_members_answers(made: tuple[ModelCard, list[MemberOutput]]) -> None:
    """Each score and probability lies between the lowest and the highest of the members, with a quorum of them."""
    one, outputs = made
    assert one.ensemble is not None
    groups = combine(one, outputs, ROWS)
    for group in groups:
        assert len(group.members) >= one.ensemble.quorum
        for i, row in enumerate(group.rows.tolist()):
            answering = [j for j, m in enumerate(outputs) if row in m.rows]
            assert group.members == tuple(answering)
            parts = [outputs[j].predictions.row(outputs[j].rows.tolist().index(row)) for j in answering]
            answer = group.predictions.row(i)
            if answer.probabilities is None:
                scores = [p.score for p in parts]
                assert min(scores) <= answer.score <= max(scores)
                continue
            labels = one.output.labels
            assert labels is not None
            best = (
                max(answer.probabilities) if answer.label is None else answer.probabilities[labels.index(answer.label)]
            )
            assert answer.score == best
            for c, p in enumerate(answer.probabilities):
                each = [part.probabilities[c] for part in parts if part.probabilities]
                assert min(each) <= p <= max(each)
    answered = {row for group in groups for row in group.rows.tolist()}
    for row in set(range(ROWS)) - answered:
        assert sum(row in m.rows for m in outputs) < one.ensemble.quorum
