"""Finds dead letters on the dead topic by their headers, and whether they were replayed. For single letters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError

from failsoft.schemas import attempt as attempts
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.letter_id import LetterId
from failsoft.topics.names import Names
from failsoft.topics.redriven import partitions
from failsoft.topics.replayed import SKEW_MS, Replayed
from failsoft.workers.kafka.topic_ids import topic_ids
from failsoft.workers.kafka.unreadable import Unreadable

log = structlog.get_logger("failsoft.letters")

WITHIN = 20.0
"""Seconds for one search. A lane waits for it, and a drain waits for the lane (26 s by default)."""

WRITTEN_WITHIN_MS = 60_000
"""Milliseconds between a letter's ``failsoft-died-ms`` and its record's timestamp, at most: a commit takes 12 s."""

MOST_READ = 200_000
"""Letters that one search reads for a window of time. One that names its time is found among the first thousands; a
letter of an earlier version does not name it, and is looked for from its event's first failure on."""

AT_ONCE = 2_000
"""Records of one fetch."""

MOST_REMEMBERED = 200_000
"""Replays that are kept in memory for a partition. With more, they are read again when they are needed."""


@dataclass(frozen=True, slots=True)
class FoundLetter:
    """A letter that exists.

    Attributes:
        id: its identity.
        replayed: whether a replay of it exists.
    """

    id: LetterId
    replayed: bool


@dataclass(slots=True)
class _Replays:
    """What was read of a partition of the replay topic.

    Attributes:
        topic_id: the topic that it was read of.
        begin: the first offset that was read.
        end: the offset after the last one.
        done: the replays among them.
    """

    topic_id: str | None
    begin: int
    end: int
    done: Replayed = field(default_factory=Replayed)


class LetterSearch:
    """Searches for the letters of one lane.

    Args:
        make_consumer: makes a consumer without a group that reads committed records.
        names: the pipeline's topics.
    """

    def __init__(self, make_consumer: Callable[[], AIOKafkaConsumer], names: Names) -> None:
        self._make, self._names = make_consumer, names
        self._replays: dict[int, _Replays] = {}

    async def find(self, claims: Mapping[int, Attempt]) -> dict[int, FoundLetter]:
        """The letters that have exactly these headers, by the keys of ``claims``; those that do not exist are left out.

        None is found, and the log says why, if the worker may not read the topics: anyone who writes to an input topic
        could stop the worker otherwise.

        Raises:
            KafkaTimeoutError: the search took longer than WITHIN.
            KafkaError: the topics cannot be read for another reason.
        """
        try:
            async with asyncio.timeout(WITHIN):
                return await self._find(claims)
        except TopicAuthorizationFailedError as error:
            log.error(
                "dead letters that other tools send back are not recognised: the worker may not read a topic",
                error=str(error),
                mend=f"kafka-acls --add --allow-principal User:… --operation Read --topic {self._names.dead}, and the "
                f"same for {self._names.replay}",
            )
            return {}
        except TimeoutError:
            raise KafkaTimeoutError(f"{self._names.dead} was not searched within {WITHIN:.0f} s") from None

    def replayed(self, letter: LetterId, now_ms: int) -> None:
        """Remember that the lane writes the replay of ``letter``, which was found."""
        self._replays[letter.partition].done.add(letter, now_ms)

    async def _find(self, claims: Mapping[int, Attempt]) -> dict[int, FoundLetter]:
        dead, replay = self._names.dead, self._names.replay
        consumer = self._make()
        try:
            await consumer.start()
            ids = await topic_ids(consumer._client, [dead, replay])
            known = await _partitions(consumer, dead)
            found: dict[int, FoundLetter] = {}
            for partition, wanted in partitions(claims).items():
                if partition not in known:
                    continue
                places = await _letters(consumer, TopicPartition(dead, partition), wanted, ids.get(dead))
                if not places:
                    continue
                since = min(_from_ms(wanted[row]) for row in places)
                done = await self._done(consumer, TopicPartition(replay, partition), ids.get(replay), since)
                for row, (letter, written) in places.items():
                    found[row] = FoundLetter(letter, done.has(letter, wanted[row], written))
            return found
        finally:
            await consumer.stop()

    async def _done(
        self, consumer: AIOKafkaConsumer, tp: TopicPartition, topic_id: str | None, since_ms: int
    ) -> Replayed:
        """The replays since ``since_ms``: a letter is replayed after it was written."""
        consumer.assign([tp])
        end = (await consumer.end_offsets([tp]))[tp]
        begin = await _offset(consumer, tp, since_ms, end)
        kept = self._replays.get(tp.partition)
        if kept is not None and (kept.topic_id != topic_id or _size(kept.done) > MOST_REMEMBERED):
            kept = None
        if kept is None:
            kept = self._replays[tp.partition] = _Replays(topic_id, begin, begin)
        for first, last in ((begin, kept.begin), (kept.end, end)):
            async for records in _read(consumer, tp, first, last):
                kept.done.observe(records)
        kept.begin, kept.end = min(begin, kept.begin), max(end, kept.end)
        return kept.done


