"""Replays dead letters: each goes to the replay topic once, even if replays are interrupted, repeated or concurrent.

The order of the steps guarantees it. The producer starts first, which fences any other replay and ends its open
transaction. Then the replay topic is read: it holds every earlier replay, and no other replay can add to it any more.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from failsoft.schemas.attempt import Attempt
from failsoft.schemas.event import NO_READERS, Envelope, Readers
from failsoft.schemas.record import Record
from failsoft.topics.replayed import Replayed
from failsoft.workers.kafka import topic_reader
from failsoft.workers.kafka.produce_batches import BATCH_BYTES, Batch, compressed_batch, pack
from failsoft.workers.operations.dead_letters import (
    DeadLetterFilter,
    DeadLetterGroup,
    Letter,
    again,
    bounded,
    described,
    letter,
    tally,
)
from failsoft.workers.operations.event_readers import EventReaders, event_readers
from failsoft.workers.operations.rate import Schedule
from failsoft.workers.settings import Settings

AT_ONCE = 500
"""Maximum dead letters a transaction: workers need at most a second for them, and an abort repeats little work."""

BYTES_AT_ONCE = 8_000_000
"""Maximum bytes of keys and values a transaction: 500 records of the largest size would need too much memory."""

COMMIT_TIMEOUT = 60.0
"""Seconds for one transaction, also passed to the broker as its limit. A commit can hang forever when a coordinator
leaves (aiokafka #1145). After the timeout's error the command can be repeated safely."""


@dataclass(slots=True)
class KindProgress:
    """Counts of one failure kind.

    Attributes:
        matched: dead letters that the filter matched; includes unreadable ones and those beyond a limit.
        already: replayed before this command.
        replayed: replayed by this command.
    """

    matched: int = 0
    already: int = 0
    replayed: int = 0


@dataclass(slots=True)
class ReplayProgress:
    """The progress of a replay.

    Attributes:
        total: offsets of the dead topic to read.
        seen: records read so far.
        unreadable: matched dead letters whose headers cannot be parsed.
        kinds: the counts by failure kind.
    """

    total: int = 0
    seen: int = 0
    unreadable: int = 0
    kinds: dict[str, KindProgress] = field(default_factory=lambda: defaultdict(KindProgress))

    @property
    def matched(self) -> int:
        return sum(c.matched for c in self.kinds.values())

    @property
    def already(self) -> int:
        return sum(c.already for c in self.kinds.values())

    @property
    def replayed(self) -> int:
        return sum(c.replayed for c in self.kinds.values())


EVERYTHING = DeadLetterFilter()
OnReplayProgress = Callable[[ReplayProgress], None]


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How to replay.

    Attributes:
        replay_id: written to the header ``failsoft-replay-id`` of each replay.
        limit: maximum dead letters to replay.
        rate: dead letters a second; None is as fast as possible.
        dry_run: count only; changes nothing and fences no other replay.
    """

    replay_id: str
    limit: int | None = None
    rate: float | None = None
    dry_run: bool = False

    @property
    def batch(self) -> int:
        """Dead letters a transaction. With a rate it is a tenth of a second's worth, because readers see a whole
        transaction at once.
        """
        return AT_ONCE if self.rate is None else max(1, min(AT_ONCE, int(self.rate / 10)))


def new_id() -> str:
    """A new replay id; ids sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


async def replay(
    pipeline: Settings,
    chosen: DeadLetterFilter = EVERYTHING,
    options: ReplayOptions | None = None,
    counts: ReplayProgress | None = None,
    on_progress: OnReplayProgress = lambda counts: None,
) -> ReplayProgress:
    """Replays the ``chosen`` of the dead letters that exist at the start, oldest first within each partition.

    ``counts`` is updated in place and returned. It is correct after an interruption too: ``replayed`` counts committed
    replays (in a dry run, the replays that would be made). Raises NoSuchTopic, KafkaUnreachable or KafkaError
    (ProducerFenced when another replay took over).
    """
    options, counts = options or ReplayOptions(new_id()), counts or ReplayProgress()
    async with event_readers(pipeline) as schemas, _sender(pipeline, options) as send:
        done = await _replayed(pipeline)
        schedule = Schedule(None if options.dry_run else options.rate, time.monotonic())
        async with topic_reader.reader(pipeline, pipeline.names.dead) as reader:
            bounds = await reader.bounds()
            counts.total = _size(bounds)
            async with aclosing(reader.until(bounds)) as batches:
                async for records in batches:
                    readers = await _readers(records, chosen, schemas)
                    letters = _choose(_letters(records, reader), chosen, pipeline.envelope, readers, done, counts)
                    left = None if options.limit is None else options.limit - counts.replayed
                    for batch in bounded(letters[:left], options.batch, BYTES_AT_ONCE):
                        await asyncio.sleep(schedule.wait(counts.replayed + len(batch) - 1, time.monotonic()))
                        await send(batch, counts)
                        on_progress(counts)
                    counts.seen += len(records)
                    on_progress(counts)
                    if options.limit is not None and counts.replayed >= options.limit:
                        return counts
    return counts


async def groups(
    pipeline: Settings, on_progress: OnReplayProgress
) -> dict[tuple[str, str | None, int | None], DeadLetterGroup]:
    """Counts the dead letters that exist now, by kind, model and version."""
    done = await _replayed(pipeline)
    by_group: dict[tuple[str, str | None, int | None], DeadLetterGroup] = {}
    counts = ReplayProgress()
    async with topic_reader.reader(pipeline, pipeline.names.dead) as reader:
        bounds = await reader.bounds()
        counts.total = _size(bounds)
        async with aclosing(reader.until(bounds)) as batches:
            async for records in batches:
                tally(by_group, _letters(records, reader), done)
                counts.seen += len(records)
                on_progress(counts)
    return by_group


async def shown(pipeline: Settings, wanted: DeadLetterFilter | tuple[int, int]) -> list[dict[str, Any]]:
    """The dead letters that a filter matches, or the one at (partition, offset) of the dead topic, each in full."""
    async with event_readers(pipeline) as schemas:
        selected = await _find(pipeline, wanted, schemas)
        done = await _replayed(pipeline) if selected else Replayed()
        readers = await schemas.of([each.record for each in selected])
        return [described(each, pipeline.envelope, each.was_replayed(done), readers) for each in selected]


async def _find(pipeline: Settings, wanted: DeadLetterFilter | tuple[int, int], schemas: EventReaders) -> list[Letter]:
    selected: list[Letter] = []
    async with topic_reader.reader(pipeline, pipeline.names.dead) as reader:
        bounds = dict(await reader.bounds())
        if not isinstance(wanted, DeadLetterFilter):
            partition, offset = wanted
            bounds = {
                tp: (max(begin, offset), min(end, offset + 1))
                for tp, (begin, end) in bounds.items()
                if tp.partition == partition
            }
        async with aclosing(reader.until(bounds)) as batches:
            async for records in batches:
                letters = _letters(records, reader)
                if isinstance(wanted, DeadLetterFilter):
                    readers = await _readers(records, wanted, schemas)
                    selected += [each for each in letters if wanted.passes(each, pipeline.envelope, readers)]
                else:
                    selected += letters
    return selected


async def _readers(records: Sequence[Record], chosen: DeadLetterFilter, schemas: EventReaders) -> Readers:
    """What ``chosen`` needs to read the events of ``records``: only to know an event by its id."""
    return NO_READERS if chosen.event is None else await schemas.of(records)


def _letters(records: Iterable[Record], reader: topic_reader.Reader) -> Iterator[Letter]:
    return (letter(record, reader.topic_id) for record in records)


async def _replayed(pipeline: Settings) -> Replayed:
    done = Replayed()
    async with topic_reader.reader(pipeline, pipeline.names.replay) as reader:
        bounds = await reader.bounds()
        async with aclosing(reader.until(bounds)) as batches:
            async for records in batches:
                done.observe(records)
    return done


def _choose(
    letters: Iterable[Letter],
    chosen: DeadLetterFilter,
    envelope: Envelope,
    readers: Readers,
    done: Replayed,
    counts: ReplayProgress,
) -> list[Letter]:
    selected = []
    for each in letters:
        if not chosen.passes(each, envelope, readers):
            continue
        count = counts.kinds[each.group[0]]
        count.matched += 1
        if not isinstance(each.attempt, Attempt):
            counts.unreadable += 1
        elif each.was_replayed(done):
            count.already += 1
        else:
            selected.append(each)
    return selected


def _size(bounds: Mapping[TopicPartition, tuple[int, int]]) -> int:
    return sum(end - begin for begin, end in bounds.values())


Send = Callable[[Sequence[Letter], ReplayProgress], Awaitable[None]]


@asynccontextmanager
async def _sender(pipeline: Settings, options: ReplayOptions) -> AsyncIterator[Send]:
    """A function that sends a batch in one transaction and counts it after the commit; a dry run only counts."""
    if options.dry_run:
        yield _only_count
        return
    topic = pipeline.names.replay
    await topic_reader.partitions(pipeline, topic)  # raises if Kafka cannot be reached or the topic is missing
    producer = AIOKafkaProducer(
        **pipeline.connection(),
        client_id="failsoft-replay",
        transactional_id=pipeline.names.replayer_id,
        transaction_timeout_ms=round(1000 * COMMIT_TIMEOUT),
        max_batch_size=BATCH_BYTES,
        compression_type=None if pipeline.kafka.compression == "none" else pipeline.kafka.compression,
        max_request_size=32 * 1_048_576,
    )
    await producer.start()  # fences any other replay and ends its transaction
    try:

        async def whole(letters: Sequence[Letter], counts: ReplayProgress) -> None:
            await _transaction(producer, topic, letters, options.replay_id)
            await _only_count(letters, counts)

        async def send(letters: Sequence[Letter], counts: ReplayProgress) -> None:
            task = asyncio.ensure_future(whole(letters, counts))
            try:
                await asyncio.wait_for(asyncio.shield(task), COMMIT_TIMEOUT)
            except TimeoutError:
                raise KafkaTimeoutError(
                    f"a transaction did not end within {COMMIT_TIMEOUT:.0f} s; run the same command again to continue"
                ) from None
            except asyncio.CancelledError:
                await asyncio.wait({task}, timeout=COMMIT_TIMEOUT)  # so that the counts match what was committed
                raise

        yield send
    finally:
        await producer.stop()


async def _only_count(letters: Sequence[Letter], counts: ReplayProgress) -> None:
    for each in letters:
        counts.kinds[each.group[0]].replayed += 1


async def _transaction(producer: AIOKafkaProducer, topic: str, letters: Sequence[Letter], replay_id: str) -> None:
    """Sends all of ``letters`` or none. Each keeps the dead letter's partition, which is the event's lane."""
    by_partition: dict[int, list[Letter]] = {}
    for each in letters:
        by_partition.setdefault(each.record.partition, []).append(each)
    await producer.begin_transaction()
    futures = []
    for partition, group in by_partition.items():
        for batch in _batches(producer, group, replay_id):
            futures.append(await producer.send_batch(batch, topic, partition=partition))
    # Await every future before the commit: aiokafka commits a transaction even if a batch in it failed.
    await asyncio.gather(*futures)
    await producer.commit_transaction()


def _batches(producer: AIOKafkaProducer, letters: Sequence[Letter], replay_id: str) -> list[Batch]:
    rows = [(each.record.key, each.record.value, again(each, replay_id)) for each in letters]
    return pack(producer.create_batch, rows, int(time.time() * 1000), lambda: compressed_batch(BATCH_BYTES, True))
