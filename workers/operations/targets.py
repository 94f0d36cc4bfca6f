"""The versions that a command means: all of a repository's, a model's, or one."""

from __future__ import annotations

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.repository import Repository, UnknownModel
from failsoft.schemas.config.refusal import near

Target = tuple[ModelCard, int]
"""A model's card and one of its versions, whole or not."""


def targets(repository: Repository, target: str | None) -> list[Target]:
    """``target`` is a model or ``model@version``; None is every model. Newest first.

    Versions that are not whole are left out, unless their model or they themselves are named. Raises UnknownModel with
    a near spelling, and Refused for a card that cannot be used.
    """
    if target is None:
        # An ensemble has none of its own.
        return [(repository.card(m), v) for m in repository.models() for v in repository.versions(m)]
    model, at, number = target.partition("@")
    card = repository.card(model)
    if card.ensemble is not None:
        raise UnknownModel(f"{model} is an ensemble, without versions: name one of {', '.join(card.ensemble.names)}")
    there = sorted([*repository.versions(model), *repository.incomplete(model)], reverse=True)
    if not at:
        return [(card, version) for version in there]
    known = [str(version) for version in there]
    if number not in known:
        raise UnknownModel(
            f"{model} has no version {number!r}{near(number, known)}; there: {', '.join(known) or 'none'}"
        )
    return [(card, int(number))]
