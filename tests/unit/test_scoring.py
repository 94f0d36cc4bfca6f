"""Scoring: what is asked of whom, and who answers, waits or fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from models.fallback import LastKnown
from models.window import Counts
from schemas.event import Envelope
from schemas.failure import Failure, Kind
from schemas.record import Origin
from tests.kit import (
    INPUT,
    NOW_MS,
    REPLAY,
    RULE,
    Answer,
    FakeBoard,
    Rec,
    answers,
    attempt,
    body,
    broken,
    by_topic,
    events,
    fine,
    plan,
    result,
    retried,
    run,
    waiting,
)
from workers.plan import Call, Result


def _failing(*rows: int, kind: Kind = Kind.MODEL_ERROR) -> Answer:
    """A model that fails these rows of its call."""

    def model(call: Call) -> Result:
        return result([0.9] * len(call), {i: Failure(kind, f"{kind} it was") for i in rows})

    return model


# --- healthy ---


def test_a_healthy_batch_is_one_call_and_one_group_of_answers() -> None:
    """Good events cost one call, and get final answers of revision 0 by the primary."""
    board = FakeBoard()
    done = run(events(3), board=board)
    (given,) = done.verdicts.given
    assert [(s.id, s.source, s.reason, s.revision, s.final) for s in answers(done)] == [
        (f"e{i}", "primary", None, 0, True) for i in range(3)
    ]
    assert (given.answers.model, given.answers.version, given.answers.partition) == ("m", 2, 0)
    assert given.answers.offsets == [0, 1, 2] and given.answers.scored_at == "2027-01-15T08:00:00.000Z"
    assert not done.verdicts.retries and not done.verdicts.dead and not done.held
    assert done.outcomes == {(INPUT, "answered"): 3} and done.answers == {("primary", "none"): 3}
    assert board.asked == [("m@2", 3)] and board.reports == [("m@2", 7, Counts(3, 0, 0))]


def test_imputed_features_are_named_in_the_answer() -> None:
    """A missing feature that the card imputes is filled, and named for its row alone."""
    seen: list[list[float]] = []

    def look(call: Call) -> Result:
        seen.append(call.columns.values["y"].tolist())
        return fine(call)

    done = run([*events(1), Rec(offset=1, value=body("e1", y=None))], models={"m": look})
    assert seen == [[1.0, 0.5]]
    assert done.verdicts.given[0].answers.imputed == {1: ("y",)} and done.imputed == {"y": 1}


def test_a_slow_call_counts_all_its_rows_as_slow() -> None:
    """A batch is one call: when it took longer than slow_call, each of its rows did."""
    board = FakeBoard()
    run(events(2), board=board, models={"m": lambda call: result([0.9] * 2, seconds=0.2)})
    assert board.reports == [("m@2", 7, Counts(2, 0, 2))]


# --- bad input ---


@pytest.mark.parametrize(
    ("value", "kind"),
    [(b"{", Kind.MALFORMED), (None, Kind.MALFORMED), (body("e9", x=None), Kind.INVALID)],
    ids=["not JSON", "tombstone", "a required feature is null"],
)
def test_bad_input_is_dead_at_once_and_unanswered(value: bytes | None, kind: Kind) -> None:
    """Malformed and invalid events go to the dead letters, once, with no answer and no call spent on them."""
    board = FakeBoard()
    bad = Rec(offset=5, value=value)
    done = run([*events(1), bad, *events(1, 6)], board=board)
    (dead,) = done.verdicts.dead
    assert dead.record is bad and dead.attempt.failure.kind is kind
    assert (dead.attempt.number, dead.attempt.next_revision) == (0, 0)
    assert dead.attempt.origin == Origin(INPUT, 0, 5, NOW_MS - 1000)
    assert [s.id for s in answers(done)] == ["e0", "e6"] and not done.verdicts.retries
    assert done.outcomes == {(INPUT, "answered"): 2, (INPUT, "dead"): 1} and done.dead == {kind: 1}
    assert board.reports == [("m@2", 7, Counts(2, 0, 0))], "bad input is not the model's failure"


def test_a_batch_of_bad_input_makes_no_call() -> None:
    """With nothing left to score, no breaker and no model is asked."""
    board = FakeBoard()
    done = run([Rec(value=b"{"), Rec(offset=1, value=body(x=None))], board=board)
    assert board.asked == [] and len(done.verdicts.dead) == 2


# --- the primary fails ---


def test_one_failing_row_costs_its_batch_nothing() -> None:
    """The failing row gets a provisional answer by the fallback and a retry; the others are answered finally."""
    board = FakeBoard()
    done = run(events(3), board=board, models={"m": _failing(1)})
    assert {(s.id, s.source, s.reason, s.revision, s.final) for s in answers(done)} == {
        ("e0", "primary", None, 0, True),
        ("e2", "primary", None, 0, True),
        ("e1", "static", "model_error", 0, False),
    }
    ((rung, record, headers),) = retried(done)
    assert rung == "5s" and record.offset == 1 and dict(headers)["failsoft-attempt"] == b"0"
    assert dict(headers)["failsoft-due-ms"] == b"%d" % (NOW_MS + 5000)
    assert dict(headers)["failsoft-next-revision"] == b"1" and dict(headers)["failsoft-model-version"] == b"2"
    assert board.reports == [("m@2", 7, Counts(3, 1, 0))]
    assert done.outcomes == {(INPUT, "answered"): 2, (INPUT, "provisional"): 1} and done.retried == {"5s": 1}


@pytest.mark.parametrize("kind", [Kind.MODEL_ERROR, Kind.TIMEOUT, Kind.BAD_OUTPUT, Kind.CRASHED])
def test_the_models_failures_are_retried_and_counted(kind: Kind) -> None:
    """Each kind that is the model's fault puts the event on the ladder and counts against the breaker."""
    board = FakeBoard()
    done = run(events(1), board=board, models={"m": _failing(0, kind=kind)})
    assert answers(done)[0].reason == kind and len(retried(done)) == 1
    assert board.reports == [("m@2", 7, Counts(1, 1, 0))]


