"""`failsoft init`: the generated pipeline works, and a model fills in its card."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from failsoft.models.catalog.card import ModelCard, load_card
from failsoft.models.catalog.repository import Repository
from failsoft.models.runtime.session import ModelOutput, Session
from failsoft.schemas.features.reading import columns
from failsoft.workers import settings
from failsoft.workers.cli import app
from failsoft.workers.operations import local_kafka
from failsoft.workers.operations.local_kafka import LocalKafka
from failsoft.workers.operations.scaffold import model_name
from tests.onnx_models import node, onnx_model

DEMO = Path(__file__).resolve().parents[2] / "models" / "repository" / "repayment" / "2" / "model.onnx"


X2_OF_8 = ("x", "float", [8, 2])


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which no Kafka runs and no pass is remembered."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))


def _init(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["init", *arguments])


def test_the_generated_files_are_valid(tmp_path: Path) -> None:
    """The pipeline file and the card load without errors, and the example events fit the card."""
    done = _init(str(tmp_path / "fraud"), "--model", "fraud-score")
    assert done.exit_code == 0, done.output
    made = settings.load(tmp_path / "fraud", {})
    assert (made.name, made.model, made.input.topics) == ("fraud", "fraud-score", ["fraud.events"])
    card = load_card(Path(made.models.repository) / "fraud-score" / "card.toml")
    events = [json.loads(line) for line in (tmp_path / "fraud" / "events.ndjson").read_text().splitlines()]
    assert [set(e["features"]) for e in events] == [{f.name for f in card.features}] * 3
    assert Repository(Path(made.models.repository)).versions("fraud-score") == []  # version 1 has no model yet


def test_it_prints_the_files_and_the_next_commands(tmp_path: Path) -> None:
    """It prints each file, the path for the model, and three commands to run next."""
    done = _init(str(tmp_path / "p"))
    assert done.stdout.count("made ") == 4
    assert "model.onnx" in done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  failsoft")] == [
        "topics",
        "worker",
        "publish",
    ]


def test_the_next_commands_are_quoted_for_a_shell(tmp_path: Path) -> None:
    """They can be pasted into a shell for any name of the folder."""
    folder = tmp_path / "my own; pipeline"
    done = _init(str(folder))
    commands = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("  failsoft")]
    assert [words[-2:] for words in commands] == [["--pipeline", str(folder)]] * 3
    assert commands[2][:3] == ["failsoft", "publish", str(folder / "events.ndjson")]


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    """The command exits with 1 and writes nothing."""
    (tmp_path / "mine").write_text("precious")
    done = _init(str(tmp_path))
    assert done.exit_code == 1 and "not empty" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "tmp"]


@pytest.mark.parametrize("folder", ["/proc/x", "x" * 300])
def test_a_folder_that_cannot_be_made_is_one_line(folder: str) -> None:
    """The command exits with 1 and names the folder and the reason."""
    done = _init(folder, "--name", "p")
    assert done.exit_code == 1 and not isinstance(done.exception, OSError)
    (line,) = done.stderr.splitlines()
    assert folder in line and line.endswith("name another folder")


@pytest.mark.parametrize(
    "arguments", [["--name", "é"], ["--model", "../x"], ["--onnx", "no-such.onnx"], ["--positive", "1"]]
)
def test_an_invalid_name_is_a_usage_error(tmp_path: Path, arguments: list[str]) -> None:
    """The command exits with 2 before it writes anything."""
    assert _init(str(tmp_path / "p"), *arguments).exit_code == 2
    assert not (tmp_path / "p").exists()


def test_the_pipelines_name_is_made_valid_for_topics(tmp_path: Path) -> None:
    """Characters of the folder's name that a topic may not contain are replaced."""
    assert _init(str(tmp_path / "Fraud & co. ")).exit_code == 0
    assert settings.load(tmp_path / "Fraud & co. ", {}).name == "Fraud-co"


def _card(folder: Path, model: str = "my-model") -> ModelCard:
    return load_card(folder / "models" / "repository" / model / "card.toml")


def _save(folder: Path, model: onnx.ModelProto, name: str = "model.onnx") -> str:
    onnx.save(model, str(folder / name))
    return str(folder / name)


def test_a_model_fills_in_its_card_and_is_vetted(tmp_path: Path) -> None:
    """With --onnx the version may serve and the model answers the example events without any edit."""
    done = _init(str(tmp_path / "p"), "--onnx", str(DEMO))
    assert done.exit_code == 0, done.output
    assert "vetted my-model@1: it may serve" in done.stdout
    repository = Repository(Path(settings.load(tmp_path / "p", {}).models.repository))
    card = repository.card("my-model")
    session = Session(repository.artifact("my-model", 1), card)
    events = [json.loads(line) for line in (tmp_path / "p" / "events.ndjson").read_text().splitlines()]
    outcome = session.run(columns([e["features"] for e in events], card.specs))
    assert isinstance(outcome, ModelOutput) and not outcome.bad


