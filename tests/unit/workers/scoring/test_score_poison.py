"""Scoring of suspected and poison records: run in calls of their own, counted, and in the end dead-lettered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.fleet.counts import Counts
from failsoft.workers.scoring.plan import Call, CallResult
from failsoft.workers.scoring.poison import MAX_ALONE, PoisonRecord
from tests.kit import (
    NOW_MS,
    REPLAY,
    RULE,
    Answer,
    FakeBoard,
    Rec,
    answers,
    by_topic,
    events,
    failing,
    fine,
    plan,
    result,
    retried,
    run,
    trio,
    waiting,
)

RULE_LINK = f"rule:{RULE}"


def _noting(model: Answer, sizes: list[int]) -> Answer:
    """``model``, with the size of each of its calls appended to ``sizes``."""

    def noted(call: Call) -> CallResult:
        sizes.append(len(call))
        return model(call)

    return noted


def _crashing(call: Call) -> CallResult:
    """A model whose process crashes at every row."""
    return result([0.0] * len(call), {i: Failure(Kind.CRASHED, "signal 11") for i in range(len(call))})


def test_a_first_crash_is_counted_in_the_retry() -> None:
    """The row gets a provisional answer, and its retry has ``failsoft-crashes`` 1 and the event's own headers."""
    done = run([replace(r, headers=[("own", b"1")]) for r in events(2)], models={"m": failing(1, kind=Kind.CRASHED)})
    assert [(s.id, s.source, s.final) for s in answers(done)] == [("e0", "primary", True), ("e1", "static", False)]
    ((rung, _, headers),) = retried(done)
    assert rung == "5s" and dict(headers)["failsoft-crashes"] == b"1" and headers[0] == ("own", b"1")


def test_a_second_crash_is_poison_at_once() -> None:
    """There is no further attempt although rungs are left: the answer is confirmed as final, and there is one dead
    letter.
    """
    done = run([waiting(crashes=1)], models={"m": _crashing})
    assert [(s.source, s.reason, s.revision, s.final) for s in answers(done)] == [("static", "poison", 1, True)]
    (dead,) = done.verdicts.dead
    assert (dead.attempt.failure.kind, dead.attempt.crashes, dead.attempt.next_revision) == (Kind.POISON, 2, 2)
    assert "died 2 times" in dead.attempt.failure.message and retried(done) == []


def test_another_failure_between_keeps_the_count() -> None:
    """A suspected record that fails without a crash goes to the next rung with its crash count."""
    done = run([waiting(crashes=1)], models={"m": failing(0, kind=Kind.TIMEOUT)})
    assert [dict(headers)["failsoft-crashes"] for _, _, headers in retried(done)] == [b"1"]


def test_without_a_ladder_a_crash_is_exhausted_at_once() -> None:
    """The record does not run a second time, and its dead letter has one crash."""
    done = run(events(1), plan(rungs={}), models={"m": _crashing})
    assert [(d.attempt.failure.kind, d.attempt.crashes) for d in done.verdicts.dead] == [(Kind.CRASHED, 1)]


def test_suspected_records_run_in_their_own_calls_and_are_answered() -> None:
    """The others run in one call. The breaker gets one report of all calls."""
    registry, sizes = FakeBoard(), list[int]()
    records = [*events(3), waiting(offset=0), waiting(offset=1, crashes=1), waiting(offset=2, crashes=1)]
    done = run(records, registry=registry, models={"m": _noting(fine, sizes)})
    assert sizes == [4, 1, 1] and registry.asked == [("m@2", 6)]
    assert [counts for _, _, counts in registry.reports] == [Counts(6, 0, 0, 3)]
    assert [s.source for s in answers(done)] == ["primary"] * 6 and not done.verdicts.dead and not done.held


def test_only_the_suspected_record_that_crashes_again_is_poison() -> None:
    """The other suspected record of the same batch gets the primary's answer."""
    records = [waiting(offset=0, crashes=1), waiting(offset=1, crashes=1)]
    results = iter([_crashing, fine])
    done = run(records, models={"m": lambda call: next(results)(call)})
    assert [(s.record.offset, s.reason) for s in answers(done)] == [(1, None), (0, "poison")]
    assert [d.record.offset for d in done.verdicts.dead] == [0]


def test_a_batch_runs_few_suspected_records_and_holds_the_rest_of_their_topic() -> None:
    """A held record has no verdict and is read again. Live events do not wait for it."""
    sizes: list[int] = []
    rung = [waiting(offset=i, crashes=1) for i in range(MAX_ALONE)]
    behind = [waiting(offset=MAX_ALONE, crashes=1), waiting(offset=MAX_ALONE + 1)]
    records = [*rung, *behind, *events(2)]
    done = run(records, models={"m": _noting(fine, sizes)})
    assert sizes == [2, *[1] * MAX_ALONE] and done.held == {MAX_ALONE, MAX_ALONE + 1}
    assert by_topic([s.record for s in answers(done)]) == by_topic([*rung, *events(2)])


