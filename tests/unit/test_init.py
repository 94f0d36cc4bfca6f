"""`failsoft init`: the generated pipeline works, and a model fills in its card."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from failsoft.models.catalog.card import load_card
from failsoft.models.catalog.repository import Repository
from failsoft.models.runtime.session import ModelOutput, Session
from failsoft.schemas.features.reading import columns
from failsoft.workers import settings
from failsoft.workers.cli import app
from failsoft.workers.operations.scaffold import Shape, shape_of

DEMO = Path(__file__).resolve().parents[2] / "models" / "repository" / "repayment" / "2" / "model.onnx"


@dataclass(frozen=True)
class Port:
    """An input or output as ONNX Runtime describes it."""

    name: str
    type: str
    shape: Sequence[Any]


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
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("folder", ["/proc/x", "x" * 300])
def test_a_folder_that_cannot_be_made_is_one_line(folder: str) -> None:
    """The command exits with 1 and names the folder and the reason."""
    done = _init(folder, "--name", "p")
    assert done.exit_code == 1 and not isinstance(done.exception, OSError)
    (line,) = done.stderr.splitlines()
    assert folder in line and line.endswith("name another folder")


@pytest.mark.parametrize("arguments", [["--name", "é"], ["--model", "../x"], ["--onnx", "no-such.onnx"]])
def test_an_invalid_name_is_a_usage_error(tmp_path: Path, arguments: list[str]) -> None:
    """The command exits with 2 before it writes anything."""
    assert _init(str(tmp_path / "p"), *arguments).exit_code == 2
    assert not (tmp_path / "p").exists()


def test_the_pipelines_name_is_made_valid_for_topics(tmp_path: Path) -> None:
    """Characters of the folder's name that a topic may not contain are replaced."""
    assert _init(str(tmp_path / "Fraud & co. ")).exit_code == 0
    assert settings.load(tmp_path / "Fraud & co. ", {}).name == "Fraud-co"


def test_a_model_fills_in_its_card_and_answers_the_examples(tmp_path: Path) -> None:
    """With --onnx the model answers the example events without any edit."""
    done = _init(str(tmp_path / "p"), "--onnx", str(DEMO))
    assert done.exit_code == 0, done.output
    repository = Repository(Path(settings.load(tmp_path / "p", {}).models.repository))
    card = repository.card("my-model")
    session = Session(repository.artifact("my-model", 1), card)
    events = [json.loads(line) for line in (tmp_path / "p" / "events.ndjson").read_text().splitlines()]
    outcome = session.run(columns([e["features"] for e in events], card.specs))
    assert isinstance(outcome, ModelOutput) and not outcome.bad


def test_a_file_that_is_not_a_model_is_refused(tmp_path: Path) -> None:
    """The command exits with 1, prints the problem, and writes nothing."""
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    done = _init(str(tmp_path / "p"), "--onnx", str(tmp_path / "bad.onnx"))
    assert done.exit_code == 1 and "not an ONNX file" in done.stderr
    assert not (tmp_path / "p").exists()


def test_the_columns_of_a_matrix_get_numbered_names() -> None:
    """A note asks the user to name them in order."""
    shape = shape_of([Port("X", "tensor(float)", [None, 3])], [Port("y", "tensor(float)", [None, 1])])
    assert shape.features == [("feature_1", "float"), ("feature_2", "float"), ("feature_3", "float")]
    assert shape.kind == "regression" and "3 columns" in shape.notes[0]


@pytest.mark.parametrize(
    ("outputs", "kind"),
    [
        ([("label", "tensor(int64)", [None]), ("p", "tensor(float)", [None, 2])], "binary"),
        ([("label", "tensor(string)", [None]), ("p", "tensor(float)", [None, 4])], "multiclass"),
        ([("y", "tensor(double)", [None, 1])], "regression"),
        ([("y", "tensor(float)", [None])], "regression"),
    ],
)
def test_the_output_is_guessed_from_its_width(outputs: list[tuple[str, str, list[Any]]], kind: str) -> None:
    """A note says that the kind is a guess."""
    shape: Shape = shape_of([Port("a", "tensor(float)", [None, 1])], [Port(*o) for o in outputs])
    assert shape.kind == kind and any(kind in note for note in shape.notes)


def test_an_input_type_without_a_feature_type_is_refused() -> None:
    """An event cannot hold a complex number, so no feature fits such an input."""
    with pytest.raises(ValueError, match="x is a tensor\\(complex64\\)"):
        shape_of([Port("x", "tensor(complex64)", [None])], [])
