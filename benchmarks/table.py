"""The table of rates: medians, spread, and ratios to the hand-written loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.candidates import Candidate, Figures

_HEAD = ("program", "events/s", "min..max", "of hand-written", "CPU µs/event", "CPU of hand-written")


def render(
    found: Mapping[Candidate, Sequence[Figures]],
    reference: Candidate,
    untuned: Candidate,
    healthy: Candidate,
    down: Candidate,
) -> str:
    """Markdown. Each ratio is the median of the rounds' own ratios: within a round the machine was the same.

    The last column is the reference's CPU time an event over the program's own: what the ratio of rates comes to when
    the process has a core to itself, and hardly moved by what else the machine does.
    """
    rows = [_HEAD]
    for candidate, runs in found.items():
        rates = [f.rate for f in runs]
        rows.append(
            (
                candidate.title,
                f"{median(rates):,.0f}",
                f"{min(rates):,.0f}..{max(rates):,.0f}",
                f"{_ratio(runs, found[reference]):.3g}",
                f"{1e6 * median(f.cpu_per_answer for f in runs):,.1f}",
                f"{_cpu_ratio(runs, found[reference]):.3g}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    lines = [
        "| " + " | ".join(_fit(cell, w, i) for i, (cell, w) in enumerate(zip(row, widths, strict=True))) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|")
    lines += ["", f"exactly once / {untuned.title}: {_ratio(found[healthy], found[untuned]):.2f}"]
    lines += [f"primary down / healthy: {_ratio(found[down], found[healthy]):.2f}"]
    others = {c: runs for c, runs in found.items() if c.at_most is not None}
    lines += [f"exactly once / {c.title}: {_ratio(found[healthy], runs):.1f}" for c, runs in others.items()]
    return "\n".join(lines)


def ratio(said: str, these: Sequence[Figures], those: Sequence[Figures]) -> str:
    """One line: the median of the rounds' own ratios."""
    return f"{said}: {_ratio(these, those):.2f}"


def _ratio(these: Sequence[Figures], those: Sequence[Figures]) -> float:
    return median(a.rate / b.rate for a, b in zip(these, those, strict=True))


def _cpu_ratio(these: Sequence[Figures], those: Sequence[Figures]) -> float:
    return median(b.cpu_per_answer / a.cpu_per_answer for a, b in zip(these, those, strict=True))


def _fit(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)
