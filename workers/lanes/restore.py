"""Restores the memory of the fallback ``last_known`` when a lane opens, from the pipeline's own scored topic."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from types import NoneType
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from failsoft.models.answers.fallback import from_rule
from failsoft.models.answers.last_known import LastKnown
from failsoft.schemas import scored_read, wire
from failsoft.schemas.prediction import Prediction, Predictions, Source
from failsoft.workers.kafka.unreadable import Unreadable
from failsoft.workers.lanes.trouble import Cause, LaneTrouble

log = structlog.get_logger("failsoft.lanes")

TAIL = 20_000
"""Answers read back from a partition. Reading them takes a second or two, and they hold more keys than most lanes see
in an hour."""

MAX_ANSWER = 1_000_000
"""The largest answer that is read, in bytes. An answer has a few hundred, and with many classes some thousands."""

RESTORE_WITHIN = 20.0
"""Seconds after which the lane opens with the answers read so far. The chain has other links, and lanes must open."""


async def restore(
    make_consumer: Callable[[], AIOKafkaConsumer],
    log_end: Callable[[AIOKafkaConsumer, TopicPartition], Awaitable[int]],
    topic: str,
    partition: int,
    max_age: float,
    wall: Callable[[], float],
) -> LastKnown:
    """Read the last answer by the primary of each key, from the last TAIL answers of a partition.

    The lane has read stable offsets in its generation, so the previous owner can commit no more answers. Its last ones
    may become visible while this reads, when their transaction's marker is written: it reads up to the end of the log,
    and not only to what is visible at first. With at least once, an owner that does not know yet that it was replaced
    may still append.

    Args:
        make_consumer: makes a consumer without a group, which is stopped at the end.
        log_end: the end offset of a partition, open transactions included.
        topic: the topic of scored answers.
        partition: the lane's index.
        max_age: the age in seconds up to which an answer is remembered.
        wall: the wall clock (epoch seconds).

    Raises:
        LaneTrouble: if the partition cannot be read now.
    """
    known = LastKnown(max_age)
    tp = TopicPartition(topic, partition)
    consumer = make_consumer()
    try:
        await consumer.start()
        consumer.assign([tp])
        begin = (await consumer.beginning_offsets([tp]))[tp]
        end = await log_end(consumer, tp)
        consumer.seek(tp, max(begin, end - TAIL))
        deadline = time.monotonic() + RESTORE_WITHIN
        while await consumer.position(tp) < end and time.monotonic() < deadline:
            try:
                records = (await consumer.getmany(tp, timeout_ms=500, max_records=2000)).get(tp, [])
            except Unreadable as e:
                log.warning("answers cannot be read back, and are not remembered", why=str(e))
                if e.next_offset is None:
                    break
                consumer.seek(tp, e.next_offset)
                continue
            _remember(known, records, wall())
    except KafkaError as e:
        why = f"the answers that the lane is to remember cannot be read: {e!r}"
        raise LaneTrouble(Cause.MEMORY_UNREAD, tp, None, why, "it is tried again") from e
    finally:
        await consumer.stop()
    return known


def _remember(known: LastKnown, records: Iterable[Any], now: float) -> None:
    """Add the primary's answers among ``records`` to ``known``; ``now`` is epoch seconds.

    Answers of one transaction share their time and mostly their version, so they are added together.
    """
    batches: dict[tuple[str, int | None, int, int, tuple[str, ...]], tuple[list[bytes | None], list[Prediction]]] = {}
    unread: dict[str, int] = {}
    primary, ensemble = [("failsoft-source", source.encode()) for source in (Source.PRIMARY, Source.ENSEMBLE)]
    for record in records:
        if record.key is None or now - record.timestamp / 1000 > known.max_age:
            continue
        if primary not in record.headers and ensemble not in record.headers:
            continue
        try:
            a = scored_read.loads(record.value, MAX_ANSWER)
            answer = from_rule({name: a[name] for name in ("score", "label", "confidence", "probabilities")})
            model, version, outputs = a["model"], a["version"], a.get("outputs")
        except scored_read.NoAvroReader as e:
            unread[str(e)] = unread.get(str(e), 0) + 1
            continue
        except (wire.Malformed, KeyError, TypeError):
            continue  # another program wrote this record: it is no answer of this pipeline
        expected = int if primary in record.headers else NoneType  # an ensemble has no version of its own
        if answer is None or type(model) is not str or type(version) is not expected:
            continue  # from another program too: these values could not be written as an answer again
        if type(outputs) is dict and outputs:
            answer = replace(answer, outputs=outputs)
        by = (model, version, record.timestamp, len(answer.probabilities or ()), tuple(answer.outputs or ()))
        keys, given = batches.setdefault(by, ([], []))
        keys.append(record.key)
        given.append(answer)
    for why, count in unread.items():
        log.warning("answers cannot be read back, and are not remembered", why=why, answers=count)
    for (model, version, ms, _, _), (keys, given) in batches.items():
        known.remember(keys, Predictions.of(given), model, version, ms / 1000)
