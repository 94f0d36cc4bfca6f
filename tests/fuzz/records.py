"""Targets for records: an event's bytes and headers."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import datetime

import numpy as np

from failsoft.models.catalog.card import load_card
from failsoft.schemas import attempt as attempts
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.decoding import best_id, decode, decode_one
from failsoft.schemas.event import MAX_ID, Envelope, Event, origin_of
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.paths import find
from failsoft.schemas.features.reading import columns, columns_in, reason
from failsoft.schemas.features.spec import FeatureType
from failsoft.schemas.features.table import FeatureTable
from failsoft.schemas.formats.reader import SchemaReader
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.schemas.json_events import bare
from failsoft.schemas.letter_id import LetterId
from failsoft.schemas.record import Header, Origin
from failsoft.schemas.unwrapping import SchemaData, schema_refs
from failsoft.topics import hold
from failsoft.workers.operations import dead_letters
from tests.fuzz.files import MODEL
from tests.fuzz.published import plain
from tests.fuzz.target import Target
from tests.kit import INPUT, NOW_MS, REPLAY, Rec, attempt, objects, read_json
from tests.schema_readers import FakeReader, encoded

ENVELOPES = (
    Envelope(id="event_id", time="occurred_at", max_bytes=100_000),
    Envelope(id="event_id", time="occurred_at", features="", max_bytes=100_000),
    Envelope(),
    Envelope(id="data.id", time="features.at", nans=("car_value", "a.b"), max_bytes=100_000),
)
_AVRO = Envelope(id="event_id", time="occurred_at", max_bytes=100_000, format=WireFormat.AVRO, registries=("http://r",))
LONGEST_ANSWER = 16_384
"""Bytes that an event's id and time, as JSON, may add to an answer, for an event of any size."""

TOPICS = (INPUT, "loans.retry.5s", "loans.retry.1m", REPLAY)


def record(form: bytes, offset: int) -> Rec:
    """Parses the notation for records in this folder: the topic, a line for each header, an empty line, the value.

    ``name: value`` is a header, ``name`` alone a header without a value, and ``:key: k`` the record's key. The value
    "(null)" is a tombstone.
    """
    head, _, value = form.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    headers: list[Header] = []
    key: bytes | None = b"k"
    for line in lines:
        name, colon, rest = line.lstrip(b":").partition(b": ")
        if line.startswith(b":key"):
            key = rest if colon else None
        else:
            headers.append((name.decode("utf-8", "replace"), rest if colon else None))
    topic = first.decode("utf-8", "replace")
    known = topic if topic in TOPICS else INPUT
    return Rec(known, 0, offset, NOW_MS - 1000, key, None if value == b"(null)" else value, headers)


def written(one: Rec) -> bytes:
    """Writes a record in the notation that ``record`` parses."""
    lines = [one.topic.encode(), *(k.encode() + (b"" if v is None else b": " + v) for k, v in one.headers)]
    return b"\n".join(lines) + b"\n\n" + (b"(null)" if one.value is None else one.value)


# --- one event ---

SPECS = load_card(MODEL / "card.toml").specs


def event(data: bytes) -> bool:
    """A record is an event within its limits, or MALFORMED; the result is the same in a batch, whose other events do
    not change.

    The event's features become columns in which each unusable cell has a reason.
    """
    one, accepted = record(data, 7), False
    for envelope in ENVELOPES:
        found = decode_one(one, origin_of(one), envelope)
        batch = decode([GOOD, one, GOOD], {}, envelope)
        if isinstance(found, SchemaData):  # a CloudEvent that says that its data are Avro or Protobuf
            assert batch.failures[1].kind is Kind.MALFORMED and batch.ids[0] == batch.ids[2]
            continue
        good = read_json(GOOD, envelope)
        assert isinstance(good, Event)
        for row in (0, 2):
            assert Event(batch.ids[row], batch.times[row], objects(batch)[row]) == good
        assert 0 < len(batch.ids[1]) <= MAX_ID
        assert len(json.dumps([batch.ids[1], batch.times[1]])) < LONGEST_ANSWER
        datetime.fromisoformat(batch.times[1])
        if isinstance(found, Failure):
            assert batch.failures == {1: found} and found.kind is Kind.MALFORMED and 0 < len(found.message) < 2000
            continue
        assert batch.failures == {}
        in_batch = Event(batch.ids[1], batch.times[1], objects(batch)[1], batch.untimed.get(1))
        assert repr(in_batch) == repr(found)  # repr: a NaN is not equal to itself
        assert one.value is not None and (_has_nan(found, envelope) or isinstance(plain(bare(one.value)), dict))
        _columns(found)
        accepted = True
    return _by_schema(one) or accepted


