"""The fleet's rollouts from outside of it: the rows of their table, and what they say to an order."""

from __future__ import annotations

import asyncio
import time

import structlog
from aiokafka.errors import KafkaError

from failsoft.schemas.fleet.rollout import Order, OrderResult, RolloutRow
from failsoft.schemas.wire import Malformed
from failsoft.topics import admin
from failsoft.workers.fleet.table import LOOK_AGAIN, Changelog, changelog
from failsoft.workers.kafka import topic_reader
from failsoft.workers.settings import Settings

log = structlog.get_logger("failsoft.rollouts")

READ_WITHIN = 5.0
"""Seconds that a worker's start waits for the changelog: it has a row a model, and is compacted."""


async def rows(table: Changelog) -> dict[str, RolloutRow]:
    """The rows as they are now, by model; one that cannot be read is left out, and said."""
    found: dict[str, RolloutRow] = {}
    for key, value in (await table.refresh()).items():
        if value is None:
            continue
        try:
            row = RolloutRow.parse(value)
        except Malformed as e:
            log.error("a rollout's row cannot be read", key=repr(key), error=str(e))
            continue
        found[row.model] = row
    return found


async def answered(table: Changelog, model: str, order: Order, within: float) -> tuple[RolloutRow, OrderResult] | None:
    """The row, and what it says to ``order``, as soon as it does; None when that takes longer."""
    deadline = time.monotonic() + within
    while True:
        row = (await rows(table)).get(model)
        for said in row.orders if row else ():
            if row is not None and said.order == order.name:
                return row, said
        if not time.monotonic() < deadline:  # so that NaN is no time at all
            return None
        await asyncio.sleep(LOOK_AGAIN)


async def active(pipeline: Settings) -> dict[str, int]:
    """The version of each model that the fleet wants, for a worker that starts: else it would serve the newest for a
    while, which the fleet may have left. Empty where that cannot be read in time: scoring does not wait for tables.
    """
    try:
        async with asyncio.timeout(READ_WITHIN), changelog(pipeline, pipeline.names.rollouts_changelog) as table:
            return {model: row.active for model, row in (await rows(table)).items()}
    except (admin.KafkaUnreachable, topic_reader.NoSuchTopic, KafkaError, TimeoutError) as e:
        log.warning("which versions the fleet serves is not known: the newest are taken", error=repr(e))
        return {}
