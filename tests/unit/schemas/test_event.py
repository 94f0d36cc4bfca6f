"""Events: the sources of id, time and features, and malformed values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from failsoft.schemas.decoding import decode
from failsoft.schemas.event import MAX_ID, Envelope, Event, fallback_id, iso
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.record import Header, Origin
from tests.kit import INPUT, NOW_MS, Rec, objects, read_json

ENVELOPE = Envelope(id="id", time="at")
AT = "2027-01-15T07:59:59.000Z"
ORIGIN_ID = f"{INPUT}-0-5"


def _record(value: Any, *headers: Header) -> Rec:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Rec(offset=5, value=raw, headers=list(headers))


def _read(value: Any, *headers: Header, envelope: Envelope = ENVELOPE) -> Event | Failure:
    record = _record(value, *headers)
    return read_json(record, envelope)


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
        (None, [], ORIGIN_ID),
        ("", [], ORIGIN_ID),
    ],
)
def test_an_id_is_the_header_the_field_or_the_origin(id: object, headers: list[Header], found: str) -> None:
    """The id is, in the contract's order: ce_id, the configured field, topic-partition-offset."""
    assert _event({"id": id, "features": {}}, *headers).id == found


def test_without_a_configured_field_the_origin_is_the_id() -> None:
    """A field that happens to be called id is ignored when no id field is configured."""
    assert _event({"id": "x", "features": {}}, envelope=Envelope()).id == ORIGIN_ID


@pytest.mark.parametrize("id", [True, 1.5, 2**70, [], {}, "x" * (MAX_ID + 1)])
def test_an_unusable_id_is_malformed(id: object) -> None:
    """An id of another type or beyond the length limit is malformed: no id is guessed in its place."""
    failure = _read({"id": id, "features": {}})
    assert isinstance(failure, Failure) and failure.kind is Kind.MALFORMED and "id" in failure.message


def test_the_id_of_a_retry_is_its_origins() -> None:
    """The id topic-partition-offset is that of the origin, not that of the retry record."""
    record = Rec("loans.retry.5s", offset=9, value=b'{"features": {}}', headers=[("a", b"b")])
    origin = Origin(INPUT, 0, 5, NOW_MS)
    batch = decode([record], {0: origin}, ENVELOPE)
    assert batch.ids == [fallback_id(origin)] == [ORIGIN_ID]


# --- CloudEvents ---


@pytest.mark.parametrize("content_type", [b"application/cloudevents+json", b" Application/CloudEvents; charset=utf-8"])
def test_a_structured_cloud_event_has_its_own_fields(content_type: bytes) -> None:
    """A structured CloudEvent's id, time and data are used, and the configured features object within data."""
    value = {"specversion": "1.0", "id": "c1", "time": "2020-01-01T00:00:00Z", "data": {"features": {"x": 1}}}
    assert _event(value, ("content-type", content_type)) == Event("c1", "2020-01-01T00:00:00Z", {"x": 1})


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"data": {"features": {}}}, "without an id"),
        ({"id": "c", "data": [1]}, "data is a list"),
        ({"id": "c"}, "data is null"),
        ([], "a list, not an object"),
    ],
)
def test_an_incomplete_structured_cloud_event_is_malformed(value: object, why: str) -> None:
    """A value with a CloudEvent's content type must be a valid CloudEvent."""
    failure = _read(value, ("content-type", b"application/cloudevents+json"))
    assert isinstance(failure, Failure) and why in failure.message


def test_a_binary_cloud_events_time_is_used() -> None:
    """A ce_time header takes precedence over the configured field; the value is the data itself."""
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
        (1540922400, "2018-10-30T18:00:00Z"),
        (True, AT),
        (None, AT),
    ],
)
def test_a_time_is_rfc_3339_or_the_records_own(given: object, found: str) -> None:
    """ISO 8601 becomes RFC 3339, a missing zone means UTC, and an invalid time gives the record's timestamp."""
    value = {"id": "e", "at": given, "features": {}}
    assert _event(value).time == found
    assert decode([_record(value)], {}, ENVELOPE).times == [found]


def test_an_unreadable_time_is_said_and_a_missing_one_is_not() -> None:
    """The record's time stands in for each, its origin's for a retry, in a batch and alone; only some are at fault."""
    values: list[Any] = [{"id": "e", "at": at, "features": {}} for at in ("01/02/2026", None, "2018-10-30", -1)]
    batch = decode([_record(value) for value in values], {3: Origin("t", 0, 1, NOW_MS)}, ENVELOPE)
    assert batch.times == [AT, AT, "2018-10-30T00:00:00Z", iso(NOW_MS)]
    assert list(batch.untimed) == [0, 3] and "'01/02/2026'" in batch.untimed[0]
    assert [_event(value).untimed is None for value in values] == [False, True, True, False]
    each = decode([_record({"id": "e", "features": {}}), _record(values[0])], {}, ENVELOPE)
    assert each.untimed == {1: batch.untimed[0]}


