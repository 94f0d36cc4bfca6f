"""Sends an operator's command or order to the fleet's owner."""

from __future__ import annotations

from collections.abc import AsyncIterator

from failsoft.workers.operations.event_files import EventLine
from failsoft.workers.operations.publish import publish
from failsoft.workers.settings import Settings


async def send(pipeline: Settings, model: str, order: bytes) -> None:
    """Writes an order for ``model`` to the control topic; returns when every in-sync replica has it.

    Raises NoSuchTopic, KafkaUnreachable or KafkaError.
    """

    async def one() -> AsyncIterator[list[EventLine]]:
        yield [(model.encode(), order)]

    await publish(pipeline, pipeline.names.control, one(), None, None, lambda n: None, lambda sent: None)
