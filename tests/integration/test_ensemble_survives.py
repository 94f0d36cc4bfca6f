"""An ensemble on a real Kafka: when one member fails, answers come from the other member and state the reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from onnx import save

from tests.integration.pipeline import Event, Pipeline, body, running
from tests.integration.verifier import Settlement
from tests.kafka import Broker, wait_for
from tests.onnx_models import node, onnx_model

BOTH = """
[model]
kind = "ensemble"
[output]
kind = "binary"
[ensemble]
combine = "mean"
quorum = 1
[[ensemble.members]]
model = "left"
[[ensemble.members]]
model = "right"
[fallback]
chain = ["static"]
static = { score = 0.25, label = 0 }
"""
RIGHT = """
[model]
deadline = "10s"
[output]
kind = "binary"
[[features]]
name = "z"
type = "int"
[breaker]
slow_call = "9s"
minimum_calls = 20
open_for = "1s"
max_open = "2s"
"""


def _repository(models: Path) -> None:
    """Turns the pipeline's model "test" into an ensemble of ``left`` and ``right``.

    ``left`` is the former model: ``row`` = 7 raises for its whole batch. ``right`` looks up ``z`` in a table of one
    element, so ``z`` = 7 raises there.
    """
    (models / "test").rename(models / "left")
    (models / "test").mkdir()
    (models / "test" / "card.toml").write_text(BOTH)
    right = onnx_model(
        [("z", "int64", ["n", 1])],
        [("score", "float", ["n", 1])],
        node("Gather", ["table", "z"], ["score"]),
        constants={"table": np.zeros(1, np.float32)},
    )
    (models / "right" / "1").mkdir(parents=True)
    save(right, str(models / "right" / "1" / "model.onnx"))
    (models / "right" / "card.toml").write_text(RIGHT)


def _events(start: int, n: int, **features: object) -> list[Event]:
    return [(b"k%d" % i, body(i, **({"z": 0} | features)), [], None) for i in range(start, start + n)]


def _answers(settlement: Settlement) -> Iterator[dict[str, Any]]:
    for record in settlement.reader.records[settlement.scored]:
        yield json.loads(record.value or b"")


def test_one_member_fails_and_the_answers_stay(kafka: Broker, name: str, tmp_path: Path) -> None:
    """While one member fails, for some rows and then for all until its breaker opens, each event gets one final answer.

    The other member answers, and the answer names it and the reason. Rows that neither can answer go up the ladder. At
    the end both members answer again.
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    _repository(tmp_path / "models")
    with running(pipeline) as settlement:
        worker = pipeline.start()
        worker.wait_ready()
        pipeline.publish([*_events(0, 400), *_events(400, 10, z=7), *_events(410, 3, z=7, row=7)])
        pipeline.publish(_events(500, 5, z=None))
        settlement.wait_answered(pipeline.published)
        pipeline.publish(_events(1000, 300, z=7))
        settlement.wait_answered(pipeline.published)
        start = 2000

        def both_are_back() -> bool:
            nonlocal start
            pipeline.publish(_events(start, 20))
            start += 20
            settlement.wait_answered(pipeline.published)
            late = (a for a in _answers(settlement) if 2000 <= int(a["event_id"][1:]) < start)
            return any(a.get("members") == ["left@1", "right@1"] for a in late)

        def opened() -> bool:
            pipeline.publish(_events(start + 10_000 + pipeline.published, 20, z=7))
            settlement.wait_answered(pipeline.published)
            return any(a["reason"] == "breaker_open" for a in _answers(settlement))

        wait_for(opened, 90, "the member's breaker to open")
        wait_for(both_are_back, 90, "both members to answer again")
        settlement.wait_final(pipeline.published)
        listed = pipeline.run("breakers", "--json")
        assert worker.drain() == 0, worker.tail()
        verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
    assert verdict.counts["ensemble"] >= 400 and verdict.counts["ensemble: model_error"] >= 10, verdict.counts
    assert verdict.counts["ensemble: invalid"] == 5 and verdict.counts["ensemble: breaker_open"] >= 1, verdict.counts
    assert verdict.counts["confirmed: model_error"] == 3, "the rows that neither member can answer"
    assert sum(n for fate, n in verdict.counts.items() if not fate.startswith("ensemble")) == 3, verdict.counts
    spoken = Counter((tuple(a["members"]), a["degraded"]) for a in _answers(settlement) if a["source"] == "ensemble")
    assert set(spoken) == {(("left@1", "right@1"), False), (("left@1",), True)}
    assert {json.loads(line)["model"] for line in listed.stdout.splitlines()} == {"left", "right"}, (
        listed.stderr.decode()
    )
