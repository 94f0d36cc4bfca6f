"""The fallback chain by itself: which rows each link gets, and which rows it leaves to the next link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from failsoft.models.catalog.card import ModelCard
from failsoft.schemas.decoding import decode
from failsoft.schemas.failure import Kind
from failsoft.schemas.prediction import Source
from failsoft.workers.scoring.calls import RawColumns
from failsoft.workers.scoring.fallbacks import UNKNOWN_LABEL, Fallbacks
from failsoft.workers.scoring.plan import Plan
from tests.kit import NOW_MS, RULE, FakeBoard, events, failing, fine, plan


def _run_chain(the_plan: Plan, registry: FakeBoard, pending: Sequence[int], bad: Sequence[int] = ()) -> Fallbacks:
    """Run the chain for the rows ``pending`` of three events. The fallback model fails the rows ``bad`` of its call."""
    records = events(3)
    decoded = decode(records, {}, the_plan.envelope)
    chain = Fallbacks(the_plan, registry, None, NOW_MS, records, decoded, RawColumns(decoded.features))
    steps = chain.ask(the_plan.chain, list(pending))
    try:
        call = next(steps)
        while True:
            call = steps.send(failing(*bad, kind=Kind.BAD_OUTPUT)(call) if bad else fine(call))
    except StopIteration:
        return chain


def _sources(chain: Fallbacks) -> list[tuple[Source, list[int]]]:
    """The source and the rows of each group of answers."""
    return [(group.source, list(group.rows)) for group in chain.answered]


def test_a_link_leaves_rows_that_it_cannot_answer_to_the_next() -> None:
    """The row that the model failed gets the static answer, and the rows that it answered are not asked for again."""
    chain = _run_chain(plan(["model:lite", "static"]), FakeBoard(), [0, 2], bad=[1])
    assert _sources(chain) == [(Source.FALLBACK_MODEL, [0]), (Source.STATIC, [2])]


def test_a_model_that_is_not_loaded_is_skipped() -> None:
    """Nothing is called, and the next link answers every row."""
    registry = FakeBoard(versions={})
    assert _sources(_run_chain(plan(["model:lite", "static"]), registry, [0, 1])) == [(Source.STATIC, [0, 1])]
    assert not registry.asked


def test_an_error_of_a_rule_is_counted_and_the_next_link_answers() -> None:
    """Errors are counted by rule and by the error's name."""

    def broken(values: object) -> float:
        raise KeyError("x")

    chain = _run_chain(plan([f"rule:{RULE}", "static"], rule=broken), FakeBoard(), [1])
    assert _sources(chain) == [(Source.STATIC, [1])] and chain.rule_errors == {(RULE, "KeyError"): 1}


@pytest.mark.parametrize(("label", "source"), [("fraud", Source.RULE), (None, Source.RULE), (1, Source.STATIC)])
def test_a_rules_label_is_one_of_the_cards(label: str | int | None, source: Source) -> None:
    """A rule that answers with a label that the card does not have is counted, and the next link answers."""
    made = plan([f"rule:{RULE}", "static"], rule=lambda _: {"score": 0.5, "label": label})
    output = {"kind": "binary", "labels": ["legit", "fraud"], "positive": "fraud"}
    section = {"chain": [f"rule:{RULE}", "static"], "static": {"score": 0.5, "label": "legit"}}
    features = [{"name": "x", "type": "float"}, {"name": "y", "type": "float", "impute": 0.5}]
    card = {"model": {"name": "m"}, "output": output, "fallback": section, "features": features}
    made = replace(made, cards={**made.cards, "m": ModelCard.model_validate(card)})
    chain = _run_chain(made, FakeBoard(), [1])
    assert _sources(chain) == [(source, [1])]
    assert chain.rule_errors == ({(RULE, UNKNOWN_LABEL): 1} if source is Source.STATIC else {})
