"""Events: where their id, time and features come from, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from failsoft.schemas.event import MAX_ID, Envelope, Event, decode, decode_one, fallback_id, iso, origin_of
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.record import Header, Origin
from tests.kit import INPUT, NOW_MS, Rec

ENVELOPE = Envelope(id="id", time="at")
AT = "2027-01-15T07:59:59.000Z"
PLACE = f"{INPUT}-0-5"


def _record(value: Any, *headers: Header) -> Rec:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Rec(offset=5, value=raw, headers=list(headers))


def _read(value: Any, *headers: Header, envelope: Envelope = ENVELOPE) -> Event | Failure:
    record = _record(value, *headers)
    return decode_one(record, origin_of(record), envelope)


def _event(value: Any, *headers: Header, envelope: Envelope = ENVELOPE) -> Event:
    event = _read(value, *headers, envelope=envelope)
    assert isinstance(event, Event), event
    return event


# --- ids ---


@pytest.mark.parametrize(
    ("id", "headers", "found"),
    [
        ("json", [("ce_id", b"binary")], "binary"),
        ("json", [("ce_id", b"first"), ("ce_id", b"last")], "last"),
        ("json", [("CE_ID", b"upper")], "upper"),
        ("json", [("ce_id", b"")], "json"),
        ("json", [("ce_id", None)], "json"),
        ("json", [("ce_id", b"\xff")], "json"),
        ("json", [], "json"),
        (12, [], "12"),
        (None, [], PLACE),
        ("", [], PLACE),
    ],
)
def test_an_id_is_the_header_the_field_or_the_place(id: object, headers: list[Header], found: str) -> None:
    """In the contract's order: ce_id, the configured field, topic-partition-offset."""
    assert _event({"id": id, "features": {}}, *headers).id == found


def test_without_a_configured_field_the_place_is_the_id() -> None:
    """A field that happens to be called id is not looked at."""
    assert _event({"id": "x", "features": {}}, envelope=Envelope()).id == PLACE


@pytest.mark.parametrize("id", [True, 1.5, 2**70, [], {}, "x" * (MAX_ID + 1)])
def test_an_id_that_is_none_is_malformed(id: object) -> None:
    """No id is guessed from something else, and none may be without bound."""
    failure = _read({"id": id, "features": {}})
    assert isinstance(failure, Failure) and failure.kind is Kind.MALFORMED and "id" in failure.message


def test_the_id_of_a_retry_is_its_origins() -> None:
    """The place is that of the first reading, wherever the record is read now."""
    record = Rec("loans.retry.5s", offset=9, value=b'{"features": {}}', headers=[("a", b"b")])
    origin = Origin(INPUT, 0, 5, NOW_MS)
    batch = decode([record], {0: origin}, ENVELOPE)
    assert batch.ids == [fallback_id(origin)] == [PLACE]


# --- CloudEvents ---


@pytest.mark.parametrize("content_type", [b"application/cloudevents+json", b" Application/CloudEvents; charset=utf-8"])
def test_a_structured_cloud_event_brings_its_own_parts(content_type: bytes) -> None:
    """Its id, time and data are used, and within data the configured object of features."""
    value = {"specversion": "1.0", "id": "c1", "time": "2020-01-01T00:00:00Z", "data": {"features": {"x": 1}}}
    assert _event(value, ("content-type", content_type)) == Event("c1", "2020-01-01T00:00:00Z", {"x": 1})


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"data": {"features": {}}}, "without an id"),
        ({"id": "c", "data": [1]}, "data is an array"),
        ({"id": "c"}, "data is null"),
        ([], "an array, not an object"),
    ],
)
def test_a_structured_cloud_event_in_pieces_is_malformed(value: object, why: str) -> None:
    """What calls itself a CloudEvent has to be one."""
    failure = _read(value, ("content-type", b"application/cloudevents+json"))
    assert isinstance(failure, Failure) and why in failure.message


def test_a_binary_cloud_event_brings_its_time_too() -> None:
    """ce_time comes before the configured field; the value is the data itself."""
    event = _event({"at": "2020-01-01T00:00:00Z", "features": {}}, ("ce_time", b"2021-01-01T00:00:00Z"))
    assert event.time == "2021-01-01T00:00:00Z"