def test_a_probe_that_crashed_is_not_held() -> None:
    """A held record is not written, nor is its crash count: it would be a probe and crash the process again without
    end.
    """
    registry = FakeBoard(admits={"m@2": 2})
    results = iter([failing(0), _crashing])
    records = [waiting(offset=0), waiting(offset=1, crashes=1)]
    done = run(records, registry=registry, models={"m": lambda call: next(results)(call)})
    assert done.held == set() and [d.record.offset for d in done.verdicts.dead] == [1]
    assert [record.offset for _, record, _ in retried(done)] == [0]


def test_a_replay_of_a_poison_letter_starts_without_crashes() -> None:
    """The replay has no crash count, so the next crash is counted as the first."""
    done = run([waiting(REPLAY, next_revision=2, failure=Failure(Kind.POISON, "p"))], models={"m": _crashing})
    assert [dict(headers)["failsoft-crashes"] for _, _, headers in retried(done)] == [b"1"] and not done.verdicts.dead


# --- a record that was alone in flight when its worker crashed ---


def test_a_poison_record_runs_on_no_model() -> None:
    """A fallback model may be the cause of the crashes, so only other links may answer. The record is dead-lettered at
    once, and the answer is final.
    """
    done = run([events(1)[0]], plan(("model:lite", RULE_LINK, "static"), rule=lambda v: 0.3), poison=PoisonRecord(3))
    assert [(s.source, s.reason, s.revision, s.final) for s in answers(done)] == [("rule", "poison", 0, True)]
    (dead,) = done.verdicts.dead
    assert (dead.attempt.failure.kind, dead.attempt.crashes, dead.attempt.number) == (Kind.POISON, 3, 0)
    assert not retried(done)


def test_no_breaker_is_asked_for_a_poison_record() -> None:
    """The record says nothing about a model's health."""
    registry = FakeBoard()
    done = run(events(1), plan(("model:lite", "static")), registry, poison=PoisonRecord(3))
    assert [s.source for s in answers(done)] == ["static"] and registry.asked == [] and registry.reports == []


def test_after_a_crash_while_it_was_dead_lettered_no_rule_is_asked() -> None:
    """A rule is the user's code and may be the cause too."""
    done = run(events(1), plan((RULE_LINK, "static"), rule=lambda values: 0.3), poison=PoisonRecord(5))
    assert [s.source for s in answers(done)] == ["static"]


def test_the_answer_of_a_poison_record_from_a_rung_is_confirmed() -> None:
    """Its provisional answer becomes final."""
    done = run([waiting()], poison=PoisonRecord(3))
    assert [(s.source, s.reason, s.revision, s.final) for s in answers(done)] == [("static", "poison", 1, True)]
    assert [(d.attempt.crashes, d.attempt.next_revision) for d in done.verdicts.dead] == [(3, 2)]


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (replace(events(1)[0], value=b"{"), Kind.MALFORMED),
        (replace(waiting(), headers=[("failsoft-attempt", b"x")], timestamp=NOW_MS), Kind.BAD_HEADER),
    ],
)
def test_a_poison_record_that_cannot_be_read_keeps_its_own_failure(record: Rec, kind: Kind) -> None:
    """It never ran on a model, and a malformed event is never answered."""
    done = run([record], poison=PoisonRecord(3))
    assert answers(done) == [] and [d.attempt.failure.kind for d in done.verdicts.dead] == [kind]


# --- an ensemble ---


def test_suspected_records_of_an_ensemble_run_in_their_own_calls() -> None:
    """Each runs in a call of its own to every member. One that crashes too many members again is poison, and no other
    is.
    """
    sizes: list[int] = []
    crashing = {"on": False}

    def crashes_alone(call: Call) -> CallResult:
        sizes.append(len(call))
        crashing["on"] = len(call) == 1
        return _crashing(call) if crashing["on"] else fine(call)

    def crashes_too(call: Call) -> CallResult:
        return _crashing(call) if crashing["on"] else fine(call)

    records = [waiting(offset=0), waiting(offset=1), waiting(offset=2, crashes=1)]
    registry = FakeBoard(versions={"a": 1, "b": 2, "c": 3})
    done = run(records, trio(), registry, {"a": crashes_alone, "b": crashes_too})
    assert sizes == [2, 1]
    assert [(s.record.offset, s.source, s.reason) for s in answers(done)] == [
        (0, "ensemble", None),
        (1, "ensemble", None),
        (2, "static", "poison"),
    ]
    assert [(d.attempt.failure.kind, d.attempt.crashes) for d in done.verdicts.dead] == [(Kind.POISON, 2)]


def test_a_members_probe_that_crashed_does_not_wait() -> None:
    """Its crash count is written, as with a single model."""
    registry = FakeBoard(versions={"a": 1, "b": 2, "c": 3}, admits={"a@1": 1, "b@2": 1})
    done = run([waiting()], trio(), registry, {"a": _crashing, "b": _crashing})
    assert [dict(headers)["failsoft-crashes"] for _, _, headers in retried(done)] == [b"1"] and done.held == set()
