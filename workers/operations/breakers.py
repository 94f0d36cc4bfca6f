"""Reads the fleet's breakers from their changelog, finds their owner, and sends it commands."""

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
from failsoft.workers.fleet.table import POLL_EVERY, Changelog, OnProgress, changelog
from failsoft.workers.operations import breaker_view
from failsoft.workers.operations.breaker_view import BreakerRows
from failsoft.workers.operations.orders import send as order
from failsoft.workers.serving.dependency import dependencies
from failsoft.workers.serving.pipeline import load_cards
from failsoft.workers.settings import Settings


@dataclass(frozen=True, slots=True)
class PipelineBreakers:
    """The breakers according to the pipeline's files.

    Attributes:
        policies: the breaker policy of each model and of each dependency; an ensemble has none.
        keys: the versions in the model repository, as ``model@version``, and the dependencies.
    """

    policies: dict[str, BreakerPolicy]
    keys: frozenset[str]


def known(pipeline: Settings) -> PipelineBreakers:
    """Reads the policies and versions from the pipeline's files. Raises Refused for a card that cannot be used."""
    repository = Repository(Path(pipeline.models.repository))
    cards = load_cards(pipeline, repository)
    keys = frozenset(str(ModelVersion(model, version)) for model in cards for version in repository.versions(model))
    guarded = dependencies(pipeline.schema_registry)
    # An ensemble has no breaker: its members are called, and each has its own.
    policies = {model: policy(card) for model, card in cards.items() if card.ensemble is None}
    return PipelineBreakers(policies | {each.model: of for each, of in guarded.items()}, keys | {*map(str, guarded)})


@asynccontextmanager
async def fleet(pipeline: Settings) -> AsyncIterator[BreakerTable]:
    """Opens the table of breakers; reads nothing yet. Raises NoSuchTopic or KafkaUnreachable."""
    async with changelog(pipeline, pipeline.names.breakers_changelog) as table:
        yield BreakerTable(table)


@dataclass(slots=True)
class BreakerTable:
    """The table of breakers, read from its changelog at each call."""

    table: Changelog

    async def refresh(self, on_progress: OnProgress = lambda done, total: None) -> BreakerRows:
        """Reads to the topic's current end; returns the current rows."""
        return breaker_view.rows(await self.table.refresh(on_progress))

    async def obeyed(self, command: Command, within: float) -> dict[str, BreakerRow]:
        """Waits until the owner has obeyed ``command`` in each row that it targets; returns these rows.

        Returns an empty dict after ``within`` seconds.
        """
        deadline = time.monotonic() + within
        while True:
            rows = breaker_view.obeyed(command, await self.refresh())
            if rows or not time.monotonic() < deadline:  # written so that a NaN in ``within`` ends the wait at once
                return rows
            await asyncio.sleep(POLL_EVERY)


async def send(pipeline: Settings, command: Command) -> None:
    """Writes ``command`` to the control topic. Raises NoSuchTopic, KafkaUnreachable or KafkaError."""
    await order(pipeline, model_of(command.target) or command.target, command.to_bytes())


async def owner(pipeline: Settings) -> str | None:
    """The client id of the worker that owns the breakers now, or None. Raises KafkaUnreachable."""
    async with admin.connect(pipeline.connection()) as client:
        return await admin.assigned(client, pipeline.names.control_group, pipeline.names.outcomes, 0)
