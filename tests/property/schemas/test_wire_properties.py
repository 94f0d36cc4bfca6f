"""Round trips: every encoded value is read back unchanged."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from failsoft.schemas import attempt as attempts
from failsoft.schemas import scored_avro, scored_read, wire
from failsoft.schemas.attempt import Attempt, shortened
from failsoft.schemas.decoding import decode
from failsoft.schemas.event import Envelope, Event
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.prediction import Predictions, Source
from failsoft.schemas.record import Origin
from failsoft.schemas.scored import Answers, encode
from failsoft.topics import hold
from tests.kit import NOW_MS, Rec, objects, read_json
from tests.unit.schemas.test_scored import plainly

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
NAME = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
WHOLE = st.integers(0, 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)

ATTEMPTS = st.builds(
    Attempt,
    number=WHOLE,
    origin=st.builds(Origin, NAME, WHOLE, WHOLE, st.integers(-1, 2**63 - 1)),
    first_failed_ms=WHOLE,
    failure=st.builds(Failure, st.sampled_from(Kind), st.text(st.characters(codec="utf-8"), max_size=800)),
    model=NAME,
    version=st.none() | WHOLE,
    next_revision=WHOLE,
    replays=WHOLE,
    replay_id=st.none() | NAME,
    due_ms=st.none() | WHOLE,
)


@given(ATTEMPTS)
def test_an_attempt_is_read_back_as_it_was_written(written: Attempt) -> None:
    """Every field is read back, with the message cut to its limit; the hold reads the same due time."""
    found = attempts.parse(written.headers())
    assert isinstance(found, Attempt)
    cut = Failure(written.failure.kind, shortened(written.failure.message).decode())
    assert (found.failure, found.headers()) == (cut, written.headers())
    assert (found.origin, found.due_ms, found.version) == (written.origin, written.due_ms, written.version)
    assert hold.due_ms(written.headers()) == written.due_ms


@given(st.lists(st.tuples(st.sampled_from([k for k, _ in attempts.Attempt(
    0, Origin("t", 0, 0, 0), 0, Failure(Kind.TIMEOUT, ""), "m", 1, 1, 0, "r", 1
).headers()]), st.none() | st.binary(max_size=25)), max_size=16))  # fmt: skip
def test_no_headers_raise_and_the_hold_reads_the_same_due_time(headers: list[tuple[str, bytes | None]]) -> None:
    """Any headers give an attempt or a bad_header failure, and the hold reads an attempt's due time: no early retry."""
    found = attempts.parse(headers)
    due = hold.due_ms(headers)
    if isinstance(found, Attempt):
        assert found.due_ms == due
    else:
        assert found.kind is Kind.BAD_HEADER and found.message.startswith("failsoft-")
        saved = attempts.salvage(headers, found, Origin("t", 0, 0, 0), "m", NOW_MS)
        assert isinstance(attempts.parse(saved.headers()), Attempt)


@given(st.lists(TEXT, max_size=8))
def test_strings_are_read_back(column: list[str]) -> None:
    """A column encoded by one call gives the JSON of each string."""
    assert [json.loads(b'"%b"' % s) for s in wire.strings(column)] == column


@given(arrays(np.float32, st.integers(0, 8), elements=FLOATS))
def test_float32_numbers_are_read_back(column: np.ndarray) -> None:  # type: ignore[type-arg]
    """A float32 read back is the same float32."""
    found = [np.float32(json.loads(n)) for n in wire.numbers(column)]
    assert found == column.tolist()


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def arrays_of_any_rank(n: int) -> st.SearchStrategy[np.ndarray[Any, Any]]:
    """An array of n rows of up to three further dimensions; numbers may be NaN or infinite."""
    kinds = st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_])
    shapes = st.lists(st.integers(0, 3), max_size=3).map(lambda rest: (n, *rest))
    return kinds.flatmap(lambda kind: arrays(kind, shapes))


RARE = ("members", "outputs")
"""Keys of an answer that it has only where they say something. Avro always has the fields."""


