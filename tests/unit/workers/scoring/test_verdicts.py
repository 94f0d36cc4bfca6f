"""Verdicts: which answers, retries and dead letters follow from failures and answers, for each failure kind."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from failsoft.schemas.attempt import Attempt
from failsoft.schemas.event import Events
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.prediction import Predictions, Source
from failsoft.schemas.record import Origin
from failsoft.workers.scoring.plan import Plan, Scored
from failsoft.workers.scoring.verdicts import AnsweredRows, BatchOutcome, conclude
from failsoft.workers.telemetry.metric_table import OUTCOMES, REPLAYED
from tests.kit import INPUT, NOW_MS, REPLAY, Rec, answers, attempt, events, plan, retried, waiting

RETRIED = [k for k in Kind if k.retried]
NEVER_FRESH = {Kind.BAD_HEADER}  # only records of the pipeline's own topics have headers that are read


def _outcome(
    records: list[Rec],
    failures: dict[int, Failure],
    answered: list[AnsweredRows] | None = None,
    attempts: dict[int, Attempt] | None = None,
    the_plan: Plan | None = None,
    held: set[int] | None = None,
) -> BatchOutcome:
    n = len(records)
    return BatchOutcome(
        records=records,
        plan=the_plan or plan(),
        events=Events([f"e{i}" for i in range(n)], ["2018-10-30T18:00:00Z"] * n, [{}] * n),
        attempts=attempts or {},
        failures=failures,
        held=held or set(),
        answered=answered or [],
        rule_errors=Counter(),
        version=2,
        now_ms=NOW_MS,
        u=np.full(n, 0.5),
    )


def _by_static(*rows: int) -> AnsweredRows:
    return AnsweredRows(list(rows), Predictions(np.full(len(rows), 0.5)), Source.STATIC, None, None, {})


def _by_primary(*rows: int) -> AnsweredRows:
    return AnsweredRows(list(rows), Predictions(np.full(len(rows), 0.9, np.float32)), Source.PRIMARY, "m", 2, {})


def _one(kind: Kind, the_plan: Plan | None = None, before: Attempt | None = None, answered: bool = True) -> Scored:
    """The verdict on one event that failed with ``kind``: a new event, or one with the attempt ``before``."""
    record = events(1)[0] if before is None else waiting()
    attempts = {} if before is None else {0: before}
    given = [_by_static(0)] if answered else []
    return conclude(_outcome([record], {0: Failure(kind, "why")}, given, attempts, the_plan))


@pytest.mark.parametrize("kind", [k for k in Kind if k not in NEVER_FRESH])
def test_a_fresh_failure_is_retried_dead_or_neither_as_the_contract_says(kind: Kind) -> None:
    """A retried kind gets a provisional answer and the first rung. Any other gets a final answer and, except low
    confidence, a dead letter.
    """
    unanswered = kind in (Kind.MALFORMED, Kind.INVALID)
    done = _one(kind, answered=not unanswered)
    assert len(retried(done)) == (1 if kind.retried else 0)
    assert len(done.verdicts.dead) == (1 if kind.dead_at_once else 0)
    if not unanswered:
        assert [(s.revision, s.final, s.reason) for s in answers(done)] == [(0, not kind.retried, kind)]
    for dead in done.verdicts.dead:
        assert dead.attempt.next_revision == (0 if unanswered else 2)


@pytest.mark.parametrize("kind", RETRIED)
def test_without_a_ladder_a_retried_kind_is_exhausted_at_once(kind: Kind) -> None:
    """There is one final answer and one dead letter with the failure."""
    done = _one(kind, plan(rungs={}))
    assert [(s.revision, s.final) for s in answers(done)] == [(0, True)] and not done.verdicts.retries
    assert [(d.attempt.number, d.attempt.next_revision) for d in done.verdicts.dead] == [(0, 2)]
    assert done.outcomes == {(INPUT, "dead"): 1}


@pytest.mark.parametrize("kind", RETRIED)
@pytest.mark.parametrize(("number", "rung"), [(1, "1m"), (2, None)])
def test_a_retry_that_failed_climbs_or_is_confirmed(kind: Kind, number: int, rung: str | None) -> None:
    """While a rung is left there is no answer. After that the answer is confirmed, and there is a dead letter."""
    done = _one(kind, before=attempt(number=number), answered=rung is None)
    if rung is not None:
        assert [r for r, _, _ in retried(done)] == [rung] and not done.verdicts.dead
    else:
        assert [(s.revision, s.final, s.reason) for s in answers(done)] == [(1, True, kind)]
        assert [d.attempt.number for d in done.verdicts.dead] == [number] and not retried(done)


def test_a_bad_header_dead_letters_the_salvaged_attempt_unchanged() -> None:
    """No answer is added, and the next revision stays that of the header."""
    saved = attempt(failure=Failure(Kind.BAD_HEADER, "which"), next_revision=1, due_ms=None)
    done = conclude(_outcome([waiting()], {0: saved.failure}, attempts={0: saved}))
    assert [d.attempt for d in done.verdicts.dead] == [dataclasses.replace(saved, died_ms=NOW_MS)]
    assert done.verdicts.answered == [] and done.dead == {Kind.BAD_HEADER: 1}


def test_a_held_row_has_no_verdict() -> None:
    """Neither its failure nor anything else of it is reported."""
    done = conclude(
        _outcome([waiting(), *events(1)], {0: Failure(Kind.MALFORMED, "")}, [_by_primary(1)], {0: attempt()}, held={0})
    )
    assert [s.id for s in answers(done)] == ["e1"] and not done.verdicts.dead and done.failures == {}
    assert done.outcomes == {(INPUT, "answered"): 1}


def test_answers_that_share_their_class_are_one_group() -> None:
    """New and retried rows of one source form a group for each revision, in order, with the events' own origins."""
    records = [*events(2), waiting(offset=5), waiting(REPLAY, offset=6)]
    origin = Origin("other.events", 0, 40, NOW_MS)
    attempts = {2: attempt(origin=origin), 3: attempt(next_revision=2)}
    done = conclude(_outcome(records, {}, [_by_primary(0, 1, 2, 3)], attempts))
    found = [(g.answers.revision, g.answers.topics, list(g.answers.offsets)) for g in done.verdicts.answered]
    assert found == [(0, [INPUT, INPUT], [0, 1]), (1, ["other.events"], [40]), (2, [INPUT], [77])]
    assert done.outcomes == {(INPUT, "answered"): 2, ("loans.retry.5s", "corrected"): 1, (REPLAY, "corrected"): 1}
    assert done.replayed == {"corrected": 1} and done.answers == {("primary", "none"): 4}


