"""``python -m benchmarks.fleet``: the time from one worker's tripped breaker to the fleet breaker open on all three.

In each round the primary fails on all workers at once. A round begins with empty windows (an operator's reset) and a
burst of events, so that all workers trip within their first batch or two. With earlier successes in the windows, each
worker would trip at another time, and the figures would measure the traffic. All times are one machine's wall clock.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from confluent_kafka import Producer

from benchmarks import candidates, machine, model, moves
from benchmarks.events import events
from benchmarks.moves import Opening, WorkerLog
from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.fleet.breaker import Action, Command
from failsoft.topics import admin
from failsoft.topics.embedded.broker import Embedded
from failsoft.workers import settings
from failsoft.workers.settings import wanted

WORKERS = 3
PARTITIONS = 3
"""One for each worker: with little traffic a lane commits as often as it can, and the broker shares its cores."""

KEY = f"{model.PRIMARY}@1"

RATE = 200
"""Events a second: few, so that the time measured is not that of a busy worker."""

OPEN_FOR = "1s"

BURST = 120
"""Events published at once when a round begins: twice ``minimum_calls`` for each worker."""

PAUSE = (0.1, 0.4)
"""Seconds without traffic before a round; random, so that no periodic task runs in step with the rounds."""

WARM = 2
"""Rounds that do not count, because the fleet has just started."""

WITHIN = 60.0
"""Seconds for the workers to start, and for each half of a round."""

LOOK = 0.05
"""Seconds between two reads of the logs. The lines have timestamps, so this does not affect the figures."""

GOAL_MS = 100

_PIPELINE = """\
name = "{name}"
model = "{model}"
[kafka]
bootstrap_servers = "{bootstrap}"
[input]
topics = ["{source}"]
id = "event_id"
time = "occurred_at"
features = "features"
partitions = {partitions}
[retry]
delays = ["1h", "2h"]               # no retry becomes due: probes are live events
[models]
repository = "{repository}"
"""


def main() -> int:
    """Returns 0 when every round opened the breaker on all three and closed it again; the goal is only reported."""
    given = _arguments()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="failsoft-bench-")))
        print("training the model …", file=sys.stderr)
        model.write(folder / "repository", open_for=OPEN_FOR)
        print("starting Kafka …", file=sys.stderr)
        bootstrap = given.bootstrap or stack.enter_context(Embedded()).bootstrap
        fleet = stack.enter_context(_fleet(folder, bootstrap))
        print(machine.describe(), file=sys.stderr)
        for number in range(WARM + given.rounds):
            _round(fleet)
            print(f"round {number + 1 - WARM} of {given.rounds}", file=sys.stderr)
        found = moves.openings(fleet.logs, moves.rows(bootstrap, fleet.pipeline.names.breakers_changelog, KEY))
        print(machine.describe())
        print(f"{WORKERS} workers, {RATE} events/s, {given.rounds} rounds, all on one machine with the broker\n")
        print(render(found[WARM:]))
    return 0


def render(rounds: Sequence[Opening]) -> str:
    """The result as Markdown, in milliseconds over all rounds."""
    second = [r.obeyed - r.trips[1] for r in rounds if len(r.trips) > 1]
    parts = [
        ("a worker's own trip → the fleet's row obeyed by all", [r.obeyed - r.begin for r in rounds]),
        ("the same, from the second worker's trip", second),
        ("a worker's own trip → no worker asks the model", [r.quiet - r.begin for r in rounds]),
        ("a worker's own trip → the owner decides", [r.decided - r.begin for r in rounds]),
        ("the owner decides → obeyed by all", [r.obeyed - r.decided for r in rounds]),
    ]
    lines = ["| ms | rounds | min | p50 | p90 | p99 | max |", "|---|---:|---:|---:|---:|---:|---:|"]
    for title, seconds in parts:
        if seconds:
            figures = np.percentile(np.array(seconds) * 1000, (0, 50, 90, 99, 100))
            lines.append(f"| {title} | {len(seconds)} | " + " | ".join(f"{ms:.0f}" for ms in figures) + " |")
    whole = np.array(parts[0][1]) * 1000
    late = int((whole > GOAL_MS).sum())
    early = sum(not r.trips or r.trips[0] > r.decided for r in rounds)
    lines += ["", f"over the goal of {GOAL_MS} ms: {late} of {len(whole)} rounds"]
    if early:
        lines += [f"in {early} rounds the owner opened it before any worker tripped; their time starts at its decision"]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Fleet:
    pipeline: settings.Settings
    switch: Path
    """While this file exists, the primary fails on all workers."""
    logs: list[WorkerLog]
    running: list[psutil.Popen]
    traffic: Traffic

    def until(self, fact: Callable[[], bool], what: str) -> None:
        """Reads the logs until ``fact`` holds. Raises RuntimeError if that takes too long or a worker ended."""
        deadline = time.monotonic() + WITHIN
        while True:
            for worker in self.logs:
                worker.read()
            if fact():
                return
            if time.monotonic() > deadline or any(p.poll() is not None for p in self.running):
                tails = "\n".join(
                    f"--- {s.path.name}\n" + "\n".join(s.path.read_text(errors="replace").splitlines()[-8:])
                    for s in self.logs
                )
                raise RuntimeError(f"waited for {what}; the workers' logs end with:\n{tails}")
            time.sleep(LOOK)

    def all(self, *states: BreakerState) -> bool:
        """Whether every worker obeys the fleet's row in one of these states."""
        return all(s.moves and s.moves[-1].by_fleet and s.moves[-1].to in states for s in self.logs)

    def generations(self) -> list[int]:
        """The generation of the fleet's row that each worker obeys."""
        return [max((m.generation for m in s.moves if m.by_fleet), default=0) for s in self.logs]


