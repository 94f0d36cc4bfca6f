"""What `last_known` knows when a lane opens: the pipeline's own answers are the changelog, so their tail is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from models.fallback import LastKnown
from schemas import wire
from schemas.prediction import Prediction, Predictions, Source

TAIL = 20_000
"""Answers of a partition that are read back: a second or two of work, and more keys than most lanes see in an hour."""

PATIENCE = 20.0
"""Seconds. A tail that cannot be read by then is given up on: the chain has other links, and lanes must open."""


async def restore(
    make_consumer: Callable[[], AIOKafkaConsumer], topic: str, partition: int, max_age: float, wall: Callable[[], float]
) -> LastKnown:
    """The last primary answer of each key in the tail of ``topic``, by age in seconds.

    The previous owner was fenced before this is called, so nothing is still being added to the partition.
    """
    known = LastKnown(max_age)
    tp = TopicPartition(topic, partition)
    consumer = make_consumer()
    await consumer.start()
    try:
        consumer.assign([tp])
        begin = (await consumer.beginning_offsets([tp]))[tp]
        end = (await consumer.end_offsets([tp]))[tp]
        consumer.seek(tp, max(begin, end - TAIL))
        deadline = time.monotonic() + PATIENCE
        while await consumer.position(tp) < end and time.monotonic() < deadline:
            for record in (await consumer.getmany(tp, timeout_ms=500, max_records=2000)).get(tp, []):
                _remember(known, record, wall())
    finally:
        await consumer.stop()
    return known


def _remember(known: LastKnown, record: Any, now: float) -> None:
    if record.key is None or ("failsoft-source", Source.PRIMARY.encode()) not in record.headers:
        return
    at = record.timestamp / 1000
    if now - at > known.max_age:
        return
    answer = wire.loads(record.value, len(record.value))
    probabilities = answer["probabilities"]
    given = Prediction(
        answer["score"], answer["label"], tuple(probabilities) if probabilities else None, answer["confidence"]
    )
    known.remember([record.key], Predictions.of([given]), answer["model"], answer["version"], at)