def test_names_come_from_the_models_metadata(tmp_path: Path) -> None:
    """And the model's folder has the name of its file."""
    model = onnx_model(
        [("x", "float", ["n", 2])],
        [("price", "float", ["n", 1])],
        node("ReduceSum", ["x", "columns"], ["price"]),
        constants={"columns": np.array([1])},
    )
    model.metadata_props.add(key="feature_names", value='["age", "fare"]')
    done = _init(str(tmp_path / "p"), "--onnx", _save(tmp_path, model, "house prices.onnx"))
    assert done.exit_code == 0, done.output
    card = _card(tmp_path / "p", "house-prices")
    assert [f.name for f in card.features] == ["age", "fare"]
    assert card.output.kind == "regression"


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        *(("churn", "churn"), ("Fraud (new)", "Fraud-new"), ("modelling", "modelling")),
        *((stem, "my-model") for stem in ("model", "my-model", "model_v2-int8", "best", "é")),
    ],
)
def test_a_model_is_named_after_its_file(stem: str, name: str) -> None:
    """Unless the file's name says nothing."""
    assert model_name(stem) == name


def test_logits_get_their_activation(tmp_path: Path) -> None:
    """They are recognised by a run with made-up rows, and the note says so."""
    model = onnx_model([("x", "float", ["n", 1])], [("logit", "float", ["n", 1])], node("Identity", ["x"], ["logit"]))
    done = _init(str(tmp_path / "p"), "--onnx", _save(tmp_path, model))
    assert done.exit_code == 0, done.output
    assert _card(tmp_path / "p").output.activation == "sigmoid" and "they are logits" in done.stderr


def test_a_positive_label_that_was_not_said_keeps_the_files(tmp_path: Path) -> None:
    """Exit code 3: both labels are named, and the next command is to edit the card. With --positive it serves."""
    model = onnx_model(
        [("p", "float", ["n", 2])],
        [("label", "string", ["n"]), ("scores", "float", ["n", 2])],
        node(
            "LinearClassifier",
            ["p"],
            ["label", "raw"],
            domain="ai.onnx.ml",
            coefficients=[1.0, 0.0, 0.0, 1.0],
            intercepts=[0.0, 0.0],
            classlabels_strings=["fraud", "legit"],
            post_transform="SOFTMAX",
        ),
        node("Identity", ["raw"], ["scores"]),
    )
    file = _save(tmp_path, model)
    done = _init(str(tmp_path / "p"), "--onnx", file)
    assert done.exit_code == 3 and 'add positive = "fraud" or positive = "legit"' in done.stderr
    commands = [line.split() for line in done.stdout.splitlines() if line.startswith("  ")]
    assert commands[0][0] == "${EDITOR:-vi}" and commands[1][:3] == ["failsoft", "models", "vet"]
    assert (tmp_path / "p" / "models" / "repository" / "my-model" / "1" / "model.onnx").is_file()
    done = _init(str(tmp_path / "q"), "--onnx", file, "--positive", "fraud")
    assert done.exit_code == 0, done.output
    assert _card(tmp_path / "q").output.positive == "fraud"
    done = _init(str(tmp_path / "r"), "--onnx", file, "--positive", "spam")
    assert done.exit_code == 2 and "fraud or legit" in done.stderr and not (tmp_path / "r").exists()


def test_a_model_that_can_never_serve_is_refused(tmp_path: Path) -> None:
    """The command exits with 1, prints the reason and the way out, and writes nothing."""
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    fixed = _save(tmp_path, onnx_model([X2_OF_8], [("y", "float", [8, 2])], node("Identity", ["x"], ["y"])), "8.onnx")
    cases = [(str(tmp_path / "bad.onnx"), "not an ONNX file"), (fixed, "takes batches of exactly 8")]
    external = onnx_model(
        [("x", "float", ["n", 2])],
        [("y", "float", ["n", 2])],
        node("Mul", ["x", "w"], ["y"]),
        constants={"w": np.ones(2, np.float32)},
    )
    path = tmp_path / "two.onnx"
    onnx.save(external, str(path), save_as_external_data=True, location="two.data", size_threshold=0)
    cases.append((str(path), f"python -c \"import onnx; onnx.save(onnx.load('{path}'), "))
    for file, words in cases:
        done = _init(str(tmp_path / "p"), "--onnx", file)
        assert done.exit_code == 1 and words in done.stderr and "nothing was written" in done.stderr
        assert not (tmp_path / "p").exists()


def test_the_brokers_are_those_that_the_user_says(tmp_path: Path) -> None:
    """A mistake is refused before anything is written."""
    assert _init(str(tmp_path / "p"), "--bootstrap", "kafka-1:9092,kafka-2:9093").exit_code == 0
    assert settings.load(tmp_path / "p", {}).kafka.bootstrap_servers == "kafka-1:9092,kafka-2:9093"
    done = _init(str(tmp_path / "q"), "--bootstrap", "no port")
    assert done.exit_code == 2 and "--bootstrap" in done.stderr and not (tmp_path / "q").exists()


def test_a_kafka_that_runs_here_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A note says which one; without one, the port of failsoft kafka stands in the file."""
    monkeypatch.setattr(local_kafka, "running", lambda: [LocalKafka("127.0.0.1:9999", "/d"), LocalKafka("a:1", "/e")])
    done = _init(str(tmp_path / "p"))
    assert settings.load(tmp_path / "p", {}).kafka.bootstrap_servers == "127.0.0.1:9999"
    assert "127.0.0.1:9999, the newest of 2" in done.stderr
    monkeypatch.setattr(local_kafka, "running", list)
    assert _init(str(tmp_path / "q")).exit_code == 0
    assert settings.load(tmp_path / "q", {}).kafka.bootstrap_servers == "127.0.0.1:9092"
