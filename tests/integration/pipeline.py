"""A pipeline for tests: its files, a model that fails on request, its topics, and workers in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from click.testing import Result
from onnx import TensorProto, helper, numpy_helper, save
from typer.testing import CliRunner

from failsoft.workers.cli import app
from tests.integration.reader import Header
from tests.integration.verifier import Settlement
from tests.kafka import create_topic, produce, wait_for

ROOT = Path(__file__).resolve().parents[2]
DELAYS = ("1s", "2s")

CARD = """
[model]
deadline = "{deadline}"
{model_lines}
[output]
kind = "binary"
[[features]]
name = "x"
type = "float"
[[features]]
name = "row"
type = "int"
impute = 0
[[features]]
name = "colour"
type = "string"
categories = ["red", "green"]
impute = "red"
[fallback]
chain = ["static"]
static = {{ score = 0.25, label = 0 }}
[breaker]
slow_call = "9s"
minimum_calls = {minimum_calls}
open_for = "{open_for}"
max_open = "{max_open}"
[rollback]
after_failed_probes = {after_failed_probes}
"""

PIPELINE = """
name = "{name}"
model = "test"
guarantee = "{guarantee}"
[kafka]
bootstrap_servers = "{bootstrap}"
{kafka_lines}
[input]
topics = {topics}
id = "id"
time = "at"
features = "features"
max_bytes = {max_bytes}
{input_lines}
[retry]
delays = {delays}
[models]
repository = "models"
{sections}
"""


def save_model(path: Path, factor: float = 1.0, megabytes: int = 0) -> None:
    """Writes a model whose score is ``x`` times ``factor``, and NaN where that is outside [0, 1]: a bad output.

    ``row`` is looked up in a table of one element, so ``row`` = 7 raises for its whole batch. ``row`` = -1, which is
    the table's last element, starts a loop that does not end. ``colour`` is read but not used. ``megabytes`` of zero
    weights are stored and do not change the score.
    """
    scalar = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes_on"]), helper.make_node("Identity", ["held"], ["held_on"])],
        "body",
        [
            scalar("step", TensorProto.INT64, []),
            scalar("going", TensorProto.BOOL, []),
            scalar("held", TensorProto.FLOAT, []),
        ],
        [scalar("goes_on", TensorProto.BOOL, []), scalar("held_on", TensorProto.FLOAT, [])],
    )
    nodes = [
        helper.make_node("ReduceMin", ["row"], ["least"], keepdims=0),
        helper.make_node("Equal", ["least", "last"], ["hangs"]),
        helper.make_node("Loop", ["", "hangs", "zero"], ["nothing"], body=body),
        helper.make_node("Gather", ["table", "row"], ["looked_up"]),
        helper.make_node("StringConcat", ["colour", "colour"], ["unused"]),
        helper.make_node("Sub", ["row", "row"], ["first"]),
        helper.make_node("Gather", ["weights", "first"], ["weight"]),
        helper.make_node("Mul", ["x", "factor"], ["scaled"]),
        helper.make_node("Sum", ["scaled", "looked_up", "nothing", "weight"], ["sum"]),
        helper.make_node("Clip", ["sum", "zero", "one"], ["clipped"]),
        helper.make_node("Equal", ["sum", "clipped"], ["fits"]),
        helper.make_node("Where", ["fits", "sum", "not_a_number"], ["score"]),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1]),
        helper.make_tensor_value_info("row", TensorProto.INT64, [None, 1]),
        helper.make_tensor_value_info("colour", TensorProto.STRING, [None, 1]),
    ]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])]
    constants = [
        numpy_helper.from_array(np.zeros(1, np.float32), "table"),
        numpy_helper.from_array(np.array(-1, np.int64), "last"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
        numpy_helper.from_array(np.zeros(1 + megabytes * 250_000, np.float32), "weights"),
        numpy_helper.from_array(np.float32(factor), "factor"),
        numpy_helper.from_array(np.float32(1), "one"),
        numpy_helper.from_array(np.float32(np.nan), "not_a_number"),
    ]
    graph = helper.make_graph(nodes, "test", inputs, outputs, constants)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), str(path))


def body(i: int, **features: object) -> bytes:
    """The value of a good event. ``features`` replace or add to its features."""
    given = {"x": 0.5 + (i % 100) / 400, "row": 0, "colour": "green"} | features
    return json.dumps({"id": f"e{i}", "at": "2018-10-30T18:00:00Z", "features": given}).encode()


Event = tuple[bytes | None, bytes | None, Sequence[Header], int | None]


def events(n: int, start: int = 0, bad_every: int = 0) -> list[Event]:
    """``n`` events. If ``bad_every`` is set, the primary never answers one event in ``bad_every``."""
    return [
        (b"k%d" % (i % 997), body(i, x=2.0) if bad_every and i % bad_every == 3 else body(i), [], None)
        for i in range(start, start + n)
    ]


@dataclass
class Worker:
    """A worker's process, in a process group of its own.

    Attributes:
        id: the worker's id.
        process: the process.
        log: the file of its stdout and stderr; a worker with the same id as an earlier one appends to it.
        begins: the offset in ``log`` at which this process began (bytes).
    """

    id: str
    process: subprocess.Popen[bytes]
    log: Path
    begins: int

    def signal(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """Sends kill -9 to the whole group and waits for the process to end."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)

    def drain(self, timeout: float = 60.0) -> int:
        """Sends SIGTERM and returns the exit code. Waits for the worker's start first: before it, SIGTERM gives 143."""
        self._wait_said("worker starts", timeout)
        with suppress(ProcessLookupError):
            self.process.terminate()
        return self.process.wait(timeout)

    def wait_ready(self, timeout: float = 90.0) -> None:
        self._wait_said("is ready", timeout)

    def tail(self, lines: int = 15) -> str:
        return "\n".join(self._said().splitlines()[-lines:])

    def _said(self) -> str:
        return self.log.read_bytes()[self.begins :].decode(errors="replace")

    def _wait_said(self, words: str, timeout: float) -> None:
        def logged() -> bool:
            ended = self.process.poll()
            found = words in self._said()
            assert found or ended is None, f"{self.id} ended with {ended}:\n{self.tail()}"
            return found

        wait_for(logged, timeout, f'{self.id} to log "{words}"')


