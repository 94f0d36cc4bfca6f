"""Vetting of real models in a real process: which versions pass, and that the parent is not affected."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

from failsoft.models.catalog.repository import Repository
from failsoft.models.vetting.bounded_process import BoundedRun, Limits, environment, why_ended
from failsoft.models.vetting.gate import vet
from failsoft.models.vetting.verdict import CHECKS, CheckResult
from tests.isolated_models import cmdline, ended, user_time
from tests.kafka import wait_for
from tests.onnx_models import node, onnx_model
from tests.versions import X, Y, bomb, check, double, endless, examined, failed, put

ROOT = Path(__file__).resolve().parents[4]
DEMO = ROOT / "models" / "repository"
MOST = """
import resource, sys
from pathlib import Path
from tests.versions import examined
assert not examined(Path(sys.argv[1])).passed
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
GOLDEN = [{"features": {"x": 2.0}, "expected": {"score": 4.0}}, {"features": {}, "expected": {"score": 8.0}}]


def test_a_good_version_passes(tmp_path: Path) -> None:
    """Each check runs and is named; golden vectors are imputed as in live scoring (the second line needs it)."""
    model = double().SerializeToString()
    put(tmp_path, model, GOLDEN, about=f'sha256 = "{hashlib.sha256(model).hexdigest()}"', deadline="10s")
    vetting = examined(tmp_path)
    assert vetting.passed, vetting.describe()
    made = ["checksum", "single_file", "load", "contract", "output", "golden", "batch", "nan", "time"]
    assert [c.name for c in vetting.checks] == made
    assert set(made) < set(CHECKS)
    assert {c.result for c in vetting.checks} == {CheckResult.PASSED}
    assert vetting.sha256 == hashlib.sha256(model).hexdigest()


def test_a_users_module_takes_no_part_in_a_vetting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``random.py`` or ``numpy.py`` on this process's path must not replace Python's own or an installed one."""
    for name in ("random", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong module')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    put(tmp_path, double())
    vetting = examined(tmp_path)
    assert vetting.passed, vetting.describe()


def test_a_check_that_cannot_run_is_skipped(tmp_path: Path) -> None:
    """A version without checksum and golden vectors may serve, and both checks are reported as skipped."""
    put(tmp_path, double())
    vetting = examined(tmp_path)
    assert vetting.passed
    assert (
        check(vetting, "golden").result is CheckResult.SKIPPED and "golden.ndjson" in check(vetting, "golden").message
    )
    assert (
        check(vetting, "checksum").result is CheckResult.SKIPPED
        and vetting.sha256 in check(vetting, "checksum").message
    )


@pytest.mark.parametrize("model", Repository(DEMO).models())
def test_the_demos_models_pass_with_golden_vectors(model: str) -> None:
    """Every version of the demo passes the golden vectors that its training wrote."""
    repository = Repository(DEMO)
    for version in repository.versions(model):
        (golden,) = [
            c for c in vet(repository.artifact(model, version), repository.card(model)).checks if c.name == "golden"
        ]
        assert golden.result is CheckResult.PASSED and golden.message == "20 answers as expected"


def test_a_corrupt_file_fails(tmp_path: Path) -> None:
    """The message says what to do, and no check runs after the load."""
    put(tmp_path, b"not a model")
    vetting = examined(tmp_path)
    assert failed(vetting) == ["load"] and "copy it again" in check(vetting, "load").message
    assert [c.name for c in vetting.checks][-1] == "load"


@pytest.mark.parametrize("hidden", [False, True], ids=["taken", "never-taken"])
def test_a_memory_bomb_is_bounded(tmp_path: Path, hidden: bool) -> None:
    """200 bytes that unfold to 800 MB fail, even if ONNX Runtime under a limit loads them without unfolding."""
    folder = put(tmp_path, bomb(200_000_000, hidden))
    assert (folder / "model.onnx").stat().st_size < 1000
    before = psutil.Process().memory_info().rss
    vetting = examined(tmp_path)
    assert failed(vetting) == (["load"] if hidden else ["output"])
    assert "needs more than 512 MB" in vetting.describe()
    assert psutil.Process().memory_info().rss - before < 20_000_000
    # A new parent without other children, so ru_maxrss is the vetting's largest memory (kilobytes on Linux).
    most = subprocess.run([sys.executable, "-c", MOST, str(tmp_path)], cwd=ROOT, capture_output=True, check=True).stdout
    assert int(most) < 600_000


def test_the_memory_limit_may_be_raised(tmp_path: Path) -> None:
    """A version that unfolds to 80 MB passes the default limit and fails one of 20 MB."""
    put(tmp_path, bomb(20_000_000))
    assert failed(examined(tmp_path, Limits(memory=20_000_000))) == ["output"]
    assert examined(tmp_path).passed


@pytest.mark.parametrize(
    ("limits", "why"),
    [(Limits(wall=12), "not done within 12 s"), (Limits(cpu=2), "more than 2 s of processor time")],
    ids=["wall", "cpu"],
)
def test_an_endless_run_is_stopped(tmp_path: Path, limits: Limits, why: str) -> None:
    """It is stopped by wall time or processor time, whichever ends first, and the check that was running fails."""
    put(tmp_path, endless())
    vetting = examined(tmp_path, limits)
    assert failed(vetting) == ["output"] and why in check(vetting, "output").message
    assert not _vettings()


def _vettings() -> list[psutil.Process]:
    """The vettings under way. Other children, such as another test's Kafka, do not count."""
    return [p for p in psutil.Process().children() if "failsoft.models.vetting.gate" in cmdline(p) and not ended(p)]