@settings(max_examples=60)
@given(st.data())
def test_scored_records_are_read_back(data: st.DataObject) -> None:
    """Any batch of answers gives the same JSON values as a plain encoder, and Avro that is read as these."""
    n = data.draw(st.integers(0, 5))

    def column(of: st.SearchStrategy) -> list:  # type: ignore[type-arg]
        return data.draw(st.lists(of, min_size=n, max_size=n))

    scores = np.array(column(FLOATS), np.float32)
    predictions = Predictions(
        scores,
        data.draw(st.none() | st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | TEXT, min_size=n, max_size=n)),
        data.draw(st.none() | arrays(np.float32, (n, 2), elements=st.floats(0, 1, width=32))),
        data.draw(st.none() | st.just(scores)),
    )
    shapes = arrays_of_any_rank(n)
    outputs = data.draw(st.none() | st.dictionaries(TEXT, shapes | st.lists(JSON_VALUES, min_size=n, max_size=n)))
    predictions = replace(predictions, outputs=outputs)
    source = data.draw(st.sampled_from(Source))
    # Only answers of the primary, or of a complete ensemble, have no reason.
    reasons = {Source.PRIMARY: st.none(), Source.ENSEMBLE: st.none() | st.sampled_from(Kind)}
    answers = Answers(
        source=source,
        model=data.draw(st.none() | TEXT),
        version=data.draw(st.none() | WHOLE),
        reason=data.draw(reasons.get(source, st.sampled_from(Kind))),
        members=data.draw(st.lists(TEXT).map(tuple)) if source is Source.ENSEMBLE else None,
        revision=data.draw(st.integers(0, 2)),
        final=data.draw(st.booleans()),
        ids=column(TEXT),
        times=column(TEXT),
        predictions=predictions,
        topics=column(TEXT),
        partition=data.draw(st.integers(0, 1000)),
        offsets=column(WHOLE),
        imputed=data.draw(st.dictionaries(st.integers(0, n - 1), st.tuples(TEXT, TEXT))) if n else {},
        scored_at=data.draw(TEXT),
    )
    assert [json.loads(raw) for raw in encode(answers)] == plainly(answers)
    whole = replace(answers, times=["2018-10-30T18:00:00Z"] * n, scored_at="2018-10-30T18:00:00.500Z")
    if all(whole.ids) and all(whole.topics):  # without them, no reader takes it for an answer
        found = [scored_read.loads(raw, 10**6) for raw in scored_avro.encode(whole, 7)]
        assert found == [{k: v for k, v in answer.items() if v or k not in RARE} for answer in plainly(whole)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["e", "", 7, None]) | JSON,
        "at": st.sampled_from(["2018-10-30T18:00:00Z", "2018-10-30", "x", 5, 1.5, None]) | st.datetimes().map(str),
        "features": st.dictionaries(TEXT, JSON, max_size=2) | JSON,
    },
)


PLAIN = st.builds(lambda id: {"id": id, "at": "2018-10-30T18:00:00Z", "features": {"x": 1}}, TEXT)
OTHER_HEADERS = st.sampled_from([[], [("traceparent", b"1")], [("content-type", b"application/json")]])
CLOUD_HEADERS = st.sampled_from([[("ce_id", b"c")], [("content-type", b"application/cloudevents+json")]])


@given(
    st.lists(st.tuples(PLAIN, OTHER_HEADERS), max_size=4)
    | st.lists(st.tuples(PLAIN | EVENTS | JSON, OTHER_HEADERS | CLOUD_HEADERS), max_size=4),
    st.sampled_from([Envelope(id="id", time="at"), Envelope(), Envelope(features="")]),
)
def test_a_batch_decodes_like_single_records(
    parts: list[tuple[object, list[tuple[str, bytes]]]], envelope: Envelope
) -> None:
    """Decoding by columns gives the same events and failures as decoding record by record."""
    records = [Rec(offset=i, value=json.dumps(v).encode(), headers=h) for i, (v, h) in enumerate(parts)]
    batch = decode(records, {}, envelope)
    for i, record in enumerate(records):
        one = read_json(record, envelope)
        if isinstance(one, Failure):
            assert batch.failures[i] == one
        else:
            found = Event(batch.ids[i], batch.times[i], objects(batch)[i], batch.untimed.get(i))
            assert one == found and i not in batch.failures


@given(JSON, st.integers(1, 6))
def test_depth_is_the_deepest_nesting(value: object, limit: int) -> None:
    """The depth of JSON text equals that of a recursive walk over the decoded value."""

    def depth(v: object) -> int:
        inner = v.values() if isinstance(v, dict) else v if isinstance(v, list) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    assert wire.too_deep(json.dumps(value).encode(), limit) is (depth(value) > limit)
