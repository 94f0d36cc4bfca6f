"""Scoring of records that killed, or may have: tried alone, counted, and in the end tried no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failsoft.models.breaker.window import Counts
from failsoft.schemas.failure import Failure, Kind
from failsoft.workers.scoring.plan import Call, CallResult
from failsoft.workers.scoring.poison import FEW, PoisonRecord
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
    """``model``, and the size of each of its calls."""

    def noted(call: Call) -> CallResult:
        sizes.append(len(call))
        return model(call)

    return noted


def _crashing(call: Call) -> CallResult:
    """A process that dies of every row."""
    return result([0.0] * len(call), {i: Failure(Kind.CRASHED, "signal 11") for i in range(len(call))})


def test_a_first_crash_is_counted_in_the_retry() -> None:
    """A provisional answer, and ``failsoft-crashes`` 1 on the rung, beside the event's own headers."""
    done = run([replace(r, headers=[("own", b"1")]) for r in events(2)], models={"m": failing(1, kind=Kind.CRASHED)})
    assert [(s.id, s.source, s.final) for s in answers(done)] == [("e0", "primary", True), ("e1", "static", False)]
    ((rung, _, headers),) = retried(done)
    assert rung == "5s" and dict(headers)["failsoft-crashes"] == b"1" and headers[0] == ("own", b"1")


def test_a_second_crash_is_poison_at_once() -> None:
    """No attempt more, though rungs are left: the answer confirmed as final, and one dead letter."""
    done = run([waiting(crashes=1)], models={"m": _crashing})
    assert [(s.source, s.reason, s.revision, s.final) for s in answers(done)] == [("static", "poison", 1, True)]
    (dead,) = done.verdicts.dead
    assert (dead.attempt.failure.kind, dead.attempt.crashes, dead.attempt.next_revision) == (Kind.POISON, 2, 2)
    assert "died 2 times" in dead.attempt.failure.message and retried(done) == []


def test_another_failure_between_keeps_the_count() -> None:
    """A suspect that only fails climbs on, and is a suspect still."""
    done = run([waiting(crashes=1)], models={"m": failing(0, kind=Kind.TIMEOUT)})
    assert [dict(headers)["failsoft-crashes"] for _, _, headers in retried(done)] == [b"1"]


def test_without_a_ladder_a_crash_is_exhausted_at_once() -> None:
    """There is no second time; the letter says that it crashed once."""
    done = run(events(1), plan(rungs={}), models={"m": _crashing})
    assert [(d.attempt.failure.kind, d.attempt.crashes) for d in done.verdicts.dead] == [(Kind.CRASHED, 1)]


def test_suspects_are_tried_alone_and_exonerated() -> None:
    """Others are one call as ever; each suspect is a call of its own, and the breaker is told once, of all."""
    registry, sizes = FakeBoard(), list[int]()
    records = [*events(3), waiting(offset=0), waiting(offset=1, crashes=1), waiting(offset=2, crashes=1)]
    done = run(records, registry=registry, models={"m": _noting(fine, sizes)})
    assert sizes == [4, 1, 1] and registry.asked == [("m@2", 6)]
    assert [counts for _, _, counts in registry.reports] == [Counts(6, 0, 0, 3)]
    assert [s.source for s in answers(done)] == ["primary"] * 6 and not done.verdicts.dead and not done.held


def test_who_is_guilty_among_suspects_is_told_apart() -> None:
    """The one that crashes again is poison; its fellow, that was in the same batch, gets the primary's answer."""
    records = [waiting(offset=0, crashes=1), waiting(offset=1, crashes=1)]
    results = iter([_crashing, fine])
    done = run(records, models={"m": lambda call: next(results)(call)})
    assert [(s.record.offset, s.reason) for s in answers(done)] == [(1, None), (0, "poison")]
    assert [d.record.offset for d in done.verdicts.dead] == [0]


def test_a_batch_tries_few_suspects_and_holds_the_rest_of_their_topic() -> None:
    """What is held has no verdict, and is read again; live events do not wait for it."""
    sizes: list[int] = []
    rung = [waiting(offset=i, crashes=1) for i in range(FEW)]
    behind = [waiting(offset=FEW, crashes=1), waiting(offset=FEW + 1)]
    records = [*rung, *behind, *events(2)]
    done = run(records, models={"m": _noting(fine, sizes)})
    assert sizes == [2, *[1] * FEW] and done.held == {FEW, FEW + 1}
    assert by_topic([s.record for s in answers(done)]) == by_topic([*rung, *events(2)])


