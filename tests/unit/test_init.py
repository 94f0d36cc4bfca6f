"""A new pipeline: what is made can be used, and a model fills in its card."""

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
from failsoft.schemas.features import columns
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


def test_what_is_made_is_accepted_as_it_stands(tmp_path: Path) -> None:
    """The pipeline file and the card are read without complaint, and the example events fit the card."""
    done = _init(str(tmp_path / "fraud"), "--model", "fraud-score")
    assert done.exit_code == 0, done.output
    made = settings.load(tmp_path / "fraud", {})
    assert (made.name, made.model, made.input.topics) == ("fraud", "fraud-score", ["fraud.events"])
    card = load_card(Path(made.models.repository) / "fraud-score" / "card.toml")
    events = [json.loads(line) for line in (tmp_path / "fraud" / "events.ndjson").read_text().splitlines()]
    assert [set(e["features"]) for e in events] == [{f.name for f in card.features}] * 3
    assert Repository(Path(made.models.repository)).versions("fraud-score") == []  # a place for it, and no model


def test_it_says_what_was_made_and_what_comes_next(tmp_path: Path) -> None:
    """Each file, where the model goes, and three commands."""
    done = _init(str(tmp_path / "p"))
    assert done.stdout.count("made ") == 4
    assert "model.onnx" in done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  failsoft")] == [
        "topics",
        "worker",
        "publish",
    ]


def test_the_next_commands_are_a_shells(tmp_path: Path) -> None:
    """Whatever the folder is called, they can be copied."""
    folder = tmp_path / "my own; pipeline"
    done = _init(str(folder))
    said = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("  failsoft")]
    assert [words[-2:] for words in said] == [["--pipeline", str(folder)]] * 3
    assert said[2][:3] == ["failsoft", "publish", str(folder / "events.ndjson")]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    """Exit 1, and nothing is written."""
    (tmp_path / "mine").write_text("precious")
    done = _init(str(tmp_path))
    assert done.exit_code == 1 and "not empty" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("arguments", [["--name", "é"], ["--model", "../x"], ["--onnx", "no-such.onnx"]])
def test_a_name_that_cannot_be_is_a_wrong_use(tmp_path: Path, arguments: list[str]) -> None:
    """Exit 2, before anything is written."""
    assert _init(str(tmp_path / "p"), *arguments).exit_code == 2
    assert not (tmp_path / "p").exists()


def test_a_folders_name_that_no_topic_could_have_is_mended(tmp_path: Path) -> None:
    """The pipeline's name prefixes topics, whatever the folder is called."""
    assert _init(str(tmp_path / "Fraud & co. ")).exit_code == 0
    assert settings.load(tmp_path / "Fraud & co. ", {}).name == "Fraud-co"


def test_a_model_fills_in_its_card_and_answers_the_examples(tmp_path: Path) -> None:
    """With --onnx, nothing has to be edited before the model answers."""
    done = _init(str(tmp_path / "p"), "--onnx", str(DEMO))
    assert done.exit_code == 0, done.output
    repository = Repository(Path(settings.load(tmp_path / "p", {}).models.repository))
    card = repository.card("my-model")
    session = Session(repository.artifact("my-model", 1), card)
    events = [json.loads(line) for line in (tmp_path / "p" / "events.ndjson").read_text().splitlines()]
    outcome = session.run(columns([e["features"] for e in events], card.specs))
    assert isinstance(outcome, ModelOutput) and not outcome.bad


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """Exit 1 with what is wrong, and nothing is written."""
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    done = _init(str(tmp_path / "p"), "--onnx", str(tmp_path / "bad.onnx"))
    assert done.exit_code == 1 and "not an ONNX file" in done.stderr
    assert not (tmp_path / "p").exists()


def test_a_matrix_has_columns_without_names() -> None:
    """The user is told to name them, in order."""
    shape = shape_of([Port("X", "tensor(float)", [None, 3])], [Port("y", "tensor(float)", [None, 1])])
    assert shape.features == [("feature_1", "float"), ("feature_2", "float"), ("feature_3", "float")]
    assert shape.kind == "regression" and "3 columns" in shape.told[0]


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
    """And said to be a guess."""
    shape: Shape = shape_of([Port("a", "tensor(float)", [None, 1])], [Port(*o) for o in outputs])
    assert shape.kind == kind and any(kind in told for told in shape.told)


def test_an_input_that_no_feature_can_be_is_refused() -> None:
    """A sequence or a complex number comes in no event."""
    with pytest.raises(ValueError, match="x is a tensor\\(complex64\\)"):
        shape_of([Port("x", "tensor(complex64)", [None])], [])
