"""Features that go to a model as NaN: who gets them, and which answers name them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from failsoft.models.catalog.card import ModelCard
from failsoft.schemas.failure import Kind
from failsoft.schemas.scored import encode
from failsoft.workers.scoring.plan import Call, CallResult, Plan, Rule, Scored
from tests.kit import RULE, FakeBoard, Rec, broken, fine, member, plan, run, trio

AT = "2026-01-01T12:00:00Z"
NAN = float("nan")
CARD: dict[str, Any] = {
    "model": {"name": "m"},
    "output": {"kind": "binary"},
    "fallback": {"chain": ["static"], "static": {"score": 0.5, "label": 0}},
}


def _card(name: str, chain: tuple[str, ...] = ("static",), **features: Any) -> ModelCard:
    """A binary model whose float features have these ``impute`` keys; None is none."""
    made = [{"name": n, "type": "float"} | ({} if how is None else {"impute": how}) for n, how in features.items()]
    fallback = CARD["fallback"] | {"chain": list(chain)}
    return ModelCard.model_validate({**CARD, "model": {"name": name}, "features": made, "fallback": fallback})


def _plan(chain: tuple[str, ...] = ("static",), rule: Rule | None = None) -> Plan:
    """The primary takes ``x`` as NaN and imputes ``y``; the fallback model takes ``y`` as NaN and imputes ``x``."""
    cards = {"m": _card("m", chain, x="nan", y=0.5), "lite": _card("lite", x=0.5, y="nan")}
    return replace(plan(chain, rule=rule), cards=cards)


def _events(*features: Mapping[str, object]) -> list[Rec]:
    values = [{"id": f"e{i}", "at": AT, "features": given} for i, given in enumerate(features)]
    return [Rec(offset=i, value=json.dumps(value).encode()) for i, value in enumerate(values)]


def _told(scored: Scored) -> dict[str, tuple[object, object]]:
    """What each answer says: its imputed and its missing features, None without the key."""
    written = [json.loads(raw) for group in scored.verdicts.answered for raw in encode(group.answers)]
    return {answer["event_id"]: (answer["imputed"], answer.get("missing")) for answer in written}


def test_an_answer_names_what_was_missing() -> None:
    """Null, absent and NaN go to the model as NaN; an event without missing values has no such key."""
    seen: list[list[list[float]]] = []

    def model(call: Call) -> CallResult:
        assert call.columns.matrix is not None
        seen.append(call.columns.matrix.tolist())
        return fine(call)

    records = _events({"x": None, "y": 1}, {"y": 1}, {"x": NAN, "y": 1}, {"x": 2, "y": None}, {}, {"x": 2, "y": 1})
    done = run(records, _plan(), models={"m": model})
    missing: tuple[list[str], list[str]] = ([], ["x"])
    assert _told(done) == {
        "e0": missing, "e1": missing, "e2": missing, "e3": (["y"], None), "e4": (["y"], ["x"]), "e5": ([], None)
    }  # fmt: skip
    assert repr(seen) == "[[[nan, 1.0], [nan, 1.0], [nan, 1.0], [2.0, 0.5], [nan, 0.5], [2.0, 1.0]]]"
    assert done.nans == {"x": 4} and done.imputed == {"y": 2} and not done.failures


def test_nan_is_refused_where_no_asked_model_takes_it() -> None:
    """The primary imputes ``y``: NaN there is not JSON, though the fallback model knows it; neighbours are answered."""
    done = run(_events({"x": 1, "y": NAN}, {"x": NAN, "y": 1}), _plan(("model:lite", "static")))
    assert [f.kind for f in done.failures.values()] == [Kind.MALFORMED]
    assert done.failures[0].message.startswith("NaN is not JSON (features.y): ")
    assert _told(done) == {"e1": ([], ["x"])}


def test_a_fallback_model_names_its_own_missing_features() -> None:
    """Each model fills by its own card."""
    done = run(_events({"x": 1}, {"y": 1}), _plan(("model:lite", "static")), models={"m": broken})
    assert _told(done) == {"e0": ([], ["y"]), "e1": (["x"], None)}


def test_a_rule_gets_none_for_a_missing_value() -> None:
    """A rule is not asked to know NaN; its answer names only what was imputed."""
    given: list[Mapping[str, object]] = []

    def rule(values: Mapping[str, object]) -> float:
        given.append(dict(values))
        return 0.25

    done = run(_events({}, {"x": 1, "y": 2}), _plan((f"rule:{RULE}", "static"), rule), models={"m": broken})
    assert given == [{"x": None, "y": 0.5}, {"x": 1.0, "y": 2.0}]
    assert _told(done) == {"e0": (["y"], None), "e1": ([], None)}


@pytest.mark.parametrize(("lost", "missing"), [((), ["x", "y"]), (("b",), ["x"]), (("a",), ["y"])])
def test_an_ensembles_answer_names_what_any_of_its_members_missed(lost: tuple[str, ...], missing: list[str]) -> None:
    """Only of the members that answered, each feature once; NaN may be written for a feature of any of them."""
    cards = {"a": _card("a", x="nan"), "b": _card("b", x=0.5, y="nan"), "c": member("c", "z")}
    three = trio(quorum=1, cards=cards)
    registry = FakeBoard(versions={"a": 1, "b": 2, "c": 3})
    done = run(_events({"x": NAN, "y": NAN, "z": 1}), three, registry, dict.fromkeys(lost, broken))
    (answer,) = done.verdicts.answered
    assert answer.answers.missing == {0: tuple(missing)}
    assert answer.answers.imputed == ({} if "b" in lost else {0: ("x",)})
    assert three.envelope.nans == ("x", "y")


def test_rows_that_are_taken_out_leave_the_others_their_names() -> None:
    """With an invalid row before them, and one that failed, missing features stay with their rows."""
    cards = {"m": _card("m", x="nan", y=None), "lite": _card("lite", x=None)}

    def model(call: Call) -> CallResult:
        assert len(call) == 2 and np.isnan(call.columns.values["x"]).tolist() == [False, True]
        return fine(call)

    done = run(_events({"x": 1}, {"x": 1, "y": 1}, {"y": 1}), replace(plan(), cards=cards), models={"m": model})
    assert _told(done) == {"e1": ([], None), "e2": ([], ["x"])}
    assert done.failures[0].message == "feature 'y': missing; the card does not impute it"


@pytest.mark.parametrize(
    ("literals", "found"),
    [([NAN, 1.0], "NaN at [0]"), ([1.0, -math.inf], "-Infinity at [1]"), ([[NAN], 1.0], "a list of shape [2, 1]")],
)
def test_a_literal_within_a_tensor_is_that_features_fault(literals: list[object], found: str) -> None:
    """The event is invalid, with the feature's name and the place; with a value to impute it is answered."""
    tensor = {"name": "x", "type": "tensor", "dtype": "float32", "shape": [2]}
    for impute, kinds in (({}, [Kind.INVALID]), ({"impute": 0.5}, [])):
        cards = {"m": ModelCard.model_validate({**CARD, "features": [tensor | impute]})}
        scored = run(_events({"x": [1.0, 2.0]}, {"x": literals}), replace(plan(("static",)), cards=cards), FakeBoard())
        assert [letter.attempt.failure.kind for letter in scored.verdicts.dead] == kinds
        assert _told(scored) == {"e0": ([], None)} | ({"e1": (["x"], None)} if impute else {})
        for letter in scored.verdicts.dead:
            assert f"feature 'x': {found}" in letter.attempt.failure.message
