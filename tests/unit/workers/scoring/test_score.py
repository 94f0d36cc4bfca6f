"""Scoring a batch: which rows are put to which model, and which are answered, held or failed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.fleet.counts import Counts
from failsoft.schemas.record import Origin
from failsoft.workers.scoring.plan import Call, CallResult
from tests.kit import (
    INPUT,
    NOW_MS,
    REPLAY,
    FakeBoard,
    Rec,
    answers,
    body,
    broken,
    by_topic,
    events,
    failing,
    fine,
    plan,
    result,
    retried,
    run,
    waiting,
)

# --- healthy ---


def test_a_healthy_batch_is_one_call_and_one_group_of_answers() -> None:
    """Valid events take one call, and get final answers of revision 0 by the primary."""
    registry = FakeBoard()
    done = run(events(3), registry=registry)
    (given,) = done.verdicts.answered
    assert [(s.id, s.source, s.reason, s.revision, s.final) for s in answers(done)] == [
        (f"e{i}", "primary", None, 0, True) for i in range(3)
    ]
    assert (given.answers.model, given.answers.version, given.answers.partition) == ("m", 2, 0)
    assert given.answers.offsets == [0, 1, 2] and given.answers.scored_at == "2027-01-15T08:00:00.000Z"
    assert not done.verdicts.retries and not done.verdicts.dead and not done.held
    assert done.outcomes == {(INPUT, "answered"): 3} and done.answers == {("primary", "none"): 3}
    assert registry.asked == [("m@2", 3)] and registry.reports == [("m@2", 7, Counts(3, 0, 0, 1))]


def test_imputed_features_are_named_in_the_answer() -> None:
    """A missing feature that the card imputes is imputed, and named for its row only."""
    seen: list[list[float]] = []

    def look(call: Call) -> CallResult:
        seen.append(call.columns.values["y"].tolist())
        return fine(call)

    done = run([*events(1), Rec(offset=1, value=body("e1", y=None))], models={"m": look})
    assert seen == [[1.0, 0.5]]
    assert done.verdicts.answered[0].answers.imputed == {1: ("y",)} and done.imputed == {"y": 1}


def test_imputed_features_stay_with_their_row_when_others_are_left_out() -> None:
    """A malformed row before it is not in the call, and does not shift the names to another row."""
    done = run([Rec(value=b"{"), *events(1, 1), Rec(offset=2, value=body("e2", y=None))])
    (given,) = done.verdicts.answered
    assert given.answers.ids == ["e1", "e2"] and given.answers.imputed == {1: ("y",)}


def test_a_call_over_slow_call_counts_as_one_slow_run() -> None:
    """The call is one run for all of its rows, so it counts as one slow run and not as one for each row."""
    registry = FakeBoard()
    run(events(2), registry=registry, models={"m": lambda call: result([0.9] * 2, seconds=0.2)})
    assert registry.reports == [("m@2", 7, Counts(2, 0, 1, 1))]


# --- bad input ---


@pytest.mark.parametrize(
    ("value", "kind"),
    [(b"{", Kind.MALFORMED), (None, Kind.MALFORMED), (body("e9", x=None), Kind.INVALID)],
    ids=["not JSON", "tombstone", "a required feature is null"],
)
def test_bad_input_is_dead_at_once_and_unanswered(value: bytes | None, kind: Kind) -> None:
    """Malformed and invalid events go to the dead letters once, without an answer and without a call."""
    registry = FakeBoard()
    bad = Rec(offset=5, value=value)
    done = run([*events(1), bad, *events(1, 6)], registry=registry)
    (dead,) = done.verdicts.dead
    assert dead.record is bad and dead.attempt.failure.kind is kind
    assert (dead.attempt.number, dead.attempt.next_revision) == (0, 0)
    assert dead.attempt.origin == Origin(INPUT, 0, 5, NOW_MS - 1000)
    assert [s.id for s in answers(done)] == ["e0", "e6"] and not done.verdicts.retries
    assert done.outcomes == {(INPUT, "answered"): 2, (INPUT, "dead"): 1} and done.dead == {kind: 1}
    assert registry.reports == [("m@2", 7, Counts(2, 0, 0, 1))], "bad input is not the model's failure"


def test_a_batch_of_bad_input_makes_no_call() -> None:
    """If no row is left to score, neither a breaker nor a model is asked."""
    registry = FakeBoard()
    done = run([Rec(value=b"{"), Rec(offset=1, value=body(x=None))], registry=registry)
    assert registry.asked == [] and len(done.verdicts.dead) == 2


# --- the primary fails ---


def test_one_failing_row_does_not_affect_the_others() -> None:
    """The failing row gets a provisional answer by the fallback and a retry; the others get final answers."""
    registry = FakeBoard()
    done = run(events(3), registry=registry, models={"m": failing(1)})
    assert {(s.id, s.source, s.reason, s.revision, s.final) for s in answers(done)} == {
        ("e0", "primary", None, 0, True),
        ("e2", "primary", None, 0, True),
        ("e1", "static", "model_error", 0, False),
    }
    ((rung, record, headers),) = retried(done)
    assert rung == "5s" and record.offset == 1 and dict(headers)["failsoft-attempt"] == b"0"
    assert dict(headers)["failsoft-due-ms"] == b"%d" % (NOW_MS + 5000)
    assert dict(headers)["failsoft-next-revision"] == b"1" and dict(headers)["failsoft-model-version"] == b"2"
    assert registry.reports == [("m@2", 7, Counts(3, 1, 0, 1))]
    assert done.outcomes == {(INPUT, "answered"): 2, (INPUT, "provisional"): 1} and done.retried == {"5s": 1}


@pytest.mark.parametrize("kind", [Kind.MODEL_ERROR, Kind.TIMEOUT, Kind.BAD_OUTPUT, Kind.CRASHED])
def test_the_models_failures_are_retried_and_counted(kind: Kind) -> None:
    """Each kind of failure of the model puts the event on the ladder and counts against the breaker."""
    registry = FakeBoard()
    done = run(events(1), registry=registry, models={"m": failing(0, kind=kind)})
    assert answers(done)[0].reason == kind and len(retried(done)) == 1
    assert registry.reports == [("m@2", 7, Counts(1, 1, 0, 1))]


def test_an_event_that_only_the_session_finds_invalid_is_dead_and_not_counted() -> None:
    """A value that the model's types cannot hold is an error of the event: a dead letter at once, no answer, no breaker
    count.
    """
    registry = FakeBoard()
    done = run(events(2), registry=registry, models={"m": failing(0, kind=Kind.INVALID)})
    assert [s.id for s in answers(done)] == ["e1"]
    assert [d.attempt.failure.kind for d in done.verdicts.dead] == [Kind.INVALID]
    assert registry.reports == [("m@2", 7, Counts(2, 0, 0, 1))]


def test_the_due_time_has_its_jitter_from_the_draw() -> None:
    """The wait is the delay, minus a tenth at draw 0 and plus a tenth just below draw 1."""
    for u, wait in ((0.0, 4500), (0.5, 5000), (0.999, 5499)):
        ((_, _, headers),) = retried(run(events(1), models={"m": broken}, u=u))
        assert dict(headers)["failsoft-due-ms"] == b"%d" % (NOW_MS + wait)


def test_low_confidence_is_answered_finally_by_the_fallback() -> None:
    """Low confidence is no failure of the model: the fallback's answer is final, and nothing is retried, dead-lettered
    or counted.
    """
    registry = FakeBoard()
    done = run(
        events(2),
        plan(min_confidence=0.8),
        registry,
        models={"m": lambda call: result([0.9, 0.6])},
    )
    assert {(s.id, s.source, s.reason, s.final) for s in answers(done)} == {
        ("e0", "primary", None, True),
        ("e1", "static", "low_confidence", True),
    }
    assert not done.verdicts.retries and not done.verdicts.dead
    assert registry.reports == [("m@2", 7, Counts(2, 0, 0, 1))]


def test_a_failed_row_is_not_low_confidence() -> None:
    """The placeholder of a failed row has no confidence to judge."""
    failed = {1: Failure(Kind.BAD_OUTPUT, "a score of nan")}
    done = run(events(2), plan(min_confidence=0.8), models={"m": lambda call: result([0.9, 0.5], failed)})
    assert [s.reason for s in answers(done)] == [None, "bad_output"] and len(retried(done)) == 1


def test_without_rungs_a_failure_is_final_and_dead() -> None:
    """Without a ladder the fallback's answer is final, and the event is also dead-lettered."""
    done = run(events(1), plan(rungs={}), models={"m": broken})
    (answer,) = answers(done)
    assert (answer.revision, answer.final, answer.source) == (0, True, "static")
    assert [(d.attempt.failure.kind, d.attempt.next_revision) for d in done.verdicts.dead] == [(Kind.MODEL_ERROR, 2)]


