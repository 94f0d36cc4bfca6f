"""The list of pages and schemas that are generated from code: ``-m docs`` writes them, ``--check`` finds stale ones."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from docs import config_schemas
from docs.breaker_page import breaker_page
from docs.commands_page import commands_page
from docs.failure_kinds_page import failure_kinds_page
from docs.headers_page import headers_page
from docs.keys_page import card_page, pipeline_page
from docs.metrics_page import metrics_page
from docs.permissions_page import permissions_page
from docs.topics_page import topics_page
from failsoft.schemas import publish

ROOT = Path(__file__).resolve().parent.parent

PAGES: Mapping[str, Callable[[], str]] = {
    "docs/metrics.md": metrics_page,
    "docs/breaker.md": breaker_page,
    "docs/permissions.md": permissions_page,
    "docs/reference/pipeline.md": pipeline_page,
    "docs/reference/card.md": card_page,
    "docs/reference/commands.md": commands_page,
    "docs/reference/headers.md": headers_page,
    "docs/reference/failure-kinds.md": failure_kinds_page,
    "docs/reference/topics.md": topics_page,
    "schemas/published/pipeline.schema.json": lambda: config_schemas.published(config_schemas.pipeline()),
    "schemas/published/card.schema.json": lambda: config_schemas.published(config_schemas.card()),
    **{f"schemas/published/{name}": partial(publish.text, name) for name in publish.DOCUMENTS},
}


def stale(root: Path = ROOT) -> list[str]:
    """The pages that are missing, or whose text differs from what the code generates, as paths under ``root``."""
    return [path for path, page in PAGES.items() if _text(root / path) != page()]


def write(root: Path = ROOT) -> list[str]:
    """Writes the stale pages and returns their paths."""
    changed = stale(root)
    for path in changed:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(PAGES[path](), encoding="utf-8")
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when the pages are fresh or were written, 1 when ``--check`` found stale ones."""
    parser = argparse.ArgumentParser(prog="python -m docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is stale")
    check = parser.parse_args(arguments).check
    changed = stale() if check else write()
    for path in changed:
        print(f"{path}: {'stale, run `python -m docs`' if check else 'written'}", file=sys.stderr)
    return 1 if check and changed else 0


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
