"""The generated pages in the repository are up to date and complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import __main__ as pages
from failsoft.models.breaker.rules import TRANSITIONS, BreakerEvent, BreakerState
from failsoft.workers.commands import breakers
from failsoft.workers.telemetry.metric_table import TABLE


@pytest.mark.parametrize("path", pages.PAGES)
def test_the_page_in_the_repository_is_fresh(path: str) -> None:
    """Each generated page equals what `python -m docs` writes."""
    assert path not in pages.stale(), f"{path} is stale: run `python -m docs`"


def test_an_edited_page_is_found_and_rewritten(tmp_path: Path) -> None:
    """A missing or edited page is stale; writing makes it fresh, and a second write changes nothing."""
    assert pages.write(tmp_path) == list(pages.PAGES)
    assert pages.stale(tmp_path) == []
    page = tmp_path / "docs/metrics.md"
    page.write_text(page.read_text() + "and more\n")
    assert pages.stale(tmp_path) == ["docs/metrics.md"]
    assert pages.write(tmp_path) == ["docs/metrics.md"]
    assert pages.write(tmp_path) == []


def test_the_metrics_page_has_every_metric_and_value() -> None:
    """The metrics page has each metric's name, help and label values."""
    page = pages.metrics_page()
    for d in TABLE:
        assert f"| `{d.name}` | {d.type} |" in page
        assert d.help in page
        assert all(f"`{value}`" in page for values in d.values.values() for value in values)


def test_the_diagram_has_every_transition() -> None:
    """The diagram has each transition of the table, and no other."""
    page = pages.breaker_page()
    diagram = page.split("```")[1].splitlines()
    arrows = [line.split(":")[0].strip() for line in diagram if line.startswith("    ") and "[*]" not in line]
    assert arrows == [f"{from_} --> {to}" for from_, row in TRANSITIONS.items() for to in row.values()]
    assert all(f"| `{state}` |" in page for state in BreakerState)
    assert all(f"| {event} |" in page for event in BreakerEvent)


def test_every_order_is_on_the_breakers_page() -> None:
    """The breakers page has each order of `failsoft breakers` with its effect."""
    page = pages.breaker_page()
    orders = {command.name or command.callback.__name__ for command in breakers.app.registered_commands} - {"list"}  # type: ignore[union-attr]
    assert orders == {"open", "close", "disable", "reset"}
    assert all(f"| `failsoft breakers {order} MODEL` |" in page for order in orders)


def test_the_index_has_every_page() -> None:
    """The index links every page, and each of its links leads to a file."""
    folder = Path(pages.__file__).parent
    links = set(re.findall(r"\]\(([^)#]+)\)", (folder / "README.md").read_text("utf-8")))
    assert {page.name for page in folder.glob("*.md")} - {"README.md"} <= links
    assert not [link for link in links if not (folder / link).exists()]