def _round(fleet: _Fleet) -> None:
    """Runs one round: empty windows, failures until all three obey the open breaker, successes until it closes."""
    fleet.traffic.on.clear()
    before = fleet.generations()
    why = Command(KEY, Action.RESET, "benchmarks.fleet", "a new round", int(time.time() * 1000))
    fleet.traffic.send(fleet.pipeline.names.control, why.to_bytes())
    fleet.until(lambda: all(a > b for a, b in zip(fleet.generations(), before, strict=True)), "a reset breaker")
    fleet.switch.touch()
    time.sleep(random.uniform(*PAUSE))
    fleet.traffic.on.set()
    fleet.until(lambda: fleet.all(BreakerState.OPEN, BreakerState.HALF_OPEN), "the fleet's breaker, open on all")
    fleet.switch.unlink()
    fleet.until(lambda: fleet.all(BreakerState.CLOSED), "the fleet's breaker, closed on all")


@contextlib.contextmanager
def _fleet(folder: Path, bootstrap: str) -> Iterator[_Fleet]:
    """Three workers with lanes that read the table, and traffic; on leaving all of them have ended."""
    file, name = folder / "pipeline.toml", f"bench-{random.randrange(16**6):06x}-fleet"
    source = f"{name}.events"
    file.write_text(
        _PIPELINE.format(
            name=name,
            model=model.PRIMARY,
            bootstrap=bootstrap,
            source=source,
            partitions=PARTITIONS,
            repository=folder / "repository",
        )
    )
    pipeline = settings.load(file, {})
    asyncio.run(admin.apply(pipeline.connection(), wanted(pipeline)))
    switch = folder / "down"
    with contextlib.ExitStack() as stack:
        logs, running = [], []
        for number in range(WORKERS):
            log = folder / f"w{number}.log"
            out = stack.enter_context(log.open("wb"))
            command = [sys.executable, "-m", "benchmarks.programs.failsoft_worker", str(file)]
            command += ["--id", f"w{number}", "--down-while", str(switch)]
            worker = psutil.Popen(command, cwd=candidates.ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            stack.callback(candidates.stop, worker)
            running.append(worker)
            logs.append(WorkerLog(log, KEY))
        traffic = Traffic(bootstrap, source)
        traffic.start()
        stack.callback(traffic.end)
        fleet = _Fleet(pipeline, switch, logs, running, traffic)
        fleet.until(lambda: all(s.lanes and s.reads_table for s in logs), "lanes, and the table")
        yield fleet


class Traffic(threading.Thread):
    """While ``on`` is set, publishes ``BURST`` events and then ``RATE`` a second; the schedule restarts each time."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(name="traffic", daemon=True)
        self.on, self._over = threading.Event(), threading.Event()
        self._topic = topic
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "log_level": 0})

    def run(self) -> None:
        """Runs until ``end``."""
        each = events(10**9)
        while not self._over.is_set():
            if not self.on.wait(LOOK):
                continue
            begin, i = time.monotonic(), 0
            while self.on.is_set():
                time.sleep(max(0.0, begin + (i - BURST) / RATE - time.monotonic()))
                key, value = next(each)
                self._producer.produce(self._topic, value, key)
                self._producer.poll(0)
                i += 1

    def send(self, topic: str, value: bytes) -> None:
        """Writes one record that is not an event; returns when the broker has it."""
        self._producer.produce(topic, value)
        self._producer.flush(WITHIN)

    def end(self) -> None:
        """Stops, and waits until the last event is sent."""
        self._over.set()
        self.on.clear()
        self.join()
        self._producer.flush(WITHIN)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fleet",
        description=__doc__,
        epilog="Workers, traffic and broker share this machine's cores: on a busy machine p90 to max mean nothing.",
    )
    parser.add_argument("--rounds", type=int, default=30, help="number of rounds (30)")
    parser.add_argument("--bootstrap", help="address of a running Kafka; default: an embedded one")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