def test_of_two_times_the_readable_one_counts() -> None:
    """A ce_time header that is no time leaves the configured field."""
    event = _event({"at": "2020-01-01T00:00:00Z", "features": {}}, ("ce_time", b"yesterday"))
    assert (event.time, event.untimed) == ("2020-01-01T00:00:00Z", None)


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
    """A timestamp becomes RFC 3339 in UTC; an absent one, or one beyond the calendar, becomes the epoch."""
    assert iso(ms) == text


# --- paths ---

DEEP = Envelope(id="payload.source.id", time="payload.ts", features="payload.after")


def test_id_time_and_features_are_paths() -> None:
    """A change event's parts are found below its payload, alone and in a batch."""
    value = {"payload": {"ts": 1790000000000, "source": {"id": "n-1"}, "after": {"x": 1}}}
    event = Event("n-1", "2026-09-21T14:13:20.000Z", {"x": 1})
    assert _event(value, envelope=DEEP) == event
    batch = decode([_record(value)] * 2, {}, DEEP)
    assert (batch.ids, batch.times, batch.features) == ([event.id] * 2, [event.time] * 2, [event.features] * 2)


def test_a_name_with_dots_is_found_first() -> None:
    """An event that has the path itself as a name is read by it."""
    value = {"payload.after": {"x": 1}, "payload": {"after": {"x": 2}, "source": {"id": "e"}}}
    assert _event(value, envelope=DEEP).features == {"x": 1}


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (None, "payload.after: payload is null, not an object; it must hold the features"),
        ([{"after": {}}], "payload.after: payload is a list, not an object; it must hold the features"),
        ({}, "payload.after: payload has no 'after'; it must hold the features"),
        ({"after": 1}, "payload.after is a number; it must hold the features"),
    ],
)
def test_a_path_to_no_features_says_where_it_ends(payload: object, why: str) -> None:
    """The event is malformed, and the message names the part of the path that is at fault."""
    failure = _read({"payload": payload}, envelope=DEEP)
    assert failure == Failure(Kind.MALFORMED, why)


# --- features and whole batches ---


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (["x"], "the event is a list"),
        ("x", "the event is a string"),
        (7, "the event is a number"),
        ({"id": "e"}, "features is missing"),
        ({"id": "e", "features": None}, "features is null"),
        ({"id": "e", "features": [1]}, "features is a list"),
    ],
)
def test_an_event_without_features_is_malformed(value: object, why: str) -> None:
    """An event that is not an object, or lacks a features object, is malformed, alone and in a batch."""
    failure = _read(value)
    assert isinstance(failure, Failure) and failure.kind is Kind.MALFORMED and why in failure.message
    assert decode([_record(value)], {}, ENVELOPE).failures == {0: failure}


def test_the_event_itself_may_be_the_features() -> None:
    """With features = "" the whole event holds the features."""
    assert _event({"id": "e", "x": 1}, envelope=Envelope(id="id", features="")).features == {"id": "e", "x": 1}


def test_one_bad_row_does_not_change_the_others() -> None:
    """A batch with a bad row gives the same good rows as without it, and a failure for the bad row."""
    good = [_record({"id": f"e{i}", "at": "2018-10-30T18:00:00Z", "features": {"x": i}}) for i in range(3)]
    plain = decode(good, {}, ENVELOPE)
    mixed = decode([good[0], _record(b"{"), good[1], good[2]], {}, ENVELOPE)
    assert plain.failures == {} and list(mixed.failures) == [1]
    assert [mixed.ids[i] for i in (0, 2, 3)] == plain.ids
    assert [mixed.times[i] for i in (0, 2, 3)] == plain.times
    assert [objects(mixed)[i] for i in (0, 2, 3)] == plain.features
    assert objects(mixed)[1] == {} and mixed.ids[1] == ORIGIN_ID


