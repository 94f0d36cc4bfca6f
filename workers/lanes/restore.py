"""What `last_known` knows when a lane opens: the pipeline's own answers are the changelog, so their tail is read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import NoneType
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from failsoft.models.answers.fallback import from_rule
from failsoft.models.answers.last_known import LastKnown
from failsoft.schemas import wire
from failsoft.schemas.prediction import Prediction, Predictions, Source

TAIL = 20_000
"""Answers of a partition that are read back: a second or two of work, and more keys than most lanes see in an hour."""

MAX_ANSWER = 1_000_000
"""Bytes; an answer has a few hundred, and with many classes some thousands."""

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
            _remember(known, (await consumer.getmany(tp, timeout_ms=500, max_records=2000)).get(tp, []), wall())
    finally:
        await consumer.stop()
    return known


def _remember(known: LastKnown, records: Iterable[Any], now: float) -> None:
    """Answers of one transaction share their time and mostly their version, so they are remembered together."""
    together: dict[tuple[str, int | None, int, int], tuple[list[bytes | None], list[Prediction]]] = {}
    primary, ensemble = [("failsoft-source", source.encode()) for source in (Source.PRIMARY, Source.ENSEMBLE)]
    for record in records:
        if record.key is None or now - record.timestamp / 1000 > known.max_age:
            continue
        if primary not in record.headers and ensemble not in record.headers:
            continue
        try:
            a = wire.loads(record.value, MAX_ANSWER)
            answer = from_rule({name: a[name] for name in ("score", "label", "confidence", "probabilities")})
            model, version = a["model"], a["version"]
        except (wire.Malformed, KeyError, TypeError):
            continue  # written by other hands: nothing that we ever answered
        told = int if primary in record.headers else NoneType  # of several members nobody has the version
        if answer is None or type(model) is not str or type(version) is not told:
            continue  # by other hands too; what it holds could not be written again
        by = (model, version, record.timestamp, len(answer.probabilities or ()))
        keys, given = together.setdefault(by, ([], []))
        keys.append(record.key)
        given.append(answer)
    for (model, version, ms, _), (keys, given) in together.items():
        known.remember(keys, Predictions.of(given), model, version, ms / 1000)
