"""Scoring of records from a rung or from the replay topic: they are corrected, confirmed, retried or dead-lettered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.record import Origin
from tests.kit import (
    INPUT,
    NOW_MS,
    REPLAY,
    FakeBoard,
    answers,
    attempt,
    body,
    broken,
    events,
    plan,
    result,
    retried,
    run,
    waiting,
)


def test_a_retry_that_succeeds_corrects() -> None:
    """The primary's late answer is revision 1 and final, and has the event's own origin and id."""
    done = run([waiting(origin=Origin(INPUT, 0, 77, NOW_MS - 9000))])
    (answer,) = answers(done)
    assert (answer.id, answer.source, answer.revision, answer.final, answer.reason) == ("w", "primary", 1, True, None)
    given = done.verdicts.answered[0].answers
    assert (given.topics, given.offsets) == ([INPUT], [77])
    assert done.outcomes == {("loans.retry.5s", "corrected"): 1}
    assert not done.verdicts.retries and not done.verdicts.dead


def test_an_event_without_an_id_keeps_the_id_of_its_origin() -> None:
    """The id made of topic, partition and offset is that of the first reading, also on retries."""
    done = run([waiting(value=body(None), origin=Origin(INPUT, 0, 77, NOW_MS))])
    assert answers(done)[0].id == f"{INPUT}-0-77"


def test_a_retry_that_fails_goes_to_the_next_rung_without_an_answer() -> None:
    """While a rung is left there is no second provisional answer, and the attempt number grows."""
    record = waiting(number=0)
    done = run([record], models={"m": broken})
    assert answers(done) == []
    ((rung, _, headers),) = retried(done)
    found = dict(headers)
    assert (rung, found["failsoft-attempt"], found["failsoft-next-revision"]) == ("1m", b"1", b"1")
    assert found["failsoft-due-ms"] == b"%d" % (NOW_MS + 60_000) and headers[0] == ("own", b"1")
    assert found["failsoft-first-failed-ms"] == b"%d" % (NOW_MS - 8000)
    assert done.outcomes == {("loans.retry.5s", "unchanged"): 1}


def test_an_exhausted_retry_is_confirmed_and_dead() -> None:
    """After the last rung the fallback's answer is confirmed (revision 1, final), and there is one dead letter."""
    done = run([waiting("loans.retry.1m", number=1)], models={"m": broken})
    (answer,) = answers(done)
    assert (answer.source, answer.revision, answer.final, answer.reason) == ("static", 1, True, "model_error")
    (dead,) = done.verdicts.dead
    assert (dead.attempt.number, dead.attempt.next_revision, dead.attempt.version) == (2, 2, 2)
    assert not done.verdicts.retries and done.dead == {Kind.MODEL_ERROR: 1}


@pytest.mark.parametrize("value", [b"{", None, body("w", x="three")], ids=["malformed", "tombstone", "invalid"])
def test_a_retry_that_cannot_be_read_any_more_is_confirmed_and_dead(value: bytes | None) -> None:
    """A provisional answer always gets a final one, even if the event cannot be read any more."""
    done = run([replace(waiting(), value=value)])
    (answer,) = answers(done)
    assert (answer.source, answer.revision, answer.final) == ("static", 1, True)
    assert len(done.verdicts.dead) == 1 and done.verdicts.dead[0].attempt.next_revision == 2


def test_the_confirmed_answer_of_an_unreadable_event_keeps_its_id() -> None:
    """An event without features still has its id, so the confirmation supersedes its provisional answer."""
    done = run([replace(waiting(), value=b'{"id": "w"}')])
    assert [(s.id, s.revision) for s in answers(done)] == [("w", 1)]


def test_a_retry_of_low_confidence_is_confirmed_by_the_fallback() -> None:
    """The fallback's answer is final, and there is no dead letter."""
    done = run([waiting()], plan(min_confidence=0.8), models={"m": lambda call: result([0.6])})
    assert [(s.source, s.reason, s.revision, s.final) for s in answers(done)] == [("static", "low_confidence", 1, True)]
    assert not done.verdicts.retries and not done.verdicts.dead


def test_a_replay_that_succeeds_corrects_a_final_answer() -> None:
    """A replayed dead letter whose retries were exhausted gets revision 2, final."""
    done = run([waiting(REPLAY, number=0, next_revision=2)])
    assert [(s.source, s.revision, s.final) for s in answers(done)] == [("primary", 2, True)]
    assert done.replayed == {"corrected": 1}


