"""Events whose schema is not known while the registry does not answer: they wait unanswered on the ladder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from failsoft.schemas.attempt import Attempt
from failsoft.schemas.event import Envelope, Events
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.topics.ladder import MOST_ON_THE_SAME
from failsoft.workers.scoring.plan import Plan, Scored
from failsoft.workers.scoring.poison import PoisonRecord
from failsoft.workers.scoring.verdicts import BatchOutcome, conclude
from tests.kit import INPUT, NOW_MS, REPLAY, Rec, answers, attempt, broken, events, plan, retried, run, waiting
from tests.schema_readers import FakeReader, encoded

UNKNOWN = Failure(Kind.DEPENDENCY, "schema id 7 is not known, and the registry does not answer")
SECOND = "loans.retry.1m"
AVRO = plan(envelope=Envelope(id="id", format=WireFormat.AVRO))
READERS = {7: UNKNOWN, 8: FakeReader()}


def conclusion(
    records: list[Rec],
    attempts: Mapping[int, Attempt],
    registry_open: bool,
    the_plan: Plan | None = None,
    failure: Failure = UNKNOWN,
) -> Scored:
    """The verdict of a batch of which no record can be read."""
    n = len(records)
    failures = dict.fromkeys(range(n), failure)
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


def again(topic: str, number: int, registry_open: bool, **changes: Any) -> Scored:
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


@pytest.mark.parametrize(("n", "rung", "number"), [(1, "5s", b"0"), (MOST_ON_THE_SAME + 1, "1m", b"1")])
def test_an_event_whose_schema_was_not_asked_for_uses_no_attempt(n: int, rung: str, number: bytes) -> None:
    """Others were asked for, and the registry answers. With very many such events attempts are used, so that a flood of
    ids that nobody has comes to an end.
    """
    failure = Failure(Kind.DEPENDENCY, "the registry is being asked for 100 other schemas", attempted=False)
    before = dict.fromkeys(range(n), attempt(number=1, failure=failure, next_revision=0))
    done = conclusion([waiting(offset=i) for i in range(n)], before, False, failure=failure)
    assert stays(done) == [(rung, number, b"0")] * n


def test_a_provisional_answer_is_not_superseded_by_one_under_another_id() -> None:
    """An event that could be read before, and cannot be now, keeps its next revision for a replay."""
    before = attempt(number=2, next_revision=1)
    done = conclusion([waiting(SECOND)], {0: before}, registry_open=False)
    (dead,) = done.verdicts.dead
    assert dead.attempt.next_revision == 1 and not done.verdicts.answered


def framed(schema_id: int, id: str = "e") -> bytes:
    """An event of a schema that is known (8) or not (7)."""
    return encoded(schema_id, {"id": id, "features": {"x": 0.25}})


def test_neighbours_of_an_event_that_waits_are_answered() -> None:
    """No model and no fallback gets the event itself."""
    records = [Rec(offset=i, value=framed(7 + i % 2, f"e{i}")) for i in range(4)]
    done = run(records, AVRO, readers=READERS)
    assert [(a.id, a.revision, a.final, a.source) for a in answers(done)] == [
        ("e1", 0, True, "primary"),
        ("e3", 0, True, "primary"),
    ]
    assert len(retried(done)) == 2 and done.waiting == {0, 2}
    assert done.outcomes == {(INPUT, "answered"): 2, (INPUT, "waiting"): 2}


def test_an_event_that_can_be_read_at_last_gets_its_first_answer() -> None:
    """By the primary it is final; by a fallback it is provisional, and the ladder goes on with what is left of it."""
    before: dict[str, Any] = {"failure": UNKNOWN, "next_revision": 0, "version": None}
    record = waiting(number=0, value=framed(8, "late"), **before)
    done = run([record], AVRO, readers=READERS, registry_open=True)
    assert [(a.id, a.revision, a.final, a.reason) for a in answers(done)] == [("late", 0, True, None)]
    assert done.outcomes == {("loans.retry.5s", "answered"): 1} and not done.waiting
    done = run([record], AVRO, models={"m": broken}, readers=READERS)
    assert [(a.id, a.revision, a.final, a.reason) for a in answers(done)] == [("late", 0, False, "model_error")]
    assert stays(done) == [("1m", b"1", b"1")]
    done = run([waiting(SECOND, number=1, value=framed(8), **before)], AVRO, models={"m": broken}, readers=READERS)
    assert [(a.revision, a.final) for a in answers(done)] == [(0, True)] and len(done.verdicts.dead) == 1


def test_a_retry_that_waits_holds_no_other_one() -> None:
    """The records after it on its rung are attempted."""
    before: dict[str, Any] = {"failure": UNKNOWN, "next_revision": 0}
    records = [
        waiting(offset=0, value=framed(7), **before),
        waiting(offset=1, value=framed(8, "next"), **before),
    ]
    done = run(records, AVRO, readers=READERS, registry_open=True)
    assert not done.held and done.waiting == {0} and [a.id for a in answers(done)] == ["next"]


def test_a_suspected_record_that_cannot_be_read_waits_too() -> None:
    """No model ran it, so it is not poison yet."""
    done = run([Rec(value=framed(7))], AVRO, poison=PoisonRecord(4), readers=READERS)
    assert done.waiting == {0} and not done.verdicts.dead and not answers(done)
