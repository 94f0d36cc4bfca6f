"""The fleet's breakers from outside of it: the changelog of their table, who owns them, and orders to the owner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from failsoft.models.breaker.policy import policy
from failsoft.models.breaker.rules import BreakerPolicy
from failsoft.models.catalog.repository import Repository
from failsoft.schemas.fleet.breaker import BreakerRow, Command
from failsoft.schemas.model_version import ModelVersion, model_of
from failsoft.topics import admin
from failsoft.workers.fleet.table import LOOK_AGAIN, Changelog, OnProgress, changelog
from failsoft.workers.operations import breaker_view
from failsoft.workers.operations.breaker_view import Rows
from failsoft.workers.operations.orders import send as order
from failsoft.workers.serving.pipeline import load_cards
from failsoft.workers.settings import Settings


@dataclass(frozen=True, slots=True)
class PipelineBreakers:
    """What the pipeline's files say: the policy of each model, and the versions (``model@2``) that there are."""

    policies: dict[str, BreakerPolicy]
    keys: frozenset[str]


def known(pipeline: Settings) -> PipelineBreakers:
    """Raises Refused for a card that cannot be used."""
    repository = Repository(Path(pipeline.models.repository))
    cards = load_cards(pipeline, repository)
    keys = frozenset(str(ModelVersion(model, version)) for model in cards for version in repository.versions(model))
    # an ensemble is asked through its members, and these have the breakers
    return PipelineBreakers({model: policy(card) for model, card in cards.items() if card.ensemble is None}, keys)


@asynccontextmanager
async def fleet(pipeline: Settings) -> AsyncIterator[BreakerTable]:
    """The table as its changelog has it; nothing is read yet. Raises NoSuchTopic or KafkaUnreachable."""
    async with changelog(pipeline, pipeline.names.breakers_changelog) as table:
        yield BreakerTable(table)


@dataclass(slots=True)
class BreakerTable:
    """The rows of the table, as often as wanted."""

    table: Changelog

    async def refresh(self, on_progress: OnProgress = lambda done, total: None) -> Rows:
        """The rows as they are now: it reads on to the end that the topic has at this moment."""
        return breaker_view.rows(await self.table.refresh(on_progress))

    async def obeyed(self, command: Command, within: float) -> dict[str, BreakerRow]:
        """The rows that ``command`` means, as soon as each was moved by it; none when that takes longer."""
        deadline = time.monotonic() + within
        while True:
            found = breaker_view.obeyed(command, await self.refresh())
            if found or not time.monotonic() < deadline:  # so that NaN is no time at all
                return found
            await asyncio.sleep(LOOK_AGAIN)


async def send(pipeline: Settings, command: Command) -> None:
    """Write ``command`` where the owner reads. Raises what ``changelog.send`` does."""
    await order(pipeline, model_of(command.target) or command.target, command.to_bytes())


async def owner(pipeline: Settings) -> str | None:
    """The worker that owns the breakers now, by its client id; None when none does. Raises KafkaUnreachable."""
    async with admin.connect(pipeline.connection()) as client:
        return await admin.assigned(client, pipeline.names.control_group, pipeline.names.outcomes, 0)
