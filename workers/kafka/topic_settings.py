"""Changes settings of existing topics. aiokafka's admin client can only replace all settings of a topic at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka.client import AIOKafkaClient

from failsoft.workers.kafka import requests
from failsoft.workers.kafka.request_errors import describe
from failsoft.workers.kafka.request_loop import ANY, RequestLoop

ALTER_WITHIN = 15.0
"""Seconds for a broker to take the changes; a restarting one needs about five."""

RETRY_AFTER = 0.2  # seconds until another broker is asked, after one that gave no answer

NOT_CONTROLLER = 41
"""Kafka's error code of a broker that cannot reach the controller, which takes the changes."""


async def alter(connection: Mapping[str, Any], settings: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Set ``settings``, by topic. Returns why a topic was not changed, by topic; empty when all were.

    Raises TimeoutError if no broker takes the changes, and aiokafka's errors.
    """
    client = AIOKafkaClient(**connection)
    loop = RequestLoop(client)
    try:
        async with asyncio.timeout(ALTER_WITHIN):
            await client.bootstrap()
            while True:
                answer = await loop.send(client.get_random_node(), requests.alter_topics(settings), ANY)
                rows = [] if answer is None else answer.responses
                if rows and all(code != NOT_CONTROLLER for code, *_ in rows):
                    return {
                        topic: describe(code) + (f" ({message})" if message else "")
                        for code, message, _, topic, *_ in rows
                        if code
                    }
                await asyncio.sleep(RETRY_AFTER)
    finally:
        await client.close()
