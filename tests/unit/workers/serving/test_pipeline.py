"""Which cards a pipeline may use, and how others are refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from failsoft.models.catalog.repository import Repository
from failsoft.schemas.config.refusal import Refused
from failsoft.workers import settings
from failsoft.workers.serving.pipeline import load_cards, load_rules

PIPELINE = """
name = "p"
model = "m"
[input]
topics = ["p.events"]
[models]
repository = "models"
"""
CARD = """
[output]
kind = "regression"
[[features]]
name = "x"
type = "float"
{imputed}
{fallback}
"""
STATIC = "[fallback]\nchain = {chain}\nstatic = {{ score = 0.0 }}"


def _cards(folder: Path, imputed: str = "", fallback: str = STATIC.format(chain='["static"]'), **others: str) -> object:
    (folder / "pipeline.toml").write_text(PIPELINE)
    for name, text in {"m": CARD.format(imputed=imputed, fallback=fallback), **others}.items():
        (folder / "models" / name).mkdir(parents=True)
        (folder / "models" / name / "card.toml").write_text(text)
    pipeline = settings.load(folder / "pipeline.toml", {})
    return load_cards(pipeline, Repository(Path(pipeline.models.repository)))


def test_a_pipeline_takes_the_cards_that_its_chain_names(tmp_path: Path) -> None:
    """It loads the primary's card and those of the models in its fallback chain."""
    lite = CARD.format(imputed="", fallback="")
    cards = _cards(tmp_path, fallback=STATIC.format(chain='["model:lite", "static"]'), lite=lite)
    assert set(cards) == {"m", "lite"}  # type: ignore[call-overload]


def test_a_primary_without_a_fallback_is_refused(tmp_path: Path) -> None:
    """The last link always answers, so a primary needs a chain; the message says how to write one."""
    with pytest.raises(Refused, match=r"m/card.toml: fallback: missing.*chain = \[\"static\"\]"):
        _cards(tmp_path, fallback="")


def test_a_chain_that_names_no_model_is_refused(tmp_path: Path) -> None:
    """The message names the card, the key and the closest spelling."""
    lite = CARD.format(imputed="", fallback="")
    with pytest.raises(Refused, match=r"m/card.toml: fallback.chain: no model 'light'.*did you mean 'lite'"):
        _cards(tmp_path, fallback=STATIC.format(chain='["model:light", "static"]'), lite=lite)


def test_a_fallback_model_that_means_the_opposite_is_refused(tmp_path: Path) -> None:
    """A fallback's score must be the probability of the primary's positive label."""
    primary, lite = (
        CARD.replace("regression", f'binary"\nlabels = ["no", "yes"]\npositive = "{p}') for p in ("yes", "no")
    )
    primary = primary.format(imputed="", fallback=STATIC.format(chain='["model:lite", "static"]'))
    with pytest.raises(Refused, match=r"fallback.chain: 'model:lite': its card has positive = 'no', but this card has"):
        _cards(tmp_path, m=primary, lite=lite.format(imputed="", fallback=""))


def test_a_rule_that_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    """It is refused before an event is read, not when the primary first fails."""
    cards = _cards(tmp_path, fallback=STATIC.format(chain='["rule:no.such:thing", "static"]'))
    with pytest.raises(Refused, match=r"card.toml: fallback.chain: rule:no.such:thing cannot be imported"):
        load_rules(cards["m"], "card.toml", tmp_path)  # type: ignore[index]


def test_a_rule_is_found_in_the_pipeline_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card's rules are in the folder of the pipeline file, which PYTHONPATH does not contain."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "rules_of_mine.py").write_text("def half(features):\n    return 0.5\n")
    cards = _cards(tmp_path, fallback=STATIC.format(chain='["rule:rules_of_mine:half", "static"]'))
    rules = load_rules(cards["m"], "card.toml", settings.load(tmp_path, {}).folder)  # type: ignore[index]
    assert rules["rule:rules_of_mine:half".removeprefix("rule:")]({}) == 0.5


def test_last_known_features_are_refused_while_no_worker_keeps_them(tmp_path: Path) -> None:
    """Accepting the key would make each such event invalid without a message."""
    with pytest.raises(Refused, match=r"m/card.toml: features: 'x': impute = \"last_known\" is not supported yet"):
        _cards(tmp_path, imputed='impute = "last_known"')
