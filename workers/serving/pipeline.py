"""Owns the loading of the pipeline's cards and plan, and checks them against each other."""

from __future__ import annotations

from collections.abc import Mapping

from failsoft.models.catalog.card import ModelCard, mismatches, other_side
from failsoft.models.catalog.chain import LinkKind
from failsoft.models.catalog.fields import Method
from failsoft.models.catalog.repository import Repository, UnknownModel
from failsoft.schemas.config.refusal import Refused
from failsoft.workers.scoring.plan import Plan
from failsoft.workers.serving.rules import load_rules
from failsoft.workers.settings import Settings


def load_cards(settings: Settings, repository: Repository) -> dict[str, ModelCard]:
    """The cards of the primary, its members and the models in its chain. Raises Refused with the file and the key."""
    try:
        primary = repository.card(settings.model)
    except UnknownModel as e:
        raise Refused("pipeline.toml", [f"model: {e}"]) from None
    where = str(repository.root / settings.model / "card.toml")
    if primary.fallback is None:
        advice = 'add a [fallback] section, at least: chain = ["static"] and static = { score = 0.5, label = 0 }'
        raise Refused(where, [f"fallback: missing, and a primary must always have an answer; {advice}"])
    _refuse_unkept(where, primary)
    cards = {settings.model: primary, **_members(where, primary, repository)}
    for link in primary.fallback.chain:
        if link.kind is LinkKind.MODEL and link.target is not None:
            try:
                cards[link.target] = repository.card(link.target)
                _refuse_unkept(str(repository.root / link.target / "card.toml"), cards[link.target])
            except UnknownModel as e:
                raise Refused(where, [f"fallback.chain: {e}"]) from None
            if cards[link.target].ensemble is not None:
                message = "an ensemble answers only as a pipeline's primary: name one of its members"
                raise Refused(where, [f"fallback.chain: {str(link)!r}: {message}"])
            other = cards[link.target].output
            side = other_side(other, primary.output) if other.kind is primary.output.kind else None
            if side is not None:
                message = f"its card {side}: a fallback's score and label must mean what the primary's do"
                raise Refused(where, [f"fallback.chain: {str(link)!r}: {message}"])
    return cards


def _members(where: str, card: ModelCard, repository: Repository) -> dict[str, ModelCard]:
    """The cards of an ensemble's members; empty for a single model. Raises Refused."""
    cards: dict[str, ModelCard] = {}
    for name in card.ensemble.names if card.ensemble else ():
        try:
            cards[name] = repository.card(name)
        except UnknownModel as e:
            raise Refused(where, [f"ensemble.members: {e}"]) from None
        _refuse_unkept(str(repository.root / name / "card.toml"), cards[name])
    problems = mismatches(card, cards)
    if problems:
        raise Refused(where, problems)
    return cards


def _refuse_unkept(where: str, card: ModelCard) -> None:
    """Refuses ``impute = "last_known"``: workers do not keep features yet, so such events would be invalid."""
    asking = [f.name for f in card.features if f.impute is not None and f.impute.method is Method.LAST_KNOWN]
    if asking:
        advice = 'give a value, "mean", "median" or "mode"'
        raise Refused(where, [f'features: {n!r}: impute = "last_known" is not supported yet; {advice}' for n in asking])


def make_plan(settings: Settings, cards: Mapping[str, ModelCard], repository: Repository) -> Plan:
    """The plan that scoring needs, from the pipeline file and the cards."""
    names, primary = settings.names, cards[settings.model]
    assert primary.fallback is not None
    return Plan(
        primary=settings.model,
        cards=cards,
        chain=primary.fallback.chain,
        rules=load_rules(primary, str(repository.root / settings.model / "card.toml"), settings.folder),
        envelope=settings.envelope,
        delays=settings.retry.rungs,
        jitter=settings.retry.jitter,
        rungs={names.retry(name): delay for name, delay in settings.retry.rungs},
        replay=names.replay,
        ignores_tombstones=settings.input.tombstones == "ignore",
    )
