"""Scoring with an ensemble: which members are called, which answer, which are missing, and what happens under the
quorum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from failsoft.models.answers.last_known import LastKnown
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.fleet.counts import Counts
from failsoft.schemas.prediction import Predictions
from failsoft.workers.scoring.plan import Call, CallResult, Scored
from tests.kit import (
    INPUT,
    NOW_MS,
    REPLAY,
    RULE,
    Answer,
    FakeBoard,
    Rec,
    answers,
    body,
    broken,
    events,
    failing,
    fine,
    member,
    result,
    retried,
    run,
    trio,
    waiting,
)

VERSIONS = {"a": 1, "b": 2, "c": 3, "lite": 1}
ALL = ("a@1", "b@2", "c@3")


def registry(**changes: Any) -> FakeBoard:
    return FakeBoard(**({"versions": VERSIONS} | changes))


def answers_by_event(scored: Scored) -> dict[str, tuple[str, tuple[str, ...] | None, str | None, int, bool]]:
    """For each event: the source, the members that answered, the reason, the revision, and whether it is final."""
    return {
        g.answers.ids[i]: (g.answers.source, g.answers.members, g.answers.reason, g.answers.revision, g.answers.final)
        for g in scored.verdicts.answered
        for i in range(len(g.records))
    }


def always(score: float) -> Answer:
    return lambda call: result([score] * len(call))


# --- a quorum answers ---


def test_an_answer_of_all_members_is_final_and_not_degraded() -> None:
    """There is one call for each member. The answer is the mean of the three, and each member counts its own call."""
    the_board = registry()
    done = run(events(2), trio(), the_board, {"a": always(0.3), "b": always(0.6), "c": always(0.9)})
    assert answers_by_event(done) == {f"e{i}": ("ensemble", ALL, None, 0, True) for i in range(2)}
    (given,) = done.verdicts.answered
    assert (given.answers.model, given.answers.version, given.answers.degraded) == ("m", None, False)
    assert answers(done)[0].score == pytest.approx(0.6)
    assert the_board.reports == [(key, 7, Counts(2, 0, 0, 1)) for key in ALL]
    assert done.answers == {("ensemble", "none"): 2} and done.outcomes == {(INPUT, "answered"): 2}
    assert not done.failures and not done.missing and not done.verdicts.retries and not done.verdicts.dead


def test_a_member_that_fails_a_row_is_missing_from_that_row() -> None:
    """The others give the row a final answer. It is degraded, has the reason, and is not retried."""
    the_board = registry()
    done = run(events(3), trio(), the_board, {"a": always(0.3), "b": failing(1), "c": always(0.6)})
    assert answers_by_event(done) == {
        "e0": ("ensemble", ALL, None, 0, True),
        "e1": ("ensemble", ("a@1", "c@3"), "model_error", 0, True),
        "e2": ("ensemble", ALL, None, 0, True),
    }
    (degraded,) = [g.answers for g in done.verdicts.answered if g.answers.reason]
    assert degraded.degraded and degraded.predictions.row(0).score == pytest.approx(0.45)
    assert not done.verdicts.retries and not done.failures
    assert "b@2: model_error it was" in done.missing[1].message and "1 of 3" in done.missing[1].message
    assert the_board.reports[1] == ("b@2", 7, Counts(3, 1, 0, 1))
    assert done.answers == {("ensemble", "none"): 2, ("ensemble", "model_error"): 1}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"admits": {"b@2": 0}}, "breaker_open"), ({"versions": {"a": 1, "c": 3}}, "unavailable")],
)
def test_a_member_that_is_open_or_not_loaded_is_not_called(changes: dict[str, Any], reason: str) -> None:
    """The other members answer, and the answer's reason is why this member is missing."""
    called: list[str] = []

    def model(call: Call) -> CallResult:
        called.append(call.key)
        return fine(call)

    done = run(events(2), trio(), registry(**changes), dict.fromkeys("abc", model))
    assert called == ["a@1", "c@3"]
    assert set(answers_by_event(done).values()) == {("ensemble", ("a@1", "c@3"), reason, 0, True)}


