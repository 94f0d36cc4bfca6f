"""``failsoft models vet``: which versions it vets, what it prints, and its exit codes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from failsoft.workers.cli import app
from failsoft.workers.commands import output
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
    """It needs neither Kafka nor a pipeline file, prints one row a check, and exits with 0 when all passed."""
    put(tmp_path, double(), [GOLDEN])
    put(tmp_path, double(), [GOLDEN], version=2)
    put(tmp_path, double(), [GOLDEN], name="lite")
    code, rows, stderr = _vet("--repository", tmp_path)
    assert code == 0 and "3 of 3 versions may serve" in stderr
    passed = _results(rows, "passed")
    assert {(m, v) for m, v, check in passed if check == "golden"} == {("lite", 1), ("m", 2), ("m", 1)}
    assert _results(rows, "failed") == set()
    assert set(rows[0]) == {"model", "version", "sha256", "check", "result", "message"}


def test_a_failure_is_exit_1(tmp_path: Path) -> None:
    """The other versions are still vetted; the end of the output names the failed version and check."""
    put(tmp_path, double(), [GOLDEN])
    put(tmp_path, double(), [{**GOLDEN, "expected": {"score": 5.0}}], version=2)
    code, rows, stderr = _vet("--repository", tmp_path, "m")
    assert code == 1 and _results(rows, "failed") == {("m", 2, "golden")}
    assert "m@2 failed: golden" in stderr and "1 of 2 versions may serve" in stderr
    assert _vet("--repository", tmp_path, "m@1")[0] == 0


def test_an_incomplete_version_is_listed_when_it_is_named(tmp_path: Path) -> None:
    """Naming it or its model vets it; otherwise it is left out, because it may still be being copied."""
    put(tmp_path, double(), [GOLDEN])
    put(tmp_path, b"half", version=2, about=f'sha256 = "{hashlib.sha256(b"half and half").hexdigest()}"')
    assert _vet("--repository", tmp_path)[0] == 0
    for target in ("m", "m@2"):
        code, rows, _ = _vet("--repository", tmp_path, target)
        assert code == 1 and _results(rows, "failed") == {("m", 2, "complete")}
    (message,) = [row["message"] for row in rows]
    assert "half copied" in message


@pytest.mark.parametrize(
    ("target", "message"), [("mm", "did you mean 'm'"), ("m@7", "there are: 1"), ("m@x", "there are: 1")]
)
def test_an_unknown_model_or_version_is_exit_2(tmp_path: Path, target: str, message: str) -> None:
    """The error has a near spelling and lists what exists."""
    put(tmp_path, double())
    code, rows, stderr = _vet("--repository", tmp_path, target)
    assert (code, rows) == (2, []) and message in stderr


def test_an_ensemble_has_no_versions(tmp_path: Path) -> None:
    """Its members are vetted instead, and the error for a named ensemble lists them."""
    put(tmp_path, double(), [GOLDEN])
    put(tmp_path, double(), [GOLDEN], name="lite")
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "card.toml").write_text(ENSEMBLE)
    code, _, stderr = _vet("--repository", tmp_path)
    assert code == 0 and "2 of 2 versions may serve" in stderr
    code, _, stderr = _vet("--repository", tmp_path, "both")
    assert code == 2 and "m, lite" in stderr


def test_a_refused_card_is_exit_3(tmp_path: Path) -> None:
    """The error has a near spelling; a repository without cards is refused too."""
    put(tmp_path, double())
    (tmp_path / "m" / "card.toml").write_text('[output]\nkind = "binry"\n')
    code, _, stderr = _vet("--repository", tmp_path)
    assert code == 3 and "did you mean 'binary'" in stderr
    assert _vet("--repository", tmp_path / "nowhere")[0] == 3


def test_a_repository_without_versions_is_exit_1(tmp_path: Path) -> None:
    """Nothing was vetted; the error says where to put a version."""
    put(tmp_path, double())
    (tmp_path / "m" / "1" / "model.onnx").unlink()
    code, _, stderr = _vet("--repository", tmp_path)
    assert code == 1 and str(tmp_path / "MODEL" / "1" / "model.onnx") in stderr


def test_a_flags_limit_replaces_the_pipelines(tmp_path: Path) -> None:
    """The pipeline file sets the limits; a flag replaces them for one call."""
    put(tmp_path, bomb(20_000_000))
    (tmp_path / "pipeline.toml").write_text(PIPELINE.format(mb=20))
    code, rows, _ = _vet("--pipeline", tmp_path)
    assert code == 1 and _results(rows, "failed") == {("m", 1, "output")}
    assert _vet("--pipeline", tmp_path, "--memory-mb", "500", "--time", "20s")[0] == 0


@pytest.mark.parametrize(("key", "value"), [("vetting_memory_mb", "0"), ("vetting_time", '"soon"')])
def test_an_invalid_limit_is_refused(tmp_path: Path, key: str, value: str) -> None:
    """The command exits with 3, and the error names the key."""
    put(tmp_path, double())
    text = PIPELINE.partition("vetting_memory_mb")[0]
    (tmp_path / "pipeline.toml").write_text(f"{text}{key} = {value}\n")
    code, _, stderr = _vet("--pipeline", tmp_path)
    assert code == 3 and f"models.{key}: " in stderr


def test_a_table_folds_a_long_word(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a narrow terminal, the checksum that a message says to copy is whole."""
    monkeypatch.setattr(output, "people", lambda _as_json: True)
    monkeypatch.setenv("COLUMNS", "40")
    digest = hashlib.sha256().hexdigest()
    output.rows([{"check": "checksum", "message": f"add {digest}"}], ["check", "message"], as_json=False)
    cells = "".join(line.split("│")[2].strip() for line in capsys.readouterr().out.splitlines() if "│" in line)
    assert digest in cells