def test_an_event_that_only_the_session_finds_invalid_is_dead_and_not_counted() -> None:
    """A value that the model's types cannot hold is the event's fault: dead at once, no answer, no breaker."""
    board = FakeBoard()
    done = run(events(2), board=board, models={"m": _failing(0, kind=Kind.INVALID)})
    assert [s.id for s in answers(done)] == ["e1"]
    assert [d.attempt.failure.kind for d in done.verdicts.dead] == [Kind.INVALID]
    assert board.reports == [("m@2", 7, Counts(2, 0, 0))]


def test_the_due_time_has_its_jitter_from_the_draw() -> None:
    """The wait is the delay, a tenth less at draw 0 and a tenth more just under 1."""
    for u, wait in ((0.0, 4500), (0.5, 5000), (0.999, 5499)):
        ((_, _, headers),) = retried(run(events(1), models={"m": broken}, u=u))
        assert dict(headers)["failsoft-due-ms"] == b"%d" % (NOW_MS + wait)


def test_low_confidence_is_answered_finally_by_the_fallback() -> None:
    """An unsure primary is no failure: the fallback answers for good, nothing is retried, dead or counted."""
    board = FakeBoard()
    done = run(
        events(2),
        plan(min_confidence=0.8),
        board,
        models={"m": lambda call: result([0.9, 0.6])},
    )
    assert {(s.id, s.source, s.reason, s.final) for s in answers(done)} == {
        ("e0", "primary", None, True),
        ("e1", "static", "low_confidence", True),
    }
    assert not done.verdicts.retries and not done.verdicts.dead
    assert board.reports == [("m@2", 7, Counts(2, 0, 0))]


