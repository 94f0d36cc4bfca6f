"""Which answers a follower is shown."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from failsoft.workers.operations.tail import TailFilter, answer
from tests.kit import Rec


def _answer(event: str, source: str) -> Rec:
    value = json.dumps({"event_id": event, "source": source}, separators=(",", ":")).encode()
    return Rec(value=value, headers=[("content-type", b"application/json"), ("failsoft-source", source.encode())])


ANSWERS = [_answer("e1", "primary"), _answer("e1", "static"), _answer("e11", "fallback_model")]


def test_everything_is_shown_unless_told_otherwise() -> None:
    """No filter, no parsing."""
    assert TailFilter().choose([*ANSWERS, Rec(value=b"not json")]) == [*ANSWERS, Rec(value=b"not json")]


def test_degraded_is_told_by_the_header_alone() -> None:
    """The value may be anything: it is not looked at."""
    strange = Rec(value=b"not json", headers=[("failsoft-source", b"static")])
    assert TailFilter(degraded=True).choose([*ANSWERS, strange]) == [*ANSWERS[1:], strange]


def test_an_ensemble_says_itself_whether_it_is_degraded() -> None:
    """Its header cannot: with all members it is the primary. An id that quotes the words is no such word."""
    whole, lacking = _answer("e1", "ensemble"), _answer("e2", "ensemble")
    whole = replace(whole, value=json.dumps({"event_id": '"degraded":true', "degraded": False}).encode())
    lacking = replace(lacking, value=b'{"event_id":"e2","degraded":true}')
    assert TailFilter(degraded=True).choose([whole, lacking]) == [lacking]


def test_an_event_is_found_by_its_whole_id() -> None:
    """An id that merely contains it, or another field that says it, is not the event."""
    quoted = Rec(value=b'{"event_id":"x","label":"e1"}')
    assert TailFilter(event="e1").choose([*ANSWERS, quoted]) == ANSWERS[:2]
    assert TailFilter(degraded=True, event="e1").choose(ANSWERS) == ANSWERS[1:2]


FOREIGN = (None, b"", b"e1", b'"e1"', b'["e1"]', b'{"event_id":"e1"', b'{"event_id":{"e1":"e1"}}')


@pytest.mark.parametrize("value", FOREIGN)
def test_what_no_worker_wrote_is_no_answer(value: bytes | None) -> None:
    """Anyone who may write to the topic can leave it there, with an event's id in it: whoever follows goes on."""
    foreign = Rec(value=value, headers=[("failsoft-source", b"static")])
    assert answer(foreign) is None
    assert TailFilter(degraded=True, event="e1").choose([foreign, *ANSWERS]) == ANSWERS[1:2]


def test_an_object_without_an_answers_parts_is_none() -> None:
    """It would have no line in a table."""
    whole = dict.fromkeys(("score", "label", "model", "version", "reason", "revision", "final", "degraded"))
    whole |= {"event_id": "e1", "scored_at": "2026-01-01T00:00:00Z", "source": "static"}
    assert answer(Rec(value=json.dumps(whole).encode())) == whole
    for name in whole:
        assert answer(Rec(value=json.dumps({k: v for k, v in whole.items() if k != name}).encode())) is None
    assert answer(Rec(value=json.dumps(whole | {"event_id": 1}).encode())) is None
