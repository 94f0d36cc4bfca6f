"""Resolves a command's target to versions: all in the repository, all of a model, or one."""

from __future__ import annotations

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.repository import Repository, UnknownModel
from failsoft.schemas.config.refusal import near

Target = tuple[ModelCard, int]
"""A model's card and the number of one of its versions, complete or not."""


def targets(repository: Repository, target: str | None) -> list[Target]:
    """The versions of ``target``, newest first. ``target`` is a model or ``model@version``; None is every model.

    Incomplete versions are included only when ``target`` names their model or them. Raises UnknownModel, which suggests
    a near spelling, and Refused for a card that cannot be used.
    """
    if target is None:
        # An ensemble has no versions, so it adds nothing here.
        return [(repository.card(m), v) for m in repository.models() for v in repository.versions(m)]
    model, at, number = target.partition("@")
    card = repository.card(model)
    if card.ensemble is not None:
        raise UnknownModel(f"{model} is an ensemble and has no versions: name one of {', '.join(card.ensemble.names)}")
    versions = sorted([*repository.versions(model), *repository.incomplete(model)], reverse=True)
    if not at:
        return [(card, version) for version in versions]
    known = [str(version) for version in versions]
    if number not in known:
        raise UnknownModel(
            f"{model} has no version {number!r}{near(number, known)}; there are: {', '.join(known) or 'none'}"
        )
    return [(card, int(number))]
