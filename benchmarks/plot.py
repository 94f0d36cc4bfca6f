"""A bar chart of the rates: the median of each program and the spread of its rounds. The SVG is written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from statistics import median

from benchmarks.candidates import Candidate, Figures

WIDTH, LEFT, RIGHT = 900, 330, 90
"""Pixels: the whole width, the column of names, and the space behind the longest bar for its figure."""

ROW, BAR, TOP = 28, 16, 46

OURS, OTHERS = "#2a78b5", "#9aa5b1"

_STYLE = "font:13px system-ui,sans-serif;background:#fff"


def bars(found: Mapping[Candidate, Sequence[Figures]], subtitle: str) -> str:
    """The chart as SVG, the fastest program first; ``subtitle`` is its second line."""
    rows = sorted(found.items(), key=lambda item: -median(f.rate for f in item[1]))
    most = max(f.rate for runs in found.values() for f in runs)
    scale = (WIDTH - LEFT - RIGHT) / most
    height = TOP + ROW * len(rows) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'style="{_STYLE}" role="img" aria-label="Events a second by program">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        '<text x="12" y="18" font-weight="600" fill="#111">Events a second, one process each</text>',
        f'<text x="12" y="35" font-size="11" fill="#555">{escape(subtitle)}</text>',
    ]
    for i, (candidate, runs) in enumerate(rows):
        rates = [f.rate for f in runs]
        middle, least, greatest = median(rates), min(rates), max(rates)
        y, x = TOP + ROW * i, LEFT + scale * median(rates)
        line = y + BAR / 2
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end" fill="#111">{escape(candidate.title)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{x - LEFT:.1f}" height="{BAR}" '
            f'fill="{OURS if candidate.ours else OTHERS}"/>',
            f'<path d="M{LEFT + scale * least:.1f} {line}H{LEFT + scale * greatest:.1f}" stroke="#111"/>',
            f'<text x="{LEFT + scale * greatest + 6:.1f}" y="{y + 13}" fill="#111">{middle:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