def test_without_rungs_a_failure_is_final_and_dead() -> None:
    """A pipeline without a ladder gives the fallback's answer as final, beside a dead letter."""
    done = run(events(1), plan(rungs={}), models={"m": broken})
    (said,) = answers(done)
    assert (said.revision, said.final, said.source) == (0, True, "static")
    assert [(d.attempt.failure.kind, d.attempt.next_revision) for d in done.verdicts.dead] == [(Kind.MODEL_ERROR, 2)]


# --- the breaker ---


def test_an_open_breaker_makes_no_call_for_live_events() -> None:
    """While the breaker admits nothing, live events get the fallback and a retry, and no call is made."""
    called: list[Call] = []

    def model(call: Call) -> Result:
        called.append(call)
        return fine(call)

    done = run(events(2), board=FakeBoard(admits={"m@2": 0}), models={"m": model})
    assert not called
    assert {(s.source, s.reason, s.final) for s in answers(done)} == {("static", "breaker_open", False)}
    assert [rung for rung, _, _ in retried(done)] == ["5s", "5s"]


def test_the_ladder_waits_while_the_breaker_is_open() -> None:
    """Records of rungs and of replay have no verdict and burn no attempt; what is behind them of their topic too."""
    records = [
        waiting(offset=0),
        replace(waiting(offset=1), headers=[("failsoft-attempt", b"x")]),  # bad, but behind a held one
        waiting("loans.retry.1m", offset=4, number=1),
        waiting(REPLAY, offset=9),
        *events(1),
    ]
    done = run(records, board=FakeBoard(admits={"m@2": 0}))
    assert done.held == {0, 1, 2, 3}
    assert [s.record.topic for s in answers(done)] == [INPUT]
    assert [r.topic for _, r, _ in retried(done)] == [INPUT] and not done.verdicts.dead
    assert set(done.failures) == {4}, "a held row has not failed"
    assert done.outcomes == {(INPUT, "provisional"): 1} and not done.replayed


def test_what_is_before_a_held_row_gets_its_verdict() -> None:
    """A bad header ahead of a held row is dead now: only the tail of a topic is held."""
    bad = replace(waiting(offset=0), headers=[("failsoft-attempt", b"x")])
    done = run([bad, waiting(offset=1)], board=FakeBoard(admits={"m@2": 0}))
    assert done.held == {1} and [d.record.offset for d in done.verdicts.dead] == [0]


def test_probes_are_taken_from_waiting_retries_first() -> None:
    """Of a half-open breaker's few calls the ladder's head gets them, so live events need not pay."""
    records = [*events(2), waiting(offset=0), waiting(offset=1), waiting("loans.retry.1m", offset=0, number=1)]
    done = run(records, board=FakeBoard(admits={"m@2": 1}))
    assert [(s.record.topic, s.record.offset) for s in answers(done) if s.source == "primary"] == [
        ("loans.retry.5s", 0)
    ]
    assert by_topic(records[row] for row in done.held) == {"loans.retry.5s": [1], "loans.retry.1m": [0]}
    assert {s.reason for s in answers(done) if s.record.topic == INPUT} == {"breaker_open"}


def test_live_events_probe_when_nothing_waits() -> None:
    """Without retries the first live events are the probes, with their own columns."""
    seen: list[list[float]] = []

    def look(call: Call) -> Result:
        seen.append(call.columns.values["x"].tolist())
        return fine(call)

    records = [Rec(offset=i, value=body(f"e{i}", x=i / 10)) for i in range(4)]
    done = run(records, board=FakeBoard(admits={"m@2": 2}), models={"m": look})
    assert seen == [[0.0, 0.1]]
    assert [s.id for s in answers(done) if s.source == "primary"] == ["e0", "e1"]


def test_no_loaded_version_is_unavailable() -> None:
    """Without a version live events get the fallback and a retry, and the ladder waits."""
    done = run([*events(1), waiting()], board=FakeBoard(versions={}))
    assert [(s.reason, s.source, s.final) for s in answers(done)] == [("unavailable", "static", False)]
    assert done.held == {1} and done.version is None
    ((_, _, headers),) = retried(done)
    assert "failsoft-model-version" not in dict(headers)


