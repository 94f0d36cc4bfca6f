"""An ensemble of real ONNX models with different features, through the runner; one of two members raises."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from failsoft.models.catalog.repository import Repository
from failsoft.workers import settings
from failsoft.workers.execution.runner import Runner
from failsoft.workers.scoring.plan import Scored
from failsoft.workers.scoring.score import score
from failsoft.workers.serving import loader
from failsoft.workers.serving.pipeline import load_cards, make_plan
from failsoft.workers.telemetry.metrics import Metrics
from tests.kit import NOW_MS, FakeBoard, Rec, body
from tests.onnx_models import node, onnx_model

PIPELINE = """
name = "loans"
model = "both"
[input]
topics = ["loans.events"]
id = "id"
time = "at"
features = "features"
[models]
repository = "models"
"""
BOTH = """
[model]
kind = "ensemble"
[output]
kind = "binary"
[ensemble]
combine = "weighted_mean"
quorum = 1
[[ensemble.members]]
model = "number"
weight = 3.0
[[ensemble.members]]
model = "table"
[fallback]
chain = ["static"]
static = { score = 0.5, label = 0 }
"""
MEMBER = """
[model]
deadline = "10s"
[output]
kind = "binary"
[[features]]
name = "{name}"
type = "{type}"
"""


def repository(folder: Path) -> None:
    """``number`` answers its float, in [0, 1]. ``table`` looks up its integer in a table of two, else it raises."""
    number = onnx_model(
        [("x", "float", ["n", 1])],
        [("p", "float", ["n", 1])],
        node("Clip", ["x", "zero", "one"], ["p"]),
        constants={"zero": np.array(0, np.float32), "one": np.array(1, np.float32)},
    )
    table = onnx_model(
        [("row", "int64", ["n", 1])],
        [("p", "float", ["n", 1])],
        node("Gather", ["table", "row"], ["p"]),
        constants={"table": np.array([0.0, 1.0], np.float32)},
    )
    for name, feature, kind, model in (("number", "x", "float", number), ("table", "row", "int", table)):
        path = folder / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(model.SerializeToString())
        (folder / name / "card.toml").write_text(MEMBER.format(name=feature, type=kind))
    (folder / "both").mkdir()
    (folder / "both" / "card.toml").write_text(BOTH)


async def test_a_row_that_one_member_cannot_answer_gets_the_other_members_answer(tmp_path: Path) -> None:
    """Only the failing row loses a member; both members answer its neighbours."""
    (tmp_path / "pipeline.toml").write_text(PIPELINE)
    repository(tmp_path / "models")
    pipeline = settings.load(tmp_path / "pipeline.toml", {})
    models = Repository(Path(pipeline.models.repository))
    cards = load_cards(pipeline, models)
    first = [loader.first(models, card, None) for card in cards.values() if card.ensemble is None]
    opened = [each for each in first if isinstance(each, loader.Opened)]
    runner = Runner(
        {each.served.key: each.session for each in opened},
        2,
        Metrics(CollectorRegistry()),
        time.monotonic,
        pytest.fail,
    )
    rows: list[dict[str, Any]] = [{"row": 0}, {"row": 1}, {"row": 7}, {"row": 1, "x": None}, {"row": 7, "x": None}]
    records = [Rec(offset=i, value=body(f"e{i}", **({"x": 0.5} | row))) for i, row in enumerate(rows)]
    registry = FakeBoard(versions={each.served.model: each.served.version for each in opened})
    steps = score(records, make_plan(pipeline, cards, models), registry, None, NOW_MS, np.full(len(records), 0.5))
    try:
        call = next(steps)
        while True:
            call = steps.send(await runner.run(call))
    except StopIteration as end:
        done: Scored = end.value
    finally:
        runner.close()
    answers = {
        a.ids[i]: (a.predictions.row(i).score, a.predictions.row(i).label, a.source, a.members, a.reason)
        for a in (g.answers for g in done.verdicts.answered)
        for i in range(len(a.ids))
    }
    both = ("number@1", "table@1")
    assert answers == {
        "e0": (0.375, 0, "ensemble", both, None),
        "e1": (0.625, 1, "ensemble", both, None),
        "e2": (0.5, 1, "ensemble", ("number@1",), "model_error"),
        "e3": (1.0, 1, "ensemble", ("table@1",), "invalid"),
        "e4": (0.5, 0, "static", None, "model_error"),
    }
    assert [g.records[0].offset for g in done.verdicts.retries] == [4]  # type: ignore[attr-defined]
    assert [counts.failures for _, _, counts in registry.reports] == [0, 2]