def test_a_probe_that_crashed_is_not_spared() -> None:
    """Held as other failed probes are, its count would be written nowhere, and it would probe, and kill, for ever."""
    registry = FakeBoard(admits={"m@2": 2})
    results = iter([failing(0), _crashing])
    records = [waiting(offset=0), waiting(offset=1, crashes=1)]
    done = run(records, registry=registry, models={"m": lambda call: next(results)(call)})
    assert done.held == set() and [d.record.offset for d in done.verdicts.dead] == [1]
    assert [record.offset for _, record, _ in retried(done)] == [0]


def test_a_replay_of_a_poison_letter_begins_anew() -> None:
    """It came with no count; its first crash is its first."""
    done = run([waiting(REPLAY, next_revision=2, failure=Failure(Kind.POISON, "p"))], models={"m": _crashing})
    assert [dict(headers)["failsoft-crashes"] for _, _, headers in retried(done)] == [b"1"] and not done.verdicts.dead


# --- a record that was alone in flight when its worker died ---


def test_a_convict_is_not_tried_by_any_model() -> None:
    """The killer may be a fallback model: what is asked is what runs no model. It is dead at once, and final."""
    done = run([events(1)[0]], plan(("model:lite", RULE_LINK, "static"), rule=lambda v: 0.3), poison=PoisonRecord(3))
    assert [(s.source, s.reason, s.revision, s.final) for s in answers(done)] == [("rule", "poison", 0, True)]
    (dead,) = done.verdicts.dead
    assert (dead.attempt.failure.kind, dead.attempt.crashes, dead.attempt.number) == (Kind.POISON, 3, 0)
    assert not retried(done)


def test_no_model_is_asked_for_a_convict() -> None:
    """Nor is its breaker: nothing is known of its model from this record."""
    registry = FakeBoard()
    done = run(events(1), plan(("model:lite", "static")), registry, poison=PoisonRecord(3))
    assert [s.source for s in answers(done)] == ["static"] and registry.asked == [] and registry.reports == []


def test_a_worker_that_died_of_the_burial_asks_no_rule() -> None:
    """A rule is foreign code too."""
    done = run(events(1), plan((RULE_LINK, "static"), rule=lambda values: 0.3), poison=PoisonRecord(5))
    assert [s.source for s in answers(done)] == ["static"]


def test_a_convict_from_a_rung_is_confirmed() -> None:
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
def test_a_convict_that_cannot_be_read_stays_what_it_is(record: Rec, kind: Kind) -> None:
    """It was never given to a model, and a malformed event is never answered."""
    done = run([record], poison=PoisonRecord(3))
    assert answers(done) == [] and [d.attempt.failure.kind for d in done.verdicts.dead] == [kind]


# --- an ensemble ---


def test_suspects_of_an_ensemble_are_tried_alone_too() -> None:
    """Each in calls of its own to every member; who crashes too many of them again is poison, and nobody else."""
    sizes: list[int] = []
    guilty = {"on": False}

    def dying(call: Call) -> CallResult:
        sizes.append(len(call))
        guilty["on"] = len(call) == 1
        return _crashing(call) if guilty["on"] else fine(call)

    def dies_with_it(call: Call) -> CallResult:
        return _crashing(call) if guilty["on"] else fine(call)

    records = [waiting(offset=0), waiting(offset=1), waiting(offset=2, crashes=1)]
    registry = FakeBoard(versions={"a": 1, "b": 2, "c": 3})
    done = run(records, trio(), registry, {"a": dying, "b": dies_with_it})
    assert sizes == [2, 1]
    assert [(s.record.offset, s.source, s.reason) for s in answers(done)] == [
        (0, "ensemble", None),
        (1, "ensemble", None),
        (2, "static", "poison"),
    ]
    assert [(d.attempt.failure.kind, d.attempt.crashes) for d in done.verdicts.dead] == [(Kind.POISON, 2)]


def test_a_members_probe_that_crashed_does_not_wait() -> None:
    """Its count is written, as that of a single model's is."""
    registry = FakeBoard(versions={"a": 1, "b": 2, "c": 3}, admits={"a@1": 1, "b@2": 1})
    done = run([waiting()], trio(), registry, {"a": _crashing, "b": _crashing})
    assert [dict(headers)["failsoft-crashes"] for _, _, headers in retried(done)] == [b"1"] and done.held == set()