# --- the breaker ---


def test_an_open_breaker_makes_no_call_for_live_events() -> None:
    """While the breaker admits nothing, live events get the fallback's answer and a retry, and no call is made."""
    called: list[Call] = []

    def model(call: Call) -> CallResult:
        called.append(call)
        return fine(call)

    done = run(events(2), registry=FakeBoard(admits={"m@2": 0}), models={"m": model})
    assert not called
    assert {(s.source, s.reason, s.final) for s in answers(done)} == {("static", "breaker_open", False)}
    assert [rung for rung, _, _ in retried(done)] == ["5s", "5s"]


def test_the_ladder_waits_while_the_breaker_is_open() -> None:
    """Records of rungs and of the replay topic have no verdict and use no attempt. Later records of their topic wait
    too.
    """
    records = [
        waiting(offset=0),
        replace(waiting(offset=1), headers=[("failsoft-attempt", b"x")]),  # bad, but after a held record
        waiting("loans.retry.1m", offset=4, number=1),
        waiting(REPLAY, offset=9),
        *events(1),
    ]
    done = run(records, registry=FakeBoard(admits={"m@2": 0}))
    assert done.held == {0, 1, 2, 3}
    assert [s.record.topic for s in answers(done)] == [INPUT]
    assert [r.topic for _, r, _ in retried(done)] == [INPUT] and not done.verdicts.dead
    assert set(done.failures) == {4}, "a held row has not failed"
    assert done.outcomes == {(INPUT, "provisional"): 1} and not done.replayed