@dataclass
class Pipeline:
    """A pipeline on a real Kafka.

    Attributes:
        switch: a file; while it exists, the primary of a ``switched`` worker fails for every row.
        stuck: a file; while it exists, the runs of that primary do not return.
        secrets: environment variables of its commands and workers, such as passwords.
        workers: every worker that was started.
        published: the number of records published.
    """

    folder: Path
    bootstrap: str
    name: str
    guarantee: str = "exactly_once"
    delays: Sequence[str] = DELAYS
    minimum_calls: int = 1_000_000  # the breaker stays closed unless a test is about it
    open_for: str = "1s"
    max_open: str = "2s"
    after_failed_probes: int = 1_000_000  # no rollback unless a test is about it
    partitions: int = 4
    max_bytes: int = 100_000
    deadline: str = "10s"  # long: a stall of a shared machine must not fail a test
    inputs: Sequence[str] = ()
    model_lines: str = ""  # more lines for [model] in the card
    workers_bootstrap: str = ""  # the workers' brokers, such as a failing proxy
    secrets: Mapping[str, str] = field(default_factory=dict)
    kafka_lines: str = ""  # more lines for [kafka]
    input_lines: str = ""  # more lines for [input]
    sections: str = ""  # more sections, such as [schema_registry]
    workers: list[Worker] = field(default_factory=list)
    published: int = 0

    def __post_init__(self) -> None:
        self.inputs = self.inputs or [f"{self.name}.events"]
        self.file = self.folder / "pipeline.toml"
        self.switch = self.folder / "fail"
        self.stuck = self.switch.with_suffix(".stuck")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write()
        self.save_version(1)
        (self.folder / "models" / "test" / "card.toml").write_text(self.card())

    def card(self) -> str:
        """The card of the model "test"."""
        return CARD.format(
            deadline=self.deadline,
            minimum_calls=self.minimum_calls,
            open_for=self.open_for,
            max_open=self.max_open,
            after_failed_probes=self.after_failed_probes,
            model_lines=self.model_lines,
        )

    def save_version(self, version: int, factor: float = 1.0, megabytes: int = 0) -> None:
        save_model(self.folder / "models" / "test" / str(version) / "model.onnx", factor, megabytes)

    def write(self) -> None:
        text = PIPELINE.format(
            name=self.name,
            guarantee=self.guarantee,
            max_bytes=self.max_bytes,
            bootstrap=self.workers_bootstrap or self.bootstrap,
            topics=json.dumps(list(self.inputs)),
            delays=json.dumps(list(self.delays)),
            kafka_lines=self.kafka_lines,
            input_lines=self.input_lines,
            sections=self.sections,
        )
        self.file.write_text(text)

    def create(self) -> Settlement:
        """Creates the input topics directly and the pipeline's own with ``failsoft topics apply``."""
        for topic in self.inputs:
            create_topic(self.bootstrap, topic, self.partitions)
        done = self.run("topics", "apply")
        assert done.returncode == 0, done.stderr.decode()
        return Settlement(self.bootstrap, self.name, self.inputs, self.delays, partitions=self.partitions)

    def run(self, *arguments: str, timeout: float = 120.0) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "failsoft.workers.cli", *arguments, "--pipeline", str(self.file)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=timeout, check=False, env=self._environ())

    def invoke(self, *arguments: str) -> Result:
        """A command in this process, which takes a second less than in one of its own."""
        cleared = {name: None for name in os.environ if name.startswith("FAILSOFT_")}
        return CliRunner().invoke(app, [*arguments, "--pipeline", str(self.file)], env=cleared | dict(self.secrets))

    def publish(self, records: Iterable[Event], topic: str | None = None) -> None:
        records = list(records)
        produce(self.bootstrap, topic or self.inputs[0], records)
        self.published += len(records)

    def start(self, id: str = "w0", *options: str, switched: bool = False, deadly: bool = False) -> Worker:
        """Starts a worker. ``switched``: its primary obeys ``switch``. ``deadly``: it runs tests.integration.deadly."""
        if deadly:
            command = [sys.executable, "-m", "tests.integration.deadly", str(self.file), str(self.switch), id]
        elif switched:
            command = [sys.executable, "-m", "tests.integration.switched", str(self.file), str(self.switch), id]
        else:
            command = [sys.executable, "-m", "failsoft.workers.cli", "worker", "--pipeline", str(self.file), "--id", id]
        return self.spawn(id, [*command, *options])

    def spawn(self, id: str, command: Sequence[str]) -> Worker:
        """Starts ``command`` in a process of its own that logs to ``<id>.log``."""
        log = self.folder / f"{id}.log"
        with log.open("ab") as out:
            begins = out.tell()
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env=self._environ(),
            )
        worker = Worker(id, process, log, begins)
        self.workers.append(worker)
        return worker

    def stop(self) -> None:
        """Kills every worker of this pipeline, stopped ones too."""
        for worker in self.workers:
            with suppress(ProcessLookupError):
                worker.signal(signal.SIGCONT)
            worker.kill()

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in self._log_files())

    def _log_files(self) -> list[Path]:
        return sorted(self.folder.glob("*.log"))

    def _environ(self) -> dict[str, str]:
        """The environment without FAILSOFT_ variables, which would change the pipeline's settings, and the secrets."""
        return {k: v for k, v in os.environ.items() if not k.startswith("FAILSOFT_")} | dict(self.secrets)


@contextmanager
def running(pipeline: Pipeline) -> Iterator[Settlement]:
    """Creates the pipeline's topics and yields its settlement. At the end no worker is left."""
    settlement = pipeline.create()
    try:
        yield settlement
    finally:
        pipeline.stop()
        settlement.close()
