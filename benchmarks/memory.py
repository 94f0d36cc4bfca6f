"""Memory of a worker with a long backlog behind it: its resident set, sampled while it works it off."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import candidates
from benchmarks.candidates import Bench

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a worker's resident set: at its greatest, and the greatest in each third of the work."""

    title: str
    events: int
    peak: int
    thirds: tuple[int, ...]

    def __str__(self) -> str:
        thirds = ", ".join(f"{x / MEGABYTE:.0f}" for x in self.thirds)
        return (
            f"memory with {self.events:,} events behind, {self.title}: "
            f"peak {self.peak / MEGABYTE:.0f} MB (by thirds of the work: {thirds} MB)"
        )


def measure(bench: Bench, events: int) -> Memory:
    """failsoft exactly once works off ``events``."""
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
