"""The literals NaN and Infinity in events: where NaN is a value, and what is said of the others."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from failsoft.schemas import nan
from failsoft.schemas.decoding import decode, decode_one
from failsoft.schemas.event import Envelope, Event, Events, origin_of
from failsoft.schemas.failure import Failure, Kind
from tests.kit import Rec, objects, read_json

AT = "2026-01-01T12:00:00Z"
ENVELOPE = Envelope(id="id", time="at", nans=("income", "a.b"))
PLAIN = Envelope(id="id", time="at")
NAN = float("nan")


def _record(features: Any, **others: Any) -> Rec:
    return Rec(value=json.dumps({"id": "e", "at": AT, "features": features} | others).encode())


def _decoded(record: Rec, envelope: Envelope = ENVELOPE) -> Events:
    """The record decoded alone and between others, which must be the same."""
    alone = read_json(record, envelope)
    batch = decode([_record({"x": 1}), record, _record({"x": 2})], {}, envelope)
    assert [objects(batch)[i] for i in (0, 2)] == [{"x": 1}, {"x": 2}], "the neighbours are untouched"
    if isinstance(alone, Failure):
        assert batch.failures == {1: alone}
    else:
        assert repr(objects(batch)[1]) == repr(alone.features) and batch.failures == {}
    return batch


@pytest.mark.parametrize("features", [{"income": NAN}, {"a": {"b": NAN}}, {"a.b": NAN, "income": NAN}])
def test_nan_is_the_value_of_a_feature_that_takes_it(features: dict[str, Any]) -> None:
    """At the path of a feature with impute = "nan" it is a float, and the record's bytes stay as they are."""
    record = _record(features)
    raw = bytes(record.value or b"")
    found = objects(_decoded(record))[1]
    assert repr(found) == repr(features) and record.value == raw


@pytest.mark.parametrize(
    ("features", "others", "why"),
    [
        ({"other": NAN}, {}, "NaN is not JSON (features.other): write null, or give that feature impute = "),
        ({"income": [1, NAN]}, {}, "NaN is not JSON (features.income[1])"),
        ({"income": NAN, "other": NAN}, {}, "NaN is not JSON (features.other)"),
        ({"income": 1}, {"income": NAN}, "NaN is not JSON (income)"),
        ({"income": 1}, {"id": NAN}, "NaN is not JSON (id)"),
        ({"income": math.inf}, {}, "Infinity is not JSON (features.income): write null, or a finite number"),
        ({"income": NAN, "a": {"b": -math.inf}}, {}, "-Infinity is not JSON (features.a.b)"),
        ({"x" * 500: NAN}, {}, "NaN is not JSON (features.xxx"),
    ],
)
def test_elsewhere_it_is_refused_in_words(features: dict[str, Any], others: dict[str, Any], why: str) -> None:
    """The message has the place and the way out; NaN inside a list, and Infinity, are taken by no number."""
    failure = _decoded(_record(features, **others)).failures[1]
    assert failure.kind is Kind.MALFORMED and failure.message.startswith(why) and len(failure.message) < 300


def test_a_model_that_knows_no_nan_refuses_it() -> None:
    """Without such a feature no NaN is accepted, and the event keeps its id, which can be read."""
    batch = _decoded(_record({"income": NAN}), PLAIN)
    assert batch.failures[1].message.startswith("NaN is not JSON (features.income)") and batch.ids[1] == "e"


@pytest.mark.parametrize(
    "value",
    [
        b'{"id": "e", "features": {"income": NaN',
        b'{"income": -NaN}',
        b'{"income": NaNs}',
        b'{"income": nan}',
        b"N",
        b"NaN1",
    ],
)
def test_what_is_no_json_even_without_the_literals_keeps_its_message(value: bytes) -> None:
    """Only the literals that other writers give are known; an event that is cut off says so."""
    failure = _decoded(Rec(value=value)).failures[1]
    assert failure.message.startswith("not JSON: ")


def test_the_words_inside_strings_are_text() -> None:
    """A name or a text may be NaN, with escapes and quotes around it."""
    for text in ("Infinity", "a", " NaN"):
        features = {"income": NAN, "NaN": f'say "NaN", \\{text}', "x": "NaN"}
        assert repr(objects(_decoded(_record(features)))[1]) == repr(features)


def test_a_second_value_of_one_name_is_no_way_in() -> None:
    """Of duplicate names the last counts; a NaN that it hides is still not JSON."""
    hidden = b'{"id": "e", "features": {"other": NaN, "other": 1}}'
    assert _decoded(Rec(value=hidden)).failures[1].message.startswith("NaN is not JSON: ")


def test_a_structured_cloud_event_has_its_features_in_data() -> None:
    """The features are looked for where the envelope of a CloudEvent has them."""
    value = json.dumps({"id": "c", "data": {"features": {"income": NAN}}}).encode()
    event = decode_one(
        Rec(value=value, headers=[("content-type", b"application/cloudevents+json")]), origin_of(Rec()), ENVELOPE
    )
    assert isinstance(event, Event) and repr(event.features) == "{'income': nan}"


@pytest.mark.parametrize("few", [True, False])
def test_an_event_of_literals_costs_little(few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value with more literals than features can have is refused without being decoded, and says how many."""
    monkeypatch.setattr(nan, "_MOST", 3 if few else 2)
    failure = _decoded(Rec(value=b'{"id": "e", "features": {"other": [-Infinity, NaN, NaN], "s": "NaN"}}')).failures[1]
    where = " (features.other[0])" if few else ""
    assert failure.message == f"-Infinity is not JSON{where}: write null, or a finite number (3 in the event)"


@pytest.mark.parametrize("text", ['"', "\\", '\\"', '\\\\"', '"\\', ": NaN,", "[NaN]", "-Infinity"])
def test_quotes_and_backslashes_before_a_literal(text: str) -> None:
    """Whether a literal is inside a string is told by the quotes before it that are not escaped."""
    features = {text: text, "income": NAN, "x": [text, f"NaN {text} NaN"]}
    assert repr(objects(_decoded(_record(features)))[1]) == repr(features)
