"""Starts each compared program in a process of its own and checks that it did the whole work."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import encoded, java, measure
from benchmarks.cluster import Cluster
from benchmarks.events import odd_among
from benchmarks.model import PRIMARY
from failsoft.topics import admin
from failsoft.topics.embedded.jars import KAFKA
from failsoft.workers import settings
from failsoft.workers.settings import wanted

ROOT = Path(__file__).resolve().parent.parent

STOP_WITHIN = 30.0
"""Seconds from SIGTERM to the end; a slower program is killed, since it has been measured already."""

LADDER = ("1h", "2h")
"""No retry becomes due within a run: the ladder is written and never read."""

REPOSITORIES = {"thread": "repository", "process": "repository-isolated"}
"""Folders with one repository each, by the primary's isolation."""

ZIPMAPS, VECTORS = "repository-zipmap", "repository-vector"
"""The repositories of models of other kinds (benchmarks.kinds)."""

_PIPELINE = """\
name = "{name}"
model = "{model}"
guarantee = "{guarantee}"
[kafka]
bootstrap_servers = "{bootstrap}"
[input]
topics = ["{source}"]
id = "event_id"
time = "occurred_at"
features = "features"
partitions = {partitions}
format = "{format}"
[retry]
delays = [{delays}]
[models]
repository = "{repository}"
"""

_REGISTRY = """\
[schema_registry]
url = "http://127.0.0.1:9"
"""
"""No registry answers there: a worker finds the schema in its pipeline's topic of schemas before it reads an event."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where a run takes place.

    Attributes:
        cluster: the Kafka.
        folder: holds the repositories, the programs' files and their logs.
        prefix: the prefix of every topic of the run.
    """

    cluster: Cluster
    folder: Path
    prefix: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """One row of the table.

    Attributes:
        name: its name on the command line.
        title: its name in the table.
        module: the program in benchmarks.programs.
        guarantee: failsoft's guarantee; None for other programs.
        flags: further arguments.
        at_most: the number of events that a far slower program gets time for; None for all.
        isolation: the isolation of failsoft's primary.
        kind: the repository, if it is not the standard one of the isolation.
        events: the kind of its events.
        format: how its events are encoded, as in a pipeline file.
        fallback: given n events, how many of them the fallback must answer.
        missing: why the program cannot run on this machine, in one line; None if it can.
    """

    name: str
    title: str
    module: str
    guarantee: str | None = None
    flags: tuple[str, ...] = ()
    at_most: int | None = None
    isolation: str = "thread"
    kind: str = ""
    events: str = "standard"
    format: str = "json"
    fallback: Callable[[int], int] = lambda n: 0
    missing: Callable[[], str | None] = lambda: None

    @property
    def ours(self) -> bool:
        return self.guarantee is not None

    @property
    def repository(self) -> str:
        """The folder of its models."""
        return self.kind or REPOSITORIES[self.isolation]


def _without(package: str) -> Callable[[], str | None]:
    """Checks for a package that only the extra ``bench`` installs."""
    return lambda: None if importlib.util.find_spec(package) else f"{package} is not installed (make bench)"


