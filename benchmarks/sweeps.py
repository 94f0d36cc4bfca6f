"""Sweeps over one parameter: latency by load, rate by batch size and by workers, memory by backlog."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from benchmarks import candidates, latency, measure, memory
from benchmarks.candidates import EXACTLY, Bench, Candidate
from benchmarks.table import markdown

JOINED_WITHIN = 120.0
"""Seconds for all workers of a run to join their group; four that start at once on two cores take a while."""


def by_load(bench: Bench, rates: Sequence[int], lasts: float, chosen: Sequence[Candidate]) -> str:
    """Milliseconds from the broker to a read_committed reader, for each of ``chosen``."""
    rows = []
    for rate in rates:
        for candidate in chosen:
            found = latency.one(bench, candidate, rate, lasts, f"latency-{candidate.name}-{rate}")
            print(found, file=sys.stderr)
            rows.append((f"{rate:,} events/s, {candidate.title}", *found.cells()))
    return markdown(("load", *latency.CELLS), rows)


def by_batch(bench: Bench, source: str, events: int, sizes: Sequence[int], rounds: int) -> str:
    """failsoft exactly once, with each of ``sizes`` as the largest batch of a transaction and partition (records)."""
    found: dict[int, list[candidates.Figures]] = {size: [] for size in sizes}
    for number in range(rounds):
        for size in sizes:
            candidate = replace(EXACTLY, flags=("--batch", str(size)))
            figures = candidates.run(bench, candidate, source, events, f"batch-{number}-{size}")
            found[size].append(figures)
            print(f"round {number + 1}  at most {size:,} records: {figures.rate:,.0f} events/s", file=sys.stderr)
    rows = [
        (
            f"{size:,}",
            f"{median(f.batch for f in runs):,.0f}",
            f"{median(f.rate for f in runs):,.0f}",
            f"{min(f.rate for f in runs):,.0f}..{max(f.rate for f in runs):,.0f}",
            f"{1e6 * median(f.cpu_per_answer for f in runs):,.1f}",
        )
        for size, runs in found.items()
    ]
    return markdown(("at most", "a transaction had", "events/s", "min..max", "CPU µs/event"), rows)


def by_backlog(bench: Bench, backlogs: Sequence[int]) -> str:
    """The resident set of failsoft exactly once while it processes each backlog, in megabytes."""
    rows = []
    for events in backlogs:
        found = memory.measure(bench, events)
        print(found, file=sys.stderr)
        rows.append((f"{events:,}", *(f"{x / memory.MEGABYTE:,.0f}" for x in (found.peak, *found.thirds))))
    return markdown(("events behind", "peak MB", "first third", "second", "last"), rows)


def by_workers(bench: Bench, source: str, events: int, counts: Sequence[int], rounds: int) -> str:
    """failsoft exactly once with each of ``counts`` as the number of processes, on the same four partitions."""
    found: dict[int, list[float]] = {n: [] for n in counts}
    for number in range(rounds):
        for n in counts:
            rate = _together(bench, source, events, n, f"workers-{number}-{n}")
            found[n].append(rate)
            print(f"round {number + 1}  {n} workers: {rate:,.0f} events/s", file=sys.stderr)
    first = found[counts[0]]
    rows = [
        (
            str(n),
            f"{median(rates):,.0f}",
            f"{min(rates):,.0f}..{max(rates):,.0f}",
            f"{median(a / b for a, b in zip(rates, first, strict=True)):.2f}",
        )
        for n, rates in found.items()
    ]
    return markdown(("workers", "events/s", "min..max", f"of {counts[0]}"), rows)


def _together(bench: Bench, source: str, events: int, n: int, label: str) -> float:
    """Events a second of ``n`` workers that start at once. Raises RuntimeError if they fall short."""
    name = f"{bench.prefix}{label}"
    gate = bench.folder / f"{name}.gate"
    each = [("--id", f"{name}-{i}", "--gate", str(gate)) for i in range(n)]
    with candidates.started(bench, EXACTLY, name, source, each) as (workers, sink):
        bench.cluster.until_joined(name, n, JOINED_WITHIN)
        gate.touch()
        measure.watch(workers[0], bench.cluster, sink, events, lambda: bench.cluster.committed(name, source) == events)
    answers = measure.read(bench.cluster, sink)
    bench.cluster.delete(f"{name}.")
    bench.cluster.delete(f"{name}-")
    if len(answers.stamps_ms) != events:
        raise RuntimeError(f"{n} workers: {len(answers.stamps_ms):,} answers to {events:,} events")
    return answers.rate()