# --- retries and replays ---


def test_a_retry_that_succeeds_corrects() -> None:
    """The primary's late answer is revision 1, final, with the event's own origin and id."""
    done = run([waiting(origin=Origin(INPUT, 0, 77, NOW_MS - 9000))])
    (said,) = answers(done)
    assert (said.id, said.source, said.revision, said.final, said.reason) == ("w", "primary", 1, True, None)
    given = done.verdicts.given[0].answers
    assert (given.topics, given.offsets) == ([INPUT], [77])
    assert done.outcomes == {("loans.retry.5s", "corrected"): 1}
    assert not done.verdicts.retries and not done.verdicts.dead


def test_an_event_without_an_id_keeps_the_id_of_its_origin() -> None:
    """The id made of topic, partition and offset is that of the first reading, on retries too."""
    done = run([waiting(value=body(None), origin=Origin(INPUT, 0, 77, NOW_MS))])
    assert answers(done)[0].id == f"{INPUT}-0-77"


def test_a_retry_that_fails_goes_to_the_next_rung_in_silence() -> None:
    """With a rung left there is no second provisional answer; the attempt counts on."""
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
    """At the last rung's failure the fallback's answer is confirmed (revision 1, final), beside one dead letter."""
    done = run([waiting("loans.retry.1m", number=1)], models={"m": broken})
    (said,) = answers(done)
    assert (said.source, said.revision, said.final, said.reason) == ("static", 1, True, "model_error")
    (dead,) = done.verdicts.dead
    assert (dead.attempt.number, dead.attempt.next_revision, dead.attempt.version) == (2, 2, 2)
    assert not done.verdicts.retries and done.dead == {Kind.MODEL_ERROR: 1}


@pytest.mark.parametrize("value", [b"{", None, body("w", x="three")], ids=["malformed", "tombstone", "invalid"])
def test_a_retry_that_cannot_be_read_any_more_is_confirmed_and_dead(value: bytes | None) -> None:
    """A provisional answer is always settled, whatever the event turns into."""
    done = run([replace(waiting(), value=value)])
    (said,) = answers(done)
    assert (said.source, said.revision, said.final) == ("static", 1, True)
    assert len(done.verdicts.dead) == 1 and done.verdicts.dead[0].attempt.next_revision == 2


def test_the_confirmed_answer_of_an_unreadable_event_keeps_its_id() -> None:
    """An event whose features are gone still says its id, so the confirmation supersedes the answer before."""
    done = run([replace(waiting(), value=b'{"id": "w"}')])
    assert [(s.id, s.revision) for s in answers(done)] == [("w", 1)]


def test_an_unsure_retry_is_confirmed_by_the_fallback() -> None:
    """Low confidence on a retry settles it: the fallback's answer, final, and no dead letter."""
    done = run([waiting()], plan(min_confidence=0.8), models={"m": lambda call: result([0.6])})
    assert [(s.source, s.reason, s.revision, s.final) for s in answers(done)] == [("static", "low_confidence", 1, True)]
    assert not done.verdicts.retries and not done.verdicts.dead


def test_a_replay_that_succeeds_corrects_a_final_answer() -> None:
    """An operator's replay of an exhausted dead letter gives revision 2, final."""
    done = run([waiting(REPLAY, number=0, next_revision=2)])
    assert [(s.source, s.revision, s.final) for s in answers(done)] == [("primary", 2, True)]
    assert done.replayed == {"corrected": 1}