_WORKER = "failsoft_worker"
EXACTLY = Candidate("exactly", "failsoft, exactly once", _WORKER, "exactly_once")
AT_LEAST = Candidate("at-least", "failsoft, at least once", _WORKER, "at_least_once")
ISOLATED = Candidate(
    "isolated", "failsoft, exactly once, process isolation", _WORKER, "exactly_once", isolation="process"
)
ODD = Candidate(
    "odd",
    "failsoft, exactly once, 1 row in 100 fails",
    _WORKER,
    "exactly_once",
    ("--odd-rows", "bad"),
    fallback=odd_among,
)
ODD_RAISES = Candidate(
    "odd-raises",
    "failsoft, exactly once, 1 row in 100 raises",
    _WORKER,
    "exactly_once",
    ("--odd-rows", "raise"),
    fallback=odd_among,
)
DOWN = Candidate(
    "down", "failsoft, exactly once, primary down", _WORKER, "exactly_once", ("--down",), fallback=lambda n: n
)
OPEN = Candidate(
    "open", "failsoft, exactly once, breaker open", _WORKER, "exactly_once", ("--breaker-open",), fallback=lambda n: n
)
HAND = Candidate("hand", "hand-written aiokafka loop", "handwritten")
HAND_GC = Candidate("hand-gc", "hand-written loop, Python's default GC", "handwritten", None, ("--default-gc",))
CONFLUENT = Candidate("confluent", "hand-written confluent-kafka loop", "confluent_loop")
FASTSTREAM = Candidate("faststream", "FastStream, batch", "faststream_batch", missing=_without("faststream"))
QUIX = Candidate("quix", "Quix Streams, at least once", "quix_streams", missing=_without("quixstreams"))
QUIX_EXACTLY = Candidate(
    "quix-exactly",
    "Quix Streams, exactly once",
    "quix_streams",
    None,
    ("--exactly-once",),
    missing=_without("quixstreams"),
)
STREAMS = Candidate("streams", f"Kafka Streams {KAFKA}, exactly once", "kafka_streams", missing=java.missing)
FAUST = Candidate("faust", "Faust agent, one send an event", "faust_agent", at_most=10_000)

ZIPMAP = Candidate("zipmap", "failsoft, exactly once, ZipMap", _WORKER, "exactly_once", kind=ZIPMAPS)
VECTOR = Candidate("vector", "failsoft, a vector as JSON", _WORKER, "exactly_once", kind=VECTORS, events="vector")
VECTOR_BASE64 = Candidate(
    "vector-base64", "failsoft, a vector as base64", _WORKER, "exactly_once", kind=VECTORS, events="base64"
)
HAND_VECTOR = Candidate(
    "hand-vector",
    "hand-written aiokafka loop, a vector as JSON",
    "handwritten",
    flags=("--vector", "embedding"),
    kind=VECTORS,
    events="vector",
)

OURS_AVRO = Candidate("avro", "failsoft, Avro", _WORKER, "exactly_once", events=encoded.AVRO, format=encoded.AVRO)
OURS_PROTOBUF = Candidate(
    "protobuf", "failsoft, Protobuf", _WORKER, "exactly_once", events=encoded.PROTOBUF, format=encoded.PROTOBUF
)
HAND_AVRO = Candidate(
    "hand-avro",
    "hand-written aiokafka loop, Avro",
    "handwritten",
    flags=("--format", encoded.AVRO),
    events=encoded.AVRO,
)
HAND_PROTOBUF = Candidate(
    "hand-protobuf",
    "hand-written aiokafka loop, Protobuf",
    "handwritten",
    flags=("--format", encoded.PROTOBUF),
    events=encoded.PROTOBUF,
)

