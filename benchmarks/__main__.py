"""The command line of the benchmark: runs every program in rounds, and prints tables or writes a page."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import tempfile
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks import candidates, formats, kinds, latency, machine, model, page, partitions, plot, sweeps, table
from benchmarks.candidates import ALL, EXACTLY, HAND, STREAMS, Bench, Candidate, Figures
from benchmarks.cluster import Cluster
from failsoft.topics.embedded.broker import Embedded

QUICK_EVENTS = 20_000
"""Enough to see that every program works; far too few for figures that may be quoted."""

SOON_GONE = {"log.segment.delete.delay.ms": "1000"}
"""By default a broker removes a deleted topic's files a minute later: while a later program is measured."""

STEADY = (EXACTLY, HAND, STREAMS)
"""The programs whose latency is measured."""


def main() -> int:
    """Returns 0 when everything was measured."""
    given = _arguments()
    events, rounds = (QUICK_EVENTS, 1) if given.quick else (given.events, given.rounds)
    with opened(given.bootstrap) as bench:
        print(machine.describe(), file=sys.stderr)
        source = f"{bench.prefix}events"
        bench.cluster.create(source)
        bench.cluster.fill(source, events)
        width = f"{bench.cluster.partitions} partitions"
        job = f"{events:,} events of 468 bytes, {width}"
        lasts = latency.SMOKE if given.quick else latency.LASTS
        if chosen := _runnable([c for c in ALL if c.name in given.only]):
            found = compare(bench, source, events, rounds, chosen)
            subtitle = f"{job}, one process each, {rounds} rounds interleaved"
            _report(given, "rates", subtitle, table.render(found))
            if given.write:
                given.write.with_suffix(".svg").write_text(plot.bars(found, subtitle), "utf-8")
        if given.kinds:
            number = QUICK_EVENTS if given.quick else given.kinds
            subtitle = f"{number:,} events of each kind, {width}, one process each, {rounds} rounds interleaved"
            _report(given, "kinds", subtitle, kinds.by_kind(bench, number, rounds))
        if given.formats:
            number = QUICK_EVENTS if given.quick else given.formats
            subtitle = f"{number:,} events in each format, {width}, one process each, {rounds} rounds interleaved"
            _report(given, "formats", subtitle, formats.by_format(bench, number, rounds))
        if given.latency:
            subtitle = f"{lasts:.0f} s at each load, one process each, {width}"
            among = _runnable(_named(STEADY, given.only))
            _report(given, "latency", subtitle, sweeps.by_load(bench, given.latency, lasts, among))
        if given.partitions:
            idle = partitions.IDLE_SMOKE if given.quick else partitions.IDLE
            subtitle = (
                f"{lasts:.0f} s at {partitions.RATE:,} events/s, {idle:.0f} s without any, then {events:,} events of "
                f"468 bytes at once; one process each, {rounds} rounds interleaved"
            )
            among = _runnable(_named(partitions.PROGRAMS, given.only))
            text = partitions.by_partitions(bench, given.partitions, events, rounds, lasts, idle, among)
            _report(given, "partitions", subtitle, text)
        if given.batches:
            subtitle = f"{job}, one process, {rounds} rounds interleaved"
            _report(given, "batches", subtitle, sweeps.by_batch(bench, source, events, given.batches, rounds))
        if given.workers:
            subtitle = f"{job}, {rounds} rounds interleaved"
            _report(given, "workers", subtitle, sweeps.by_workers(bench, source, events, given.workers, rounds))
        if given.backlog:
            _report(given, "memory", f"one process, {width}", sweeps.by_backlog(bench, given.backlog))
    return 0


def _report(given: argparse.Namespace, section: str, subtitle: str, text: str) -> None:
    """Prints a section to stdout and, with ``--write``, writes it to the page."""
    command = shlex.join(["python", "-m", "benchmarks", *_options(sys.argv[1:])])
    whole = f"{page.provenance(command)}. {subtitle}.\n\n{text}"
    print(f"{whole}\n")
    if given.write:
        page.write(given.write, section, whole)


def _options(arguments: Sequence[str]) -> Iterator[str]:
    """The command line without the address of a cluster, which only this machine can reach."""
    skip = False
    for argument in arguments:
        if skip or argument.startswith("--bootstrap"):
            skip = not skip and argument == "--bootstrap"
        else:
            yield argument


