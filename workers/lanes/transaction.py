"""One commit of a lane: outputs, offsets and what stands beside them, together or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from failsoft.topics.routing import Row
from failsoft.workers.kafka.produce_batches import BATCH_BYTES, Batch, pack, squeezed

COMMIT_TIMEOUT = 20.0
"""Seconds from begin to commit. The transaction's own timeout is 15: past it the broker has aborted anyway, and a
commit can hang for ever when a coordinator leaves (aiokafka #1145)."""


Noted = tuple[int, str]
"""An offset, and its metadata: mostly empty, else a mark (failsoft.workers.lanes.crash_marks)."""


async def commit(
    producer: AIOKafkaProducer,
    consumer: AIOKafkaConsumer,
    group: str | None,
    index: int,
    routed: Sequence[tuple[str, list[Row]]],
    offsets: dict[TopicPartition, Noted],
    now_ms: int,
) -> None:
    """Writes ``routed`` to partition ``index`` of its topics, and the offsets. Raises whatever aiokafka does.

    In a transaction, with the offsets of ``group``; without one (None: at least once) the consumer commits them, after
    all is written.
    """
    if group is not None:
        await producer.begin_transaction()
    futures = []
    for topic, rows in routed:
        for batch in pack(producer.create_batch, rows, now_ms, lambda: _squeezed(group is not None)):
            futures.append(await producer.send_batch(batch, topic, partition=index))
    # Every future, before the offsets: aiokafka commits a transaction although a batch in it failed.
    await asyncio.gather(*futures)
    if group is not None:
        await producer.send_offsets_to_transaction(offsets, group)
        await producer.commit_transaction()
    else:
        await consumer.commit(offsets)


def _squeezed(transactional: bool) -> Batch:
    return squeezed(BATCH_BYTES, transactional)
