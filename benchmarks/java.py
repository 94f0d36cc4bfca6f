"""Builds the optional peer in Java: fetches its jars once, and compiles it.

It runs on the Java of the embedded broker. That one has no compiler, so Eclipse's compiler, a single jar, does it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from failsoft.topics.embedded.broker import KafkaFailed, java_runtime
from failsoft.topics.embedded.jars import KAFKA, Coordinates, JarsUnavailable, default_cache, jars

ONNX = "1.23.2"
"""The version of ONNX Runtime for Java; Maven Central lacks the version of the Python package."""

NEEDS: Coordinates = (
    ("org.apache.kafka", "kafka-streams", KAFKA),
    ("com.microsoft.onnxruntime", "onnxruntime", ONNX),
    ("org.slf4j", "slf4j-simple", "1.7.36"),
)

COMPILER: Coordinates = (("org.eclipse.jdt", "ecj", "3.45.0"),)

SOURCE = Path(__file__).with_name("programs") / "KafkaStreamsLoop.java"

COMPILED_WITHIN = 120.0
"""Seconds to compile one file; it takes two on an idle machine."""


class CannotBuild(Exception):
    """The program cannot be built on this machine. The text says why, in one line."""


def missing() -> str | None:
    """Why the program cannot run here, in one line; None if it can. The first call downloads about 200 MB."""
    try:
        command(Path(tempfile.gettempdir()))
    except CannotBuild as error:
        return str(error)
    return None


def command(scratch: Path) -> list[str]:
    """The command line of the program, without its arguments; its temporary files go to ``scratch``. Raises
    CannotBuild.
    """
    try:
        java = java_runtime()
        needed = jars(f"kafka-streams-{KAFKA}-onnxruntime-{ONNX}", NEEDS)
    except (KafkaFailed, JarsUnavailable) as error:
        raise CannotBuild(str(error)) from error
    class_path = os.pathsep.join(map(str, needed))
    classes = compiled(SOURCE, class_path)
    options = ["--enable-native-access=ALL-UNNAMED", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    options.append(f"-Djava.io.tmpdir={scratch}")  # by default the state directory is there, and ONNX Runtime's library
    return [str(java), *options, "-cp", f"{classes}{os.pathsep}{class_path}", SOURCE.stem]


def compiled(source: Path, class_path: str) -> Path:
    """The folder with a compiled program of one file, kept for as long as neither its source nor its jars change.

    Raises CannotBuild.
    """
    digest = hashlib.sha256(source.read_bytes() + class_path.encode()).hexdigest()[:12]
    ready = default_cache() / f"{source.stem}-{digest}"
    if ready.is_dir():
        return ready
    try:
        java = java_runtime()
        (compiler,) = jars(f"ecj-{COMPILER[0][-1]}", COMPILER)
    except (KafkaFailed, JarsUnavailable) as error:
        raise CannotBuild(str(error)) from error
    with tempfile.TemporaryDirectory(dir=ready.parent, prefix="compile-") as scratch:
        fresh = Path(scratch) / "classes"
        line = [str(java), "-jar", str(compiler), "-21", "-proc:none", "-nowarn", "-cp", class_path, "-d", str(fresh)]
        try:
            done = subprocess.run(
                [*line, str(source)], capture_output=True, text=True, timeout=COMPILED_WITHIN, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise CannotBuild(f"{source.name} did not compile within {COMPILED_WITHIN:g} s") from error
        if done.returncode != 0:
            raise CannotBuild(f"{source.name} does not compile: {' '.join((done.stdout + done.stderr).split())}")
        with suppress(OSError):  # another run has renamed its own folder to it meanwhile
            fresh.rename(ready)
    return ready
