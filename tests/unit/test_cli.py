"""The command line: help with examples, exit codes, and what is written to stdout and stderr."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from failsoft.schemas.config.refusal import Refused
from failsoft.schemas.fleet.breaker import Action
from failsoft.workers.cli import app
from failsoft.workers.commands import breakers, output
from failsoft.workers.commands.context import Flags
from failsoft.workers.commands.error_codes import CODES, CommandFailed, Interrupted, RootGroup, code_of, message
from failsoft.workers.commands.publish import rate

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    ["kafka"],
    ["init"],
    ["topics"],
    ["topics", "apply"],
    ["topics", "show"],
    ["worker"],
    ["publish"],
    ["tail"],
    ["dead"],
    ["dead", "list"],
    ["dead", "show"],
    ["dead", "replay"],
    ["breakers"],
    ["breakers", "list"],
    ["offsets"],
    ["offsets", "show"],
    ["offsets", "repair"],
    ["offsets", "rewind"],
    ["offsets", "skip"],
    ["offsets", "history"],
    ["breakers", "open"],
    ["breakers", "close"],
    ["breakers", "disable"],
    ["breakers", "reset"],
    ["models"],
    ["models", "vet"],
    ["models", "list"],
    ["models", "history"],
    ["models", "promote"],
    ["models", "rollback"],
    ["demo"],
]


def _run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FAILSOFT_")}
    return subprocess.run(
        [sys.executable, "-m", "failsoft.workers.cli", *arguments],
        cwd=ROOT,
        env=clean | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _raising(error: BaseException) -> typer.Typer:
    tiny = typer.Typer(cls=RootGroup, pretty_exceptions_enable=False)

    @tiny.callback()
    def root(ctx: typer.Context, debug: bool = False) -> None:
        ctx.obj = Flags(debug=debug)

    @tiny.command()
    def go() -> None:
        raise error

    return tiny


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_commands_help_has_an_example(command: list[str]) -> None:
    """Each command's help has an example to copy."""
    done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert f"Example: failsoft {' '.join(command)}" in done.stdout


