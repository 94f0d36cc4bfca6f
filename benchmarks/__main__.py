"""The command line of the benchmark: rounds, latency and memory, then one table."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from benchmarks import candidates, latency, machine, memory, model, table
from benchmarks.candidates import Bench, Candidate, Figures
from benchmarks.cluster import Cluster
from topics.embedded import Embedded

ORDER = (
    candidates.EXACTLY,
    candidates.HAND,
    candidates.DOWN,
    candidates.ISOLATED,
    candidates.AT_LEAST,
    candidates.HAND_GC,
    candidates.FAUST,
)

QUICK_EVENTS = 20_000
"""Enough to see every program work; far too few for figures to be quoted."""


def main() -> int:
    """0 when everything was measured."""
    given = _arguments()
    events, rounds = (QUICK_EVENTS, 1) if given.quick else (given.events, given.rounds)
    with _bench(given.bootstrap) as bench:
        print(machine.describe(), file=sys.stderr)
        source = f"{bench.prefix}events"
        bench.cluster.create(source)
        bench.cluster.fill(source, events)
        found = compare(bench, source, events, rounds)
        print(machine.describe())
        print(f"{events:,} events of 468 bytes, 4 partitions, one process each, {rounds} rounds interleaved\n")
        print(table.render(found, candidates.HAND, candidates.HAND_GC, candidates.EXACTLY, candidates.DOWN))
        print(table.ratio("process isolation / threads", found[candidates.ISOLATED], found[candidates.EXACTLY]))
        if given.latency:
            for result in latency.compare(bench, given.latency, latency.SMOKE if given.quick else latency.LASTS):
                print(result)
        if given.backlog:
            print(memory.measure(bench, given.backlog))
    return 0


def compare(bench: Bench, source: str, events: int, rounds: int) -> dict[Candidate, list[Figures]]:
    """Every program in turn, then again: a noisy minute meets all of them, and each round starts with another."""
    found: dict[Candidate, list[Figures]] = {c: [] for c in ORDER}
    for number in range(rounds):
        turn = number % len(ORDER)
        for candidate in ORDER[turn:] + ORDER[:turn]:
            label = f"{candidate.module.replace('_', '-')}-{number}-{ORDER.index(candidate)}"
            figures = candidates.run(bench, candidate, source, events, label)
            found[candidate].append(figures)
            batch = f", {figures.batch:,.0f} a transaction" if figures.batch else ""
            cpu = f"{1e6 * figures.cpu_per_answer:.3g} µs of CPU each"
            said = f"round {number + 1}  {candidate.title:40} {figures.rate:10,.0f} events/s, {cpu}{batch}"
            print(said, file=sys.stderr)
    return found


@contextlib.contextmanager
def _bench(bootstrap: str | None) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="failsoft-bench-")))
        print("training the model …", file=sys.stderr)
        onnx = model.write(folder / candidates.REPOSITORIES["thread"])
        isolated = folder / candidates.REPOSITORIES["process"]
        model.write(isolated, isolation="process", content=onnx.read_bytes())
        if bootstrap is None:
            print("starting Kafka …", file=sys.stderr)
            bootstrap = stack.enter_context(Embedded()).bootstrap
        cluster = Cluster(bootstrap)
        stack.callback(cluster.close)
        prefix = f"bench-{uuid.uuid4().hex[:6]}-"
        stack.callback(cluster.delete, prefix)
        yield Bench(cluster, folder, onnx, prefix)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="Only ratios of one run mean something: the broker and the programs share this machine's cores.",
    )
    parser.add_argument("--events", type=int, default=200_000, help="how many events (200000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each program runs (3); the table has medians")
    parser.add_argument("--quick", action="store_true", help="a smoke run: everything once, on few events")
    parser.add_argument("--latency", type=int, default=1_000, metavar="N", help="at N events a second (1000); 0: not")
    parser.add_argument(
        "--backlog", type=int, default=0, metavar="N", help="memory with N events behind, such as 1000000 (0: not)"
    )
    parser.add_argument("--bootstrap", help="a Kafka that runs, instead of an embedded one")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
