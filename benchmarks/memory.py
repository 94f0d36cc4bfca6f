"""Memory of a worker with a long backlog: its resident set, sampled while it processes the backlog."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import candidates
from benchmarks.candidates import Bench

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Memory:
    """A worker's resident set.

    Attributes:
        title: the program.
        events: the size of the backlog.
        peak: its maximum (bytes).
        thirds: its maximum in each third of the work (bytes).
    """

    title: str
    events: int
    peak: int
    thirds: tuple[int, ...]

    def __str__(self) -> str:
        thirds = ", ".join(f"{x / MEGABYTE:.0f}" for x in self.thirds)
        return (
            f"memory with a backlog of {self.events:,} events,  {self.title}: "
            f"peak {self.peak / MEGABYTE:.0f} MB (by thirds of the work: {thirds} MB)"
        )


def measure(bench: Bench, events: int) -> Memory:
    """Runs failsoft exactly once over a backlog of ``events``."""
    source = f"{bench.prefix}backlog-{events}"
    bench.cluster.create(source)
    bench.cluster.fill(source, events)
    figures = candidates.run(bench, candidates.EXACTLY, source, events, f"memory-{events}")
    bench.cluster.delete(source)
    third = events / 3
    thirds = tuple(
        max((rss for n, rss in figures.rss if i * third <= n <= (i + 1) * third * 1.01), default=0) for i in range(3)
    )
    return Memory(candidates.EXACTLY.title, events, max(rss for _, rss in figures.rss), thirds)
