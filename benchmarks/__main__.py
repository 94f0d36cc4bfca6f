"""The command line of the benchmark: rounds of every program, and what else is asked for; then tables, or a page."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import candidates, latency, machine, model, page, plot, sweeps, table
from benchmarks.candidates import ALL, Bench, Candidate, Figures
from benchmarks.cluster import Cluster
from failsoft.topics.embedded.broker import Embedded

QUICK_EVENTS = 20_000
"""Enough to see every program work; far too few for figures to be quoted."""


def main() -> int:
    """0 when everything was measured."""
    given = _arguments()
    events, rounds = (QUICK_EVENTS, 1) if given.quick else (given.events, given.rounds)
    with opened(given.bootstrap) as bench:
        print(machine.describe(), file=sys.stderr)
        source = f"{bench.prefix}events"
        bench.cluster.create(source)
        bench.cluster.fill(source, events)
        job = f"{events:,} events of 468 bytes, 4 partitions"
        if chosen := _chosen(given.only):
            found = compare(bench, source, events, rounds, chosen)
            said = f"{job}, one process each, {rounds} rounds interleaved"
            _tell(given, "rates", said, table.render(found))
            if given.write:
                given.write.with_suffix(".svg").write_text(plot.bars(found, said), "utf-8")
        if given.latency:
            lasts = latency.SMOKE if given.quick else latency.LASTS
            said = f"{lasts:.0f} s at each load, one process each, 4 partitions"
            _tell(given, "latency", said, sweeps.by_load(bench, given.latency, lasts))
        if given.batches:
            said = f"{job}, one process, {rounds} rounds interleaved"
            _tell(given, "batches", said, sweeps.by_batch(bench, source, events, given.batches, rounds))
        if given.workers:
            said = f"{job}, {rounds} rounds interleaved"
            _tell(given, "workers", said, sweeps.by_workers(bench, source, events, given.workers, rounds))
        if given.backlog:
            _tell(given, "memory", "one process, 4 partitions", sweeps.by_backlog(bench, given.backlog))
    return 0


def _tell(given: argparse.Namespace, section: str, said: str, text: str) -> None:
    """To stdout, and with ``--write`` to the page."""
    command = shlex.join(["python", "-m", "benchmarks", *_options(sys.argv[1:])])
    whole = f"{page.provenance(command)}. {said}.\n\n{text}"
    print(f"{whole}\n")
    if given.write:
        page.write(given.write, section, whole)


def _options(arguments: Sequence[str]) -> Iterator[str]:
    """The command line without the address of a cluster, which is nobody else's."""
    skip = False
    for argument in arguments:
        if skip or argument.startswith("--bootstrap"):
            skip = not skip and argument == "--bootstrap"
        else:
            yield argument


def _chosen(only: Sequence[str]) -> list[Candidate]:
    """The candidates that run, in the table's order; a package that is not installed is said."""
    chosen = []
    for candidate in ALL:
        if candidate.name not in only:
            continue
        if candidate.installed():
            chosen.append(candidate)
        else:
            print(f"left out: {candidate.title}: {candidate.needs} is not installed (make bench)", file=sys.stderr)
    return chosen


def compare(
    bench: Bench, source: str, events: int, rounds: int, chosen: Sequence[Candidate]
) -> dict[Candidate, list[Figures]]:
    """Every program in turn, then again: a noisy minute meets all of them, and each round starts with another."""
    found: dict[Candidate, list[Figures]] = {c: [] for c in chosen}
    for number in range(rounds):
        turn = number % len(chosen)
        for candidate in (*chosen[turn:], *chosen[:turn]):
            figures = candidates.run(bench, candidate, source, events, f"{candidate.name}-{number}")
            found[candidate].append(figures)
            batch = f", {figures.batch:,.0f} a transaction" if figures.batch else ""
            cpu = f"{1e6 * figures.cpu_per_answer:.3g} µs of CPU each"
            said = f"round {number + 1}  {candidate.title:43} {figures.rate:10,.0f} events/s, {cpu}{batch}"
            print(said, file=sys.stderr)
    return found


@contextlib.contextmanager
def opened(bootstrap: str | None) -> Iterator[Bench]:
    """A cluster and a folder with the model, for one run; ``bootstrap`` is of a Kafka that runs already."""
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


def _numbers(text: str) -> list[int]:
    return [n for n in (int(part) for part in text.replace("_", "").split(",")) if n]


def _names(text: str) -> list[str]:
    names = [c.name for c in ALL]
    wanted = [name for name in text.split(",") if name]
    for name in wanted:
        if name not in names:
            raise argparse.ArgumentTypeError(f"{name!r} is no program; there are: {', '.join(names)}")
    return wanted


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="Only ratios of one run mean something: the broker and the programs share this machine's cores.",
    )
    parser.add_argument("--events", type=int, default=200_000, help="how many events (200000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each program runs (3); the table has medians")
    parser.add_argument("--quick", action="store_true", help="a smoke run: everything once, on few events")
    parser.add_argument(
        "--only",
        type=_names,
        default=[c.name for c in ALL],
        metavar="NAME,NAME",
        help=f"these programs, or '' for none (all: {', '.join(c.name for c in ALL)})",
    )
    parser.add_argument(
        "--latency", type=_numbers, default=[1_000], metavar="N,N", help="at N events a second each (1000); 0: not"
    )
    parser.add_argument("--batches", type=_numbers, metavar="N,N", help="rates with batches of at most N each")
    parser.add_argument("--workers", type=_numbers, metavar="N,N", help="rates of N workers each")
    parser.add_argument("--backlog", type=_numbers, metavar="N,N", help="memory with N events behind each")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="between the page's markers, and a plot beside it")
    parser.add_argument("--bootstrap", help="a Kafka that runs, instead of an embedded one")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