def test_members_take_their_own_columns() -> None:
    """Each member has its own features, imputation and deadline. The answer names the features imputed for any member
    that answered.
    """
    seen: dict[str, tuple[list[str], float]] = {}

    def model(call: Call) -> CallResult:
        seen[call.key] = ([*call.columns.values], call.deadline)
        return fine(call)

    slow = member("c", "z").model_copy(update={"model": member("c").model.model_copy(update={"deadline": 3.0})})
    cards = {"b": member("b", "x", "y"), "c": slow}
    done = run(
        [Rec(value=body("e0", y=None, z=1.0)), Rec(offset=1, value=body("e1", z=1.0))],
        trio(cards=cards),
        registry(),
        dict.fromkeys("abc", model),
    )
    assert seen == {"a@1": (["x"], 0.2), "b@2": (["x", "y"], 0.2), "c@3": (["z"], 3.0)}
    (given,) = done.verdicts.answered
    assert given.answers.imputed == {0: ("y",)} and done.imputed == {"y": 1}


def test_a_feature_imputed_for_a_missing_member_is_not_named() -> None:
    """The answer does not depend on it."""
    done = run([Rec(value=body("e0", y=None))], trio(cards={"b": member("b", "x", "y")}), registry(), {"b": broken})
    (given,) = done.verdicts.answered
    assert given.answers.members == ("a@1", "c@3") and given.answers.imputed == {}


def test_a_member_is_missing_from_an_event_that_breaks_its_contract() -> None:
    """The reason is `invalid`, but the event is not dead-lettered: the other members can read it."""
    done = run(
        [Rec(value=body("e0", z=1.0)), Rec(offset=1, value=body("e1"))], trio(cards={"c": member("c", "z")}), registry()
    )
    assert answers_by_event(done) == {
        "e0": ("ensemble", ALL, None, 0, True),
        "e1": ("ensemble", ("a@1", "b@2"), "invalid", 0, True),
    }
    assert not done.verdicts.dead


def test_each_row_has_its_own_reason_for_the_same_missing_member() -> None:
    """The first missing member in the card's order gives the reason."""
    bad = {0: Failure(Kind.BAD_OUTPUT, "nan"), 1: Failure(Kind.TIMEOUT, "late"), 2: Failure(Kind.TIMEOUT, "late")}
    done = run(events(4), trio(1), registry(), {"b": lambda call: result([0.9] * 4, bad), "c": failing(2)})
    assert [answers_by_event(done)[f"e{i}"][2] for i in range(4)] == ["bad_output", "timeout", "timeout", None]
    assert answers_by_event(done)["e2"][1] == ("a@1",)


def test_min_confidence_of_a_member_and_of_the_ensemble() -> None:
    """A member under its own min_confidence is missing from the row. An ensemble under its own leaves the row to the
    fallback.
    """
    cards = {"a": member("a", "x", min_confidence=0.9)}
    done = run(events(1), trio(cards=cards), registry(), dict.fromkeys("abc", always(0.8)))
    assert answers_by_event(done) == {"e0": ("ensemble", ("b@2", "c@3"), "low_confidence", 0, True)}
    done = run(
        events(2),
        trio(min_confidence=0.7),
        registry(),
        {"a": lambda call: result([0.9, 0.2]), "b": lambda call: result([0.9, 0.9]), "c": failing(1)},
    )
    assert answers_by_event(done) == {
        "e0": ("ensemble", ALL, None, 0, True),
        "e1": ("static", None, "low_confidence", 0, True),
    }
    assert not done.verdicts.retries and set(done.failures) == {1} and not done.missing


# --- fewer than a quorum answer ---


