"""``failsoft models list|history|promote|rollback`` without workers or versions to use: output and exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.integration.pipeline import Pipeline, running
from tests.kafka import Broker


def test_commands_before_any_worker_ran(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Without a worker, list shows the versions on disk and names a bad version file; other commands give a reason."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    pipeline.save_version(2)
    pipeline.save_version(3)
    (tmp_path / "models" / "test" / "3" / "version.toml").write_text('sha265 = "12"\n')

    def exits(code: int, message: str, *arguments: str) -> bytes:
        done = pipeline.run("models", *arguments)
        stderr = " ".join(done.stderr.decode().replace("│", " ").split())  # usage errors are printed in a box
        assert done.returncode == code and message in stderr, (arguments, done)
        assert b"\x1b[" not in done.stdout + done.stderr and b"Traceback" not in done.stderr
        return done.stdout

    exits(1, "failsoft topics apply", "list")
    with running(pipeline):
        listed = [json.loads(line) for line in exits(0, "did you mean 'sha256'", "list").splitlines()]
        assert [(v["version"], v["role"], v["workers"], v["breaker"]) for v in listed] == [
            (2, "new", 0, "closed"),
            (1, "new", 0, "closed"),
        ]
        assert exits(0, "", "history", "test") == b""
        exits(1, "start a worker", "promote", "test@1")
        exits(1, "start a worker", "rollback", "test")
        exits(2, "MODEL@VERSION", "promote", "test")
        exits(2, "complete versions: ", "promote", "test@9")
        exits(2, "did you mean 'test'", "promote", "tset@1")
        exits(2, "did you mean 'test'", "rollback", "tset")
        exits(2, "did you mean 'test'", "history", "tset")
        exits(2, "why", "promote", "test@1", "--why", "x" * 1_001)
        exits(2, "who", "rollback", "test", "--who", "x" * 201)
        exits(3, "did you mean 'sha256'", "promote", "test@3")
        shutil.move(tmp_path / "models", tmp_path / "elsewhere")
        exits(3, "cannot be a model repository", "list")
        exits(3, "cannot be a model repository", "rollback", "test")


def test_commands_without_a_kafka(name: str, tmp_path: Path) -> None:
    """Without a Kafka the exit code is 4, with the address; usage errors are found without one."""
    pipeline = Pipeline(tmp_path, "127.0.0.1:1", name)
    done = pipeline.run("models", "rollback", "test")
    assert done.returncode == 4 and b"127.0.0.1:1" in done.stderr, done
    assert pipeline.run("models", "promote", "tset@1").returncode == 2