def test_names_that_differ_fail(tmp_path: Path) -> None:
    """The message names the model's feature and the closest name in the card."""
    put(
        tmp_path,
        onnx_model([("xx", "float", ["n", 1]), ("b", "float", ["n", 1])], [Y], node("Add", ["xx", "b"], ["y"])),
    )
    vetting = examined(tmp_path)
    assert failed(vetting) == ["contract"]
    assert "'xx' (did you mean 'x'?)" in check(vetting, "contract").message


def test_types_that_differ_fail(tmp_path: Path) -> None:
    """A float feature does not fit an integer input."""
    put(tmp_path, onnx_model([("x", "int64", ["n", 1])], [Y], node("Cast", ["x"], ["y"], to=1)))
    vetting = examined(tmp_path)
    assert failed(vetting) == ["contract"] and "'x' is a float in the card" in check(vetting, "contract").message


def test_a_fixed_batch_fails(tmp_path: Path) -> None:
    """A model with a fixed batch size fails, whether it declares the size or only a run shows it."""
    put(tmp_path, onnx_model([("x", "float", [1, 1])], [Y], node("Identity", ["x"], ["y"])))
    assert failed(examined(tmp_path)) == ["contract"]
    fixed = node("Reshape", ["x", "shape"], ["y"])
    put(tmp_path, onnx_model([X], [("y", "float", None)], fixed, constants={"shape": np.array([1, 1])}))  # type: ignore[list-item]
    vetting = examined(tmp_path)
    assert failed(vetting) == ["batch"] and "it takes 1 row, and not 2" in check(vetting, "batch").message


def test_rows_that_mix_are_noted(tmp_path: Path) -> None:
    """An answer that depends on the other rows is a note: such a model answers differently after a batch is split."""
    put(tmp_path, onnx_model([X], [Y], node("ReduceSum", ["x"], ["sum"], keepdims=0), node("Add", ["x", "sum"], ["y"])))
    batch = check(examined(tmp_path), "batch")
    assert batch.result is CheckResult.NOTE and "the model mixes rows" in batch.message


def test_an_output_of_the_wrong_shape_fails(tmp_path: Path) -> None:
    """If the model does not declare its number of rows, a run shows it."""
    put(tmp_path, onnx_model([X], [("y", "float", ["k", 1])], node("Concat", ["x", "x"], ["y"], axis=0)))
    vetting = examined(tmp_path)
    assert failed(vetting) == ["output"] and "is 2×1 for 1 rows" in check(vetting, "output").message


