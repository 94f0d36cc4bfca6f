"""Validity without a loaded version: an event that breaks a contract is dead-lettered at once, as with a version."""

from __future__ import annotations

from failsoft.schemas.failure import Kind
from failsoft.workers.scoring.plan import Scored
from tests.kit import FakeBoard, Rec, answers, body, events, member, retried, run, trio, waiting


def unloaded() -> FakeBoard:
    return FakeBoard(versions={})


def given(scored: Scored) -> list[tuple[str, str, str | None, int, bool]]:
    """For each answer: the event, the source, the reason, the revision, and whether it is final."""
    return [(s.id, s.source, s.reason, s.revision, s.final) for s in answers(scored)]


def test_an_invalid_retry_is_dead_at_once_without_a_version_too() -> None:
    """It gets the same verdict as with a version and does not wait for one. A valid retry after it waits."""
    records = [waiting(value=body("w", x="text")), waiting(offset=1)]
    done = run(records, registry=unloaded())
    loaded = run(records[:1])
    assert done.held == {1} and not done.verdicts.retries
    assert [d.attempt.failure for d in done.verdicts.dead] == [d.attempt.failure for d in loaded.verdicts.dead]
    assert [d.attempt.failure.kind for d in done.verdicts.dead] == [Kind.INVALID]
    assert answers(done) == answers(loaded)


def test_an_invalid_retry_after_a_waiting_one_waits() -> None:
    """A rung is read in order: without a version nothing is written of the records after a valid retry."""
    done = run([waiting(), waiting(offset=1, value=body("w", x="text"))], registry=unloaded())
    assert done.held == {0, 1} and not done.verdicts.dead and not done.failures


# --- ensembles ---


def test_an_event_that_is_invalid_for_every_member_is_dead_without_versions() -> None:
    """It is dead-lettered without an answer. A valid event of the same batch gets a provisional answer and a retry."""
    done = run([Rec(value=body("wrong", x="text")), *events(1, start=1)], trio(), unloaded())
    (dead,) = done.verdicts.dead
    assert dead.record.offset == 0 and dead.attempt.failure.kind is Kind.INVALID
    assert "feature 'x'" in dead.attempt.failure.message
    assert given(done) == [("e1", "static", "unavailable", 0, False)]
    assert [record.offset for _, record, _ in retried(done)] == [1]


def test_an_event_that_leaves_no_quorum_is_dead_without_versions() -> None:
    """Two of three members can never answer it, and the quorum is two."""
    cards = {"b": member("b", "x", "z"), "c": member("c", "z")}
    done = run([Rec(value=body("e0"))], trio(cards=cards), unloaded())
    assert [d.attempt.failure.kind for d in done.verdicts.dead] == [Kind.INVALID] and not done.verdicts.answered
    assert "feature 'z'" in done.verdicts.dead[0].attempt.failure.message


def test_an_event_that_leaves_a_quorum_waits_for_versions() -> None:
    """One member can never answer it, but the other two may: it gets a provisional answer, and its retry is held."""
    the_plan = trio(cards={"a": member("a", "z")})
    done = run([Rec(value=body("e0"))], the_plan, unloaded())
    assert given(done) == [("e0", "static", "unavailable", 0, False)]
    assert len(retried(done)) == 1 and not done.verdicts.dead
    assert run([waiting()], the_plan, unloaded()).held == {0}


def test_a_feature_that_a_member_imputes_may_be_missing_without_versions() -> None:
    """The event is valid for that member, so its failure is `unavailable` and it is not dead-lettered."""
    cards = {n: member(n, "x", "y") for n in "abc"}
    done = run([Rec(value=body("e0", y=None))], trio(cards=cards), unloaded())
    assert given(done) == [("e0", "static", "unavailable", 0, False)] and not done.verdicts.dead


def test_an_invalid_retry_of_an_ensemble_is_dead_without_versions() -> None:
    """It does not wait for a version: its provisional answer is confirmed, as with a loaded one."""
    records = [waiting(value=body("w", x="text"))]
    done, loaded = run(records, trio(), unloaded()), run(records, trio(), FakeBoard(versions={"a": 1, "b": 2, "c": 3}))
    assert not done.held and [d.attempt.failure.kind for d in done.verdicts.dead] == [Kind.INVALID]
    assert given(done) == given(loaded)