def test_a_row_before_a_held_row_gets_its_verdict() -> None:
    """A record with a bad header before a held row is dead-lettered now: only the end of a topic is held."""
    bad = replace(waiting(offset=0), headers=[("failsoft-attempt", b"x")])
    done = run([bad, waiting(offset=1)], registry=FakeBoard(admits={"m@2": 0}))
    assert done.held == {1} and [d.record.offset for d in done.verdicts.dead] == [0]


def test_probes_are_taken_from_waiting_retries_first() -> None:
    """The few calls of a half-open breaker go to the first records of the ladder, so that live events need not be
    probes.
    """
    records = [*events(2), waiting(offset=0), waiting(offset=1), waiting("loans.retry.1m", offset=0, number=1)]
    done = run(records, registry=FakeBoard(admits={"m@2": 1}))
    assert [(s.record.topic, s.record.offset) for s in answers(done) if s.source == "primary"] == [
        ("loans.retry.5s", 0)
    ]
    assert by_topic(records[row] for row in done.held) == {"loans.retry.5s": [1], "loans.retry.1m": [0]}
    assert {s.reason for s in answers(done) if s.record.topic == INPUT} == {"breaker_open"}


def test_live_events_are_probes_when_no_retry_waits() -> None:
    """Without retries the first live events are the probes, with their own columns."""
    seen: list[list[float]] = []

    def look(call: Call) -> CallResult:
        seen.append(call.columns.values["x"].tolist())
        return fine(call)

    records = [Rec(offset=i, value=body(f"e{i}", x=i / 10)) for i in range(4)]
    done = run(records, registry=FakeBoard(admits={"m@2": 2}), models={"m": look})
    assert seen == [[0.0, 0.1]]
    assert [s.id for s in answers(done) if s.source == "primary"] == ["e0", "e1"]


def test_an_invalid_event_is_dead_at_once_without_a_version_too() -> None:
    """Whether an event keeps the card's contract does not depend on a loaded version. A feature that is imputed may be
    missing.
    """
    wrong, imputed = Rec(offset=0, value=body("wrong", x="text")), Rec(offset=1, value=body("imputed", y=None))
    done = run([wrong, imputed], registry=FakeBoard(versions={}))
    (dead,) = done.verdicts.dead
    assert dead.record is wrong and dead.attempt.failure.kind is Kind.INVALID
    assert "feature 'x'" in dead.attempt.failure.message
    assert [(s.id, s.reason, s.final) for s in answers(done)] == [("imputed", "unavailable", False)]


def test_no_loaded_version_is_unavailable() -> None:
    """Without a version live events get the fallback's answer and a retry, and the ladder waits."""
    done = run([*events(1), waiting()], registry=FakeBoard(versions={}))
    assert [(s.reason, s.source, s.final) for s in answers(done)] == [("unavailable", "static", False)]
    assert done.held == {1} and done.version is None
    ((_, _, headers),) = retried(done)
    assert "failsoft-model-version" not in dict(headers)
