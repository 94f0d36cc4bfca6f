"""``python -m benchmarks.profile``: where a microsecond goes: a worker's CPU time an event, by phase."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from statistics import median

from benchmarks import candidates, page
from benchmarks.__main__ import opened
from benchmarks.candidates import Bench, Candidate
from benchmarks.table import markdown


def main() -> int:
    """0 when it was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="how many events (200000)")
    parser.add_argument("--rounds", type=int, default=5, help="how often (5); the table has medians")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="between the page's markers")
    parser.add_argument("--bootstrap", help="a Kafka that runs, instead of an embedded one")
    given = parser.parse_args()
    with opened(given.bootstrap) as bench:
        source = f"{bench.prefix}events"
        bench.cluster.create(source)
        bench.cluster.fill(source, given.events)
        found = [_one(bench, source, given.events, number) for number in range(given.rounds)]
        command = f"python -m benchmarks.profile --events {given.events} --rounds {given.rounds}"
        said = f"{given.events:,} events, failsoft exactly once, medians of {given.rounds} rounds"
        text = f"{page.provenance(shlex.join(command.split()))}. {said}.\n\n{render(found)}"
    print(text)
    if given.write:
        page.write(given.write, "profile", text)
    return 0


def _one(bench: Bench, source: str, events: int, number: int) -> dict[str, float]:
    to = bench.folder / f"profile-{number}.json"
    candidate = Candidate("profile", "failsoft, profiled", "profiled_worker", "exactly_once", ("--to", str(to)))
    figures = candidates.run(bench, candidate, source, events, f"profile-{number}")
    found: dict[str, float] = json.loads(to.read_text())
    said = f"round {number + 1}: {sum(found.values()) / 1000:.1f} µs an event, {figures.rate:,.0f} events/s"
    print(said, file=sys.stderr)
    return found


def render(found: list[dict[str, float]]) -> str:
    """Markdown, the dearest phase first. ``found`` has nanoseconds an event by phase, a round each."""
    phases = {phase for each in found for phase in each}
    micros = {phase: median(each.get(phase, 0.0) for each in found) / 1000 for phase in phases}
    total = sum(micros.values())
    rows = [
        (phase, f"{spent:.2f}", f"{100 * spent / total:.1f} %")
        for phase, spent in sorted(micros.items(), key=lambda item: -item[1])
    ]
    return markdown(("phase", "µs an event", "share"), [*rows, ("all", f"{total:.2f}", "100 %")])


if __name__ == "__main__":
    sys.exit(main())
