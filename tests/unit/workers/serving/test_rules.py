"""Rules of a chain: where their modules are found, and which are refused."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from failsoft.models.catalog.card import ModelCard
from failsoft.schemas.config.refusal import Refused
from failsoft.workers.serving.rules import FolderFinder, load_rules

RULE = "def half(features):\n    return 0.5\n"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Modules of one test's folder must not be found by the next one."""
    finders, modules = [*sys.meta_path], {*sys.modules}
    yield
    sys.meta_path[:] = finders
    for name in {*sys.modules} - modules:
        del sys.modules[name]


def _card(rule: str) -> ModelCard:
    return ModelCard.model_validate(
        {
            "model": {"name": "m"},
            "output": {"kind": "binary"},
            "features": [{"name": "x", "type": "float"}],
            "fallback": {"chain": [f"rule:{rule}", "static"], "static": {"score": 0.5, "label": 0}},
        }
    )


def _load(folder: Path, rule: str) -> object:
    return load_rules(_card(rule), "card.toml", folder)[rule]({})


def test_a_rule_is_found_in_the_folder(tmp_path: Path) -> None:
    """Also with other modules of that folder, and the path of the process stays as it was."""
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "rules.py").write_text("from helper import half\n")
    (tmp_path / "helper.py").write_text(RULE)
    before = [*sys.path]
    assert _load(tmp_path, "my.rules:half") == 0.5 and _load(tmp_path, "my.rules:half") == 0.5
    assert sys.path == before
    assert [f.folder for f in sys.meta_path if isinstance(f, FolderFinder)].count(tmp_path) == 1


def test_a_module_of_the_folder_replaces_none_of_pythons(tmp_path: Path) -> None:
    """A project may have a ``random.py``; the worker and the rule get Python's."""
    (tmp_path / "random.py").write_text("ITEMS = []\n")
    (tmp_path / "rules_with_random.py").write_text(f"import random\nassert random.Random\n{RULE}")
    assert _load(tmp_path, "rules_with_random:half") == 0.5
    assert sys.modules["random"] is random


def test_a_rule_of_the_folder_comes_before_an_installed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project is often installed too, from an older state than the files beside its pipeline file."""
    installed, project = tmp_path / "installed", tmp_path / "project"
    for folder, answer in ((installed, 0.1), (project, 0.5)):
        (folder / "both_places").mkdir(parents=True)
        (folder / "both_places" / "__init__.py").write_text(f"def half(features):\n    return {answer}\n")
    monkeypatch.syspath_prepend(str(installed))
    assert _load(project, "both_places:half") == 0.5


def test_a_folder_of_data_hides_no_installed_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without the rule's file is no module, whatever its name."""
    (tmp_path / "installed" / "with_data").mkdir(parents=True)
    (tmp_path / "installed" / "with_data" / "__init__.py").write_text(RULE)
    (tmp_path / "project" / "with_data").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    assert _load(tmp_path / "project", "with_data:half") == 0.5


def test_a_linked_rule_is_the_folders(tmp_path: Path) -> None:
    """Its file may be elsewhere: what counts is where Python finds it."""
    (tmp_path / "shared_rules.py").write_text(RULE)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "linked_rules.py").symlink_to(tmp_path / "shared_rules.py")
    assert _load(tmp_path / "project", "linked_rules:half") == 0.5


@pytest.mark.parametrize("top", ["statistics", "numpy", "sys"])
def test_a_rule_whose_module_python_finds_elsewhere_is_refused(tmp_path: Path, top: str) -> None:
    """Its file exists, and another module of that name would be used without a word."""
    (tmp_path / f"{top}.py").write_text(RULE)
    with pytest.raises(Refused, match=rf"rule:{top}:half would not come from .*{top}.py.* rename yours"):
        _load(tmp_path, f"{top}:half")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("def half(:", "SyntaxError"),
        ("half = undefined", "NameError"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("import nosuchmodule", "No module named 'nosuchmodule'"),
        ("\0", "null bytes"),
        ("other = 1", "has no function 'half'"),
        ("half = 1", "is not a function"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused(tmp_path: Path, source: str, reason: str) -> None:
    """It is refused at the start, with the reason in one line; a traceback would restart the worker for ever."""
    (tmp_path / "broken_rules.py").write_text(source)
    with pytest.raises(Refused, match=reason):
        _load(tmp_path, "broken_rules:half")


def test_a_worker_process_ignores_modules_of_the_working_directory(tmp_path: Path) -> None:
    """``worker --processes 2`` runs this command in the user's folder."""
    from failsoft.workers.process.supervisor import command

    (tmp_path / "queue.py").write_text("ITEMS = []\n")
    done = subprocess.run(command(["--version"]), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
