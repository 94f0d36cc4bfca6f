"""The scored record: the template encoder, compared with a plain encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from failsoft.schemas.failure import Kind
from failsoft.schemas.prediction import Prediction, Predictions, Source
from failsoft.schemas.scored import Answers, encode, headers

SCORES = np.array([0.93, 0.1], np.float32)
PLAIN = Answers(
    source=Source.PRIMARY,
    model="repayment",
    version=2,
    reason=None,
    revision=0,
    final=True,
    ids=["a", 'b",'],
    times=["2018-10-30T18:00:00Z", "2018-10-30T18:00:01Z"],
    predictions=Predictions(SCORES, [1, 0], None, np.maximum(SCORES, 1 - SCORES)),
    topics=["loans", "other"],
    partition=3,
    offsets=[17, 18],
    imputed={1: ("car_value", "ratio")},
    scored_at="2026-11-24T16:00:00.123Z",
)


def plainly(a: Answers) -> list[dict[str, Any]]:
    """The same records, built without template and columns."""
    rows = [a.predictions.row(i) for i in range(len(a.ids))]
    return [
        {
            "event_id": a.ids[i],
            "score": p.score,
            "label": p.label,
            "probabilities": None if p.probabilities is None else list(p.probabilities),
            "confidence": p.confidence,
            **({} if p.outputs is None else {"outputs": p.outputs}),
            "source": str(a.source),
            "model": a.model,
            "version": a.version,
            **({} if a.members is None else {"members": list(a.members)}),
            "degraded": a.reason is not None,
            "reason": None if a.reason is None else str(a.reason),
            "revision": a.revision,
            "final": a.final,
            "imputed": list(a.imputed.get(i, ())),
            **({"missing": list(a.missing[i])} if i in a.missing else {}),
            "origin": {"topic": a.topics[i], "partition": a.partition, "offset": a.offsets[i]},
            "event_time": a.times[i],
            "scored_at": a.scored_at,
        }
        for i, p in enumerate(rows)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"source": Source.STATIC, "model": None, "version": None, "reason": Kind.BREAKER_OPEN, "final": False},
        {"source": Source.RULE, "model": "pkg.mod:100%rule", "version": None, "reason": Kind.TIMEOUT, "revision": 1},
        {"ids": ["50% of %b %%", "ünï\u2028"], "topics": ["a%d", "a%d"]},
        {"predictions": Predictions(SCORES, ["yes", "no%b"], np.stack([1 - SCORES, SCORES], axis=1), SCORES)},
        {"predictions": Predictions(SCORES, [1, None], None, None)},
        {"predictions": Predictions(np.array([1e-7, -12345.678], np.float32))},
        {"predictions": Predictions.of([Prediction(0.5, 0), Prediction(2.0, "x", None, 0.25)])},
        {"predictions": Predictions(SCORES, outputs={"50%b": SCORES, 'a"': np.array([[2**62, -1], [0, 1]])})},
        {
            "predictions": Predictions(
                SCORES, outputs={"deep": np.ones((2, 1, 2), np.bool_), "w": ["a,b%", {"k": None}]}
            )
        },
        {"predictions": Predictions(SCORES, outputs={"nan": np.array([np.nan, np.inf]), "none": np.zeros((2, 0))})},
        {"offsets": [2**62, 0], "partition": 0, "scored_at": "%b"},
        {"missing": {0: ("income", "a%b.c")}},
        {"missing": {0: ("x",), 1: ("x", "y")}, "imputed": {}},
        {"source": Source.ENSEMBLE, "version": None, "members": ("a%b@1", "b@2")},
        {"source": Source.ENSEMBLE, "version": None, "members": ("a@1",), "reason": Kind.TIMEOUT},
    ],
)
def test_the_text_equals_that_of_a_plain_encoder(changes: dict[str, Any]) -> None:
    """Values and key order are the same for every source and optional field, and with percent signs and quotes."""
    answers = replace(PLAIN, **changes)
    found = [json.loads(raw) for raw in encode(answers)]
    assert found == plainly(answers)
    assert [list(one) for one in found] == [list(one) for one in plainly(answers)]


def test_an_empty_batch_gives_no_records() -> None:
    """A batch without rows gives no records."""
    nothing = Predictions(SCORES[:0], [], None, SCORES[:0])
    assert encode(replace(PLAIN, ids=[], times=[], topics=[], offsets=[], imputed={}, predictions=nothing)) == []


def test_columns_of_different_lengths_are_an_error() -> None:
    """Columns of different lengths raise ValueError instead of dropping rows."""
    with pytest.raises(ValueError, match="argument"):
        encode(replace(PLAIN, offsets=[17]))


def test_headers_let_a_reader_filter() -> None:
    """An answer's headers are content type, revision and source, as in the contract."""
    assert headers(replace(PLAIN, revision=1, source=Source.LAST_KNOWN)) == [
        ("content-type", b"application/json"),
        ("failsoft-revision", b"1"),
        ("failsoft-source", b"last_known"),
    ]


@pytest.mark.parametrize("source", [s for s in Source if s is not Source.ENSEMBLE])
def test_all_but_the_primary_are_degraded(source: Source) -> None:
    """An answer of any source but the primary (or an ensemble) is marked as degraded."""
    assert replace(PLAIN, source=source).degraded is (source is not Source.PRIMARY)


@pytest.mark.parametrize("reason", [None, Kind.BREAKER_OPEN])
def test_an_ensemble_is_degraded_where_a_member_is_missing(reason: Kind | None) -> None:
    """An ensemble's answer is degraded only when a member is missing."""
    assert replace(PLAIN, source=Source.ENSEMBLE, reason=reason).degraded is (reason is not None)


def test_an_output_of_another_length_is_an_error() -> None:
    """A further output without a value for each row raises ValueError; no row is dropped."""
    with pytest.raises(ValueError, match="argument"):
        encode(replace(PLAIN, predictions=Predictions(SCORES, outputs={"w": ["a"]})))