def test_a_replay_that_fails_after_a_final_answer_adds_no_answer() -> None:
    """It goes up the ladder again and is dead-lettered again."""
    first = run([waiting(REPLAY, number=0, next_revision=2)], models={"m": broken})
    assert answers(first) == [] and [rung for rung, _, _ in retried(first)] == ["5s"]
    assert dict(retried(first)[0][2])["failsoft-next-revision"] == b"2" and first.replayed == {"retried": 1}
    last = run([waiting("loans.retry.1m", number=1, next_revision=2)], models={"m": broken})
    assert answers(last) == [] and [d.attempt.next_revision for d in last.verdicts.dead] == [2]


def test_a_replay_of_an_unanswered_event_gets_its_first_answer() -> None:
    """An event that was malformed and is valid now gets revision 0. If it fails now, that answer is provisional."""
    good = run([waiting(REPLAY, next_revision=0, failure=Failure(Kind.INVALID, "x"))])
    assert [(s.source, s.revision, s.final) for s in answers(good)] == [("primary", 0, True)]
    assert good.replayed == {"answered": 1}
    failed = run([waiting(REPLAY, next_revision=0, failure=Failure(Kind.INVALID, "x"))], models={"m": broken})
    assert [(s.source, s.revision, s.final) for s in answers(failed)] == [("static", 0, False)]
    ((_, _, headers),) = retried(failed)
    assert dict(headers)["failsoft-next-revision"] == b"1" and failed.replayed == {"retried": 1}


def test_a_replay_that_is_still_bad_is_dead_again_and_unanswered() -> None:
    """A malformed event stays without an answer however often it is replayed."""
    done = run([replace(waiting(REPLAY, next_revision=0), value=b"{")])
    assert answers(done) == [] and [d.attempt.next_revision for d in done.verdicts.dead] == [0]
    assert done.replayed == {"dead": 1}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"failsoft-attempt": b"minus one"}, "failsoft-attempt: not a decimal number"),
        ({"failsoft-attempt": None}, "failsoft-attempt: missing"),
        ({"failsoft-due-ms": b"soon"}, "failsoft-due-ms: not a decimal number"),
        ({"failsoft-due-ms": b"%d" % (NOW_MS + 10**9)}, "too far after"),
        ({"failsoft-origin-partition": b"3"}, "failsoft-origin-partition: 3, on partition 0"),
        ({"failsoft-error-kind": b"mood"}, "'mood' is not a failure kind"),
    ],
)
def test_a_bad_header_is_dead_at_once(changes: Mapping[str, bytes | None], why: str) -> None:
    """An invalid control header causes a dead letter that names it, without an answer and without an attempt."""
    record = waiting()
    registry = FakeBoard()
    headers = [(k, changes.get(k, v)) for k, v in record.headers]
    done = run([replace(record, headers=headers)], registry=registry)
    (dead,) = done.verdicts.dead
    assert dead.attempt.failure.kind is Kind.BAD_HEADER and why in dead.attempt.failure.message
    assert answers(done) == [] and retried(done) == [] and registry.asked == []


def test_a_rung_without_a_due_time_is_a_bad_header() -> None:
    """A record of a rung must have a due time; a record of the replay topic has none."""
    record = waiting()
    done = run([replace(record, headers=[h for h in record.headers if h[0] != "failsoft-due-ms"])])
    assert [d.attempt.failure.message for d in done.verdicts.dead] == ["failsoft-due-ms: missing"]


def test_control_headers_on_an_input_topic_are_ignored() -> None:
    """Control headers that a producer wrote change nothing, and are removed from the event's retry."""
    forged = replace(events(1)[0], headers=[("mine", b"\xff"), *attempt(number=1, next_revision=2).headers()])
    done = run([forged], models={"m": broken})
    assert [(s.revision, s.final) for s in answers(done)] == [(0, False)]
    ((rung, _, headers),) = retried(done)
    assert rung == "5s" and headers[0] == ("mine", b"\xff")
    keys = [k for k, _ in headers]
    assert len(keys) == len(set(keys)) and dict(headers)["failsoft-attempt"] == b"0"