def _by_schema(one: Rec) -> bool:
    """The record in a batch of a topic of Avro: an event, or one failure, and its neighbours are as they were."""
    readers: dict[int | str, SchemaReader | Failure] = dict.fromkeys(schema_refs([FRAMED, one], _AVRO), FakeReader())
    batch = decode([FRAMED, one, FRAMED], {}, _AVRO, readers)
    good = decode([FRAMED], {}, _AVRO, readers)
    for row in (0, 2):
        assert (batch.ids[row], batch.times[row]) == (good.ids[0], good.times[0]) and row not in batch.failures
    assert 0 < len(batch.ids[1]) <= MAX_ID and best_id(one, origin_of(one), _AVRO)
    datetime.fromisoformat(batch.times[1])
    assert all(
        failure.kind is Kind.MALFORMED and 0 < len(failure.message) < 2000 for failure in batch.failures.values()
    )
    rows = [row for row in range(3) if row not in batch.failures]
    assert isinstance(batch.features, FeatureTable)
    assert columns_in(batch.features, rows, SPECS).size == len(rows)
    return len(rows) == 3


def _has_nan(found: Event, envelope: Envelope) -> bool:
    """Whether a feature of the event that may be NaN is NaN."""
    values = [find(found.features, path) for path in envelope.nans]
    return any(isinstance(value, float) and value != value for value in values)


def _columns(found: Event) -> None:
    made = columns([found.features, {}], SPECS)
    for spec in SPECS:
        bad = made.unusable.get(spec.name)
        assert bad is not None and bad[1], "a missing feature must have a reason"
        there = spec.name in found.features
        why = reason(found.features[spec.name], spec) if there else "missing"
        assert bad[0] == (why is not None) and made.why.get((0, spec.name)) == why
        if spec.type is FeatureType.FLOAT:
            assert np.isfinite(made.values[spec.name]).all()


LINES = (
    b'{"event_id": "50000", "occurred_at": "2018-10-30T18:00:00Z", "features": {"car_value": 12638.0, "salary_range": '
    b'"0 - 20K \xe2\x82\xac", "debt_to_income_ratio": 0.4879263073031473, "loan_length": 21.0, '
    b'"repaid_loan_on_prev_car": false, "size_of_downpayment": "10%", "driver_tenure": 4.224627596290295}}',
    b'{"event_id": 50001, "occurred_at": "2018-10-30 18:08:43.152", "features": {"car_value": 52425.0, "salary_range": '
    b'"20K - 40K \xe2\x82\xac", "debt_to_income_ratio": 0.6721834686006466, "loan_length": 20, '
    b'"repaid_loan_on_prev_car": null, "size_of_downpayment": "40%", "driver_tenure": 4.963102897846603}}',
)
"""Two of the demo's events (workers/demo/data), the second in the notation of other programs."""

GOOD = Rec(INPUT, 0, 3, NOW_MS, b"k", LINES[0], [])
_CLOUD = b'{"specversion": "1.0", "id": "c-1", "time": "2018-10-30T18:00:00.5+02:00", "data": ' + LINES[0] + b"}"
_FRAMED_VALUE = encoded(7, json.loads(LINES[0]))
FRAMED = Rec(INPUT, 0, 4, NOW_MS, b"k", _FRAMED_VALUE, [])
_BARE = _FRAMED_VALUE[5:]
_CLOUD_OF_BYTES = json.dumps(
    {"id": "c-4", "datacontenttype": "application/avro", "data_base64": b64encode(_FRAMED_VALUE).decode()}
).encode()

