"""Models that a card takes the wrong way are refused by `failsoft models vet`, in words that name the mend."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

from failsoft.workers.cli import app
from tests import model_zoo as zoo
from tests.integration.cases import Case, feature, numbered

BINARY = 'kind = "binary"'
ANOMALY = 'kind = "anomaly"\nthreshold = 0.0\noutput = "scores"'
SECOND = 1_790_000_001.0
CASES = [
    Case("positive-unsaid", zoo.linear(3, 2, ("fraud", "legit")), BINARY, numbered(2), {}),
    Case("wrong-side", zoo.outliers(), ANOMALY, numbered(3), {}),
    Case("wrong-side-carried", zoo.outliers(), ANOMALY + '\ncarry = ["label"]', numbered(3), {}),
    Case("one-logit", zoo.logits(9, 1), BINARY, numbered(5), {}),
    Case("four-logits", zoo.logits(9, 4), 'kind = "multiclass"', numbered(5), {}),
    Case("no-locale", zoo.texts(locale="xx_XX.UTF-8"), 'kind = "multiclass"', feature("text", "string"), {}),
    Case(
        "rounded-golden",
        zoo.arrival(),
        'kind = "regression"',
        numbered(2),
        {},
        golden=[{"features": {"feature_1": SECOND, "feature_2": 0.0}, "expected": {"score": SECOND - 1}}],
    ),
]
MENDS: Mapping[str, Sequence[str]] = {
    "positive-unsaid": ['positive = "fraud"', 'positive = "legit"'],
    "wrong-side": ['anomalous = "low"'],
    "wrong-side-carried": ['anomalous = "low"'],
    "one-logit": ['activation = "sigmoid"'],
    "four-logits": ['activation = "softmax"'],
    "no-locale": ["xx_XX.UTF-8", "locale"],
    "rounded-golden": ["1790000001", "1790000000"],
}


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The messages of the failed checks of each case, from one run of `failsoft models vet`."""
    root = tmp_path_factory.mktemp("refused")
    for case in CASES:
        case.write(root, "refused", "127.0.0.1:9")
    done = CliRunner().invoke(app, ["models", "vet", "--repository", str(root / "models")])
    assert done.exit_code == 1, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        case.name: [r["message"] for r in rows if (r["model"], r["result"]) == (case.name, "failed")] for case in CASES
    }


@pytest.mark.parametrize("name", MENDS)
def test_the_refusal_names_the_mend(failures: dict[str, list[str]], name: str) -> None:
    """Each word is in the message of a failed check."""
    said = "\n".join(failures[name])
    assert said and all(word in said for word in MENDS[name]), said or "it passed"


def test_labels_of_the_card_need_a_positive_one(tmp_path: Path) -> None:
    """A card that names two strings and no positive one is refused before anything runs, with both."""
    card = BINARY + '\nlabels = ["fraud", "legit"]'
    Case("labels", zoo.linear(3, 2, ("fraud", "legit")), card, numbered(2), {}).write(tmp_path, "p", "127.0.0.1:9")
    done = CliRunner().invoke(app, ["models", "vet", "--repository", str(tmp_path / "models")])
    assert done.exit_code == 3
    assert 'positive = "fraud"' in done.output and 'positive = "legit"' in done.output


@pytest.mark.parametrize("at", ["beside", "elsewhere"])
def test_init_refuses_weights_in_a_second_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """The refusal is the same from any folder: the second file, and the way to a single one. Nothing is written."""
    model = tmp_path / "beside" / "net.onnx"
    for folder in ("beside", "elsewhere"):
        (tmp_path / folder).mkdir()
    onnx.save(zoo.logits(9, 1), str(model), save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    monkeypatch.chdir(tmp_path / at)
    made = tmp_path / "pipeline"
    done = CliRunner().invoke(app, ["init", str(made), "--onnx", os.path.relpath(model)])
    assert done.exit_code == 1 and not made.exists()
    assert "its weights are in net.onnx.data" in done.output and "onnx.save(onnx.load(" in done.output
