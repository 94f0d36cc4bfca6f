"""The fleet's breakers from outside of it: the changelog of their table, who owns them, and orders to the owner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from models.breaker import Policy
from models.repository import Repository
from schemas.fleet import BreakerRow, Command
from topics import admin
from workers import breaker_rows, reading, sessions
from workers.board import policy
from workers.breaker_rows import Rows
from workers.publish import publish
from workers.rows import Row
from workers.settings import Settings

LOOK_AGAIN = 0.1
"""Seconds between two looks at the changelog: an owner obeys within tens of milliseconds, and people wait."""

Tell = Callable[[int, int], None]
"""Told how many offsets of how many were read."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the pipeline's files say: the policy of each model, and the versions (``model@2``) that there are."""

    policies: dict[str, Policy]
    keys: frozenset[str]


def known(pipeline: Settings) -> Known:
    """Raises Refused for a card that cannot be used."""
    repository = Repository(Path(pipeline.models.repository))
    cards = sessions.cards(pipeline, repository)
    keys = frozenset(f"{model}@{version}" for model in cards for version in repository.versions(model))
    # an ensemble is asked through its members, and these have the breakers
    return Known({model: policy(card) for model, card in cards.items() if card.ensemble is None}, keys)


@asynccontextmanager
async def fleet(pipeline: Settings) -> AsyncIterator[Fleet]:
    """The table as its changelog has it; nothing is read yet. Raises NoSuchTopic or KafkaUnreachable."""
    async with reading.reader(pipeline, pipeline.names.breakers_changelog) as reader:
        yield Fleet(pipeline, reader)


@dataclass(slots=True)
class Fleet:
    """A reader of the changelog, and the last value of each key so far: only those are ever parsed."""

    pipeline: Settings
    reader: reading.Reader
    latest: dict[bytes | None, bytes | None] = field(default_factory=dict)
    _after: int = 0

    async def refresh(self, tell: Tell = lambda done, total: None) -> Rows:
        """The rows as they are now: it reads on to the end that the topic has at this moment."""
        bounds = {tp: (max(begin, self._after), end) for tp, (begin, end) in (await self.reader.bounds()).items()}
        total, done = sum(end - begin for begin, end in bounds.values()), 0
        async with aclosing(self.reader.until(bounds)) as batches:
            async for records in batches:
                self.latest.update((r.key, r.value) for r in records)
                done += len(records)
                tell(done, total)
        self._after = max((end for _, end in bounds.values()), default=0)  # the topic has one partition
        return breaker_rows.rows(self.latest)

    async def obeyed(self, command: Command, within: float) -> dict[str, BreakerRow]:
        """The rows that ``command`` means, as soon as each was moved by it; none when that takes longer."""
        deadline = time.monotonic() + within
        while True:
            found = breaker_rows.obeyed(command, await self.refresh())
            if found or not time.monotonic() < deadline:  # so that NaN is no time at all
                return found
            await asyncio.sleep(LOOK_AGAIN)


async def send(pipeline: Settings, command: Command) -> None:
    """Write ``command`` where the owner reads; returns when every in-sync replica has it.

    Raises NoSuchTopic, KafkaUnreachable or KafkaError.
    """
    model, at, _ = command.target.rpartition("@")
    key = (model if at else command.target).encode()

    async def one() -> AsyncIterator[list[Row]]:
        yield [(key, command.to_bytes())]

    await publish(pipeline, pipeline.names.control, one(), None, None, lambda n: None, lambda sent: None)


async def owner(pipeline: Settings) -> str | None:
    """The worker that owns the breakers now, by its client id; None when none does. Raises KafkaUnreachable."""
    async with admin.connect(pipeline.connection()) as client:
        return await admin.assigned(client, pipeline.names.control_group, pipeline.names.outcomes, 0)
