"""The Kafka clients of an operator's order on offsets."""

from __future__ import annotations

from collections.abc import Collection

from aiokafka.client import AIOKafkaClient

from failsoft.workers.kafka.log_view import LogView
from failsoft.workers.kafka.transactional_producer import TransactionalProducer
from failsoft.workers.settings import Settings

REQUEST_TIMEOUT_MS = 10_000

TRANSACTION_TIMEOUT_MS = 8_000
"""The broker aborts an order's transaction of this age, if the command dies in it."""


async def view(pipeline: Settings, topics: Collection[str]) -> LogView:
    """Connects, and learns who leads ``topics``. Raises KafkaConnectionError."""
    client = await _connected(pipeline)
    await client.set_topics(topics)
    return LogView(client)


async def producer(pipeline: Settings) -> TransactionalProducer:
    """Connects. ``start`` of the producer ends any other order of the pipeline. Raises KafkaConnectionError."""
    return TransactionalProducer(await _connected(pipeline), pipeline.names.operator_id, TRANSACTION_TIMEOUT_MS)


async def _connected(pipeline: Settings) -> AIOKafkaClient:
    options = {"client_id": "failsoft-offsets", "request_timeout_ms": REQUEST_TIMEOUT_MS}
    client = AIOKafkaClient(**pipeline.connection(), **options)
    await client.bootstrap()
    return client
