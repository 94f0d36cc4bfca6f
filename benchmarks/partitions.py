"""Rate, latency and idle cost by the number of partitions: failsoft exactly once beside other programs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from benchmarks import candidates, latency
from benchmarks.candidates import EXACTLY, Bench, Candidate, Figures
from benchmarks.cluster import Cluster
from benchmarks.latency import Latency
from benchmarks.memory import MEGABYTE
from benchmarks.table import markdown, summary

RATE = 1_000
"""Events a second of the latency runs: light traffic, in which the price of each transaction shows."""

IDLE = 10.0
"""Seconds over which an idle worker's CPU time is measured: 3 % of a core are 30 ticks of Linux's clock."""

IDLE_SMOKE = 2.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one program in one round.

    Attributes:
        backlog: of a backlog that was drained.
        steady: at RATE events a second.
    """

    backlog: Figures
    steady: Latency

    @property
    def peak(self) -> int:
        """The largest resident set during the backlog (bytes)."""
        return max(rss for _, rss in self.backlog.rss)

    def ms(self, percentile: float) -> float:
        """A percentile of the time from the broker to a reader (ms)."""
        return self.steady.percentiles(percentile)[0]


Found = Mapping[tuple[int, Candidate], Sequence[Measured]]
"""The rounds, by number of partitions and by program."""

HEAD = ("partitions", "events/s", "p50 ms", "p90", "p99", "transactions/s", "peak MB", "idle, % of a core")


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

    ``lasts``: seconds at RATE events a second; ``idle``: seconds without traffic after them.
    """
    benches = {n: replace(bench, cluster=Cluster(bench.cluster.bootstrap, n)) for n in counts}
    sources = {n: f"{bench.prefix}partitions-{n}-events" for n in counts}
    for n, each in benches.items():
        each.cluster.create(sources[n])
        each.cluster.fill(sources[n], events)
    found: dict[tuple[int, Candidate], list[Measured]] = {(n, c): [] for n in counts for c in chosen}
    for number in range(rounds):
        turn = number % len(chosen)
        for n, each in benches.items():
            for candidate in (*chosen[turn:], *chosen[:turn]):
                label = f"partitions-{n}-{candidate.name}-{number}"
                backlog = candidates.run(each, candidate, sources[n], events, label)
                steady = latency.one(each, candidate, RATE, lasts, f"{label}-steady", idle)
                found[n, candidate].append(Measured(backlog, steady))
                cells = zip(HEAD[1:], _cells([found[n, candidate][-1]]), strict=True)
                line = ", ".join(f"{name} {cell}" for name, cell in cells)
                print(f"round {number + 1}  {n} partitions, {candidate.title}: {line}", file=sys.stderr)
    for source in sources.values():
        bench.cluster.delete(source)
    return render(found)


def render(found: Found) -> str:
    """The medians of all rounds as Markdown, and the ratios: each is the median of the rounds' own."""
    rows = [(f"{n}, {candidate.title}", *_cells(runs)) for (n, candidate), runs in found.items()]
    ratios = [f"- {name}: {summary(values)}" for name, values in _ratios(found)]
    listed = ["", "Ratios, each with the least and the greatest of its rounds:", "", *ratios] if ratios else []
    return "\n".join([markdown(HEAD, rows), *listed])


def _cells(runs: Sequence[Measured]) -> tuple[str, ...]:
    return (
        f"{median(m.backlog.rate for m in runs):,.0f}",
        *(f"{median(m.ms(p) for m in runs):,.0f}" for p in (50, 90, 99)),
        _known([m.steady.transactions for m in runs], ",.0f"),
        f"{median(m.peak for m in runs) / MEGABYTE:,.0f}",
        _known([None if m.steady.idle is None else 100 * m.steady.idle for m in runs], ".1f"),
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
            ratios.append((f"{of}, rate", [a.backlog.rate / b.backlog.rate for a, b in zip(ours, runs, strict=True)]))
            ratios.append((f"{of}, p50", [a.ms(50) / b.ms(50) for a, b in zip(ours, runs, strict=True)]))
    counts = [n for n, _ in found]
    few, many = min(counts), max(counts)
    for candidate in dict.fromkeys(c for _, c in found) if few != many else ():
        pairs = list(zip(found[many, candidate], found[few, candidate], strict=True))
        of = f"{candidate.title}, {many} partitions / {few}"
        ratios.append((f"{of}, rate", [a.backlog.rate / b.backlog.rate for a, b in pairs]))
        ratios.append((f"{of}, p99", [a.ms(99) / b.ms(99) for a, b in pairs]))
    return ratios
