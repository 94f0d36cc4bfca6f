"""The cache of passes: when a vetting is skipped, and which cache files are not trusted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from failsoft.models.vetting import cache as memory
from failsoft.models.vetting.bounded_process import Limits
from failsoft.models.vetting.cache import VettingCache
from failsoft.models.vetting.verdict import Check, CheckResult, Vetting
from tests.versions import bomb, double, examined, failed, put

GOLDEN = {"features": {"x": 2.0}, "expected": {"score": 4.0}}
PASSED = Vetting("m", 1, "ab", (Check("load", CheckResult.PASSED, "in 1 ms"),), 0.25)


@pytest.fixture
def passes(tmp_path: Path) -> VettingCache:
    """A cache in a private folder, as workers have."""
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    return VettingCache(folder)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The commands of the processes that were started."""
    commands: list[Any] = []
    real = subprocess.Popen.__init__

    def record(self: subprocess.Popen[bytes], command: Any, *arguments: Any, **named: Any) -> None:
        commands.append(command)
        real(self, command, *arguments, **named)

    monkeypatch.setattr(subprocess.Popen, "__init__", record)
    return commands


def test_a_pass_is_remembered(tmp_path: Path, passes: VettingCache, started: list[Any]) -> None:
    """The same verdict is returned without a second process, unless the version is to be vetted anew."""
    put(tmp_path, double(), [GOLDEN])
    first = examined(tmp_path, passes=passes)
    assert first.passed and len(started) == 1
    assert examined(tmp_path, passes=passes) == first and len(started) == 1
    assert examined(tmp_path, passes=passes, anew=True).passed and len(started) == 2


CHANGES: dict[str, Callable[[Path], object]] = {
    "model": lambda root: put(root, bomb(2), [GOLDEN]),
    "card": lambda root: put(root, double(), [GOLDEN], deadline="300ms"),
    "golden": lambda root: put(root, double(), [GOLDEN, GOLDEN]),
    "version.toml": lambda root: put(root, double(), [GOLDEN], about="[metrics]\nauc = 0.5\n"),
    "no golden": lambda root: (root / "m" / "1" / "golden.ndjson").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_pass_is_for_these_files(tmp_path: Path, passes: VettingCache, started: list[Any], change: str) -> None:
    """If any of the version's files or the card changes, the version is vetted again."""
    put(tmp_path, double(), [GOLDEN])
    examined(tmp_path, passes=passes)
    CHANGES[change](tmp_path)
    examined(tmp_path, passes=passes)
    assert len(started) == 2


def test_a_pass_is_for_these_limits_and_programs(
    tmp_path: Path, passes: VettingCache, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other limits, another ONNX Runtime or another failsoft the version is vetted again."""
    put(tmp_path, double(), [GOLDEN])
    examined(tmp_path, passes=passes)
    examined(tmp_path, Limits(wall=50), passes=passes)
    assert len(started) == 2
    monkeypatch.setattr("onnxruntime.__version__", "9.9")
    examined(tmp_path, passes=passes)
    assert len(started) == 3
    monkeypatch.setattr("failsoft.models.vetting.gate.installed", lambda name: "9.9")
    examined(tmp_path, passes=passes)
    assert len(started) == 4


def test_a_failure_is_not_remembered(tmp_path: Path, passes: VettingCache, started: list[Any]) -> None:
    """A version that failed may be corrected, or may have been an incomplete copy, so it is vetted each time."""
    put(tmp_path, double(), [{**GOLDEN, "expected": {"score": 5.0}}])
    assert failed(examined(tmp_path, passes=passes)) == ["golden"]
    assert failed(examined(tmp_path, passes=passes)) == ["golden"]
    assert len(started) == 2
    with pytest.raises(ValueError, match="did not pass"):
        passes.remember("k", Vetting("m", 1, "ab", (Check("load", CheckResult.FAILED, "corrupt"),), 0.1))


def test_the_cache_is_bounded(passes: VettingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest passes are dropped, and only the file and its lock are left in the folder."""
    monkeypatch.setattr(memory, "PASSES_KEPT", 3)
    for key in "abcde":
        passes.remember(key, PASSED)
    assert [passes.recall(key) for key in "abcde"] == [None, None, PASSED, PASSED, PASSED]
    assert sorted(p.name for p in passes._folder.iterdir()) == ["vetted.lock", "vetted.ndjson"]


def test_a_damaged_file_is_ignored(passes: VettingCache) -> None:
    """A damaged file costs a vetting and does not prevent a start; the next write repairs it."""
    passes.remember("a", PASSED)
    file = passes._folder / "vetted.ndjson"
    file.write_bytes(b"a {\xff\n\nb")
    assert passes.recall("a") is None and passes.recall("b") is None
    passes.remember("a", PASSED)
    assert passes.recall("a") == PASSED


@pytest.mark.parametrize("which", ["own", "own/vetted.ndjson"])
def test_a_file_that_others_may_write_is_not_trusted(tmp_path: Path, passes: VettingCache, which: str) -> None:
    """Every user may write to the folder for temporary files, so a planted pass could make a harmful model serve."""
    passes.remember("a", PASSED)
    assert passes.recall("a") == PASSED
    (tmp_path / which).chmod(0o777)
    assert passes.recall("a") is None


def test_a_missing_folder_is_no_error(tmp_path: Path) -> None:
    """Without the folder nothing is remembered, which is slower but not an error."""
    passes = VettingCache(tmp_path / "nowhere")
    passes.remember("a", PASSED)
    assert passes.recall("a") is None


def test_a_verdict_as_json_and_back() -> None:
    """The value is the same after writing and parsing; other JSON is refused."""
    assert Vetting.parse(PASSED.to_bytes()) == PASSED
    for key in ("model", "checks", "seconds"):
        wrong = {k: v for k, v in json.loads(PASSED.to_bytes()).items() if k != key}
        with pytest.raises(ValueError, match="not a verdict"):
            Vetting.parse(json.dumps(wrong).encode())
    with pytest.raises(ValueError, match="not a verdict"):
        Vetting.parse(PASSED.to_bytes().replace(b'"passed"', b'"splendid"'))
    with pytest.raises(ValueError, match="known names"):
        Vetting.parse(PASSED.to_bytes().replace(b'"load"', b'"lode"'))


def test_a_verdict_without_checks_does_not_pass() -> None:
    """A verdict passes only if checks have run."""
    assert not Vetting("m", 1, "ab", (), 0.0).passed
