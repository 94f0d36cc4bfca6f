"""Cases: a model, its card and events, each a pipeline of its own on one Kafka, with one worker a case."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import onnx

from failsoft.workers import settings
from failsoft.workers.operations import topology
from tests.integration.forked import ENDED, LOG
from tests.integration.pipeline import ROOT
from tests.integration.reader import Reader, Seen
from tests.kafka import produce

PIPELINE = """
name = "{name}"
model = "{model}"
[kafka]
bootstrap_servers = "{bootstrap}"
[input]
topics = ["{name}.events"]
partitions = 1
{inputs}
[retry]
delays = ["1h"]
[models]
repository = "models"
"""
# A deadline and a breaker that a busy machine does not reach.
CARD = """
[model]
deadline = "20s"
{model}
[output]
{output}
{features}
[fallback]
chain = ["static"]
static = {{ score = {static} }}
[breaker]
slow_call = "19s"
minimum_calls = 1000000
"""
TIMES = "2026-01-01T12:00:00Z"


def feature(name: str, kind: str, **keys: Any) -> str:
    """A card's section of one feature."""
    lines = {"name": name, "type": kind} | keys
    return "[[features]]\n" + "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in lines.items())


def numbered(columns: int) -> str:
    """The sections of as many floats, named as `failsoft init` names the columns of one matrix."""
    return "".join(feature(f"feature_{k}", "float") for k in range(1, columns + 1))


@dataclass(frozen=True)
class Case:
    """One model as its maker exported it, how a card takes it, and events.

    Attributes:
        name: the case's name, and its model's.
        model: the ONNX file.
        output: the lines of the card's [output].
        features: the card's [[features]].
        events: features by event id: by name, or values of numbered features.
        whole: ``events`` has whole events instead.
        golden: golden vectors, for vetting.
        inputs: lines of the pipeline's [input].
        static: the score of the static answer.
        section: more lines of the card's [model].
    """

    name: str
    model: onnx.ModelProto
    output: str
    features: str
    events: Mapping[str, Any]
    whole: bool = False
    golden: Sequence[Mapping[str, Any]] = ()
    inputs: str = 'id = "event_id"\ntime = "occurred_at"\nfeatures = "features"'
    static: float = 0.0
    section: str = ""

    def values(self) -> list[bytes]:
        """The values of the events' records. JSON's NaN is written as Python writes it."""
        return [self._value(id, given) for id, given in self.events.items()]

    def _value(self, id: str, given: Any) -> bytes:
        if isinstance(given, tuple):
            given = {f"feature_{k}": value for k, value in enumerate(given, 1)}
        event = given if self.whole else {"event_id": id, "occurred_at": TIMES, "features": given}
        return json.dumps(event, ensure_ascii=False).encode()

    def write(self, folder: Path, name: str, bootstrap: str) -> None:
        """Writes the pipeline file and the repository."""
        version = folder / "models" / self.name / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(self.model.SerializeToString())
        if self.golden:
            (version / "golden.ndjson").write_text("".join(json.dumps(line) + "\n" for line in self.golden))
        card = CARD.format(output=self.output, features=self.features, static=self.static, model=self.section)
        (version.parent / "card.toml").write_text(card)
        text = PIPELINE.format(name=name, model=self.name, bootstrap=bootstrap, inputs=self.inputs)
        (folder / "pipeline.toml").write_text(text)


class Servable(Protocol):
    """A pipeline to be served: a Case, or an example of the documentation."""

    @property
    def name(self) -> str: ...
    def values(self) -> list[bytes]: ...
    def write(self, folder: Path, name: str, bootstrap: str) -> None: ...


@dataclass
class Letter:
    """A dead letter.

    Attributes:
        kind: the failure's kind.
        message: the failure's message.
    """

    kind: str
    message: str


@dataclass
class Answered:
    """What became of the events of one case.

    Attributes:
        scored: the answers by event id.
        dead: the dead letters by the event's id; by its number where the value has none.
    """

    scored: dict[str, dict[str, Any]] = field(default_factory=dict)
    dead: dict[str, Letter] = field(default_factory=dict)


class Serving:
    """Cases whose workers run. Their answers are read when they are asked for."""

    def __init__(self, bootstrap: str, cases: Iterable[Servable], folder: Path) -> None:
        prefix = f"t-{uuid.uuid4().hex[:8]}"
        self.cases = {case.name: case for case in cases}
        self.names = {name: f"{prefix}.{name}" for name in self.cases}
        self.folders = {name: folder / name for name in self.cases}
        self.bootstrap = bootstrap
        for name, case in self.cases.items():
            case.write(self.folders[name], self.names[name], bootstrap)
        asyncio.run(_topics(self.folders.values()))
        for name, case in self.cases.items():
            self.publish(name, case.values())
        topics = [f"{name}.{end}" for name in self.names.values() for end in ("scored", "dead")]
        self._reader = Reader(bootstrap, topics, 1)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.forked", *map(str, self.folders.values())],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("FAILSOFT_")},
        )

    def publish(self, name: str, values: Sequence[bytes]) -> None:
        """Publishes records to a case's input topic."""
        produce(self.bootstrap, f"{self.names[name]}.events", [(None, value, [], None) for value in values])

    def answered(self, name: str, count: int | None = None, timeout: float = 60.0) -> Answered:
        """What became of the case's ``count`` events (default: of all of its own); waits until each has a fate."""
        topic = self.names[name]
        records = self._reader.records
        count = len(self.cases[name].values()) if count is None else count

        def settled() -> bool:
            assert not (self.folders[name] / ENDED).exists(), f"the worker of {name} has ended"
            return len(records[f"{topic}.scored"]) + len(records[f"{topic}.dead"]) >= count

        try:
            self._reader.until(settled, timeout, f"the fate of {count} events of {name}")
        except AssertionError as error:
            log = self.folders[name] / LOG
            text = log.read_text(errors="replace")[-3000:] if log.exists() else "no log"
            raise AssertionError(f"{error}\n{text}") from None
        found = Answered()
        for record in records[f"{topic}.scored"]:
            body = record.answer()
            assert body["event_id"] not in found.scored, f"{body['event_id']} is answered twice"
            found.scored[body["event_id"]] = body
        for record in records[f"{topic}.dead"]:
            kind, message = record.header("failsoft-error-kind"), record.header("failsoft-error-message")
            found.dead[_id(record)] = Letter(str(kind), str(message))
        return found

    def stop(self) -> None:
        """Kills the workers."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(60)
        self._reader.close()


async def _topics(folders: Iterable[Path]) -> None:
    """Creates the topics of every pipeline."""
    pipelines = [settings.load(folder, {}) for folder in folders]
    await asyncio.gather(*(topology.apply(p.connection(), settings.wanted(p)) for p in pipelines))


def _id(letter: Seen) -> str:
    try:
        return str(json.loads(letter.value or b"")["event_id"])
    except (ValueError, TypeError, KeyError):
        return letter.header("failsoft-origin-offset") or "?"


@contextmanager
def serving(bootstrap: str, cases: Iterable[Servable], folder: Path) -> Iterator[Serving]:
    """The cases with their events published and their workers started."""
    running = Serving(bootstrap, cases, folder)
    try:
        yield running
    finally:
        running.stop()