def test_a_model_that_never_answers_fails(tmp_path: Path) -> None:
    """No usable answer to any row is a failure. Answers to some rows, or errors on made-up rows only, are a note."""
    put(tmp_path, onnx_model([X], [Y], node("Sub", ["x", "x"], ["z"]), node("Div", ["z", "z"], ["y"])))
    vetting = examined(tmp_path)
    assert failed(vetting) == ["output"] and "no usable answer to any of 16" in check(vetting, "output").message
    put(tmp_path, onnx_model([X], [Y], node("Log", ["x"], ["y"])))
    some = examined(tmp_path)
    assert some.passed and check(some, "output").result is CheckResult.NOTE


def test_golden_vectors_that_differ_fail(tmp_path: Path) -> None:
    """The message has the line, the expected and the given answer; a line's tolerance widens the default."""
    lines = [*GOLDEN, {"features": {"x": 1.0}, "expected": {"score": 2.5}}]
    put(tmp_path, double(), lines)
    vetting = examined(tmp_path)
    assert failed(vetting) == ["golden"]
    assert (
        "1 of 3 answers" in vetting.describe() and "line 3: expected score 2.5, got 2 (0.5 apart" in vetting.describe()
    )
    put(tmp_path, double(), [*GOLDEN, {**lines[2], "tolerance": 0.6}])
    assert examined(tmp_path).passed


def test_sample_rows_are_golden_vectors_if_valid(tmp_path: Path) -> None:
    """Invalid golden vectors are not used as sample rows; only the golden check reports them."""
    put(tmp_path, double(), GOLDEN)
    assert "2 of 2 golden rows" in check(examined(tmp_path), "output").message
    folder = put(tmp_path, double(), [{"features": {}, "expected": {"score": 4.0}}])
    card = folder.parent / "card.toml"
    card.write_text(card.read_text().replace("impute = 4.0\n", ""))
    vetting = examined(tmp_path)
    assert "16 of 16 made-up rows" in check(vetting, "output").message
    assert failed(vetting) == ["golden"] and "no answer (invalid: feature 'x': missing" in vetting.describe()


def test_golden_vectors_that_cannot_be_read_fail(tmp_path: Path) -> None:
    """An incomplete file or a wrong key is a failure with the line, and not a version without vectors."""
    folder = put(tmp_path, double(), GOLDEN)
    (folder / "golden.ndjson").write_text('{"features": {"x": 2.0}, "expcted": {"score": 4.0}}\n{"fea')
    vetting = examined(tmp_path)
    assert failed(vetting) == ["golden"]
    assert "golden.ndjson, line 1" in vetting.describe() and "did you mean 'expected'" in vetting.describe()


def test_an_answer_to_nan_is_noted(tmp_path: Path) -> None:
    """An answer is no failure, because imputation comes first. A NaN output passes, because outputs are guarded."""
    put(tmp_path, onnx_model([X], [Y], node("IsNaN", ["x"], ["nan"]), node("Cast", ["nan"], ["y"], to=1)))
    confident = examined(tmp_path)
    assert confident.passed and check(confident, "nan").result is CheckResult.NOTE
    assert "a missing x" in check(confident, "nan").message
    put(tmp_path, double())
    assert check(examined(tmp_path), "nan").result is CheckResult.PASSED


def test_a_row_past_the_deadline_fails(tmp_path: Path) -> None:
    """Each call would be a timeout; the message has both times."""
    put(tmp_path, endless(turns=20_000), deadline="1ms")
    vetting = examined(tmp_path)
    assert failed(vetting) == ["time"] and "the card's deadline is 1 ms" in check(vetting, "time").message


