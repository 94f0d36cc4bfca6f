"""What a run found, written into a page between two markers; what stands around them is a person's."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from benchmarks import machine


def provenance(command: str, when: datetime | None = None) -> str:
    """Where figures come from: the date, the machine and its load, the versions, and the command."""
    day = (when or datetime.now(UTC)).strftime("%Y-%m-%d")
    return f"`{command}`, {day}, on {machine.describe()}"


def write(page: Path, section: str, text: str) -> None:
    """Puts ``text`` in the place of ``section`` in ``page``. Raises ValueError when the page has no such place."""
    begin, end = f"<!-- begin: {section} -->", f"<!-- end: {section} -->"
    whole = page.read_text("utf-8")
    before, found, rest = whole.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no place for these figures: it lacks the lines {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", "utf-8")
