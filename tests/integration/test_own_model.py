"""A user's own pipeline: `failsoft init` with a model, a card that is edited, and the commands of the README."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from onnx import save

from failsoft.topics.embedded.broker import free_port
from tests.integration.pipeline import ROOT
from tests.kafka import Broker, wait_for
from tests.onnx_models import node, onnx_model


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "failsoft.workers.cli", *arguments]


def _environ() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("FAILSOFT_")}


def test_a_model_answers_after_the_commands_of_the_readme(kafka: Broker, name: str, tmp_path: Path) -> None:
    """init, vet, topics apply, worker, publish and tail: the example events are answered by the model without an edit.
    With one edit of the card a missing value is imputed. A version that cannot serve keeps no worker ready.
    """
    made = tmp_path / "prices"

    def run(*arguments: str) -> str:
        done = subprocess.run(_command(*arguments), cwd=ROOT, env=_environ(), capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    model = onnx_model(
        [("rooms", "int64", ["n", 1]), ("garden", "float", ["n", 1])],
        [("price", "float", ["n", 1])],
        node("Cast", ["rooms"], ["r"], to=1),
        node("Mul", ["r", "garden"], ["price"]),
    )
    save(model, str(tmp_path / "price.onnx"))
    onnx = ["--onnx", str(tmp_path / "price.onnx"), "--bootstrap", kafka.bootstrap]
    assert "vetted price@1: it may serve" in run("init", str(made), "--name", name, *onnx)
    card = made / "models" / "repository" / "price" / "card.toml"
    before, _, after = card.read_text().rpartition("# impute = …")  # that of the last feature
    card.write_text(f"{before}impute = 10.0{after}")
    of = ("--pipeline", str(made))
    run("models", "vet", *of)
    run("topics", "apply", *of)
    run("publish", str(made / "events.ndjson"), *of)
    events = [
        {"event_id": "imputed", "occurred_at": "2026-11-24T12:00:01Z", "features": {"rooms": 3}},
        {"event_id": "invalid", "occurred_at": "2026-11-24T12:00:02Z", "features": {"garden": 1.0}},
    ]
    source = tmp_path / "events.ndjson"
    source.write_text("".join(json.dumps(event) + "\n" for event in events))
    run("publish", str(source), *of)

    log = (tmp_path / "worker.log").open("w")
    worker = subprocess.Popen(_command("worker", *of), cwd=ROOT, env=_environ(), stderr=log, start_new_session=True)
    try:
        answers = [json.loads(line) for line in run("tail", "--from", "beginning", "--limit", "4", *of).splitlines()]
        by_id = {a["event_id"]: a for a in answers}
        scores = [(by_id[f"example-{n}"]["score"], by_id[f"example-{n}"]["source"]) for n in range(3)]
        assert scores == [(1.5, "primary"), (0.5, "primary"), (0.0, "primary")]
        assert (by_id["imputed"]["score"], by_id["imputed"]["imputed"]) == (30.0, ["garden"])
        dead = wait_for(lambda: run("dead", "list", *of).splitlines(), 30, "the invalid event among the dead letters")
        assert json.loads(dead[0])["kind"] == "invalid"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(40) == 0
    finally:
        worker.kill()
        log.close()


def test_a_worker_without_a_version_is_not_ready(kafka: Broker, name: str, tmp_path: Path) -> None:
    """/readyz and the log give the reason, and fallbacks answer."""
    made = tmp_path / "p"
    of = ("--pipeline", str(made))
    for arguments in (("init", str(made), "--name", name, "--bootstrap", kafka.bootstrap), ("topics", "apply", *of)):
        subprocess.run(_command(*arguments), cwd=ROOT, env=_environ(), capture_output=True, timeout=120, check=True)
    (made / "models" / "repository" / "my-model" / "1" / "model.onnx").write_bytes(b"no model")
    port = free_port()
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            _command("worker", "--metrics-port", str(port), *of), cwd=ROOT, env=_environ(), stderr=log
        )
    try:

        def body() -> str | None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                    return None
            except urllib.error.HTTPError as error:
                said = error.read().decode()
                return said if "no version" in said else None
            except OSError:  # it does not listen yet
                return None

        said = wait_for(body, 60, "the reason on /readyz")
        assert "my-model@1 did not pass its vetting: load: " in said and "not an ONNX file" in said
        lines = [json.loads(line) for line in (tmp_path / "worker.log").read_text().splitlines()]
        (warning,) = [line for line in lines if line["event"] == "no version of a model can serve" and "effect" in line]
        assert (warning["level"], warning["model"]) == ("warning", "my-model") and "my-model@1" in warning["why"][0]
    finally:
        worker.kill()
        worker.wait()
