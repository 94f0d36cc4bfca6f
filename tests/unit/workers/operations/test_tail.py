"""Which answers `failsoft tail` shows."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from failsoft.schemas import scored_avro, scored_read
from failsoft.schemas.failure import Kind
from failsoft.schemas.prediction import Source
from failsoft.schemas.scored import encode, headers
from failsoft.schemas.scored_schema import CONTENT_TYPE
from failsoft.workers.operations.tail import TailFilter, answer, line
from tests.kit import Rec
from tests.unit.schemas.test_scored import PLAIN


def _answer(event: str, source: str) -> Rec:
    value = json.dumps({"event_id": event, "source": source}, separators=(",", ":")).encode()
    return Rec(value=value, headers=[("content-type", b"application/json"), ("failsoft-source", source.encode())])


ANSWERS = [_answer("e1", "primary"), _answer("e1", "static"), _answer("e11", "fallback_model")]


def test_without_a_filter_every_record_is_shown() -> None:
    """Without a filter no value is parsed."""
    assert TailFilter().choose([*ANSWERS, Rec(value=b"not json")]) == [*ANSWERS, Rec(value=b"not json")]


def test_the_source_header_decides_whether_an_answer_is_degraded() -> None:
    """The value is not read, so it may be anything."""
    strange = Rec(value=b"not json", headers=[("failsoft-source", b"static")])
    assert TailFilter(degraded=True).choose([*ANSWERS, strange]) == [*ANSWERS[1:], strange]


def test_the_value_decides_whether_an_ensembles_answer_is_degraded() -> None:
    """An ensemble's header does not tell whether members were missing. The same text inside an id is ignored."""
    whole, lacking = _answer("e1", "ensemble"), _answer("e2", "ensemble")
    whole = replace(whole, value=json.dumps({"event_id": '"degraded":true', "degraded": False}).encode())
    lacking = replace(lacking, value=b'{"event_id":"e2","degraded":true}')
    assert TailFilter(degraded=True).choose([whole, lacking]) == [lacking]


def test_an_event_is_found_by_its_whole_id() -> None:
    """An id that contains the wanted one, or another field with that value, does not match."""
    quoted = Rec(value=b'{"event_id":"x","label":"e1"}')
    assert TailFilter(event="e1").choose([*ANSWERS, quoted]) == ANSWERS[:2]
    assert TailFilter(degraded=True, event="e1").choose(ANSWERS) == ANSWERS[1:2]


def test_answers_in_avro_are_chosen_and_shown_as_those_in_json() -> None:
    """By id, by what an ensemble lacks, and as a line of JSON; a foreign value that looks framed is passed on."""
    lacking = replace(PLAIN, source=Source.ENSEMBLE, version=None, members=("a@1",), reason=Kind.TIMEOUT)
    whole = replace(lacking, reason=None)
    records = [
        Rec(value=scored_avro.encode(each, 7)[1], headers=headers(each, CONTENT_TYPE))
        for each in (PLAIN, lacking, whole)
    ]
    foreign = Rec(value=b'\0b",', headers=records[1].headers)
    assert TailFilter(event='b",').choose([*records, foreign]) == records
    assert TailFilter(degraded=True).choose([*records, foreign]) == [records[1]]
    assert json.loads(line(records[0])) == json.loads(encode(PLAIN)[1]) == answer(records[0])
    assert line(foreign) == foreign.value and answer(foreign) is None


def test_without_the_extra_answers_in_avro_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install, and does not call them other programs' records."""
    monkeypatch.setitem(sys.modules, "fastavro", None)
    scored_read._reader.cache_clear()
    with pytest.raises(scored_read.NoAvroReader, match=r"pip install 'failsoft\[avro\]'"):
        line(Rec(value=scored_avro.encode(PLAIN, 7)[0]))
    scored_read._reader.cache_clear()


FOREIGN = (None, b"", b"e1", b'"e1"', b'["e1"]', b'{"event_id":"e1"', b'{"event_id":{"e1":"e1"}}')


@pytest.mark.parametrize("value", FOREIGN)
def test_a_record_of_another_program_is_not_an_answer(value: bytes | None) -> None:
    """Any program may write to the topic, even with an event's id; the command skips over such a record."""
    foreign = Rec(value=value, headers=[("failsoft-source", b"static")])
    assert answer(foreign) is None
    assert TailFilter(degraded=True, event="e1").choose([foreign, *ANSWERS]) == ANSWERS[1:2]


def test_an_object_without_the_fields_of_an_answer_is_not_an_answer() -> None:
    """It could not be shown as a table line."""
    whole = dict.fromkeys(("score", "label", "model", "version", "reason", "revision", "final", "degraded"))
    whole |= {"event_id": "e1", "scored_at": "2026-01-01T00:00:00Z", "source": "static"}
    assert answer(Rec(value=json.dumps(whole).encode())) == whole
    for name in whole:
        assert answer(Rec(value=json.dumps({k: v for k, v in whole.items() if k != name}).encode())) is None
    assert answer(Rec(value=json.dumps(whole | {"event_id": 1}).encode())) is None
