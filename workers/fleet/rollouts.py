"""Reads the fleet's rollout rows from the table's changelog: the rows, the answer to an order, the active versions."""

from __future__ import annotations

import asyncio
import time

import structlog
from aiokafka.errors import KafkaError

from failsoft.schemas.fleet.rollout import Order, OrderResult, RolloutRow
from failsoft.schemas.wire import Malformed
from failsoft.topics import admin
from failsoft.workers.fleet.table import POLL_EVERY, Changelog, changelog
from failsoft.workers.kafka import topic_reader
from failsoft.workers.settings import Settings

log = structlog.get_logger("failsoft.rollouts")

READ_WITHIN = 5.0
"""Seconds that a starting worker waits for the changelog. It is compacted and has one row a model, so it is short."""


async def rows(table: Changelog) -> dict[str, RolloutRow]:
    """The current rows by model. A row that cannot be read is left out and logged."""
    by_model: dict[str, RolloutRow] = {}
    for key, value in (await table.refresh()).items():
        if value is None:
            continue
        try:
            row = RolloutRow.parse(value)
        except Malformed as e:
            log.error("a rollout row cannot be read", key=repr(key), error=str(e))
            continue
        by_model[row.model] = row
    return by_model


async def answered(table: Changelog, model: str, order: Order, within: float) -> tuple[RolloutRow, OrderResult] | None:
    """Waits for the owner's answer to ``order``: the row and the result, or None after ``within`` seconds."""
    deadline = time.monotonic() + within
    while True:
        row = (await rows(table)).get(model)
        for result in row.orders if row else ():
            if row is not None and result.order == order.name:
                return row, result
        if not time.monotonic() < deadline:  # written so that a NaN in ``within`` ends the wait at once
            return None
        await asyncio.sleep(POLL_EVERY)


async def active(pipeline: Settings) -> dict[str, int]:
    """The active version of each model, for a starting worker. Without it, the worker would first serve the newest
    version, which the fleet may have rolled back. Empty if the changelog cannot be read in time: scoring does not wait
    for tables.
    """
    try:
        async with asyncio.timeout(READ_WITHIN), changelog(pipeline, pipeline.names.rollouts_changelog) as table:
            return {model: row.active for model, row in (await rows(table)).items()}
    except (admin.KafkaUnreachable, topic_reader.NoSuchTopic, KafkaError, TimeoutError) as e:
        log.warning("the fleet's active versions are unknown; the newest versions are served", error=repr(e))
        return {}
