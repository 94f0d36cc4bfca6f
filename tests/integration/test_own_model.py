"""A user's own pipeline: `failsoft init`, another ONNX model, and two edited files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from onnx import save

from tests.integration.pipeline import ROOT
from tests.kafka import Broker, wait_for
from tests.onnx_models import node, onnx_model

CARD = """
[output]
kind = "regression"
[[features]]
name = "rooms"
type = "int"
[[features]]
name = "garden"
type = "float"
impute = 10.0
[fallback]
chain = ["static"]
static = { score = 100.0 }
"""


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "failsoft.workers.cli", *arguments]


def _environ() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("FAILSOFT_")}


def test_another_model_answers_after_two_files_are_edited(kafka: Broker, name: str, tmp_path: Path) -> None:
    """A user edits only pipeline.toml and card.toml beside adding the model's own file."""
    made = tmp_path / "prices"

    def run(*arguments: str) -> str:
        done = subprocess.run(
            _command(*arguments, "--pipeline", str(made)) if arguments[0] != "init" else _command(*arguments),
            cwd=ROOT,
            env=_environ(),
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    run("init", str(made))
    (folder,) = (made / "models" / "repository").glob("*/1")
    model = onnx_model(
        [("rooms", "int64", ["n", 1]), ("garden", "float", ["n", 1])],
        [("price", "float", ["n", 1])],
        node("Cast", ["rooms"], ["r"], to=1),
        node("Mul", ["r", "garden"], ["price"]),
    )
    save(model, str(folder / "model.onnx"))

    file = made / "pipeline.toml"
    text = file.read_text().replace("127.0.0.1:9092", kafka.bootstrap).replace('name = "prices"', f'name = "{name}"')
    file.write_text(text.replace("prices.events", f"{name}.events"))
    (folder.parent / "card.toml").write_text(CARD)

    run("topics", "apply")
    events = [
        {"event_id": "whole", "occurred_at": "2026-11-24T12:00:00Z", "features": {"rooms": 4, "garden": 2.5}},
        {"event_id": "imputed", "occurred_at": "2026-11-24T12:00:01Z", "features": {"rooms": 3}},
        {"event_id": "invalid", "occurred_at": "2026-11-24T12:00:02Z", "features": {"garden": 1.0}},
    ]
    source = tmp_path / "events.ndjson"
    source.write_text("".join(json.dumps(event) + "\n" for event in events))
    run("publish", str(source))

    log = (tmp_path / "worker.log").open("w")
    worker = subprocess.Popen(
        _command("worker", "--pipeline", str(made)), cwd=ROOT, env=_environ(), stderr=log, start_new_session=True
    )
    try:
        answers = [json.loads(line) for line in run("tail", "--from", "beginning", "--limit", "2").splitlines()]
        by_id = {a["event_id"]: a for a in answers}
        assert (by_id["whole"]["score"], by_id["whole"]["source"], by_id["whole"]["final"]) == (10.0, "primary", True)
        assert (by_id["imputed"]["score"], by_id["imputed"]["imputed"]) == (30.0, ["garden"])
        dead = wait_for(lambda: run("dead", "list").splitlines(), 30, "the invalid event among the dead letters")
        assert json.loads(dead[0])["kind"] == "invalid"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(40) == 0
    finally:
        worker.kill()
        log.close()
