"""Which answers a follower is shown."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.kit import Rec
from workers.tail import Filter


def _answer(event: str, source: str) -> Rec:
    value = json.dumps({"event_id": event, "source": source}, separators=(",", ":")).encode()
    return Rec(value=value, headers=[("content-type", b"application/json"), ("failsoft-source", source.encode())])


ANSWERS = [_answer("e1", "primary"), _answer("e1", "static"), _answer("e11", "fallback_model")]


def test_everything_is_shown_unless_told_otherwise() -> None:
    """No filter, no parsing."""
    assert Filter().choose([*ANSWERS, Rec(value=b"not json")]) == [*ANSWERS, Rec(value=b"not json")]


def test_degraded_is_told_by_the_header_alone() -> None:
    """The value may be anything: it is not looked at."""
    strange = Rec(value=b"not json", headers=[("failsoft-source", b"static")])
    assert Filter(degraded=True).choose([*ANSWERS, strange]) == [*ANSWERS[1:], strange]


def test_an_ensemble_says_itself_whether_it_is_degraded() -> None:
    """Its header cannot: with all members it is the primary. An id that quotes the words is no such word."""
    whole, lacking = _answer("e1", "ensemble"), _answer("e2", "ensemble")
    whole = replace(whole, value=json.dumps({"event_id": '"degraded":true', "degraded": False}).encode())
    lacking = replace(lacking, value=b'{"event_id":"e2","degraded":true}')
    assert Filter(degraded=True).choose([whole, lacking]) == [lacking]


def test_an_event_is_found_by_its_whole_id() -> None:
    """An id that merely contains it, or another field that says it, is not the event."""
    quoted = Rec(value=b'{"event_id":"x","label":"e1"}')
    assert Filter(event="e1").choose([*ANSWERS, quoted]) == ANSWERS[:2]
    assert Filter(degraded=True, event="e1").choose(ANSWERS) == ANSWERS[1:2]