def test_a_replay_that_fails_after_a_final_answer_says_nothing_more() -> None:
    """It climbs the ladder again and ends dead again, without any further answer."""
    first = run([waiting(REPLAY, number=0, next_revision=2)], models={"m": broken})
    assert answers(first) == [] and [rung for rung, _, _ in retried(first)] == ["5s"]
    assert dict(retried(first)[0][2])["failsoft-next-revision"] == b"2" and first.replayed == {"retried": 1}
    last = run([waiting("loans.retry.1m", number=1, next_revision=2)], models={"m": broken})
    assert answers(last) == [] and [d.attempt.next_revision for d in last.verdicts.dead] == [2]


def test_a_replay_of_an_unanswered_event_gets_its_first_answer() -> None:
    """What was malformed and is good now is answered with revision 0; what fails now gets a provisional one."""
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
        ({"failsoft-error-kind": b"mood"}, "'mood' is no failure kind"),
    ],
)
def test_a_bad_header_is_dead_at_once(changes: Mapping[str, bytes | None], why: str) -> None:
    """A control header that cannot be believed: a dead letter that names it, no answer, no attempt."""
    record = waiting()
    board = FakeBoard()
    headers = [(k, changes.get(k, v)) for k, v in record.headers]
    done = run([replace(record, headers=headers)], board=board)
    (dead,) = done.verdicts.dead
    assert dead.attempt.failure.kind is Kind.BAD_HEADER and why in dead.attempt.failure.message
    assert answers(done) == [] and retried(done) == [] and board.asked == []


def test_a_rung_without_a_due_time_is_a_bad_header() -> None:
    """On a rung the due time must be there; on replay there is none."""
    record = waiting()
    done = run([replace(record, headers=[h for h in record.headers if h[0] != "failsoft-due-ms"])])
    assert [d.attempt.failure.message for d in done.verdicts.dead] == ["failsoft-due-ms: missing"]


def test_control_headers_on_an_input_topic_are_not_believed() -> None:
    """Forged history on a live event changes nothing, and is stripped from its retry."""
    forged = replace(events(1)[0], headers=[("mine", b"\xff"), *attempt(number=1, next_revision=2).headers()])
    done = run([forged], models={"m": broken})
    assert [(s.revision, s.final) for s in answers(done)] == [(0, False)]
    ((rung, _, headers),) = retried(done)
    assert rung == "5s" and headers[0] == ("mine", b"\xff")
    keys = [k for k, _ in headers]
    assert len(keys) == len(set(keys)) and dict(headers)["failsoft-attempt"] == b"0"


# --- the chain ---


def test_the_chain_is_asked_in_order_for_what_is_left() -> None:
    """A fallback model answers what it can; the next link gets the rest; static always answers."""
    asked: list[object] = []

    def rule(values: Mapping[str, object]) -> object:
        asked.append(values["x"])
        return 0.3 if values["x"] == 0.1 else None

    records = [Rec(offset=i, value=body(f"e{i}", x=i / 10)) for i in range(3)]
    the_plan = plan(chain=["model:lite", f"rule:{RULE}", "static"], rule=rule)
    done = run(records, the_plan, models={"m": broken, "lite": _failing(1, 2)})
    assert [(s.id, s.source, s.reason, s.final) for s in answers(done)] == [
        ("e0", "fallback_model", "model_error", False),
        ("e1", "rule", "model_error", False),
        ("e2", "static", "model_error", False),
    ]
    assert asked == [0.1, 0.2]
    assert [(g.answers.model, g.answers.version) for g in done.verdicts.given] == [
        ("lite", 1),
        (RULE, None),
        (None, None),
    ]


def test_a_fallback_model_has_a_breaker_of_its_own() -> None:
    """It is asked for the rows that its breaker admits, and its failures count against it."""
    board = FakeBoard(admits={"lite@1": 2})
    done = run(events(3), plan(chain=["model:lite", "static"]), board, models={"m": broken, "lite": _failing(0)})
    assert sorted((s.id, s.source) for s in answers(done)) == [
        ("e0", "static"),
        ("e1", "fallback_model"),
        ("e2", "static"),
    ]
    assert board.reports == [("m@2", 7, Counts(3, 3, 0)), ("lite@1", 7, Counts(2, 1, 0))]


