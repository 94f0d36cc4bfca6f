"""The cards that the documentation shows are valid, and those of the example are the example's own."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from docs import __main__ as pages
from failsoft.models.catalog.card import ModelCard, load_card
from failsoft.models.training import claims
from failsoft.workers import settings
from failsoft.workers.settings import Settings

DOCS = Path(pages.__file__).resolve().parent
KINDS = re.findall(r"```toml\n(.*?)```", (DOCS / "models-by-kind.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_of_the_example_has_its_cards() -> None:
    """Each card is on the page as the example writes it."""
    page = (DOCS / "multimodal.md").read_text(encoding="utf-8")
    for model, card in claims.CARDS.items():
        assert f"```toml\n# models/{model}/card.toml\n{card}```" in page, model


def test_the_example_writes_a_pipeline(tmp_path: Path) -> None:
    """The pipeline file and each card load without errors; the event on the page is the first of events.ndjson."""
    assert claims.main([str(tmp_path)]) == 0
    made = settings.load(tmp_path, {})
    assert made.model == "claim"
    for model in claims.CARDS:
        assert load_card(Path(made.models.repository) / model / "card.toml").name == model
    assert (tmp_path / "events.ndjson").read_text().splitlines()[0].startswith('{"event_id": "whole", "occurred_at"')
    with pytest.raises(SystemExit):
        claims.main([str(tmp_path)])


@pytest.mark.parametrize("lines", KINDS, ids=lambda lines: lines.split("\n")[1])
def test_the_lines_of_each_kind_are_valid(lines: str) -> None:
    """The lines of the page, in a card or pipeline file that has nothing else to say."""
    given = tomllib.loads(lines)
    if "input" in given:
        assert Settings.model_validate({"name": "p", "model": "m", **given})
        return
    feature = {"name": "x", "type": "float"}
    card = {"output": {"kind": "regression"}, "features": [feature], **given}
    card["model"] = {"name": "m", **given.get("model", {})}
    assert ModelCard.model_validate(card)
