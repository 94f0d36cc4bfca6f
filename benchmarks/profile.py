"""``python -m benchmarks.profile``: a worker's CPU time per event, by phase."""

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
    """Returns 0 when everything was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="number of events (200000)")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (5); the table shows medians")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write between the page's markers")
    parser.add_argument("--bootstrap", help="address of a running Kafka; default: an embedded one")
    given = parser.parse_args()
    with opened(given.bootstrap) as bench:
        source = f"{bench.prefix}events"
        bench.cluster.create(source)
        bench.cluster.fill(source, given.events)
        found = [_one(bench, source, given.events, number) for number in range(given.rounds)]
        command = f"python -m benchmarks.profile --events {given.events} --rounds {given.rounds}"
        subtitle = f"{given.events:,} events, failsoft exactly once, medians of {given.rounds} rounds"
        text = f"{page.provenance(shlex.join(command.split()))}. {subtitle}.\n\n{render(found)}"
    print(text)
    if given.write:
        page.write(given.write, "profile", text)
    return 0


def _one(bench: Bench, source: str, events: int, number: int) -> dict[str, float]:
    to = bench.folder / f"profile-{number}.json"
    candidate = Candidate("profile", "failsoft, profiled", "profiled_worker", "exactly_once", ("--to", str(to)))
    figures = candidates.run(bench, candidate, source, events, f"profile-{number}")
    found: dict[str, float] = json.loads(to.read_text())
    line = f"round {number + 1}: {sum(found.values()) / 1000:.1f} µs an event, {figures.rate:,.0f} events/s"
    print(line, file=sys.stderr)
    return found


def render(found: list[dict[str, float]]) -> str:
    """The result as Markdown, the most expensive phase first. ``found`` has, for each round, ns per event by phase."""
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