def _size(done: Replayed) -> int:
    return len(done.identified) + len(done.untold)


def _from_ms(attempt: Attempt) -> int:
    """The time (epoch ms) at which the letter was written, or an earlier one."""
    return (attempt.first_failed_ms if attempt.died_ms is None else attempt.died_ms) - SKEW_MS


def _until_ms(attempt: Attempt) -> float:
    """The time (epoch ms) by which the letter was written."""
    return float("inf") if attempt.died_ms is None else attempt.died_ms + WRITTEN_WITHIN_MS


async def _letters(
    consumer: AIOKafkaConsumer, tp: TopicPartition, wanted: Mapping[int, Attempt], topic_id: str | None
) -> dict[int, tuple[LetterId, int]]:
    """The identity and the timestamp of each wanted letter of a partition that exists, by row."""
    consumer.assign([tp])
    end = (await consumer.end_offsets([tp]))[tp]
    found: dict[int, tuple[LetterId, int]] = {}
    rows: dict[Attempt, list[int]] = {}
    for row, attempt in wanted.items():
        rows.setdefault(attempt, []).append(row)
    left = sorted(rows, key=_from_ms)
    while left:
        # The letters that may be in one window of time, which is read once.
        until, window = _until_ms(left[0]), {left[0]}
        while len(window) < len(left) and _from_ms(left[len(window)]) <= until:
            until = max(until, _until_ms(left[len(window)]))
            window.add(left[len(window)])
        begin = await _offset(consumer, tp, _from_ms(left[0]), end)
        left = left[len(window) :]
        offsets = {b"%d" % attempt.origin.offset for attempt in window}
        async with aclosing(_read(consumer, tp, begin, min(end, begin + MOST_READ))) as batches:
            async for records in batches:
                for record in records:
                    if dict(record.headers).get("failsoft-origin-offset") not in offsets:
                        continue
                    parsed = attempts.parse(record.headers)
                    if isinstance(parsed, Attempt) and parsed in window:
                        window.remove(parsed)
                        letter = LetterId(topic_id, record.partition, record.offset)
                        found |= dict.fromkeys(rows[parsed], (letter, record.timestamp))
                if not window or records[-1].timestamp > until:
                    break
    return found


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    await consumer._client.set_topics([topic])
    return set(consumer._client.cluster.partitions_for_topic(topic) or ())


async def _offset(consumer: AIOKafkaConsumer, tp: TopicPartition, ms: int, end: int) -> int:
    """The first offset with a timestamp of at least ``ms`` (epoch milliseconds); ``end`` if there is none."""
    found = (await consumer.offsets_for_times({tp: max(0, ms)}))[tp]
    return end if found is None else min(found.offset, end)


async def _read(
    consumer: AIOKafkaConsumer, tp: TopicPartition, begin: int, end: int
) -> AsyncGenerator[list[Any], None]:
    """The committed records of [begin, end) of the assigned partition, without those that cannot be unpacked."""
    if begin >= end:
        return
    consumer.seek(tp, begin)
    while await consumer.position(tp) < end:
        try:
            fetched = await consumer.getmany(tp, timeout_ms=200, max_records=AT_ONCE)
        except Unreadable as error:
            log.warning("letters or replays cannot be read, and are not recognised", why=str(error))
            if error.next_offset is None:
                return
            consumer.seek(tp, error.next_offset)
            continue
        records = [record for record in fetched.get(tp, ()) if record.offset < end]
        if records:
            yield records