def test_weights_in_other_files_fail(tmp_path: Path) -> None:
    """The checksum does not cover such weights; the message says how to save them inside model.onnx."""
    folder = put(tmp_path, double())
    weights = onnx_model([X], [Y], node("MatMul", ["x", "w"], ["y"]), constants={"w": np.zeros((1, 1), np.float32)})
    onnx.save(weights, folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    vetting = examined(tmp_path)
    assert failed(vetting) == ["single_file"] and "save_as_external_data=False" in vetting.describe()


def test_a_half_copied_version_fails(tmp_path: Path) -> None:
    """The checksum detects it before the load. Without a checksum, a file cut at any place does not load."""
    whole = double().SerializeToString()
    put(tmp_path, whole[:-9], about=f'sha256 = "{hashlib.sha256(whole).hexdigest()}"')
    assert failed(examined(tmp_path)) == ["complete"]
    (tmp_path / "m" / "1" / "version.toml").unlink()
    for cut in (1, len(whole) // 2, len(whole) - 1):
        put(tmp_path, whole[:cut])
        assert failed(examined(tmp_path)) in (["load"], ["contract"]), cut


def test_a_card_that_was_edited_since_fails(tmp_path: Path) -> None:
    """A worker uses the card that it read at its start, so the version must be vetted with the same card."""
    put(tmp_path, double())
    repository = Repository(tmp_path)
    card, artifact = repository.card("m"), repository.artifact("m", 1)
    put(tmp_path, double(), deadline="300ms")
    assert failed(vet(artifact, card)) == ["card"]


def test_a_file_that_changed_since_it_was_hashed_fails(tmp_path: Path) -> None:
    """The bytes that are vetted must be those of the artifact."""
    folder = put(tmp_path, double())
    repository = Repository(tmp_path)
    artifact = repository.artifact("m", 1)
    (folder / "model.onnx").write_bytes(bomb(2).SerializeToString())
    assert failed(vet(artifact, repository.card("m"))) == ["settled"]


def test_the_environment_has_only_what_the_interpreter_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The subprocess gets no password and no setting of the pipeline."""
    monkeypatch.setenv("FAILSOFT_KAFKA__SASL_PASSWORD", "secret")
    variables = environment()
    assert "secret" not in " ".join(variables.values())
    assert set(variables) - {"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"} == {
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "PYTHONPATH",
        "PYTHONUTF8",
    }


PARENT = """
import sys, os
os.environ["FAILSOFT_KAFKA__SASL_PASSWORD"] = "secret"
from pathlib import Path
from tests.versions import examined
held = open(sys.argv[1] + "/held", "w")
os.set_inheritable(held.fileno(), True)
examined(Path(sys.argv[1]))
"""


def test_the_process_has_nothing_of_its_parent_and_ends_with_it(tmp_path: Path) -> None:
    """It has its own environment and open files, and ``kill -9`` of the parent ends it."""
    put(tmp_path, endless())
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], cwd=ROOT)
    try:
        wait_for(lambda: psutil.Process(parent.pid).children(), 60, "the vetting's process")
        (child,) = psutil.Process(parent.pid).children()
        wait_for(lambda: user_time(child) > 1, 60, "the endless run")
        assert "secret" not in "".join(child.environ().values())
        assert str(tmp_path / "held") not in [f.path for f in child.open_files()]
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: ended(child), 60, "its end")


def test_every_check_is_on_its_page() -> None:
    """The page has each check's name and meaning."""
    page = (ROOT / "docs" / "vetting.md").read_text("utf-8")
    assert [name for name, holds in CHECKS.items() if f"| `{name}` | {holds}" not in page] == []


def test_the_message_says_how_a_process_died() -> None:
    """A native crash, a kill from outside, a lack of memory and an error of failsoft have different messages."""
    limits = Limits()

    def why(code: int, err: str = "") -> str:
        return why_ended(BoundedRun(b"", err, code, False), limits, 7_000_000)

    assert "SIGSEGV" in why(-signal.SIGSEGV)
    assert "killed from outside" in why(-signal.SIGKILL)
    assert "more than 7 MB" in why(-signal.SIGABRT, "terminate called: std::bad_alloc")
    assert why(1, "Traceback\nKeyError: 'x'\n").endswith("ended with 1: KeyError: 'x'")


def test_a_native_crash_is_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the process dies during a check, that check fails, and the parent goes on."""
    put(tmp_path, endless())
    real = subprocess.Popen.communicate

    def crash(self: subprocess.Popen[bytes], *given: object, **named: object) -> object:
        child = psutil.Process(self.pid)
        wait_for(lambda: user_time(child) > 1, 60, "the endless run")
        os.kill(self.pid, signal.SIGSEGV)
        return real(self, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(subprocess.Popen, "communicate", crash)
    vetting = examined(tmp_path)
    assert failed(vetting) == ["output"] and "crashed natively (SIGSEGV)" in vetting.describe()


def test_an_interrupted_vetting_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is interrupted during a vetting ends the vetting's process too."""
    put(tmp_path, endless())

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        examined(tmp_path)
    assert not _vettings()
