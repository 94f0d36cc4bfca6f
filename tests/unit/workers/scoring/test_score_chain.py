"""Scoring with the fallback chain: which links are asked, in which order, for which rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from failsoft.models.answers.last_known import LastKnown
from failsoft.schemas.event import Envelope
from failsoft.schemas.fleet.counts import Counts
from failsoft.schemas.scored import encode
from failsoft.workers.scoring.plan import Call, CallResult
from tests.kit import (
    NOW_MS,
    RULE,
    FakeBoard,
    Rec,
    answers,
    body,
    broken,
    events,
    failing,
    fine,
    plan,
    result,
    run,
    waiting,
)


def test_each_link_gets_the_rows_that_are_left() -> None:
    """A fallback model answers what it can, the next link gets the other rows, and ``static`` always answers."""
    asked: list[object] = []

    def rule(values: Mapping[str, object]) -> object:
        asked.append(values["x"])
        return 0.3 if values["x"] == 0.1 else None

    records = [Rec(offset=i, value=body(f"e{i}", x=i / 10)) for i in range(3)]
    the_plan = plan(chain=["model:lite", f"rule:{RULE}", "static"], rule=rule)
    done = run(records, the_plan, models={"m": broken, "lite": failing(1, 2)})
    assert [(s.id, s.source, s.reason, s.final) for s in answers(done)] == [
        ("e0", "fallback_model", "model_error", False),
        ("e1", "rule", "model_error", False),
        ("e2", "static", "model_error", False),
    ]
    assert asked == [0.1, 0.2]
    assert [(g.answers.model, g.answers.version) for g in done.verdicts.answered] == [
        ("lite", 1),
        (RULE, None),
        (None, None),
    ]


def test_a_fallback_model_has_a_breaker_of_its_own() -> None:
    """It is called for the rows that its breaker admits, and its failures count against that breaker."""
    registry = FakeBoard(admits={"lite@1": 2})
    done = run(events(3), plan(chain=["model:lite", "static"]), registry, models={"m": broken, "lite": failing(0)})
    assert sorted((s.id, s.source) for s in answers(done)) == [
        ("e0", "static"),
        ("e1", "fallback_model"),
        ("e2", "static"),
    ]
    assert registry.reports == [("m@2", 7, Counts(3, 3, 0, 1)), ("lite@1", 7, Counts(2, 1, 0, 1))]


def test_an_error_of_a_rule_leaves_the_row_to_the_next_link() -> None:
    """The errors are counted."""

    def rule(values: Mapping[str, object]) -> object:
        raise ZeroDivisionError

    done = run(events(2), plan(chain=[f"rule:{RULE}", "static"], rule=rule), models={"m": broken})
    assert {s.source for s in answers(done)} == {"static"}
    assert done.rule_errors == {(RULE, "ZeroDivisionError"): 2}


def test_a_held_row_is_not_answered_by_the_chain() -> None:
    """An invalid retry after a waiting one is read again later, so no link is asked for it now."""
    asked: list[object] = []
    the_plan = plan(chain=[f"rule:{RULE}", "static"], rule=lambda values: asked.append(values["x"]))
    records = [waiting(offset=0), waiting(offset=1, value=body("w", x=None))]
    done = run(records, the_plan, FakeBoard(admits={"m@2": 0}))
    assert done.held == {0, 1} and asked == [] and done.verdicts.answered == []


@pytest.mark.parametrize("label", [2**64, "\ud800"])
def test_a_label_that_cannot_be_written_is_no_answer(label: object) -> None:
    """A mistake in a rule must not end the worker: the next link is asked."""
    the_plan = plan(chain=[f"rule:{RULE}", "static"], rule=lambda values: {"score": 0.5, "label": label})
    done = run(events(1), the_plan, models={"m": broken})
    assert [s.source for s in answers(done)] == ["static"]
    assert encode(done.verdicts.answered[0].answers)


def test_a_rule_may_give_probabilities_to_some_rows_only() -> None:
    """Answers with and without probabilities form separate groups."""

    def rule(values: Mapping[str, object]) -> object:
        several = {"score": 0.7, "probabilities": [0.3, 0.7]}
        return several if values["x"] == 0.0 else 0.2

    records = [Rec(offset=i, value=body(f"e{i}", x=float(i))) for i in range(3)]
    done = run(records, plan(chain=[f"rule:{RULE}", "static"], rule=rule), models={"m": broken})
    found = {
        g.answers.ids[i]: g.answers.predictions.row(i) for g in done.verdicts.answered for i in range(len(g.records))
    }
    assert found["e0"].probabilities == (0.3, 0.7) and found["e1"].probabilities is None
    assert (found["e1"].score, found["e2"].score) == (0.2, 0.2)


def test_a_rule_answers_when_no_version_is_loaded() -> None:
    """Nothing is imputed without a version: the rule reads the event's own values, None where one is missing."""
    asked: list[Mapping[str, object]] = []

    def rule(values: Mapping[str, object]) -> object:
        asked.append(values)
        return 0.4

    done = run(
        [Rec(value=body("e0", y=None))],
        plan(chain=[f"rule:{RULE}", "static"], rule=rule),
        FakeBoard(versions={}),
    )
    assert [(s.source, s.reason, s.score) for s in answers(done)] == [("rule", "unavailable", 0.4)]
    assert asked == [{"x": 0.25, "y": None}]


def test_last_known_answers_by_key() -> None:
    """It gives the key's last primary answer, with its model and version. A new key is left to the next link."""
    known = LastKnown(max_age=3600)
    remembering = plan(chain=["last_known", "static"])
    before = run([replace(events(1)[0], key=b"seen")], remembering, models={"m": lambda call: result([0.75])})
    for keys, predictions, version in before.known:
        known.remember(keys, predictions, "m", version, NOW_MS / 1000 - 10)
    records = [replace(r, key=k) for r, k in zip(events(3), (b"seen", b"new", None), strict=True)]
    done = run(records, remembering, known=known, models={"m": broken})
    assert [(s.id, s.source, s.score) for s in answers(done)] == [
        ("e0", "last_known", 0.75),
        ("e1", "static", 0.5),
        ("e2", "static", 0.5),
    ]
    assert (done.verdicts.answered[0].answers.model, done.verdicts.answered[0].answers.version) == ("m", 2)


def test_only_the_primarys_answers_are_remembered() -> None:
    """A fallback's answer is not remembered, and nothing is without a link ``last_known``."""
    remembering = plan(chain=["last_known", "static"])
    assert run(events(1), remembering, models={"m": broken}).known == []
    assert run(events(2)).known == []
    ((keys, predictions, version),) = run(events(2), remembering).known
    assert keys == [b"k0", b"k1"] and len(predictions) == 2 and version == 2


def test_a_fallback_model_gets_columns_of_its_own() -> None:
    """Its columns are the features of its own card, in the card's order."""
    names: list[tuple[str, ...]] = []

    def look(call: Call) -> CallResult:
        names.append(tuple(spec.name for spec in call.columns.specs))
        return fine(call)

    run(events(2), plan(chain=["model:lite", "static"]), models={"m": broken, "lite": look})
    assert names == [("x", "y")]


def test_an_empty_batch_gives_nothing() -> None:
    """An empty batch is no error, whatever the envelope."""
    for envelope in (Envelope(id="id", time="at"), Envelope()):
        done = run([], plan(envelope=envelope))
        assert not done.verdicts.answered and not done.outcomes
