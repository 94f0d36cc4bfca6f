"""Rate, latency and idle cost by the number of partitions: failsoft exactly once beside other programs.

A program is started on empty topics. It gets one event in each partition, then steady light traffic, then nothing, then
a backlog. The backlog appears to it at one moment, because it is written in one transaction. Thus its rate has a known
beginning. The table of rates has none: it counts from the tenth part of the answers on, but by then a program may have
worked at much more, and the more so the more partitions it has.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from benchmarks import candidates, latency, measure
from benchmarks.candidates import EXACTLY, HAND, STREAMS, Bench, Candidate
from benchmarks.cluster import Cluster
from benchmarks.latency import Latency, Subject
from benchmarks.memory import MEGABYTE
from benchmarks.table import markdown, summary

PROGRAMS = (EXACTLY, replace(HAND, flags=("--read-committed",)), STREAMS)
"""All of them leave out what is not committed, or they would see the backlog while it is written."""

RATE = 1_000
"""Events a second of steady traffic: so few that the price of each transaction shows."""

IDLE = 10.0
"""Seconds over which an idle worker's CPU time is measured: 3 % of a core are 30 ticks of Linux's clock."""

IDLE_SMOKE = 2.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one program in one round.

    Attributes:
        steady: the latencies at RATE events a second.
        idle: the CPU time without traffic (share of a core).
        rate: answers a second, from the moment the backlog could be read to its last answer.
        cpu: CPU seconds an answer, over the same time.
        peak: the largest resident set while the backlog was drained (bytes).
    """

    steady: Latency
    idle: float
    rate: float
    cpu: float
    peak: int

    def ms(self, percentile: float) -> float:
        """A percentile of the time from the broker to a reader (ms)."""
        return self.steady.percentiles(percentile)[0]


Found = Mapping[tuple[int, Candidate], Sequence[Measured]]
"""The rounds, by number of partitions and by program."""

HEAD = (
    *("partitions", "events/s", "CPU µs/event", "p50 ms", "p90", "p99"),
    *("transactions/s", "peak MB", "idle, % of a core"),
)


def by_partitions(
    bench: Bench,
    counts: Sequence[int],
    events: int,
    rounds: int,
    lasts: float,
    idle: float,
    chosen: Sequence[Candidate],
) -> str:
    """Measures each of ``chosen`` on topics of each of ``counts`` partitions, in every round.

    ``events`` is the backlog. ``lasts``: seconds at RATE events a second; ``idle``: seconds without traffic after them.
    """
    found: dict[tuple[int, Candidate], list[Measured]] = {(n, c): [] for n in counts for c in chosen}
    for number in range(rounds):
        turn = number % len(chosen)
        for n in counts:
            each = replace(bench, cluster=Cluster(bench.cluster.bootstrap, n))
            for candidate in (*chosen[turn:], *chosen[:turn]):
                label = f"partitions-{n}-{candidate.name}-{number}"
                measured = _one(each, candidate, events, lasts, idle, label)
                found[n, candidate].append(measured)
                cells = zip(HEAD[1:], _cells([measured]), strict=True)
                line = ", ".join(f"{name} {cell or 'unknown'}" for name, cell in cells)
                print(f"round {number + 1}  {n} partitions, {candidate.title}: {line}", file=sys.stderr)
    return render(found)


def _one(bench: Bench, candidate: Candidate, events: int, lasts: float, idle: float, label: str) -> Measured:
    """One program in one round. Raises RuntimeError if it falls short, or answers an event twice."""
    name = f"{bench.prefix}{label}"
    source, cluster = f"{name}-events", bench.cluster
    cluster.create(source, stamped=True)
    with candidates.started(bench, candidate, name, source) as ((worker,), sink):
        steady = latency.steady(cluster, Subject(candidate, name, source, sink, worker), RATE, lasts)
        share = measure.idle(worker, idle)
        answered = cluster.written(sink)
        begin = cluster.fill_at_once(source, events)
        cpu = measure.spent([worker])
        # The last record of each partition is the transaction's marker: a position before it is as good as one after.
        wanted = cluster.written(source) - cluster.partitions
        watched = measure.watch(
            worker, cluster, sink, answered + events, lambda: cluster.committed(name, source) >= wanted
        )
        cpu = measure.spent([worker]) - cpu
    stamps = measure.read(cluster, sink).stamps_ms
    cluster.delete(name)
    expected = cluster.partitions + round(RATE * lasts) + events
    if len(stamps) != expected:
        raise RuntimeError(f"{candidate.title}: {len(stamps):,} answers to {expected:,} events")
    peak = max(rss for _, rss in watched.rss)
    return Measured(steady, share, events / (float(stamps[-1]) / 1000 - begin), cpu / events, peak)


def render(found: Found) -> str:
    """The medians of all rounds as Markdown, and the ratios: each is the median of the rounds' own."""
    rows = [(f"{n}, {candidate.title}", *_cells(runs)) for (n, candidate), runs in found.items()]
    ratios = [f"- {name}: {summary(values)}" for name, values in _ratios(found)]
    listed = ["", "Ratios, each with the least and the greatest of its rounds:", "", *ratios] if ratios else []
    return "\n".join([markdown(HEAD, rows), *listed])


def _cells(runs: Sequence[Measured]) -> tuple[str, ...]:
    return (
        f"{median(m.rate for m in runs):,.0f}",
        f"{1e6 * median(m.cpu for m in runs):,.1f}",
        *(f"{median(m.ms(p) for m in runs):,.0f}" for p in (50, 90, 99)),
        _known([m.steady.transactions for m in runs], ",.0f"),
        f"{median(m.peak for m in runs) / MEGABYTE:,.0f}",
        f"{100 * median(m.idle for m in runs):.1f}",
    )


def _known(values: Sequence[float | None], form: str) -> str:
    """The median; empty when the program has no such figure."""
    known = [value for value in values if value is not None]
    return format(median(known), form) if known else ""


def _ratios(found: Found) -> list[tuple[str, list[float]]]:
    """failsoft beside each other program at each number of partitions, then each program's most partitions beside its
    fewest.
    """
    ratios = []
    for (n, candidate), runs in found.items():
        ours = found.get((n, EXACTLY))
        if ours and candidate is not EXACTLY:
            of = f"{n} partitions, exactly once / {candidate.title}"
            ratios.append((f"{of}, rate", [a.rate / b.rate for a, b in zip(ours, runs, strict=True)]))
            ratios.append((f"{of}, p50", [a.ms(50) / b.ms(50) for a, b in zip(ours, runs, strict=True)]))
    counts = [n for n, _ in found]
    few, many = min(counts), max(counts)
    for candidate in dict.fromkeys(c for _, c in found) if few != many else ():
        pairs = list(zip(found[many, candidate], found[few, candidate], strict=True))
        of = f"{candidate.title}, {many} partitions / {few}"
        ratios.append((f"{of}, rate", [a.rate / b.rate for a, b in pairs]))
        ratios.append((f"{of}, p99", [a.ms(99) / b.ms(99) for a, b in pairs]))
    return ratios
