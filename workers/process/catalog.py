"""The cards of one pipeline, and what loads and vets their versions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.repository import Repository
from failsoft.models.vetting.bounded_process import Limits
from failsoft.workers.serving import loader
from failsoft.workers.serving.unserved import NoVersion


@dataclass(frozen=True, slots=True)
class Catalog:
    """The cards of one pipeline; loads and vets their versions.

    Attributes:
        repository: the model repository.
        cards: the cards by model.
        limits: the limits of the vetting process.
        wrap: wraps each loaded session.
        on_death: called when a process of an isolated model ended.
    """

    repository: Repository
    cards: Mapping[str, ModelCard]
    limits: Limits
    wrap: loader.Wrap
    on_death: loader.OnDeath

    @property
    def versioned(self) -> dict[str, ModelCard]:
        """The cards of models that have versions; an ensemble has none, only its members do."""
        return {model: card for model, card in self.cards.items() if card.ensemble is None}

    def first(self, model: str, active: int | None) -> loader.Opened | NoVersion:
        """Loads the version to serve at the start. Raises Refused."""
        return loader.first(self.repository, self.cards[model], active, self.wrap, self.limits, self.on_death)

    def open_version(self, model: str, version: int | None) -> loader.Opened | NoVersion:
        """Loads ``version``, or the newest that can serve. Raises Refused or Unloadable."""
        if version is None:
            return self.first(model, None)
        return loader.open_version(self.repository, self.cards[model], version, self.wrap, self.limits, self.on_death)

    async def prove(self, model: str, version: int) -> str | None:
        """Vets a version again, on a thread. Returns why it may not serve, or None."""
        return await asyncio.to_thread(loader.prove, self.repository, self.cards[model], version, self.limits)
