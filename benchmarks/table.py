"""The tables of a run: rates with medians, spread and ratios, and plain tables of other figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.candidates import EXACTLY, HAND, Candidate, Figures


def render(found: Mapping[Candidate, Sequence[Figures]]) -> str:
    """The rates as Markdown. Each ratio is the median of the rounds' own ratios: within a round the machine was the
    same.

    The reference is the hand-written loop, or the first program if that did not run. The last column is the reference's
    CPU time per event divided by the program's own. It is the ratio of rates that a process with a core of its own
    would have, and the machine's other load hardly changes it.
    """
    reference = HAND if HAND in found else next(iter(found))
    base = found[reference]
    of = "of hand-written" if reference is HAND else f"of {reference.name}"
    rows = [
        (
            candidate.title,
            f"{median(f.rate for f in runs):,.0f}",
            f"{min(f.rate for f in runs):,.0f}..{max(f.rate for f in runs):,.0f}",
            f"{ratio(runs, base):.3g}",
            f"{1e6 * median(f.cpu_per_answer for f in runs):,.1f}",
            f"{_cpu_ratio(runs, base):.3g}",
        )
        for candidate, runs in found.items()
    ]
    lines = [markdown(("program", "events/s", "min..max", of, "CPU µs/event", f"CPU {of}"), rows)]
    if EXACTLY in found:
        healthy = found[EXACTLY]
        others = {c: runs for c, runs in found.items() if c is not EXACTLY}
        lines += ["", "Ratios of rates, each with the least and the greatest of its rounds:", ""]
        lines += [f"- {c.title} / exactly once: {spread(runs, healthy)}" for c, runs in others.items() if c.ours]
        lines += [f"- exactly once / {c.title}: {spread(healthy, runs)}" for c, runs in others.items() if not c.ours]
    return "\n".join(lines)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text; the other columns are numbers."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "| " + " | ".join(_fit(cell, w, i) for i, (cell, w) in enumerate(zip(row, widths, strict=True))) + " |"
        for row in (head, *rows)
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|")
    return "\n".join(lines)


def ratio(these: Sequence[Figures], those: Sequence[Figures]) -> float:
    """The median of the rounds' own ratios."""
    return median(_ratios(these, those))


def spread(these: Sequence[Figures], those: Sequence[Figures]) -> str:
    """The median of the rounds' own ratios, with the least and the greatest."""
    return summary(_ratios(these, those))


def summary(ratios: Sequence[float]) -> str:
    """The median, with the least and the greatest."""
    return f"{median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"


def _ratios(these: Sequence[Figures], those: Sequence[Figures]) -> list[float]:
    return [a.rate / b.rate for a, b in zip(these, those, strict=True)]


def _cpu_ratio(these: Sequence[Figures], those: Sequence[Figures]) -> float:
    return median(b.cpu_per_answer / a.cpu_per_answer for a, b in zip(these, those, strict=True))


def _fit(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)