def test_under_the_quorum_the_fallback_answers_and_the_ladder_tries_again() -> None:
    """As with a failed primary: a provisional answer with the first missing member's kind, and a retry that names the
    ensemble.
    """
    done = run(
        events(3), trio(), registry(), {"a": always(0.9), "b": failing(1, 2, kind=Kind.TIMEOUT), "c": failing(1)}
    )
    assert answers_by_event(done) == {
        "e0": ("ensemble", ALL, None, 0, True),
        "e1": ("static", None, "timeout", 0, False),
        "e2": ("ensemble", ("a@1", "c@3"), "timeout", 0, True),
    }
    ((rung, record, headers),) = retried(done)
    sent = dict(headers)
    assert (rung, record.offset, sent["failsoft-model"], sent["failsoft-error-kind"]) == ("5s", 1, b"m", b"timeout")
    assert "failsoft-model-version" not in sent
    assert sent["failsoft-error-message"] == b"b@2: timeout it was (2 of 3 members did not answer)"
    assert done.outcomes == {(INPUT, "answered"): 2, (INPUT, "provisional"): 1}


def test_a_retry_with_a_quorum_is_a_correction() -> None:
    """The answer is by the ensemble and final, whether degraded or not."""
    done = run([waiting(), waiting(offset=1)], trio(), registry(), {"b": failing(1)})
    kinds = [(g.answers.source, g.answers.members, g.answers.revision, g.answers.final) for g in done.verdicts.answered]
    assert set(kinds) == {("ensemble", ALL, 1, True), ("ensemble", ("a@1", "c@3"), 1, True)}
    assert done.outcomes == {("loans.retry.5s", "corrected"): 2}


def test_a_retry_that_fails_again_climbs_and_is_confirmed_at_the_end() -> None:
    """A retry that was put to a quorum uses an attempt, as with a single primary."""
    models = {"b": broken, "c": broken}
    ((rung, _, headers),) = retried(run([waiting()], trio(), registry(), models))
    assert rung == "1m" and dict(headers)["failsoft-attempt"] == b"1"
    last = run([waiting("loans.retry.1m", number=1)], trio(), registry(), models)
    assert answers_by_event(last) == {"w": ("static", None, "model_error", 1, True)}
    assert [d.attempt.failure.kind for d in last.verdicts.dead] == [Kind.MODEL_ERROR]


def test_the_ladder_waits_while_too_few_members_admit() -> None:
    """No attempt is used while an ensemble is known to be down, and live events get the fallback's answer."""
    two_open = registry(admits={"b@2": 0, "c@3": 0})
    done = run([waiting(), waiting(REPLAY, offset=9), *events(1)], trio(), two_open)
    assert done.held == {0, 1} and answers_by_event(done) == {"e0": ("static", None, "breaker_open", 0, False)}
    assert set(done.failures) == {2} and not done.missing
    one_open = run([waiting()], trio(), registry(admits={"c@3": 0}))
    assert not one_open.held and answers_by_event(one_open)["w"][:3] == ("ensemble", ("a@1", "b@2"), "breaker_open")


def test_rows_after_a_held_row_get_no_answer() -> None:
    """They are read again, although members answered them, and nothing of them is reported."""
    records = [waiting(offset=0), waiting(offset=1)]
    one_each = registry(admits={"a@1": 2, "b@2": 1, "c@3": 0})
    done = run(records, trio(), one_each, {"b": broken})
    assert done.held == {0, 1} and not done.verdicts.answered and not done.verdicts.retries
    assert not done.missing and not done.failures


def test_a_retry_that_was_a_failed_probe_of_a_member_is_held() -> None:
    """The member's breaker counted the failure. Without that member fewer than a quorum were called."""
    probing = registry(admits={"b@2": 1, "c@3": 0})
    done = run([waiting()], trio(), probing, {"b": broken})
    assert done.held == {0} and ("b@2", 7, Counts(1, 1, 0, 1)) in probing.reports


def test_probes_of_a_member_are_drawn_at_random_if_the_breaker_asks_for_it() -> None:
    """A probe may be drawn from behind other records. These and the probe itself are held."""
    records = [waiting(offset=i) for i in range(3)]
    probing = registry(admits={"a@1": 1, "c@3": 0}, anywhere=True)
    done = run(records, trio(), probing, u=[0.9, 0.5, 0.1])
    assert ("a@1", 7, Counts(1, 0, 0, 1)) in probing.reports
    assert done.held == {0, 1, 2} and not done.verdicts.answered


