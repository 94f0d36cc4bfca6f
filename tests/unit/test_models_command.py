"""``failsoft models vet``: which versions it means, what it prints, and its exit codes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from failsoft.workers.cli import app
from tests.versions import bomb, double, put

GOLDEN = {"features": {"x": 2.0}, "expected": {"score": 4.0}}
PIPELINE = 'name = "p"\nmodel = "m"\n[input]\ntopics = ["e"]\n[models]\nrepository = "."\nvetting_memory_mb = {mb}\n'


ENSEMBLE = """
[model]
kind = "ensemble"
[output]
kind = "regression"
[ensemble]
combine = "mean"
quorum = 1
[[ensemble.members]]
model = "m"
[[ensemble.members]]
model = "lite"
"""


def _vet(*arguments: str | Path) -> tuple[int, list[dict[str, Any]], str]:
    done = CliRunner().invoke(app, ["models", "vet", *map(str, arguments)], env={"COLUMNS": "200"})
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return done.exit_code, rows, done.stderr


def _results(rows: list[dict[str, Any]], *of: str) -> set[tuple[str, int, str]]:
    return {(row["model"], row["version"], row["check"]) for row in rows if row["result"] in of}


def test_every_version_of_every_model_is_vetted(tmp_path: Path) -> None:
    """Neither Kafka nor a pipeline file is asked for; a row a check; exit 0 when all passed."""
    put(tmp_path, double(), [GOLDEN])
    put(tmp_path, double(), [GOLDEN], version=2)
    put(tmp_path, double(), [GOLDEN], name="lite")
    code, rows, said = _vet("--repository", tmp_path)
    assert code == 0 and "3 of 3 versions may serve" in said
    passed = _results(rows, "passed")
    assert {(m, v) for m, v, check in passed if check == "golden"} == {("lite", 1), ("m", 2), ("m", 1)}
    assert _results(rows, "failed") == set()
    assert set(rows[0]) == {"model", "version", "sha256", "check", "result", "message"}


def test_a_failure_is_exit_1(tmp_path: Path) -> None:
    """The others are vetted all the same; which failed, and by what, is said at the end."""
    put(tmp_path, double(), [GOLDEN])
    put(tmp_path, double(), [{**GOLDEN, "expected": {"score": 5.0}}], version=2)
    code, rows, said = _vet("--repository", tmp_path, "m")
    assert code == 1 and _results(rows, "failed") == {("m", 2, "golden")}
    assert "m@2 failed: golden" in said and "1 of 2 versions may serve" in said
    assert _vet("--repository", tmp_path, "m@1")[0] == 0


def test_an_incomplete_version_is_listed_when_it_is_named(tmp_path: Path) -> None:
    """By itself or by its model; otherwise it is somebody's copy under way."""
    put(tmp_path, double(), [GOLDEN])
    put(tmp_path, b"half", version=2, about=f'sha256 = "{hashlib.sha256(b"half and half").hexdigest()}"')
    assert _vet("--repository", tmp_path)[0] == 0
    for target in ("m", "m@2"):
        code, rows, _ = _vet("--repository", tmp_path, target)
        assert code == 1 and _results(rows, "failed") == {("m", 2, "complete")}
    (message,) = [row["message"] for row in rows]
    assert "half copied" in message


@pytest.mark.parametrize(("target", "told"), [("mm", "did you mean 'm'"), ("m@7", "there: 1"), ("m@x", "there: 1")])
def test_what_is_not_there_is_exit_2(tmp_path: Path, target: str, told: str) -> None:
    """With a near spelling, and what there is."""
    put(tmp_path, double())
    code, rows, said = _vet("--repository", tmp_path, target)
    assert (code, rows) == (2, []) and told in said


def test_an_ensemble_has_no_versions(tmp_path: Path) -> None:
    """Its members have: they are vetted, and are what is said when it is named."""
    put(tmp_path, double(), [GOLDEN])
    put(tmp_path, double(), [GOLDEN], name="lite")
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "card.toml").write_text(ENSEMBLE)
    code, _, said = _vet("--repository", tmp_path)
    assert code == 0 and "2 of 2 versions may serve" in said
    code, _, said = _vet("--repository", tmp_path, "both")
    assert code == 2 and "m, lite" in said


def test_a_card_that_is_refused_is_exit_3(tmp_path: Path) -> None:
    """With its file and key."""
    put(tmp_path, double())
    (tmp_path / "m" / "card.toml").write_text('[output]\nkind = "binry"\n')
    code, _, said = _vet("--repository", tmp_path)
    assert code == 3 and "did you mean 'binary'" in said
    assert _vet("--repository", tmp_path / "nowhere")[0] == 3


def test_a_repository_without_versions_is_exit_1(tmp_path: Path) -> None:
    """Nothing was proved, and where a version goes is said."""
    put(tmp_path, double())
    (tmp_path / "m" / "1" / "model.onnx").unlink()
    code, _, said = _vet("--repository", tmp_path)
    assert code == 1 and str(tmp_path / "MODEL" / "1" / "model.onnx") in said


def test_limits_are_the_pipelines_or_the_flags(tmp_path: Path) -> None:
    """The file's for workers, a flag's for once."""
    put(tmp_path, bomb(20_000_000))
    (tmp_path / "pipeline.toml").write_text(PIPELINE.format(mb=20))
    code, rows, _ = _vet("--pipeline", tmp_path)
    assert code == 1 and _results(rows, "failed") == {("m", 1, "output")}
    assert _vet("--pipeline", tmp_path, "--memory-mb", "500", "--time", "20s")[0] == 0


@pytest.mark.parametrize(("key", "value"), [("vetting_memory_mb", "0"), ("vetting_time", '"soon"')])
def test_a_limit_that_cannot_be_is_refused(tmp_path: Path, key: str, value: str) -> None:
    """Exit 3, with the key."""
    put(tmp_path, double())
    text = PIPELINE.partition("vetting_memory_mb")[0]
    (tmp_path / "pipeline.toml").write_text(f"{text}{key} = {value}\n")
    code, _, said = _vet("--pipeline", tmp_path)
    assert code == 3 and f"models.{key}: " in said
