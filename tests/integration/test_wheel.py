"""The wheel in a project that has packages of the same names, on a real Kafka."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.integration.pipeline import ROOT, Pipeline, events, running
from tests.kafka import Broker

FOLDERS = ("schemas", "topics", "models", "workers")
DATA = {
    "failsoft/schemas/published/",
    "failsoft/models/repository/repayment/card.toml",
    "failsoft/workers/demo/data/",
    "failsoft/workers/templates/",
}
RULE = 'def half(features):\n    return {"score": 0.5, "label": 0}\n'


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that the repository stays clean."""
    copy = tmp_path_factory.mktemp("source")
    for file in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / file, copy)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(copy / "dist"), str(copy))
    (built,) = (copy / "dist").glob("*.whl")
    return built


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_brings_one_package(wheel: Path) -> None:
    """The wheel's only package is `failsoft`; it contains the files that the commands read."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"failsoft"} and len(tops) == 2
    assert not [wanted for wanted in DATA if not any(name.startswith(wanted) for name in names)]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site-packages of an environment with the wheel and the dependencies of this one."""
    environment = tmp_path_factory.mktemp("environment")
    _run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    own = Path(_run(str(environment / "bin" / "python"), "-c", "import site; print(site.getsitepackages()[0])").strip())
    _run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(own), str(wheel))
    (own / "dependencies.pth").write_text(os.linesep.join(site.getsitepackages()))
    return own


def test_a_clone_in_the_working_directory_is_not_imported(tmp_path: Path, installed: Path) -> None:
    """A clone of the repository is a folder `failsoft` without `__init__.py`: the installed package comes before it."""
    clone = tmp_path / "failsoft" / "workers"
    clone.mkdir(parents=True)
    (clone / "__init__.py").write_text("")
    (clone / "cli.py").write_text("raise SystemExit('the clone')")
    place = _run(_python(installed), "-c", "import failsoft.workers.cli as cli; print(cli.__file__)", cwd=tmp_path)
    assert place.startswith(str(installed)), place


def _python(installed: Path) -> str:
    return str(installed.parents[2] / "bin" / "python")


@pytest.mark.parametrize("folders", [(), FOLDERS], ids=["elsewhere", "beside its own packages"])
def test_init_writes_the_wheels_templates(tmp_path: Path, installed: Path, folders: tuple[str, ...]) -> None:
    """`failsoft init` works in any folder, also beside other packages named `workers`, `models` and so on."""
    for folder in folders:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
    _run(_python(installed), "-m", "failsoft.workers.cli", "init", "made", cwd=tmp_path)
    assert (tmp_path / "made" / "pipeline.toml").is_file()
    assert list((tmp_path / "made" / "models" / "repository").glob("*/card.toml"))


def test_a_project_keeps_its_own_packages(tmp_path: Path, kafka: Broker, name: str, installed: Path) -> None:
    """A pipeline runs beside the user's own `models`, `schemas`, `workers` and `topics`, with a rule from these."""
    pipeline = Pipeline(tmp_path / "project", kafka.bootstrap, name)
    for folder in FOLDERS:
        (pipeline.folder / folder).mkdir(exist_ok=True)
        (pipeline.folder / folder / "__init__.py").write_text("")
    (pipeline.folder / "workers" / "rules.py").write_text(RULE)
    card = pipeline.folder / "models" / "test" / "card.toml"
    text = card.read_text()
    assert 'chain = ["static"]' in text
    card.write_text(text.replace('chain = ["static"]', 'chain = ["rule:workers.rules:half", "static"]'))
    with running(pipeline) as settlement:
        command = "import sys; from failsoft.workers import cli; print(cli.__file__); sys.exit(cli.main())"
        worker = pipeline.spawn(
            "wheel", [_python(installed), "-P", "-c", command, "worker", "--pipeline", str(pipeline.file), "--id", name]
        )
        pipeline.publish(events(40, bad_every=10))
        settlement.wait_answered(40)
        scored = [json.loads(r.value or b"") for r in settlement.reader.records[settlement.scored]]
        assert str(installed) in worker.log.read_text(), "the worker must run the code of the wheel"
    given = {answer["model"] for answer in scored if answer["source"] == "rule"}
    assert given == {"workers.rules:half"}, scored[:5]
