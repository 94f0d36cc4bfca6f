"""Restoring ``last_known``: the pipeline's own primary answers are remembered, and records of other programs are
skipped.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from aiokafka import TopicPartition
from structlog.testing import capture_logs

from failsoft.models.answers.last_known import LastKnown
from failsoft.schemas import scored, scored_avro, scored_read
from failsoft.schemas.prediction import Predictions
from failsoft.workers.kafka.unreadable import Unreadable
from failsoft.workers.lanes.restore import _remember, restore
from tests.kit import Rec
from tests.unit.schemas.test_scored import PLAIN

NOW = 1_795_550_568.0
PRIMARY = [("failsoft-source", b"primary")]


def _answer(key: bytes | None, score: object, age: float = 10.0, **other: object) -> Rec:
    value = {"score": score, "label": 1, "probabilities": None, "confidence": 0.9, "model": "m", "version": 2} | other
    return Rec(key=key, value=json.dumps(value).encode(), headers=PRIMARY, timestamp=int((NOW - age) * 1000))


def test_the_newest_primary_answer_of_a_key_is_known() -> None:
    """The newest answer is remembered with its model, version and time. An answer that is too old, by a fallback or
    without a key is not.
    """
    known = LastKnown(max_age=60.0)
    fallback = Rec(key=b"f", value=_answer(b"f", 0.1).value, headers=[("failsoft-source", b"static")])
    records = [
        _answer(b"a", 0.2),
        _answer(b"a", 0.3, age=5),
        _answer(b"old", 0.4, age=61),
        _answer(None, 0.5),
        fallback,
    ]
    _remember(known, records, NOW)
    found = known.recall(b"a", NOW)
    assert found is not None
    assert (found.prediction.score, found.model, found.version, found.at) == (0.3, "m", 2, NOW - 5)
    assert len(known) == 1


def test_an_ensembles_answer_counts_as_the_primarys() -> None:
    """An ensemble has no version of its own."""
    known = LastKnown(max_age=60.0)
    answer = _answer(b"a", 0.2, model="both", version=None, members=["x@1", "y@2"])
    _remember(known, [replace(answer, headers=[("failsoft-source", b"ensemble")])], NOW)
    found = known.recall(b"a", NOW)
    assert found is not None and (found.prediction.score, found.model, found.version) == (0.2, "both", None)


def test_further_outputs_are_remembered() -> None:
    """An answer is restored with its further outputs, beside answers of the same batch without them."""
    known = LastKnown(max_age=60.0)
    outputs = {"std": 0.1, "labels": ["a", "b"]}
    strange = _answer(b"c", 0.4, outputs="none of ours")
    _remember(known, [_answer(b"a", 0.2, outputs=outputs), _answer(b"b", 0.3), strange], NOW)
    found = [known.recall(key, NOW) for key in (b"a", b"b", b"c")]
    assert [f.prediction.outputs for f in found if f] == [outputs, None, None]


def test_answers_in_avro_are_remembered_beside_those_in_json() -> None:
    """A pipeline may have changed its format: what is known is the same."""
    outputs = {"std": np.array([0.1, 0.2]), "labels": [["a", "b"], []]}
    predictions = Predictions(np.array([0.93, 0.1], np.float32), ["yes", "no"], None, np.array([0.9, 0.8]), outputs)
    given = replace(PLAIN, predictions=predictions)
    found = []
    for values in (scored.encode(given), scored_avro.encode(given, 7)):
        known = LastKnown(max_age=60.0)
        records = [
            Rec(key=b"%d" % i, value=v, headers=PRIMARY, timestamp=int(NOW * 1000)) for i, v in enumerate(values)
        ]
        _remember(known, [*records, _answer(b"json", 0.3)], NOW)
        found.append([known.recall(key, NOW) for key in (b"0", b"1", b"json")])
    assert found[0] == found[1] and None not in found[0]


def test_without_the_extra_answers_in_avro_are_counted_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line for all: a pipeline that went back to JSON may have lost the extra."""
    monkeypatch.setitem(sys.modules, "fastavro", None)
    scored_read._reader.cache_clear()
    known = LastKnown(max_age=60.0)
    avro = [
        Rec(key=b"a", value=value, headers=PRIMARY, timestamp=int(NOW * 1000)) for value in scored_avro.encode(PLAIN, 7)
    ]
    with capture_logs() as logs:
        _remember(known, [*avro, _answer(b"json", 0.3)], NOW)
    scored_read._reader.cache_clear()
    assert [(each["answers"], "failsoft[avro]" in each["why"]) for each in logs] == [(2, True)]
    assert known.recall(b"json", NOW) is not None and known.recall(b"a", NOW) is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"\0",
        b"\0\0\0\0\7" + b"\0" * 60,
        b"",
        b"{",
        b"[]",
        b"5",
        b'{"score": 1}',
        _answer(b"x", 0.5, version=None).value,
        _answer(b"x", "high").value,
        _answer(b"x", "nan").value,
        _answer(b"x", 0.5, version=10**300).value,
        _answer(b"x", 0.5, label=[1]).value,
        _answer(b"x", 0.5, model=None).value,
    ],
)
def test_a_record_that_is_no_answer_is_skipped(value: bytes | None) -> None:
    """A record that another program wrote to the topic must not keep a lane from opening."""
    known = LastKnown(max_age=60.0)
    stray = Rec(key=b"x", value=value, headers=PRIMARY, timestamp=int(NOW * 1000))
    _remember(known, [stray, _answer(b"a", 0.2)], NOW)
    assert known.recall(b"x", NOW) is None
    assert known.recall(b"a", NOW) is not None


class _Scored:
    """A consumer of one partition whose batch at offset 2 and 3 cannot be read."""

    def __init__(self, known: bool) -> None:
        self.at, self.known = 0, known

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def assign(self, tps: object) -> None: ...

    async def beginning_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(tps, 0)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.at = offset

    async def position(self, tp: TopicPartition) -> int:
        return self.at

    async def getmany(self, tp: TopicPartition, **_: object) -> dict[TopicPartition, list[Rec]]:
        if self.at == 2:
            raise Unreadable(tp, 2, "its checksum is wrong", 4 if self.known else None)
        self.at += 1
        return {tp: [_answer(b"%d" % (self.at - 1), 0.5)]}


@pytest.mark.parametrize("known", [True, False])
async def test_a_batch_that_cannot_be_read_is_passed_or_ends_it(known: bool) -> None:
    """The lane must open: the chain has other links."""

    async def end(consumer: object, tp: TopicPartition) -> int:
        return 6

    restored = await restore(lambda: cast(Any, _Scored(known)), end, "loans.scored", 0, 3600, lambda: NOW)
    found = [key for key in (b"0", b"1", b"4", b"5") if restored.recall(key, NOW) is not None]
    assert found == ([b"0", b"1", b"4", b"5"] if known else [b"0", b"1"])