EVENTS = (
    written(GOOD),
    INPUT.encode() + b"\ntraceparent: 00-a-b-01\n\n" + LINES[1],
    INPUT.encode() + b"\nce_id: c-2\nce_time: 2018-10-30T18:00:00Z\n\n" + LINES[1],
    INPUT.encode() + b"\ncontent-type: application/cloudevents+json; charset=utf-8\n\n" + _CLOUD,
    INPUT.encode() + b"\n\n\0\0\0\0\7" + LINES[1],
    INPUT.encode() + b"\n\n\xef\xbb\xbf" + LINES[1],
    written(FRAMED),
    INPUT.encode() + b"\n__value_schema_id: \x01" + b"g" * 16 + b"\n\n" + _BARE,
    INPUT.encode() + b"\nce_id: c-3\ncontent-type: application/avro\nce_dataschema: http://r/schemas/ids/7\n\n" + _BARE,
    INPUT.encode() + b"\ncontent-type: application/cloudevents+json\n\n" + _CLOUD_OF_BYTES,
    INPUT.encode() + b"\n\n" + json.dumps({"event_id": "x", "occurred_at": "2018-W44-2", "features": {}}).encode(),
    INPUT.encode() + b'\n\n{"data": {"id": 7}, "features": {"at": 1790000000000, "car_value": NaN, "a": {"b": NaN}}}',
)

# --- headers ---

MOST_ADDED = 4096
"""Bytes of control headers that a record gets, names and values; the limit is the contract's."""


def headers(data: bytes) -> bool:
    """Headers give an attempt that survives a round trip, or BAD_HEADER with what could be salvaged.

    The headers added stay under 4 KiB, the hold reads the same due time, and a dead letter made of them can be read.
    """
    one = record(REPLAY.encode() + b"\n" + data + b"\n\n{}", 5)
    found = attempts.parse(one.headers)
    accepted = isinstance(found, Attempt)
    if isinstance(found, Failure):
        assert found.kind is Kind.BAD_HEADER and found.message.startswith("failsoft-") and len(found.message) < 1000
        found = attempts.salvage(one.headers, found, Origin(INPUT, 0, 5, NOW_MS), "m", NOW_MS)
    else:
        assert found.due_ms == hold.due_ms(one.headers)
        assert attempts.parse(found.headers()) == found
    for dead in (False, True):
        added = found.dead_headers("loans") if dead else found.headers()
        assert sum(len(k) + len(v or b"") for k, v in added) <= MOST_ADDED
        kept = dead_letters.letter(Rec(headers=added, value=one.value), None)
        assert isinstance(kept.attempt, Attempt)
        json.dumps(dead_letters.described(kept, ENVELOPES[0], replayed=False), allow_nan=False)
        replayed = attempts.parse(dead_letters.again(kept, "r"))
        assert isinstance(replayed, Attempt) and replayed.replays >= kept.attempt.replays
    return accepted


_ATTEMPTS = tuple(
    b"\n".join(k.encode() + b": " + (v or b"") for k, v in one.headers())
    for one in (
        attempt(),
        attempt(due_ms=None, replay_id="r", crashes=1, replays=1, failure=Failure(Kind.TIMEOUT, "é")),
        attempt(due_ms=None, letter=LetterId("A" * 22, 3, 17), died_ms=NOW_MS),
    )
)

TARGETS = (
    Target(
        "event",
        event,
        EVENTS,
        (
            b"\n\n(null)",
            b'"event_id"',
            b'"features"',
            b'"data"',
            b"ce_id",
            b"content-type",
            b'"id"',
            b"NaN",
            b"Infinity",
            b'"data.features"',
            b"1790000000.5",
        ),
    ),
    Target("headers", headers, _ATTEMPTS, (b"failsoft-due-ms", b"failsoft-replays: ", b"poison", b"9" * 19)),
)
