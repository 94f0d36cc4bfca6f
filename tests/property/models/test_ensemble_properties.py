"""An ensemble, whatever its members say: their order is nothing, absence is absence, the answer lies among theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from failsoft.models.answers.ensemble import MemberGroup, MemberOutput, combine
from failsoft.models.catalog.card import ModelCard
from failsoft.schemas.prediction import Predictions

OUTPUTS: tuple[dict[str, Any], ...] = (
    {"kind": "binary"},
    {"kind": "multiclass", "classes": [7, 8, 9]},
    {"kind": "regression"},
    {"kind": "anomaly", "threshold": 0.25},
)
ROWS = 4


def card(output: dict[str, Any], how: str, quorum: int, weights: list[float]) -> ModelCard:
    weighs = how in ("weighted_mean", "vote")
    members = [{"model": f"m{i}"} | ({"weight": w} if weighs else {}) for i, w in enumerate(weights)]
    return ModelCard.model_validate(
        {
            "model": {"name": "e", "kind": "ensemble"},
            "output": output,
            "ensemble": {"combine": how, "quorum": quorum, "members": members},
        }
    )


@st.composite
def members(draw: st.DrawFn, kind: str) -> MemberOutput:
    """What a member may say of some of the rows; few values, so that members often agree or are as sure."""
    rows = np.array(sorted(draw(st.sets(st.integers(0, ROWS - 1)))), np.intp)
    n = len(rows)
    if kind == "multiclass":
        raw = draw(arrays.arrays(np.float64, (n, 3), elements=st.sampled_from([0.0, 1.0, 2.0, 0.7])))
        raw[:, 0] += raw.sum(axis=1) == 0
        table = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)
        return MemberOutput(rows, Predictions(table.max(axis=1), None, table))
    wide = st.floats(width=32, allow_nan=False, allow_infinity=False) if kind == "regression" else st.just(0.5)
    scores = draw(arrays.arrays(np.float32, n, elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]) | wide))
    return MemberOutput(
        rows, Predictions(scores, None if kind == "regression" else (scores >= 0.5).astype(int).tolist())
    )


@st.composite
def ensembles(draw: st.DrawFn, least: int = 2, hows: tuple[str, ...] = ()) -> tuple[ModelCard, list[MemberOutput]]:
    output = draw(st.sampled_from(OUTPUTS))
    all_hows = ("mean", "weighted_mean", "maximum", "vote")
    how = draw(st.sampled_from([h for h in hows or all_hows if h != "vote" or output["kind"] != "regression"]))
    n = draw(st.integers(least, 5))
    weights = draw(st.lists(st.sampled_from([0.1, 0.2, 0.3, 1.0, 5.0]), min_size=n, max_size=n))
    made = card(output, how, draw(st.integers(1, n)), weights)
    return made, [draw(members(output["kind"])) for _ in range(n)]


def by_row(groups: list[MemberGroup]) -> dict[int, tuple[Any, ...]]:
    found: dict[int, tuple[Any, ...]] = {}
    for group in groups:
        for i, row in enumerate(group.rows.tolist()):
            assert row not in found, "a row has one answer"
            p = group.predictions.row(i)
            found[row] = (p.score, p.label, p.probabilities, p.confidence)
    return found


@given(ensembles(), st.randoms())
def test_the_order_of_members_is_nothing(made: tuple[ModelCard, list[MemberOutput]], chance: Any) -> None:
    """To the last bit, label and all: a card may list them as it likes."""
    one, said = made
    assert one.ensemble is not None
    order = list(range(len(said)))
    chance.shuffle(order)
    section = one.ensemble.model_copy(update={"members": tuple(one.ensemble.members[i] for i in order)})
    other = one.model_copy(update={"ensemble": section})
    assert by_row(combine(one, said, ROWS)) == by_row(combine(other, [said[i] for i in order], ROWS))


@given(ensembles(hows=("mean",)), st.sampled_from([0.1, 0.3, 1.0, 7.0]))
def test_equal_weights_are_the_mean(made: tuple[ModelCard, list[MemberOutput]], weight: float) -> None:
    """Whatever they are."""
    plain, said = made
    assert plain.ensemble is not None
    output = plain.output.model_dump(exclude_none=True, mode="json")
    weighed = card(output, "weighted_mean", plain.ensemble.quorum, [weight] * len(said))
    for a, b in zip(combine(plain, said, ROWS), combine(weighed, said, ROWS), strict=True):
        assert (a.rows.tolist(), a.members) == (b.rows.tolist(), b.members)
        np.testing.assert_allclose(a.predictions.scores, b.predictions.scores, rtol=1e-6)


@given(ensembles(least=3))
def test_who_is_left_out_was_never_there(made: tuple[ModelCard, list[MemberOutput]]) -> None:
    """A silent member's weight is nobody's: the answers are those of the ensemble without it."""
    whole, said = made
    assert whole.ensemble is not None
    section = whole.ensemble
    quorum = min(section.quorum, len(said) - 1)
    fewer = section.model_copy(update={"members": section.members[:-1], "quorum": quorum})
    same = section.model_copy(update={"quorum": quorum})
    without = by_row(combine(whole.model_copy(update={"ensemble": fewer}), said[:-1], ROWS))
    assert by_row(combine(whole.model_copy(update={"ensemble": same}), [*said[:-1], None], ROWS)) == without


@given(ensembles())
def test_the_answer_lies_among_the_members(made: tuple[ModelCard, list[MemberOutput]]) -> None:
    """Never over the highest nor under the lowest that was said of the row, of each class too; and a quorum spoke."""
    one, said = made
    assert one.ensemble is not None
    groups = combine(one, said, ROWS)
    for group in groups:
        assert len(group.members) >= one.ensemble.quorum
        for i, row in enumerate(group.rows.tolist()):
            spoke = [j for j, m in enumerate(said) if row in m.rows]
            assert group.members == tuple(spoke)
            parts = [said[j].predictions.row(said[j].rows.tolist().index(row)) for j in spoke]
            answer = group.predictions.row(i)
            if one.output.classes is None:
                scores = [p.score for p in parts]
                assert min(scores) <= answer.score <= max(scores)
                continue
            assert answer.probabilities is not None
            assert answer.score == answer.probabilities[one.output.classes.index(answer.label or 0)]
            for c, p in enumerate(answer.probabilities):
                each = [part.probabilities[c] for part in parts if part.probabilities]
                assert min(each) <= p <= max(each)
    answered = {row for group in groups for row in group.rows.tolist()}
    for row in set(range(ROWS)) - answered:
        assert sum(row in m.rows for m in said) < one.ensemble.quorum
