"""A batch of events of schemas is scored as the same events of JSON are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.workers.scoring.plan import Call, CallResult, Plan, Scored
from tests.kit import RULE, Answer, FakeBoard, Rec, answers, broken, failing, plan, result, run, trio
from tests.schema_readers import FakeReader, encoded

EVENTS: list[dict[str, Any]] = [
    {"id": "e0", "at": "2018-10-30T18:00:00Z", "features": {"x": 0.25, "y": 1.0}},
    {"id": "e1", "at": "2018-10-30T18:00:01Z", "features": {"x": 0.5}},
    {"id": "e2", "at": "2018-10-30T18:00:02Z", "features": {"x": "wrong", "y": 1.0}},
    {"id": 3, "at": None, "features": {"x": 0.75, "y": None}},
    {"id": "e4", "features": None},
]


def _rule(values: Mapping[str, object]) -> float:
    return 0.125 if values["y"] is None else 0.25


def _echo(call: Call) -> CallResult:
    """A model whose score is the feature x."""
    return result(call.columns.values["x"].tolist())


def _scored(the_plan: Plan, format: WireFormat, models: dict[str, Answer], board: FakeBoard | None) -> Scored:
    framed = format is not WireFormat.JSON
    values = [encoded(7 + i % 2, each) if framed else json.dumps(each).encode() for i, each in enumerate(EVENTS)]
    records = [Rec(offset=i, key=b"k%d" % i, value=value) for i, value in enumerate(values)]
    the_plan = replace(the_plan, envelope=replace(the_plan.envelope, format=format))
    return run(records, the_plan, board, models, readers={7: FakeReader(), 8: FakeReader(matrices=False)})


@pytest.mark.parametrize(
    ("the_plan", "models", "board"),
    [
        (plan(), {"m": _echo}, None),
        (plan(), {"m": failing(1)}, None),
        (plan(("model:lite", "static")), {"m": broken}, None),
        (plan((f"rule:{RULE}", "static"), rule=_rule), {"m": broken}, None),
        (plan((f"rule:{RULE}", "static"), rule=_rule), {}, FakeBoard(versions={})),
        (trio(), {"b": failing(1)}, FakeBoard(versions={"a": 1, "b": 2, "c": 3})),
    ],
    ids=["primary", "a row fails", "fallback", "rule", "no version", "ensemble"],
)
def test_the_answers_are_those_of_json(the_plan: Plan, models: dict[str, Answer], board: FakeBoard | None) -> None:
    """Answers, failures and counts are the same, also where fallbacks, rules and members read the features again."""
    avro, plain = (_scored(the_plan, format, models, board) for format in (WireFormat.AVRO, WireFormat.JSON))
    assert (avro.failures, avro.outcomes, avro.answers) == (plain.failures, plain.outcomes, plain.answers)
    assert (avro.imputed, avro.rule_errors, avro.missing) == (plain.imputed, plain.rule_errors, plain.missing)
    assert _answers(avro) == _answers(plain) != []
    assert avro.failures[4] == Failure(Kind.MALFORMED, "features is null; it must hold the features")


def _answers(done: Scored) -> list[tuple[object, ...]]:
    return [(each.record.offset, each.id, each.source, each.reason, each.final, each.score) for each in answers(done)]