def test_a_broken_rule_costs_no_event_its_answer() -> None:
    """Whatever a rule raises is its 'no', and is counted."""

    def rule(values: Mapping[str, object]) -> object:
        raise ZeroDivisionError

    done = run(events(2), plan(chain=[f"rule:{RULE}", "static"], rule=rule), models={"m": broken})
    assert {s.source for s in answers(done)} == {"static"}
    assert done.rule_errors == {(RULE, "ZeroDivisionError"): 2}


def test_a_rule_may_give_probabilities_to_some_rows_only() -> None:
    """Answers of different shapes are told apart, and each keeps its own."""

    def rule(values: Mapping[str, object]) -> object:
        several = {"score": 0.7, "probabilities": [0.3, 0.7]}
        return several if values["x"] == 0.0 else 0.2

    records = [Rec(offset=i, value=body(f"e{i}", x=float(i))) for i in range(3)]
    done = run(records, plan(chain=[f"rule:{RULE}", "static"], rule=rule), models={"m": broken})
    found = {g.answers.ids[i]: g.answers.predictions.row(i) for g in done.verdicts.given for i in range(len(g.records))}
    assert found["e0"].probabilities == (0.3, 0.7) and found["e1"].probabilities is None
    assert (found["e1"].score, found["e2"].score) == (0.2, 0.2)


def test_a_rule_answers_when_no_version_is_loaded() -> None:
    """Nobody can impute without a version: the rule reads the event's own values, None where one is missing."""
    asked: list[Mapping[str, object]] = []

    def rule(values: Mapping[str, object]) -> object:
        asked.append(values)
        return 0.4

    done = run(
        [Rec(value=body("e0", y=None))],
        plan(chain=[f"rule:{RULE}", "static"], rule=rule),
        FakeBoard(versions={}),
    )
    assert [(s.source, s.reason, s.score) for s in answers(done)] == [("rule", "unavailable", 0.4)]
    assert asked == [{"x": 0.25, "y": None}]


def test_last_known_answers_by_key() -> None:
    """The key's last primary answer, with who gave it; a key never seen goes on along the chain."""
    known = LastKnown(max_age=3600)
    before = run([replace(events(1)[0], key=b"seen")], models={"m": lambda call: result([0.75])})
    for keys, predictions, version in before.known:
        known.remember(keys, predictions, "m", version, NOW_MS / 1000 - 10)
    records = [replace(r, key=k) for r, k in zip(events(3), (b"seen", b"new", None), strict=True)]
    done = run(records, plan(chain=["last_known", "static"]), known=known, models={"m": broken})
    assert [(s.id, s.source, s.score) for s in answers(done)] == [
        ("e0", "last_known", 0.75),
        ("e1", "static", 0.5),
        ("e2", "static", 0.5),
    ]
    assert (done.verdicts.given[0].answers.model, done.verdicts.given[0].answers.version) == ("m", 2)


def test_only_the_primarys_answers_are_known_later() -> None:
    """What a fallback said is not remembered as an answer of its own."""
    assert run(events(1), models={"m": broken}).known == []
    ((keys, predictions, version),) = run(events(2)).known
    assert keys == [b"k0", b"k1"] and len(predictions) == 2 and version == 2


def test_a_fallback_model_gets_columns_of_its_own() -> None:
    """What it is given are the features of its own card, in its order."""
    names: list[tuple[str, ...]] = []

    def look(call: Call) -> Result:
        names.append(tuple(spec.name for spec in call.columns.specs))
        return fine(call)

    run(events(2), plan(chain=["model:lite", "static"]), models={"m": broken, "lite": look})
    assert names == [("x", "y")]


def test_scoring_nothing_gives_nothing() -> None:
    """An empty batch is no error, whatever the envelope."""
    for envelope in (Envelope(id="id", time="at"), Envelope()):
        done = run([], plan(envelope=envelope))
        assert not done.verdicts.given and not done.outcomes