def _named(programs: Iterable[Candidate], names: Collection[str]) -> list[Candidate]:
    """Those of ``programs`` that ``names`` has; all of them if it is empty."""
    return [candidate for candidate in programs if not names or candidate.name in names]


def _runnable(wanted: Iterable[Candidate]) -> list[Candidate]:
    """Those of ``wanted`` that run on this machine. Reports each that is left out, with the reason."""
    chosen = []
    for candidate in wanted:
        if (reason := candidate.missing()) is None:
            chosen.append(candidate)
        else:
            print(f"left out: {candidate.title}: {reason}", file=sys.stderr)
    return chosen


def compare(
    bench: Bench, source: str, events: int, rounds: int, chosen: Sequence[Candidate]
) -> dict[Candidate, list[Figures]]:
    """Runs every program in each round. Each round starts with another program, so that a noisy minute affects all
    alike.
    """
    found: dict[Candidate, list[Figures]] = {c: [] for c in chosen}
    for number in range(rounds):
        turn = number % len(chosen)
        for candidate in (*chosen[turn:], *chosen[:turn]):
            figures = candidates.run(bench, candidate, source, events, f"{candidate.name}-{number}")
            found[candidate].append(figures)
            batch = f", {figures.batch:,.0f} a transaction" if figures.batch else ""
            cpu = f"{1e6 * figures.cpu_per_answer:.3g} µs of CPU each"
            line = f"round {number + 1}  {candidate.title:43} {figures.rate:10,.0f} events/s, {cpu}{batch}"
            print(line, file=sys.stderr)
    return found


@contextlib.contextmanager
def opened(bootstrap: str | None) -> Iterator[Bench]:
    """A cluster and a folder with the model for one run; ``bootstrap`` is the address of a running Kafka, if any."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="failsoft-bench-")))
        print("training the model …", file=sys.stderr)
        onnx = model.write(folder / candidates.REPOSITORIES["thread"])
        isolated = folder / candidates.REPOSITORIES["process"]
        model.write(isolated, isolation="process", content=onnx.read_bytes())
        if bootstrap is None:
            print("starting Kafka …", file=sys.stderr)
            bootstrap = stack.enter_context(Embedded(settings=SOON_GONE)).bootstrap
        cluster = Cluster(bootstrap)
        prefix = f"bench-{uuid.uuid4().hex[:6]}-"
        stack.callback(cluster.delete, prefix)
        yield Bench(cluster, folder, prefix)


def _numbers(text: str) -> list[int]:
    return [n for n in (int(part) for part in text.replace("_", "").split(",")) if n]


def _names(text: str) -> list[str]:
    names = [c.name for c in ALL]
    wanted = [name for name in text.split(",") if name]
    for name in wanted:
        if name not in names:
            raise argparse.ArgumentTypeError(f"{name!r} is not a program; choose from: {', '.join(names)}")
    return wanted


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="Compare only ratios of one run: the broker and the programs share this machine's cores.",
    )
    parser.add_argument("--events", type=int, default=200_000, help="number of events (200000)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each program (3); the table shows medians")
    parser.add_argument("--quick", action="store_true", help="a smoke run: one round on few events")
    parser.add_argument(
        "--only",
        type=_names,
        default=[c.name for c in ALL],
        metavar="NAME,NAME",
        help=f"programs to run, '' for none (default: all of {', '.join(c.name for c in ALL)})",
    )
    parser.add_argument(
        "--kinds",
        type=int,
        default=100_000,
        metavar="N",
        help="rates with N events of other kinds: vectors, and a model with ZipMap (100000); 0 for none",
    )
    parser.add_argument(
        "--formats",
        type=int,
        default=200_000,
        metavar="N",
        help="rates with N events in Avro and in Protobuf, beside JSON (200000); 0 for none",
    )
    parser.add_argument(
        "--latency",
        type=_numbers,
        default=[1_000],
        metavar="N,N",
        help="latency at N events a second each (1000); 0 for none",
    )
    parser.add_argument(
        "--partitions", type=_numbers, metavar="N,N", help="rate, latency and idle cost with N partitions each"
    )
    parser.add_argument("--batches", type=_numbers, metavar="N,N", help="rates with batches of at most N records each")
    parser.add_argument("--workers", type=_numbers, metavar="N,N", help="rates with N workers each")
    parser.add_argument("--backlog", type=_numbers, metavar="N,N", help="memory with a backlog of N events each")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="write between the page's markers, and a plot beside the page"
    )
    parser.add_argument("--bootstrap", help="address of a running Kafka; default: an embedded one")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
