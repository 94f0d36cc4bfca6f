"""The scored record in Avro: the column encoder, compared with fastavro and with the JSON of the same answers."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import replace
from datetime import datetime
from typing import Any

import fastavro
import numpy as np
import pytest

from failsoft.schemas import scored, scored_avro, scored_read, scored_schema, times, wire
from failsoft.schemas.failure import Kind
from failsoft.schemas.formats import avro_encoding
from failsoft.schemas.prediction import Prediction, Predictions, Source
from tests.unit.schemas.test_scored import PLAIN, SCORES

SCHEMA = fastavro.parse_schema(json.loads(scored_schema.TEXT))
ID = 0x25_0D_00_07  # with a percent sign, which the template must not take for its own
MOST = 100_000


def _json(answers: scored.Answers) -> list[dict[str, Any]]:
    """What the answers are in JSON, with times as Avro's microseconds give them."""
    found = [json.loads(raw) for raw in scored.encode(answers)]
    for one in found:
        for name in ("event_time", "scored_at"):
            one[name] = times.rfc_3339(*times.microseconds([one[name]]))
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"source": Source.STATIC, "model": None, "version": None, "reason": Kind.BREAKER_OPEN, "final": False},
        {"source": Source.RULE, "model": "pkg.mod:100%rule", "version": None, "reason": Kind.TIMEOUT, "revision": 1},
        {"ids": ["50% of %b %%", "ünï\u2028" * 400], "topics": ["a%d", "a%d"]},
        {"predictions": Predictions(SCORES, ["yes", "no%b"], np.stack([1 - SCORES, SCORES], axis=1), SCORES)},
        {"predictions": Predictions(SCORES, [1, None], np.zeros((2, 0)), None)},
        {"predictions": Predictions(SCORES, [-(2**63), 2**63 - 1])},
        {"predictions": Predictions(np.array([1e-7, -12345.678], np.float32))},
        {"predictions": Predictions.of([Prediction(0.5, 0), Prediction(2.0, "x", None, 0.25)])},
        {"predictions": Predictions(SCORES, outputs={"50%b": SCORES, 'a"': np.array([[2**62, -1], [0, 1]])})},
        {"predictions": Predictions(SCORES, outputs={"v": np.stack([SCORES, SCORES], 1), "e": np.zeros((2, 0))})},
        {"predictions": Predictions(SCORES, outputs={"deep": np.ones((2, 1, 2), np.bool_), "w": ["a%", {"k": None}]})},
        {"predictions": Predictions(SCORES, outputs={"nan": np.array([np.nan, 1]), "big": [2**64 - 1, [2**64 - 1]]})},
        {"predictions": Predictions(SCORES, outputs={"w": [[1, None, "a", True, 0.5], []], "b": [True, None]})},
        {"offsets": [2**62, 0], "partition": 0},
        {"offsets": [127, 128], "partition": 64, "version": 20_261_129_120_000},
        {"offsets": [8191, 8192], "times": ["1969-12-31T23:59:59.5Z", "2018-10-30T18:00:01.123456789+02:00"]},
        {"missing": {0: ("income", "a%b.c")}},
        {"missing": {0: ("x",), 1: ("x", "y")}, "imputed": {}, "rewind": "r%1"},
        {"source": Source.ENSEMBLE, "version": None, "members": ("a%b@1", "b@2")},
    ],
)
def test_avro_is_read_as_the_json_of_the_same_answer(changes: dict[str, Any]) -> None:
    """fastavro reads each value to its end and writes the same bytes; the answer equals that in JSON, in its order."""
    answers = replace(PLAIN, **changes)
    values = scored_avro.encode(answers, ID)
    for raw in values:
        assert struct.unpack(">bI", raw[:5]) == (0, ID)
        body = io.BytesIO(raw[5:])
        record = fastavro.schemaless_reader(body, SCHEMA, None)
        assert not body.read() and _written(record) == raw[5:]
        assert isinstance(record["event_time"], datetime)
    found = [scored_read.loads(raw, MOST) for raw in values]
    assert found == _json(answers)
    assert [list(one) for one in found] == [list(one) for one in _json(answers)]


def _written(record: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, SCHEMA, record)
    return out.getvalue()


