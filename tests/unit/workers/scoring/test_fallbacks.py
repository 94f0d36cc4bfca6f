"""The fallback chain by itself: which rows each link is asked for, and what it leaves to the next."""

from __future__ import annotations

from collections.abc import Sequence

from failsoft.schemas.event import decode
from failsoft.schemas.failure import Kind
from failsoft.schemas.prediction import Source
from failsoft.workers.scoring.fallbacks import Fallbacks
from failsoft.workers.scoring.plan import Plan
from tests.kit import NOW_MS, RULE, FakeBoard, events, failing, fine, plan


def _asked(the_plan: Plan, registry: FakeBoard, pending: Sequence[int], bad: Sequence[int] = ()) -> Fallbacks:
    """The chain, asked for ``pending`` of three events; the fallback model fails at ``bad`` of the rows it gets."""
    records = events(3)
    chain = Fallbacks(the_plan, registry, None, NOW_MS, records, decode(records, {}, the_plan.envelope))
    steps = chain.ask(the_plan.chain, list(pending))
    try:
        call = next(steps)
        while True:
            call = steps.send(failing(*bad, kind=Kind.BAD_OUTPUT)(call) if bad else fine(call))
    except StopIteration:
        return chain


def _who(chain: Fallbacks) -> list[tuple[Source, list[int]]]:
    return [(each.source, list(each.rows)) for each in chain.answered]


def test_a_link_leaves_what_it_cannot_answer_to_the_next() -> None:
    """The model's failed row gets the static answer; its sound rows are not asked for twice."""
    chain = _asked(plan(["model:lite", "static"]), FakeBoard(), [0, 2], bad=[1])
    assert _who(chain) == [(Source.FALLBACK_MODEL, [0]), (Source.STATIC, [2])]


def test_a_model_that_is_not_loaded_is_passed_over() -> None:
    """Nothing is called, and the next link answers every row."""
    registry = FakeBoard(versions={})
    assert _who(_asked(plan(["model:lite", "static"]), registry, [0, 1])) == [(Source.STATIC, [0, 1])]
    assert not registry.asked


def test_a_rule_that_raises_is_counted_and_passed_over() -> None:
    """A rule is foreign code: its error is a number by rule and type, and the chain goes on."""

    def broken(values: object) -> float:
        raise KeyError("x")

    chain = _asked(plan([f"rule:{RULE}", "static"], rule=broken), FakeBoard(), [1])
    assert _who(chain) == [(Source.STATIC, [1])] and chain.rule_errors == {(RULE, "KeyError"): 1}
