"""The loading of versions: which version a worker loads, and what it logs about the others."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
import structlog

from failsoft.models.catalog.repository import Repository
from failsoft.models.runtime.session import Session, Unloadable
from failsoft.models.vetting.bounded_process import Limits
from failsoft.models.vetting.verdict import Check, CheckResult, Vetting
from failsoft.schemas.config.refusal import Refused
from failsoft.workers import identity, settings
from failsoft.workers.serving import loader
from failsoft.workers.serving.unserved import NoVersion
from tests.versions import bomb, double, failed, put

GOLDEN = {"features": {"x": 2.0}, "expected": {"score": 4.0}}
WRONG = {"features": {"x": 2.0}, "expected": {"score": 5.0}}


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a machine that remembers no pass."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return identity.own_folder()


def _load(root: Path, active: int | None = None) -> tuple[int | None, list[Any]]:
    """The version that is loaded if the fleet's is ``active``, and the errors that were logged."""
    repository = Repository(root)
    with structlog.testing.capture_logs() as logs:
        opened = loader.first(repository, repository.card("m"), active)
    errors = [line for line in logs if line["log_level"] == "error"]
    if isinstance(opened, NoVersion):
        return None, [*errors, {"event": str(opened)}]
    opened.close()
    assert opened.served.dtypes == {"x": "float32"}  # what `impute` is handed in a worker
    return opened.served.version, errors