def test_a_label_beyond_64_bits_is_text() -> None:
    """Avro's long has 64 bits with a sign; JSON's label may be a model's unsigned integer."""
    raw = scored_avro.encode(replace(PLAIN, predictions=Predictions(SCORES, [2**63, 1])), 1)
    assert [scored_read.loads(each, MOST)["label"] for each in raw] == [str(2**63), 1]


def test_labels_that_are_equal_and_of_two_types_stay_apart() -> None:
    """1, "1" and 1 of another batch are kept by their types."""
    raw = scored_avro.encode(replace(PLAIN, predictions=Predictions(SCORES, ["1", 1])), 1)
    assert [scored_read.loads(each, MOST)["label"] for each in raw] == ["1", 1]


def test_no_rows_and_unequal_columns() -> None:
    """A batch without rows gives no values, and columns of different lengths are an error."""
    nothing = Predictions(SCORES[:0], [], None, SCORES[:0])
    empty = replace(PLAIN, ids=[], times=[], topics=[], offsets=[], imputed={}, predictions=nothing)
    assert scored_avro.encode(empty, 1) == []
    with pytest.raises(ValueError, match="argument"):
        scored_avro.encode(replace(PLAIN, offsets=[17]), 1)


def test_times_beyond_the_calendar_become_its_ends() -> None:
    """An offset moves a time out of the years 1 to 9999, where fastavro and Java's classes cannot read it."""
    raw = scored_avro.encode(replace(PLAIN, times=["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]), 1)
    assert [scored_read.loads(each, MOST)["event_time"] for each in raw] == [
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
    ]
    assert fastavro.schemaless_reader(io.BytesIO(raw[0][5:]), SCHEMA, None)


@pytest.mark.parametrize("number", [0, 1, -1, 63, 64, -64, -65, 8191, 8192, 2**31, 2**62, 2**63 - 1, -(2**63)])
def test_longs_are_those_of_fastavro(number: int) -> None:
    """One long, and a column of longs, have fastavro's bytes."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", number)
    assert avro_encoding.long(number) == out.getvalue()
    assert avro_encoding.longs([number, 0]) == [out.getvalue(), b"\x00"]
    assert avro_encoding.longs([number, -1] * 20) == [out.getvalue(), b"\x01"] * 20


def test_a_long_has_64_bits() -> None:
    """A larger number is an error, and no longer sequence of bytes."""
    with pytest.raises(OverflowError, match="64 bits"):
        avro_encoding.long(2**63)
    with pytest.raises(OverflowError):
        avro_encoding.longs([2**63] * 20)


@pytest.mark.parametrize(
    "reads", [b"", b"{}", b"\x00", b"\x00\x00\x00\x00\x07", b"\x00" * 60, b"\x00" * 5 + b"\xff" * 60]
)
def test_other_programs_values_are_no_answers(reads: bytes) -> None:
    """A value that is no answer in Avro is malformed; JSON is what it is."""
    if reads == b"{}":
        assert scored_read.loads(reads, MOST) == {}
        return
    with pytest.raises(wire.Malformed):
        scored_read.loads(reads, MOST)


def test_every_cut_of_a_value_is_malformed_and_later_fields_are_not() -> None:
    """A value cut off anywhere is no answer; fields that a later version adds at the end are skipped."""
    [raw, _] = scored_avro.encode(replace(PLAIN, predictions=Predictions(SCORES, outputs={"a": SCORES})), 1)
    for end in range(1, len(raw)):
        with pytest.raises(wire.Malformed):
            scored_read.loads(raw[:end], MOST)
    assert scored_read.loads(raw + b"\x02\x06new", MOST) == scored_read.loads(raw, MOST)
    with pytest.raises(wire.Malformed, match="limit of 10"):
        scored_read.loads(raw, 10)


def test_the_schema_is_known_by_its_shape() -> None:
    """Spaces and documentation do not matter, and a field does."""
    document = json.loads(scored_schema.TEXT)
    assert scored_schema.is_scored(json.dumps(document | {"doc": "else"}, indent=2))
    document["fields"].pop()
    assert not scored_schema.is_scored(json.dumps(document)) and not scored_schema.is_scored("{")
