"""Events whose schema is not known while the registry does not answer: they wait unanswered on the ladder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest

from failsoft.schemas.attempt import Attempt
from failsoft.schemas.event import Events
from failsoft.schemas.failure import Failure, Kind
from failsoft.topics.ladder import MOST_ON_THE_SAME
from failsoft.workers.scoring.plan import Plan, Scored
from failsoft.workers.scoring.verdicts import BatchOutcome, conclude
from tests.kit import INPUT, NOW_MS, REPLAY, Rec, attempt, events, plan, retried, waiting

UNKNOWN = Failure(Kind.DEPENDENCY, "schema id 7 is not known, and the registry does not answer")
SECOND = "loans.retry.1m"


def conclusion(
    records: list[Rec], attempts: Mapping[int, Attempt], registry_open: bool, the_plan: Plan | None = None
) -> Scored:
    """The verdict of a batch of which no record can be read."""
    n = len(records)
    failures = dict.fromkeys(range(n), UNKNOWN)
    return conclude(
        BatchOutcome(
            records=records,
            plan=the_plan or plan(),
            events=Events([f"e{i}" for i in range(n)], ["2018-10-30T18:00:00Z"] * n, [{}] * n, failures),
            attempts=attempts,
            failures=failures,
            held=set(),
            answered=[],
            rule_errors=Counter(),
            version=2,
            now_ms=NOW_MS,
            u=np.full(n, 0.5),
            unread=set(failures),
            registry_open=registry_open,
        )
    )


def again(topic: str, number: int, registry_open: bool, **changes: object) -> Scored:
    """The verdict of one retry that still cannot be read. ``number`` is its attempt, this one included."""
    before = attempt(number=number, failure=UNKNOWN, next_revision=0, version=None, **changes)
    return conclusion([waiting(topic)], {0: before}, registry_open)


def stays(done: Scored) -> list[tuple[str, bytes | None, bytes | None]]:
    """Rung, attempt and next revision of each retry."""
    found = [(rung, dict(headers)) for rung, _, headers in retried(done)]
    return [(rung, h["failsoft-attempt"], h["failsoft-next-revision"]) for rung, h in found]


@pytest.mark.parametrize("registry_open", [False, True])
def test_a_new_event_waits_unanswered_on_the_first_rung(registry_open: bool) -> None:
    """No answer is owed a correction yet: the first one is revision 0. No version was called."""
    done = conclusion(events(2), {}, registry_open)
    assert stays(done) == [("5s", b"0", b"0")] * 2
    assert done.verdicts.answered == [] and done.verdicts.dead == []
    assert done.outcomes == {(INPUT, "waiting"): 2} and done.waiting == {0, 1}
    assert "failsoft-model-version" not in dict(retried(done)[0][2])
    assert dict(retried(done)[0][2])["failsoft-error-kind"] == b"dependency"


def test_without_a_ladder_a_new_event_is_dead_and_unanswered() -> None:
    """Its dead letter can be replayed: the first answer is revision 0 then."""
    done = conclusion(events(1), {}, True, plan(rungs={}))
    (dead,) = done.verdicts.dead
    assert dead.attempt.next_revision == 0 and done.dead == {Kind.DEPENDENCY: 1} and not done.verdicts.answered


@pytest.mark.parametrize(
    ("topic", "number", "rung"), [("loans.retry.5s", 1, "5s"), (SECOND, 2, "1m"), (SECOND, 1, "1m"), (REPLAY, 0, "5s")]
)
def test_while_the_breaker_is_open_no_attempt_is_used(topic: str, number: int, rung: str) -> None:
    """It goes to the end of its rung with the attempt that it came with; a replay goes to the first rung."""
    done = again(topic, number, registry_open=True)
    assert stays(done) == [(rung, b"%d" % max(0, number - 1), b"0")]
    assert not done.verdicts.dead and done.outcomes == {(topic, "unchanged"): 1} and done.waiting == {0}


@pytest.mark.parametrize(
    ("topic", "number", "rung"), [("loans.retry.5s", 1, "1m"), (SECOND, 1, "1m"), (REPLAY, 0, "5s")]
)
def test_a_look_up_that_failed_uses_an_attempt(topic: str, number: int, rung: str) -> None:
    """The registry was asked: the retry climbs, as with any other failure."""
    assert stays(again(topic, number, registry_open=False)) == [(rung, b"%d" % number, b"0")]


def test_at_the_end_of_the_ladder_there_is_a_dead_letter_and_no_answer() -> None:
    """Nothing of the event can be read, not even its id."""
    done = again(SECOND, 2, registry_open=False)
    (dead,) = done.verdicts.dead
    assert (dead.attempt.number, dead.attempt.next_revision, dead.attempt.failure) == (2, 0, UNKNOWN)
    assert not done.verdicts.retries and not done.verdicts.answered and not done.waiting


def test_many_that_wait_go_to_the_next_rung_without_an_attempt() -> None:
    """Rewriting the same rung again and again is bounded."""
    n = MOST_ON_THE_SAME + 1
    before = attempt(number=1, failure=UNKNOWN, next_revision=0)
    done = conclusion([waiting(offset=i) for i in range(n)], dict.fromkeys(range(n), before), registry_open=True)
    assert set(stays(done)) == {("1m", b"0", b"0")} and len(retried(done)) == n


def test_a_provisional_answer_is_not_superseded_by_one_under_another_id() -> None:
    """An event that could be read before, and cannot be now, keeps its next revision for a replay."""
    before = attempt(number=2, next_revision=1)
    done = conclusion([waiting(SECOND)], {0: before}, registry_open=False)
    (dead,) = done.verdicts.dead
    assert dead.attempt.next_revision == 1 and not done.verdicts.answered