def test_equal_failures_share_a_group_of_retries() -> None:
    """Shared headers are written once, and rows with another failure have their own message."""
    same, other = Failure(Kind.TIMEOUT, "late"), Failure(Kind.MODEL_ERROR, "broke")
    done = conclude(_outcome(events(3), {0: same, 1: other, 2: same}, [_by_static(0, 1, 2)]))
    assert [[r.offset for r in group.records] for group in done.verdicts.retries] == [[0, 2], [1]]
    assert [dict(h)["failsoft-error-message"] for _, _, h in retried(done)] == [b"late", b"late", b"broke"]
    assert [(s.id, s.reason) for s in answers(done)] == [("e0", "timeout"), ("e2", "timeout"), ("e1", "model_error")]


def test_a_retry_has_the_latest_failure() -> None:
    """Kind, message, model and version are the newest ones. The time of the first failure and the origin stay."""
    before = attempt(number=1, model="old", version=1)
    done = conclude(_outcome([waiting()], {0: Failure(Kind.TIMEOUT, "late")}, attempts={0: before}))
    ((_, _, headers),) = retried(done)
    expected = dataclasses.replace(
        before, failure=Failure(Kind.TIMEOUT, "late"), model="m", version=2, due_ms=NOW_MS + 60_000
    )
    assert headers == [("own", b"1"), *expected.headers()]


def test_every_outcome_is_a_metrics_label() -> None:
    """The table of metrics has each outcome of a record and each result of a replay."""
    for kind in Kind:
        for before in (None, attempt(number=1), attempt(number=2), attempt(number=2, next_revision=2)):
            if kind in NEVER_FRESH and before is None:
                continue
            silent = before is not None and (before.number == 1 or before.next_revision == 2)
            done = _one(kind, before=before, answered=not silent)
            assert {outcome for _, outcome in done.outcomes} <= set(OUTCOMES)
            assert set(done.replayed) <= set(REPLAYED)
            assert done.outcomes.total() == 1