def test_probes_of_a_member_are_taken_from_waiting_retries_first() -> None:
    """Live events of the same batch are answered without that member."""
    done = run([*events(2), waiting()], trio(), registry(admits={"a@1": 1}))
    assert {id: answer[1] for id, answer in answers_by_event(done).items()} == {
        "e0": ("b@2", "c@3"),
        "e1": ("b@2", "c@3"),
        "w": ALL,
    }


# --- failures that no retry can change ---


def test_an_event_that_too_few_members_can_read_is_invalid() -> None:
    """It is dead-lettered at once without an answer, as with a single primary: no retry could reach the quorum."""
    cards = {"b": member("b", "z"), "c": member("c", "z")}
    done = run(events(1), trio(cards=cards), registry(admits={"a@1": 0}))
    (dead,) = done.verdicts.dead
    assert dead.attempt.failure.kind is Kind.INVALID and "b@2: feature 'z'" in dead.attempt.failure.message
    assert not done.verdicts.answered and not done.verdicts.retries


def test_an_event_that_one_member_cannot_read_may_still_reach_the_quorum() -> None:
    """The failure of another missing member is retried, whatever the members' order."""
    for silent, invalid in (("a", "c"), ("c", "a")):
        done = run(events(1), trio(cards={invalid: member(invalid, "z")}), registry(), {silent: broken})
        assert answers_by_event(done) == {"e0": ("static", None, "model_error", 0, False)} and not done.verdicts.dead


def test_too_few_confident_members_is_low_confidence() -> None:
    """The fallback's answer is final: another attempt would give the same."""
    cards = {n: member(n, "x", min_confidence=0.9) for n in "ab"}
    done = run(events(1), trio(cards=cards), registry(), dict.fromkeys("abc", always(0.8)))
    assert answers_by_event(done) == {"e0": ("static", None, "low_confidence", 0, True)} and not done.verdicts.dead


# --- the chain ---


def test_a_member_may_be_a_fallback_of_its_ensemble() -> None:
    """It then answers by itself, as any model of the chain."""
    done = run(events(1), trio(3, chain=["model:a", "static"]), registry(), {"b": broken})
    (answer,) = answers(done)
    assert (answer.source, answer.reason, done.verdicts.answered[0].answers.model) == (
        "fallback_model",
        "model_error",
        "a",
    )


def test_a_rule_reads_the_features_of_all_members() -> None:
    """It reads the event's own values, since each member imputes for itself."""
    seen: list[Mapping[str, object]] = []

    def rule(values: Mapping[str, object]) -> float:
        seen.append(values)
        return 0.3

    cards = {"b": member("b", "x", "y"), "c": member("c", "z")}
    the_plan = trio(chain=[f"rule:{RULE}", "static"], cards=cards, rule=rule)
    run([Rec(value=body("e0", y=None, z=2.0))], the_plan, registry(), dict.fromkeys("abc", broken))
    assert seen == [{"x": 0.25, "y": None, "z": 2.0}]


def test_the_last_known_answer_of_an_ensemble_has_no_version() -> None:
    """It is remembered under the ensemble's name, degraded or not."""
    the_plan = trio(chain=["last_known", "static"])
    done = run(events(2), the_plan, registry(), {"b": failing(1)})
    assert [version for _, _, version in done.known] == [None, None]
    known = LastKnown(max_age=60.0)
    for keys, predictions, version in done.known:
        assert isinstance(predictions, Predictions)
        known.remember(keys, predictions, "m", version, NOW_MS / 1000)
    later = run(events(1), the_plan, registry(), dict.fromkeys("abc", broken), known)
    (given,) = later.verdicts.answered
    assert (given.answers.source, given.answers.model, given.answers.version) == ("last_known", "m", None)


def test_bad_input_is_not_put_to_any_member() -> None:
    """A malformed event is malformed for every member."""
    the_board = registry()
    done = run([Rec(value=b"{")], trio(), the_board)
    assert [d.attempt.failure.kind for d in done.verdicts.dead] == [Kind.MALFORMED] and the_board.asked == []