OURS = (EXACTLY, AT_LEAST, ISOLATED, ODD, ODD_RAISES, DOWN, OPEN)
PEERS = (HAND, HAND_GC, CONFLUENT, FASTSTREAM, QUIX, QUIX_EXACTLY, STREAMS, FAUST)
ALL = OURS + PEERS


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one run of one program.

    Attributes:
        rate: answers a second.
        cpu_per_answer: CPU seconds.
        sources: the number of answers by source.
        rss: (answers so far, resident set in bytes).
    """

    rate: float
    cpu_per_answer: float
    sources: Counter[str]
    rss: list[tuple[int, int]]
    batch: float
    """Answers per transaction and partition, computed from transaction markers; 0 for programs without transactions."""


def run(bench: Bench, candidate: Candidate, source: str, events: int, label: str) -> Figures:
    """Answers the ``events`` of ``source`` from its beginning. Raises RuntimeError if the program fell short."""
    name = f"{bench.prefix}{label}"
    with started(bench, candidate, name, source) as ((worker,), sink):
        wanted = min(events, candidate.at_most or events)
        complete = candidate.at_most is None
        watched = measure.watch(
            worker,
            bench.cluster,
            sink,
            wanted,
            lambda: not complete or bench.cluster.committed(name, source) == events,
        )
    answers = measure.read(bench.cluster, sink)
    if complete:
        _check(bench, candidate, name, answers, events)
    markers = bench.cluster.written(sink) - len(answers.stamps_ms)
    bench.cluster.delete(f"{name}.")
    bench.cluster.delete(f"{name}-")
    batch = len(answers.stamps_ms) / markers if markers else 0.0
    return Figures(answers.rate(), watched.cpu_per_answer, answers.sources, watched.rss, batch)


@contextlib.contextmanager
def started(
    bench: Bench, candidate: Candidate, name: str, source: str, workers: Sequence[Sequence[str]] = ((),)
) -> Iterator[tuple[list[psutil.Popen], str]]:
    """The running processes and their output topic; on leaving they are stopped, and awaited.

    ``workers`` has further arguments for each process, if there are several.
    """
    if candidate.guarantee is None:
        sink = f"{name}.out"
        bench.cluster.create(sink, stamped=True)
        given = {"bootstrap": bench.cluster.bootstrap, "source": source, "sink": sink, "group": name}
        arguments = [a for key, value in given.items() for a in (f"--{key}", value)]
        arguments += ["--model", str(bench.folder / candidate.repository / PRIMARY / "1" / "model.onnx")]
    else:
        pipeline = _pipeline(bench, candidate, name, source)
        sink = pipeline.names.scored
        bench.cluster.stamp(sink)
        arguments = [str(bench.folder / f"{name}.toml")]
    command = [sys.executable, "-m", f"benchmarks.programs.{candidate.module}", *arguments, *candidate.flags]
    log = bench.folder / f"{name}.log"
    with log.open("wb") as out:
        running: list[psutil.Popen] = []
        try:
            for own in workers:
                running.append(
                    psutil.Popen([*command, *own], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
                )
            yield running, sink
        except RuntimeError as error:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise RuntimeError(f"{candidate.title}: {error}; the end of its log:\n{tail}") from error
        finally:
            for worker in running:
                stop(worker)


def stop(worker: psutil.Popen) -> None:
    """Sends SIGTERM, and SIGKILL if the process does not end in time."""
    if worker.poll() is None:
        worker.terminate()
        try:
            worker.wait(STOP_WITHIN)
        except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
            worker.kill()
            worker.wait()


def _pipeline(bench: Bench, candidate: Candidate, name: str, source: str) -> settings.Settings:
    """Writes the pipeline file and creates its topics."""
    path = bench.folder / f"{name}.toml"
    path.write_text(
        _PIPELINE.format(
            name=name,
            model=PRIMARY,
            guarantee=candidate.guarantee,
            bootstrap=bench.cluster.bootstrap,
            source=source,
            partitions=bench.cluster.partitions,
            delays=", ".join(f'"{delay}"' for delay in LADDER),
            repository=bench.folder / candidate.repository,
            format=candidate.format,
        )
        + (_REGISTRY if candidate.format != "json" else "")
    )
    nothing: dict[str, Any] = {}
    pipeline = settings.load(path, nothing)
    asyncio.run(admin.apply(pipeline.connection(), wanted(pipeline)))
    if candidate.format != "json":
        schema = encoded.registered(candidate.format)
        bench.cluster.write(pipeline.names.schemas, str(schema.ref).encode(), schema.to_bytes())
    return pipeline


def _check(bench: Bench, candidate: Candidate, name: str, answers: measure.Answers, events: int) -> None:
    """Raises RuntimeError unless every event was answered once, and by the source that the candidate states."""
    found = len(answers.stamps_ms)
    if found != events:
        raise RuntimeError(f"{candidate.title}: {found:,} answers to {events:,} events")
    if not candidate.ours:
        return
    fallen = candidate.fallback(events)
    expected = Counter({"primary": events - fallen, "fallback_model": fallen})
    waiting = measure.count(bench.cluster, f"{name}.retry.{LADDER[0]}") if fallen else 0
    if +answers.sources != +expected or waiting != fallen:
        raise RuntimeError(
            f"{candidate.title}: {waiting:,} of {fallen:,} events on the ladder, answered by {answers.sources}"
        )
