"""Routing: the records of a batch's verdicts, their topics, and what they carry of the event."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.prediction import Predictions
from failsoft.schemas.record import Header
from failsoft.topics.names import Names
from failsoft.topics.routing import AnswerBatch, Dead, Retries, Verdicts, dead_letter, route
from tests.kit import Rec, attempt
from tests.unit.schemas.test_scored import PLAIN

NAMES = Names("loans")
TRACE: list[Header] = [("traceparent", b"00-1-2-01"), ("tracestate", b"\xff")]
OWN: list[Header] = [("x", b"\xff\x00"), ("x", None), ("x", b""), *TRACE]


def _one(record: Rec) -> AnswerBatch:
    score = np.array([0.5], np.float32)
    answers = replace(PLAIN, ids=["a"], times=["t"], topics=["in"], offsets=[1], predictions=Predictions(score))
    return AnswerBatch(replace(answers, imputed={}), [record], [0])


def test_an_answer_goes_to_scored_under_the_events_key() -> None:
    """An answer has the event's key, our headers, and of the event's own headers only the trace context."""
    record = Rec(key=b"\x00key", headers=OWN)
    ((topic, ((key, value, headers),)),) = route(Verdicts(answered=[_one(record)]), NAMES)
    assert topic == "loans.scored" and key == b"\x00key" and json.loads(value or b"")["event_id"] == "a"
    assert headers == [
        ("content-type", b"application/json"),
        ("failsoft-revision", b"0"),
        ("failsoft-source", b"primary"),
        *TRACE,
    ]


def test_one_events_trace_does_not_reach_another() -> None:
    """The list of headers common to all answers is not modified by an event's trace headers."""
    given = _one(Rec(headers=TRACE))
    answers = replace(given.answers, ids=["a", "b"], times=["t", "t"], topics=["in", "in"], offsets=[1, 2])
    answers = replace(answers, predictions=Predictions(np.array([0.5, 0.5])))
    ((_, rows),) = route(Verdicts(answered=[AnswerBatch(answers, [Rec(headers=TRACE), Rec()], [0, 1])]), NAMES)
    assert [len(headers) for _, _, headers in rows] == [5, 3]


def test_a_retry_goes_to_its_rung_unchanged() -> None:
    """A retry has the event's key and value byte for byte, tombstones included, and the headers of its verdict."""
    records = [Rec(key=None, value=None), Rec(key=b"", value=b"\xff")]
    headers: list[list[Header]] = [[("a", b"1")], []]
    routed = route(Verdicts(retries=[Retries("5s", records, headers, range(len(records)))]), NAMES)
    assert routed == [("loans.retry.5s", [(None, None, [("a", b"1")]), (b"", b"\xff", [])])]


def test_a_dead_letter_carries_the_event_and_its_history() -> None:
    """A dead letter has the event's own headers unchanged, then ours; older control headers are replaced."""
    stale: list[Header] = [("failsoft-attempt", b"9"), ("__dlq.errors.topic", b"old")]
    history = attempt(number=2, failure=Failure(Kind.TIMEOUT, "late"))
    key, value, headers = dead_letter(Dead(Rec(key=b"k", value=b"\xff", headers=[*stale, *OWN]), history), "loans")
    assert (key, value) == (b"k", b"\xff")
    assert headers == [*OWN, *history.dead_headers("loans")]
    assert headers.count(("failsoft-attempt", b"2")) == 1 and ("failsoft-attempt", b"9") not in headers


def test_a_batchs_records_are_written_in_a_fixed_order() -> None:
    """Answers are written first, then retries, then dead letters; an empty list writes nothing."""
    record = Rec()
    verdicts = Verdicts([_one(record)], [Retries("1m", [record], [[]], [0])], [Dead(record, attempt())])
    assert [topic for topic, _ in route(verdicts, NAMES)] == ["loans.scored", "loans.retry.1m", "loans.dead"]
    assert route(Verdicts(), NAMES) == []


def test_rows_of_several_groups_keep_the_order_of_the_batch() -> None:
    """Answers and retries of several groups are written in batch order, so each key keeps the order of its events."""
    a, b, c = Rec(offset=1, key=b"a"), Rec(offset=2, key=b"b"), Rec(offset=3, key=b"c")
    given = [_one(b), _one(a), _one(c)]
    given = [replace(g, rows=[row]) for g, row in zip(given, (1, 0, 2), strict=True)]
    retries = [Retries("5s", [a, c], [[], []], [0, 2]), Retries("1m", [a], [[]], [0]), Retries("5s", [b], [[]], [1])]
    routed = dict(route(Verdicts(answered=given, retries=retries), NAMES))
    assert [key for key, _, _ in routed[NAMES.scored]] == [b"a", b"b", b"c"]
    assert [key for key, _, _ in routed[NAMES.retry("5s")]] == [b"a", b"b", b"c"]
    assert [key for key, _, _ in routed[NAMES.retry("1m")]] == [b"a"]