# --- times ---


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("2018-10-30T18:00:00Z", "2018-10-30T18:00:00Z"),
        ("2018-10-30T18:00:00.123456789Z", "2018-10-30T18:00:00.123456789Z"),
        ("2018-10-30 18:00:00", "2018-10-30T18:00:00Z"),
        ("2018-10-30T18:00:00+02:00", "2018-10-30T18:00:00+02:00"),
        ("2018-10-30T18:00:00,5Z", "2018-10-30T18:00:00.500000Z"),
        ("2018-10-30T180000.123Z", "2018-10-30T18:00:00.123000Z"),
        ("2018-W44-2T18:00:00Z", "2018-10-30T18:00:00Z"),
        ("2018-10-30", "2018-10-30T00:00:00Z"),
        ("2018-10-30T18:00:00+01:00:30", AT),
        ("2018-02-30T18:00:00Z", AT),
        ("yesterday", AT),
        ("", AT),
        (1540922400, AT),
        (None, AT),
    ],
)
def test_a_time_is_rfc_3339_or_the_records_own(given: object, found: str) -> None:
    """ISO 8601 is brought into form, a missing zone is UTC, and what is no time gives way to the record's timestamp."""
    value = {"id": "e", "at": given, "features": {}}
    assert _event(value).time == found
    assert decode([_record(value)], {}, ENVELOPE).times == [found]


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1970-01-01T00:00:00.000Z"),
        (NOW_MS + 7, "2027-01-15T08:00:00.007Z"),
        (2**62, "1970-01-01T00:00:00.000Z"),
    ],
)
def test_a_timestamp_is_written_in_utc(ms: int, text: str) -> None:
    """One that Kafka calls absent, or that no calendar holds, is the epoch."""
    assert iso(ms) == text


# --- features and whole batches ---


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (["x"], "the event is an array"),
        ("x", "the event is a string"),
        (7, "the event is a number"),
        ({"id": "e"}, "features is missing"),
        ({"id": "e", "features": None}, "features is null"),
        ({"id": "e", "features": [1]}, "features is an array"),
    ],
)
def test_an_event_without_features_is_malformed(value: object, why: str) -> None:
    """One by one and as a batch, and the message does not quote the value."""
    failure = _read(value)
    assert isinstance(failure, Failure) and failure.kind is Kind.MALFORMED and why in failure.message
    assert decode([_record(value)], {}, ENVELOPE).failures == {0: failure}


def test_the_event_itself_may_be_the_features() -> None:
    """With features = "" the whole object is looked at."""
    assert _event({"id": "e", "x": 1}, envelope=Envelope(id="id", features="")).features == {"id": "e", "x": 1}


def test_one_bad_row_leaves_the_others_as_they_are() -> None:
    """A batch with a bad row gives what the good rows would have given alone, and a failure in its place."""
    good = [_record({"id": f"e{i}", "at": "2018-10-30T18:00:00Z", "features": {"x": i}}) for i in range(3)]
    plain = decode(good, {}, ENVELOPE)
    mixed = decode([good[0], _record(b"{"), good[1], good[2]], {}, ENVELOPE)
    assert plain.failures == {} and list(mixed.failures) == [1]
    assert [mixed.ids[i] for i in (0, 2, 3)] == plain.ids
    assert [mixed.times[i] for i in (0, 2, 3)] == plain.times
    assert [mixed.features[i] for i in (0, 2, 3)] == plain.features
    assert mixed.features[1] == {} and mixed.ids[1] == PLACE


@pytest.mark.parametrize(
    ("value", "headers", "id"),
    [
        (b"{", [("ce_id", b"c")], "c"),
        (b'{"id": "e"}', [], "e"),
        (b'{"id": "c"}', [("content-type", b"application/cloudevents+json"), ("ce_id", b"other")], "c"),
        (b'{"id": true}', [], PLACE),
        (b"[1]", [], PLACE),
    ],
)
def test_an_event_that_fails_keeps_the_id_that_can_be_read(value: bytes, headers: list[Header], id: str) -> None:
    """A retry's confirmation must carry the id of the answer that it confirms."""
    batch = decode([_record(value, *headers)], {}, ENVELOPE)
    assert batch.ids == [id] and list(batch.failures) == [0]


@pytest.mark.parametrize(
    "value",
    [
        {"id": "e", "at": "2018-10-30T18:00:00Z", "features": {"x": 1}},
        {"id": 5, "at": "2018-10-30T18:00:00Z", "features": {"x": 1}},
        {"id": "", "at": "2018-10-30T18:00:00Z", "features": {"x": 1}},
        {"id": "e", "features": {"x": 1}},
        {"id": "e", "at": 7, "features": {"x": 1}},
        {"id": "x" * (MAX_ID + 1), "at": "2018-10-30T18:00:00Z", "features": {}},
        {"id": "e", "at": "2018-10-30T18:00:00Z", "features": []},
        [],
        "text",
    ],
)
def test_the_batch_reads_what_one_record_would(value: object) -> None:
    """Reading by columns is a short cut, never another answer."""
    one = _read(value)
    batch = decode([_record(value)], {}, ENVELOPE)
    if isinstance(one, Failure):
        assert batch.failures == {0: one}
    else:
        assert (batch.ids, batch.times, batch.features) == ([one.id], [one.time], [one.features])


def test_an_event_over_the_limits_is_malformed() -> None:
    """Bytes and depth are bounded by the pipeline's settings."""
    big = _read({"id": "e", "features": {"x": "y" * 100}}, envelope=Envelope(id="id", max_bytes=50))
    deep = _read({"id": "e", "features": {"x": [[[]]]}}, envelope=Envelope(id="id", max_depth=4))
    assert isinstance(big, Failure) and "over the limit of 50" in big.message
    assert isinstance(deep, Failure) and "deeper than 4" in deep.message
