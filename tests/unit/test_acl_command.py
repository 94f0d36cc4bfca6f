"""``failsoft topics acl`` prints commands without a broker, and without a password."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from failsoft.workers.cli import app

FILE = """
name = "loans"
model = "m"
[kafka]
bootstrap_servers = "kafka:9092"
security_protocol = "SASL_SSL"
sasl_mechanism = "SCRAM-SHA-512"
sasl_username = "scoring"
[input]
topics = ["applications"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A pipeline file."""
    path = tmp_path / "pipeline.toml"
    path.write_text(FILE)
    return path


def _commands(file: Path, *arguments: str) -> list[str]:
    done = CliRunner().invoke(app, ["topics", "acl", "--pipeline", str(file), *arguments])
    assert done.exit_code == 0, done.output
    return [json.loads(line)["command"] for line in done.stdout.splitlines()]


def test_the_default_is_a_worker_and_the_pipelines_own_user(file: Path) -> None:
    """One prefix covers the pipeline's own topics; nothing is created."""
    commands = _commands(file)
    start = "kafka-acls.sh --bootstrap-server kafka:9092 --add --allow-principal User:scoring "
    assert all(command.startswith(start) for command in commands)
    assert any(command.endswith("--topic loans. --resource-pattern-type prefixed") for command in commands)
    assert not any("Create" in command for command in commands)


def test_another_user_for_another_use(file: Path) -> None:
    """``--exact`` names each topic."""
    (read,) = _commands(file, "--for", "tail", "--principal", "User:readers", "--exact")
    assert read.endswith("--allow-principal User:readers --operation Read --topic loans.scored")


def test_only_what_needs_all_topics_gets_the_prefix(tmp_path: Path) -> None:
    """Whoever publishes to an input with the pipeline's prefix may not write operators' commands or answers."""
    path = tmp_path / "pipeline.toml"
    path.write_text(FILE.replace('"applications"', '"loans.events"'))
    (write,) = _commands(path, "--for", "publish")
    assert write.endswith("--operation Write --topic loans.events")


@pytest.mark.parametrize("principal", ["scoring", "User:", ":scoring"])
def test_a_principal_without_its_type_is_used_wrongly(file: Path, principal: str) -> None:
    """``kafka-acls.sh`` would refuse it later."""
    done = CliRunner().invoke(app, ["topics", "acl", "--pipeline", str(file), "--principal", principal])
    assert done.exit_code == 2 and "User:scoring" in done.output


def test_no_right_for_everyone_without_a_warning(tmp_path: Path) -> None:
    """A connection without a login is User:ANONYMOUS."""
    path = tmp_path / "pipeline.toml"
    path.write_text('name = "loans"\nmodel = "m"\n[input]\ntopics = ["applications"]\n')
    done = CliRunner().invoke(app, ["topics", "acl", "--pipeline", str(path)])
    assert done.exit_code == 0 and "--principal" in done.stderr


def test_several_uses_are_granted_together(file: Path) -> None:
    """A right that two uses need is granted once."""
    both = _commands(file, "--for", "tail", "--for", "worker", "--exact")
    assert sum(" --topic loans.scored" in command for command in both) == 1
    assert len(both) == len(_commands(file, "--for", "worker", "--exact"))


def test_an_unknown_use_is_used_wrongly(file: Path) -> None:
    """The message lists the uses."""
    done = CliRunner().invoke(app, ["topics", "acl", "--pipeline", str(file), "--for", "everything"])
    assert done.exit_code == 2 and "breaker-orders" in done.output
