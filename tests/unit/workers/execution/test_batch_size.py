"""The limit of a lane's batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from failsoft.models.runtime.run_times import RunTimes
from failsoft.workers.execution.batch_size import (
    FEWEST,
    FIRST_BATCH,
    FIRST_LIMIT,
    LARGEST,
    LONGEST_BATCH,
    LONGEST_FALLBACK,
    BatchSize,
)
from failsoft.workers.scoring.plan import Plan
from tests.kit import FakeBoard, plan, trio

SLOW = RunTimes(0.001, 0.02)
FAST = RunTimes(0.0001, 0.000001)


def with_max_batch(the_plan: Plan, model: str, most: int) -> Plan:
    card = the_plan.cards[model]
    section = card.model.model_copy(update={"max_batch": most})
    return replace(the_plan, cards={**the_plan.cards, model: card.model_copy(update={"model": section})})


def board(**times: RunTimes) -> FakeBoard:
    return FakeBoard(versions={"m": 2, "lite": 1, "a": 1, "b": 1, "c": 1}, times=times)


def test_a_backlog_doubles_the_batch_up_to_the_largest() -> None:
    """A full batch that was quick doubles the limit, up to LARGEST."""
    size = BatchSize()
    seen = []
    for _ in range(5):
        size.adapt(size.limit, 0.05)
        seen.append(size.limit)
    assert seen == [2 * FIRST_LIMIT, 4 * FIRST_LIMIT, LARGEST, LARGEST, LARGEST]


def test_light_traffic_changes_nothing() -> None:
    """A batch that was not full does not change the limit: it does not show how long a full batch takes."""
    size = BatchSize()
    size.adapt(FIRST_LIMIT - 1, 0.05)
    assert size.limit == FIRST_LIMIT


def test_a_batch_that_took_long_lowers_the_limit_to_its_pace() -> None:
    """A slow model, or many rows that raise: lanes with such batches would leave the others no records to score."""
    size = BatchSize()
    size.adapt(400, 1.1 * LONGEST_BATCH)
    assert size.limit == 200
    size.adapt(200, 10 * LONGEST_BATCH)
    assert size.limit == 20
    for _ in range(10):
        size.adapt(2, 2 * LONGEST_BATCH)
    assert size.limit == 1


def test_a_fast_model_begins_with_the_first_limit() -> None:
    """Its times leave room for more, and a first batch shows whether real rows are as quick."""
    assert BatchSize().next(plan(), board(m=FAST)) == FIRST_LIMIT
    assert BatchSize().next(plan(), board()) == FIRST_LIMIT, "nothing is known of it"


def test_a_slow_model_begins_with_what_it_scores_in_time() -> None:
    """Its first batch would otherwise be seconds late."""
    limit = BatchSize().next(plan(), board(m=SLOW))
    assert FIRST_BATCH / 2 < SLOW.seconds(limit) <= FIRST_BATCH


def test_a_model_of_few_rows_a_run_pays_the_cost_of_a_run_more_often() -> None:
    """With ``max_batch`` a batch takes several runs."""
    slow_to_start = RunTimes(0.02, 0.0001)
    plain = BatchSize().next(plan(), board(m=slow_to_start))
    one_by_one = BatchSize().next(with_max_batch(plan(), "m", 1), board(m=slow_to_start))
    assert plain == FIRST_LIMIT and one_by_one == 11


def test_the_members_of_an_ensemble_add_up() -> None:
    """They are asked one after the other."""
    limit = BatchSize().next(trio(), board(a=SLOW, b=SLOW, c=FAST))
    assert FIRST_BATCH / 2 < 2 * SLOW.seconds(limit) < 1.1 * FIRST_BATCH


def test_a_slower_version_begins_anew_and_a_faster_one_grows() -> None:
    """The limit of the version before says nothing of the next one."""
    size, registry = BatchSize(), board(m=FAST)
    for _ in range(4):
        size.adapt(size.next(plan(), registry), 0.05)
    assert size.next(plan(), registry) == LARGEST
    slower: Any = replace(registry, versions={"m": 3}, times={"m": SLOW})
    limit = size.next(plan(), slower)
    assert SLOW.seconds(limit) <= FIRST_BATCH
    assert size.next(plan(), replace(registry, versions={"m": 4})) == limit
    size.adapt(limit, 0.001)
    assert size.limit == 2 * limit


def test_a_slow_fallback_bounds_the_batch() -> None:
    """When the primary fails, the whole batch is the fallback's. But it does not hold up a primary that works."""
    chain = plan(["model:lite", "static"])
    size = BatchSize()
    for _ in range(6):
        size.adapt(size.next(chain, board(m=FAST, lite=RunTimes(0.0, 0.01))), 0.05)
    assert size.limit == LONGEST_FALLBACK / 0.01
    assert BatchSize().next(chain, board(m=FAST, lite=RunTimes(0.0, 1.0))) == FEWEST