@pytest.mark.parametrize(
    ("value", "headers", "id"),
    [
        (b"{", [("ce_id", b"c")], "c"),
        (b'{"id": "e"}', [], "e"),
        (b'{"id": "c"}', [("content-type", b"application/cloudevents+json"), ("ce_id", b"other")], "c"),
        (b'{"id": true}', [], ORIGIN_ID),
        (b"[1]", [], ORIGIN_ID),
    ],
)
def test_a_malformed_event_keeps_its_readable_id(value: bytes, headers: list[Header], id: str) -> None:
    """A malformed event keeps an id that can be read: a retry's confirmation must carry the id of its first answer."""
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
def test_a_batch_decodes_like_single_records(value: object) -> None:
    """Decoding by columns gives the same events and failures as decoding record by record."""
    one = _read(value)
    batch = decode([_record(value)], {}, ENVELOPE)
    if isinstance(one, Failure):
        assert batch.failures == {0: one}
    else:
        assert (batch.ids, batch.times, batch.features) == ([one.id], [one.time], [one.features])


def test_an_event_over_the_limits_is_malformed() -> None:
    """An event over the envelope's limit of bytes or depth is malformed."""
    big = _read({"id": "e", "features": {"x": "y" * 100}}, envelope=Envelope(id="id", max_bytes=50))
    deep = _read({"id": "e", "features": {"x": [[[]]]}}, envelope=Envelope(id="id", max_depth=4))
    assert isinstance(big, Failure) and "over the limit of 50" in big.message
    assert isinstance(deep, Failure) and "deeper than 4" in deep.message


# --- framing and byte order marks ---

FRAMING = b"\0\0\0\0\7"


@pytest.mark.parametrize("before", [FRAMING, b"\xef\xbb\xbf", FRAMING + b"\xef\xbb\xbf"])
@pytest.mark.parametrize("features", [{"x": 1}, {"x": float("nan")}, {"x": [[[[1]]]]}])
def test_json_may_have_five_bytes_or_a_byte_order_mark_before_it(before: bytes, features: dict[str, Any]) -> None:
    """JSON of Confluent's serializers is read without its schema, in a batch as alone, beside JSON without either."""
    envelope = Envelope(id="id", time="at", nans=("x",), max_depth=4)
    value = {"id": "e", "at": "2018-10-30T18:00:00Z", "features": features}
    record = _record(before + json.dumps(value).encode())
    alone, plain = _read(record.value, envelope=envelope), _read(value, envelope=envelope)
    assert repr(alone) == repr(plain)
    for records in ([record] * 20, [record, _record(value)] * 10):
        batch = decode(records, {}, envelope)
        if isinstance(plain, Failure):
            assert batch.failures == dict.fromkeys(range(20), plain)
        else:
            assert batch.ids == ["e"] * 20 and repr(objects(batch)) == repr([features] * 20)


def test_framing_with_a_quote_does_not_hide_the_depth() -> None:
    """The id's bytes are not JSON: those of a quote must not make a string of the brackets behind it."""
    raw = b'\0\0\0\0"' + json.dumps({"id": "e", "at": "2018-10-30T18:00:00Z", "features": {"x": [[[]]]}}).encode()
    batch = decode([_record(raw)] * 2, {}, Envelope(id="id", time="at", max_depth=4))
    assert [failure.message for failure in batch.failures.values()] == ["nested deeper than 4 levels"] * 2


@pytest.mark.parametrize(
    ("value", "headers", "why"),
    [
        (
            FRAMING + b"\4e1\6abc",
            [],
            "5 bytes of Confluent framing, schema id 7: set [input] format and [schema_registry]",
        ),
        (FRAMING, [], "5 bytes of Confluent framing, schema id 7: set [input] format"),
        (
            b"\4e1",
            [("__value_schema_id", b"\1" + bytes(16))],
            "the header __value_schema_id, schema 00000000-0000-0000-",
        ),
        (FRAMING + b'{"id": ', [], "not JSON: "),
        (FRAMING + FRAMING + b"{}", [], "5 bytes of Confluent framing"),
        (b"\0\0\0", [], "not JSON: "),
        (b"\4e1", [("__value_schema_id", b"?")], "not JSON: "),
        (b"5", [("__value_schema_id", b"\1" + bytes(16))], "the event is a number"),
    ],
)
def test_what_is_framed_and_no_json_names_the_keys_to_set(value: bytes, headers: list[Header], why: str) -> None:
    """The message has the schema; JSON that is broken is said to be that."""
    failure = _read(value, *headers)
    assert isinstance(failure, Failure) and failure.message.startswith(why)
    batch = decode([_record({"features": {}}), _record(value, *headers)], {}, ENVELOPE)
    assert batch.failures == {1: failure}
    assert batch.unexpected == (failure.message if "set [input] format" in failure.message else None)