def test_the_newest_version_that_passes_is_served(tmp_path: Path) -> None:
    """Versions that fail are skipped, and the log has their failed checks. Here: one with weights in another file, one
    with other answers than its golden vectors, one that unfolds to 800 MB, and one that is not a model.
    """
    put(tmp_path / "r", double(), [GOLDEN])
    put(tmp_path / "r", double(), [WRONG], version=2)
    put(tmp_path / "r", bomb(200_000_000), version=3)
    put(tmp_path / "r", b"no model", version=4)
    folder = put(tmp_path / "r", double(), version=5)
    onnx.save(bomb(2), folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    served, errors = _load(tmp_path / "r")
    assert served == 1
    assert [line["version"] for line in errors] == [5, 4, 3, 2]
    assert [line["why"].split(": ")[1] for line in errors] == ["single_file", "load", "output", "golden"]
    assert all("did not pass its vetting" in line["why"] for line in errors)
    assert "expected score 5, got 4" in errors[-1]["why"]


def test_a_half_copied_version_is_not_served(tmp_path: Path) -> None:
    """It is skipped if version.toml has its checksum, and also without version.toml, because the file does not load."""
    whole = double().SerializeToString()
    put(tmp_path / "r", whole)
    put(tmp_path / "r", whole[:-5], version=2, about=f'sha256 = "{hashlib.sha256(whole).hexdigest()}"')
    put(tmp_path / "r", whole[:-5], version=3)
    served, errors = _load(tmp_path / "r")
    assert served == 1 and [line["version"] for line in errors] == [3]
    put(tmp_path / "r", whole, version=3)
    assert _load(tmp_path / "r")[0] == 3


def test_no_version_that_passes_is_logged(tmp_path: Path) -> None:
    """The worker starts without the model, and fallbacks answer. The result names each version and its reason."""
    put(tmp_path / "r", double(), [WRONG])
    put(tmp_path / "r", b"no model", version=2)
    served, errors = _load(tmp_path / "r")
    assert served is None and "it will not answer" in errors[-2]["event"]
    why = errors[-1]["event"]
    assert why.startswith("no version of m can serve: m@2 did not pass its vetting: load: ") and "m@1 did not" in why


def test_a_model_without_a_complete_version_says_where_to_copy_one(tmp_path: Path) -> None:
    """Incomplete versions are named with what they lack."""
    (put(tmp_path / "r", double()) / "model.onnx").unlink()
    served, errors = _load(tmp_path / "r")
    assert served is None
    why = errors[-1]["event"]
    assert "m@1: it has no model.onnx" in why and why.endswith(f"copy a model to {tmp_path}/r/m/1/model.onnx")


def test_the_fleets_version_is_served_and_never_a_newer_one(tmp_path: Path) -> None:
    """If its files are missing, an older version is served: the fleet may have rolled back from newer ones."""
    for version in (1, 2, 3):
        put(tmp_path / "r", double(), [GOLDEN], version=version)
    assert _load(tmp_path / "r", active=2) == (2, [])
    (tmp_path / "r" / "m" / "2" / "model.onnx").unlink()
    served, errors = _load(tmp_path / "r", active=2)
    assert (served, [line["version"] for line in errors]) == (1, [2])
    served, errors = _load(tmp_path / "r", active=9)
    assert served == 3 and [line["version"] for line in errors] == [9]


def test_a_versions_mistaken_file_keeps_no_other_from_serving(tmp_path: Path) -> None:
    """Such a file may be copied in at any time, and a worker that restarts then must still start."""
    put(tmp_path / "r", double(), [GOLDEN])
    put(tmp_path / "r", double(), [GOLDEN], version=2, about='sha265 = "12"')
    put(tmp_path / "r", double(), [GOLDEN], version=3, about="trained_at = 7.5.2026")
    served, errors = _load(tmp_path / "r")
    assert served == 1 and "did you mean 'sha256'" in errors[0]["why"] and len(errors) == 1
    served, errors = _load(tmp_path / "r", active=2)
    assert served == 1 and errors[-1]["version"] == 2 and "sha265" in errors[-1]["why"]
    served, errors = _load(tmp_path / "r", active=9)
    assert served == 1 and "m@9: it has no model.onnx; complete versions: 1" in errors[1]["why"]
    assert "sha265" in (_prove(tmp_path / "r", 2) or "")


def test_files_that_disappear_during_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their version cannot serve, and the worker goes on."""
    put(tmp_path / "r", double(), [GOLDEN])
    put(tmp_path / "r", double(), [GOLDEN], version=2)
    whole = Repository._checksum

    def gone(self: Repository, path: Path) -> str:
        if path.parent.name == "2":
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return whole(self, path)

    monkeypatch.setattr(Repository, "_checksum", gone)
    served, errors = _load(tmp_path / "r")
    assert served == 1 and "cannot be read" in errors[0]["why"]
    assert "cannot be read" in (_prove(tmp_path / "r", 2) or "")


def _prove(root: Path, version: int) -> str | None:
    repository = Repository(root)
    return loader.prove(repository, repository.card("m"), version)


def test_a_rollback_vets_its_version_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart relies on a remembered pass; for a rollback only a new vetting counts."""
    put(tmp_path / "r", double(), [GOLDEN])
    repository = Repository(tmp_path / "r")
    card = repository.card("m")
    assert loader.prove(repository, card, 1) is None
    worse = Vetting("m", 1, "ab", (Check("golden", CheckResult.FAILED, "line 1"),), 0.1)
    monkeypatch.setattr("failsoft.models.vetting.gate.vet", lambda *_: worse)
    assert _load(tmp_path / "r") == (1, [])
    assert loader.prove(repository, card, 1) == "golden: line 1"
    assert "no model.onnx" in (loader.prove(repository, card, 2) or "")


def test_a_second_start_vets_nothing(tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass is remembered in this user's folder on the machine; a vetting with ``anew`` still runs."""
    put(tmp_path / "r", double(), [GOLDEN])
    assert _load(tmp_path / "r")[0] == 1
    assert (own / "vetted.ndjson").is_file()

    def none(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("failsoft.models.vetting.gate.vet", none)
    assert _load(tmp_path / "r") == (1, [])
    repository = Repository(tmp_path / "r")
    with pytest.raises(AssertionError, match="a process was started"):
        loader.vet(repository, repository.card("m"), 1, anew=True)


def test_the_same_files_under_a_new_number_are_that_version(tmp_path: Path) -> None:
    """A remembered pass of the old number is used, but the version that serves has the new number."""
    put(tmp_path / "r", double(), [GOLDEN])
    assert _load(tmp_path / "r") == (1, [])
    shutil.move(tmp_path / "r" / "m" / "1", tmp_path / "r" / "m" / "2")
    assert _load(tmp_path / "r") == (2, [])
    repository = Repository(tmp_path / "r")
    opened = loader.open_version(repository, repository.card("m"), 2)
    assert isinstance(opened.session, Session) and opened.session.key == "m@2"


def test_only_the_vetted_file_is_loaded(tmp_path: Path) -> None:
    """A file that was replaced under the same number after the vetting is not loaded."""
    folder = put(tmp_path / "r", double())
    repository = Repository(tmp_path / "r")
    vetting = loader.vet(repository, repository.card("m"), 1)
    assert loader.vetted(repository, vetting).sha256 == vetting.sha256
    (folder / "model.onnx").write_bytes(bomb(2).SerializeToString())
    with pytest.raises(Unloadable, match="changed after it was vetted"):
        loader.vetted(repository, vetting)
    (folder / "model.onnx").unlink()
    with pytest.raises(Unloadable, match=r"no model\.onnx"):
        loader.vetted(repository, vetting)


def test_a_card_that_needs_missing_statistics_is_refused(tmp_path: Path) -> None:
    """A mistake in the card is not a version's failure: the worker does not start, and the message names the key."""
    put(tmp_path / "r", double())
    card = tmp_path / "r" / "m" / "card.toml"
    card.write_text(card.read_text().replace("impute = 4.0", 'impute = "median"'))
    with pytest.raises(Refused, match="imputed by its median"):
        _load(tmp_path / "r")


def test_the_pipeline_file_sets_the_limits(tmp_path: Path) -> None:
    """The processor time is half of the wall time; without the keys the defaults apply."""
    text = 'name = "p"\nmodel = "m"\n[input]\ntopics = ["e"]\n'
    (tmp_path / "pipeline.toml").write_text(text)
    assert loader.limits(settings.load(tmp_path, {})) == Limits()
    (tmp_path / "pipeline.toml").write_text(text + '[models]\nvetting_memory_mb = 20\nvetting_time = "3s"\n')
    limits = loader.limits(settings.load(tmp_path, {}))
    assert (limits.memory, limits.cpu, limits.wall) == (20_000_000, 1.5, 3.0)
    overlaid = settings.load(tmp_path, {"FAILSOFT_MODELS__VETTING_MEMORY_MB": "30"})
    assert loader.limits(overlaid).memory == 30_000_000


def test_the_verdict_names_the_failed_check(tmp_path: Path) -> None:
    """Alerts and histories use the check's name and its sentence."""
    put(tmp_path / "r", double(), [WRONG])
    repository = Repository(tmp_path / "r")
    vetting = loader.vet(repository, repository.card("m"), 1)
    assert failed(vetting) == ["golden"] and vetting.describe().startswith("golden: 1 of 1 answers are not as expected")
