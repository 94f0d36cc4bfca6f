"""Writes the figures of a run between two markers of a page; the text around them is written by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from benchmarks import machine


def provenance(command: str, when: datetime | None = None) -> str:
    """The origin of figures: the command, the date, the machine with its load, and the versions."""
    day = (when or datetime.now(UTC)).strftime("%Y-%m-%d")
    return f"`{command}`, {day}, on {machine.describe()}"


def write(page: Path, section: str, text: str) -> None:
    """Replaces the text of ``section`` in ``page``. Raises ValueError if the page lacks the section's markers."""
    begin, end = f"<!-- begin: {section} -->", f"<!-- end: {section} -->"
    whole = page.read_text("utf-8")
    before, found, rest = whole.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no section for these figures: it must have the lines {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", "utf-8")