def test_help_imports_no_client_and_no_runtime() -> None:
    """--help imports neither Kafka's client, Faust, a model runtime nor numpy, so that it is fast."""
    script = (
        "import sys; from typer.testing import CliRunner; from failsoft.workers.cli import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; "
        "print([m for m in ('aiokafka', 'faust', 'onnxruntime', 'numpy', 'pydantic', 'uvloop') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_each_breaker_action_has_its_command() -> None:
    """Each `Action` has a command of the name that `Action.command` gives, which the breaker's page prints too."""
    found = {command.name or command.callback.__name__ for command in breakers.app.registered_commands}
    assert found == {"list", *(action.command for action in Action)}


@pytest.mark.parametrize("module", ["workers.commands.topics", "workers.operations.breakers", "topics.admin"])
def test_reading_the_cluster_imports_no_runtime(module: str) -> None:
    """The code of `topics` and `breakers` imports neither Faust nor ONNX Runtime."""
    script = (
        f"import sys, failsoft.{module}; from failsoft.workers.settings import wanted; "
        "print([m for m in ('faust', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_worker_imports_no_library_of_a_format_before_it_needs_one() -> None:
    """`pip install failsoft` without extras starts a worker of JSON."""
    script = (
        "import sys; from failsoft.workers.process import serve; from failsoft.workers.commands import dead, publish; "
        "print([m for m in ('fastavro', 'google.protobuf', 'grpc_tools') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", CODES)
def test_the_table_of_exit_codes_names_existing_classes(name: str) -> None:
    """Every class name in the table exists: a class that was moved would silently lose its exit code."""
    module, _, cls = name.rpartition(".")
    assert issubclass(getattr(importlib.import_module(module), cls), Exception)


def _errors() -> list[tuple[BaseException, int]]:
    from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, ProducerFenced

    from failsoft.topics.admin import KafkaUnreachable, TopologyRefused
    from failsoft.workers.identity import DuplicateId, InvalidId

    return [
        (Refused("pipeline.toml", ["name: missing"]), 3),
        (KafkaUnreachable("no Kafka answers at x"), 4),
        (KafkaConnectionError("refused"), 4),
        (DuplicateId("running already"), 2),
        (InvalidId("bad"), 2),
        (TopologyRefused(["a: wrong", "b: wrong"]), 1),
        (KafkaTimeoutError("late"), 1),
        (ProducerFenced(), 1),
        (CommandFailed("no such thing"), 1),
        (Interrupted("7 were sent"), 130),
        (KeyboardInterrupt(), 130),
    ]


@pytest.mark.parametrize(("error", "code"), _errors(), ids=lambda v: type(v).__name__ if not isinstance(v, int) else "")
def test_an_expected_error_is_a_message_and_a_code(error: BaseException, code: int) -> None:
    """An expected error writes every line of its message to stderr, nothing to stdout, and no traceback."""
    done = CliRunner().invoke(_raising(error), ["go"])
    assert (done.exit_code, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr
    if str(error):
        assert [line for line in done.stderr.splitlines() if line.startswith("failsoft: ")]
        assert all(line in done.stderr for line in str(error).splitlines())


def test_debug_shows_the_traceback_of_an_expected_error() -> None:
    """With --debug an expected error also shows its traceback; the exit code is the same."""
    done = CliRunner().invoke(_raising(CommandFailed("no such thing")), ["--debug", "go"])
    assert done.exit_code == 1 and "Traceback" in done.stderr and "failsoft: no such thing" in done.stderr


def test_an_unexpected_error_keeps_its_traceback() -> None:
    """An exception that is not in the table is raised, with its traceback."""
    done = CliRunner().invoke(_raising(ZeroDivisionError("oops")), ["go"])
    assert isinstance(done.exception, ZeroDivisionError) and code_of(done.exception) is None


def test_a_fenced_producer_has_a_clear_message() -> None:
    """A fenced producer's message says that another one took over, which Kafka's own message does not."""
    from aiokafka.errors import ProducerFenced

    assert "took over" in message(ProducerFenced())


def test_a_missing_pipeline_file_is_refused_with_a_hint(tmp_path: Path) -> None:
    """A missing pipeline file is exit 3; --pipeline is accepted before and after the command."""
    for arguments in (["--pipeline", str(tmp_path), "dead", "list"], ["dead", "list", "--pipeline", str(tmp_path)]):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 3
        assert f"{tmp_path}/pipeline.toml: no such file" in done.stderr and "failsoft init" in done.stderr


def test_a_misspelt_key_is_refused_with_its_near_spelling(tmp_path: Path) -> None:
    """A misspelt key of the pipeline file is exit 3, and the error suggests the near spelling."""
    (tmp_path / "pipeline.toml").write_text('nam = "x"\nmodel = "m"\n[input]\ntopics = ["t"]\n')
    done = CliRunner().invoke(app, ["topics", "show", "--pipeline", str(tmp_path)])
    assert done.exit_code == 3 and "did you mean 'name'?" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["publish"],
        ["publish", "events.txt"],
        ["publish", "events.csv", "--rate", "fast"],
        ["worker", "--processes", "0"],
        ["worker", "--log-level", "loud"],
        ["tail", "--from", "middle"],
        ["dead", "replay", "--kind", "tiemout"],
        ["dead", "replay", "--since", "yesterday"],
        ["dead", "replay", "--replay-id", "é" * 51],
        ["breakers", "open"],
        ["breakers", "opne", "m"],
        ["breakers", "--json", "close", "m"],
        ["models", "vte"],
        ["models", "vet", "--time", "soon"],
        ["no-such-command"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_2(tmp_path: Path, arguments: list[str]) -> None:
    """Wrong flags or arguments are exit 2, before any request to Kafka."""
    (tmp_path / "pipeline.toml").write_text('name = "x"\nmodel = "m"\n[input]\ntopics = ["t"]\n')
    done = CliRunner().invoke(app, ["--pipeline", str(tmp_path), *arguments])
    assert done.exit_code == 2, done.output


@pytest.mark.parametrize("topic", ["x.scored", "x.dead", "x.retry.5s", "x-breakers-changelog"])
def test_events_are_not_published_to_the_pipelines_own_topics(tmp_path: Path, topic: str) -> None:
    """They are no input topics: the pipeline file refuses them as such, and so does ``publish``."""
    (tmp_path / "pipeline.toml").write_text('name = "x"\nmodel = "m"\n[input]\ntopics = ["t"]\n')
    (tmp_path / "events.ndjson").write_text("{}\n")
    arguments = ["publish", str(tmp_path / "events.ndjson"), "--topic", topic, "--pipeline", str(tmp_path)]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 2 and f"'{topic}' is one of the pipeline's own topics" in done.stderr


def test_an_unreachable_kafka_is_exit_4(tmp_path: Path) -> None:
    """An unreachable Kafka is exit 4; the message has its address, and the client's own log lines are not shown."""
    (tmp_path / "pipeline.toml").write_text('name = "x"\nmodel = "m"\n[input]\ntopics = ["t"]\n')
    done = _run("dead", "list", "--pipeline", str(tmp_path), FAILSOFT_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert done.returncode == 4
    assert done.stderr.splitlines() == [line for line in done.stderr.splitlines() if line.startswith("failsoft: ")]
    assert "no Kafka answers at 127.0.0.1:1" in done.stderr


def test_the_version_is_shown() -> None:
    """--version prints one line and exits with 0."""
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0 and done.stdout.startswith("failsoft ")


@pytest.mark.parametrize(("text", "per_second"), [("500/s", 500.0), ("500", 500.0), ("0.5/s", 0.5)])
def test_a_rate_is_events_a_second(text: str, per_second: float) -> None:
    """A rate is in events per second, with or without its unit."""
    assert rate(text) == per_second


@pytest.mark.parametrize("text", ["", "/s", "-1", "0", "nan", "inf", "5/m"])
def test_an_invalid_rate_is_refused(text: str) -> None:
    """A rate that is not positive and finite is refused."""
    with pytest.raises(typer.BadParameter):
        rate(text)


def test_data_into_a_pipe_is_ndjson(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Piped data is one JSON object per line, with every key, also those without a column in the table."""
    output.rows([{"a": 1, "b": [True]}, {"a": None, "b": []}], ["a"], as_json=False)
    out, err = capfdbinary.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [{"a": 1, "b": [True]}, {"a": None, "b": []}]
    assert err == b""


@pytest.mark.parametrize(
    ("value", "shown"), [(None, ""), (True, "yes"), (0.123456, "0.1235"), (12, "12"), (["a", "b"], "a, b")]
)
def test_a_cell_is_short(value: Any, shown: str) -> None:
    """A table cell shows a short form of its value; JSON output has the value itself."""
    assert output.cell(value) == shown


def test_no_progress_bar_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """A stderr that is not a terminal gets no progress bar."""
    with output.progress("working", "things") as on_progress:
        on_progress(1, 2)
    assert capfd.readouterr() == ("", "")
