"""Replays dead letters: each goes to the replay topic once, whoever interrupts, repeats or races it.

The order is the proof. The producer is started first: that fences another replayer and ends its open transaction. Only
then is the replay topic read: what it holds now is all that was ever replayed, and nobody else can add to it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaTimeoutError
from aiokafka.producer.message_accumulator import BatchBuilder

from failsoft.workers.kafka import topic_reader
from failsoft.workers.kafka.produce_batches import pack, squeezed
from failsoft.workers.operations.dead_letters import (
    DeadLetterFilter,
    DeadLetterGroup,
    Letter,
    Replayed,
    again,
    bounded,
    letter,
    tally,
)
from failsoft.workers.operations.rate import Schedule
from failsoft.workers.settings import Settings

AT_ONCE = 500
"""Dead letters a transaction: a second's worth at most for the workers, and little to do again after an abort."""

BYTES_AT_ONCE = 8_000_000
"""Of a transaction's values: 500 of the largest records would not fit in memory so gladly."""

BATCH_BYTES = 1_000_000
"""A produce batch's limit, under the broker's default of 1,048,588: `send_batch` does not check it."""

COMMIT_TIMEOUT = 60.0
"""Seconds for one transaction, which is also the broker's limit for it; a commit can hang for ever when a coordinator
leaves (aiokafka #1145), and an error that is told is repeated safely."""


@dataclass(slots=True)
class KindProgress:
    """``matched`` = ``already`` + ``replayed`` + the unreadable + what a limit left."""

    matched: int = 0
    already: int = 0
    replayed: int = 0


@dataclass(slots=True)
class ReplayProgress:
    """How far it has come: ``seen`` of ``total`` offsets read, and what became of the dead letters, by kind."""

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
    """``rate`` is in dead letters a second; a dry run changes nothing and fences nobody."""

    replay_id: str
    limit: int | None = None
    rate: float | None = None
    dry_run: bool = False

    @property
    def batch(self) -> int:
        """How many a transaction: with a rate a tenth of a second's worth, for a transaction is what readers see at
        once.
        """
        return AT_ONCE if self.rate is None else max(1, min(AT_ONCE, int(self.rate / 10)))


def new_id() -> str:
    """A replay's id that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


async def replay(
    pipeline: Settings,
    chosen: DeadLetterFilter = EVERYTHING,
    how: ReplayOptions | None = None,
    counts: ReplayProgress | None = None,
    on_progress: OnReplayProgress = lambda counts: None,
) -> ReplayProgress:
    """Replay what is ``chosen`` of the dead letters that are there now, oldest first within each partition.

    ``counts``, given and returned, is true also for whoever interrupts this: what is in ``replayed`` is committed (or,
    in a dry run, would be). Raises NoSuchTopic, KafkaUnreachable or KafkaError (ProducerFenced when another replay took
    over).
    """
    how, counts = how or ReplayOptions(new_id()), counts or ReplayProgress()
    async with _sender(pipeline, how) as send:
        done = await _replayed(pipeline)
        schedule = Schedule(None if how.dry_run else how.rate, time.monotonic())
        async with topic_reader.reader(pipeline, pipeline.names.dead) as reader:
            bounds = await reader.bounds()
            counts.total = _size(bounds)
            async with aclosing(reader.until(bounds)) as batches:
                async for records in batches:
                    letters = _choose(map(letter, records), chosen, pipeline, done, counts)
                    left = None if how.limit is None else how.limit - counts.replayed
                    for batch in bounded(letters[:left], how.batch, BYTES_AT_ONCE):
                        await asyncio.sleep(schedule.wait(counts.replayed + len(batch) - 1, time.monotonic()))
                        await send(batch, counts)
                        on_progress(counts)
                    counts.seen += len(records)
                    on_progress(counts)
                    if how.limit is not None and counts.replayed >= how.limit:
                        return counts
    return counts


async def groups(
    pipeline: Settings, on_progress: OnReplayProgress
) -> dict[tuple[str, str | None, int | None], DeadLetterGroup]:
    """All dead letters that are there now, counted by kind, model and version."""
    done = await _replayed(pipeline)
    found: dict[tuple[str, str | None, int | None], DeadLetterGroup] = {}
    counts = ReplayProgress()
    async with topic_reader.reader(pipeline, pipeline.names.dead) as reader:
        bounds = await reader.bounds()
        counts.total = _size(bounds)
        async with aclosing(reader.until(bounds)) as batches:
            async for records in batches:
                tally(found, map(letter, records), done)
                counts.seen += len(records)
                on_progress(counts)
    return found


async def find(pipeline: Settings, wanted: DeadLetterFilter | tuple[int, int]) -> list[tuple[Letter, bool]]:
    """The dead letters of an event, or the one at (partition, offset) of the dead topic; was each replayed?"""
    found: list[Letter] = []
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
                letters = map(letter, records)
                found += [
                    each
                    for each in letters
                    if not isinstance(wanted, DeadLetterFilter) or wanted.passes(each, pipeline.envelope)
                ]
    done = await _replayed(pipeline) if found else Replayed()
    return [(each, done.has(each)) for each in found]


async def _replayed(pipeline: Settings) -> Replayed:
    done = Replayed()
    async with topic_reader.reader(pipeline, pipeline.names.replay) as reader:
        bounds = await reader.bounds()
        async with aclosing(reader.until(bounds)) as batches:
            async for records in batches:
                done.observe(records)
    return done


def _choose(
    letters: Iterable[Letter], chosen: DeadLetterFilter, pipeline: Settings, done: Replayed, counts: ReplayProgress
) -> list[Letter]:
    found = []
    for each in letters:
        if not chosen.passes(each, pipeline.envelope):
            continue
        count = counts.kinds[each.group[0]]
        count.matched += 1
        if each.life is None:
            counts.unreadable += 1
        elif done.has(each):
            count.already += 1
        else:
            done.add(each)
            found.append(each)
    return found


def _size(bounds: Mapping[TopicPartition, tuple[int, int]]) -> int:
    return sum(end - begin for begin, end in bounds.values())


Send = Callable[[Sequence[Letter], ReplayProgress], Awaitable[None]]


@asynccontextmanager
async def _sender(pipeline: Settings, how: ReplayOptions) -> AsyncIterator[Send]:
    """What sends a batch in one transaction, and counts it when it is committed."""
    if how.dry_run:
        yield _only_count
        return
    topic = pipeline.names.replay
    await topic_reader.partitions(pipeline, topic)  # says that Kafka or the topic is not there
    producer = AIOKafkaProducer(
        **pipeline.connection(),
        client_id="failsoft-replay",
        transactional_id=pipeline.names.replayer_id,
        transaction_timeout_ms=round(1000 * COMMIT_TIMEOUT),
        max_batch_size=BATCH_BYTES,
        max_request_size=32 * 1_048_576,
    )
    await producer.start()  # fences another replayer and ends its transaction
    try:

        async def whole(letters: Sequence[Letter], counts: ReplayProgress) -> None:
            await _transaction(producer, topic, letters, how.replay_id)
            await _only_count(letters, counts)

        async def send(letters: Sequence[Letter], counts: ReplayProgress) -> None:
            task = asyncio.ensure_future(whole(letters, counts))
            try:
                await asyncio.wait_for(asyncio.shield(task), COMMIT_TIMEOUT)
            except TimeoutError:
                raise KafkaTimeoutError(
                    f"a transaction did not end in {COMMIT_TIMEOUT:.0f} s; the same command goes on from here"
                ) from None
            except asyncio.CancelledError:
                await asyncio.wait({task}, timeout=COMMIT_TIMEOUT)  # so that what is counted is what was committed
                raise

        yield send
    finally:
        await producer.stop()


async def _only_count(letters: Sequence[Letter], counts: ReplayProgress) -> None:
    for each in letters:
        counts.kinds[each.group[0]].replayed += 1


async def _transaction(producer: AIOKafkaProducer, topic: str, letters: Sequence[Letter], replay_id: str) -> None:
    """All of ``letters`` or none. The partition is the dead letter's, which is the event's lane."""
    by_partition: dict[int, list[Letter]] = {}
    for each in letters:
        by_partition.setdefault(each.record.partition, []).append(each)
    await producer.begin_transaction()
    futures = []
    for partition, group in by_partition.items():
        for batch in _batches(producer, group, replay_id):
            futures.append(await producer.send_batch(batch, topic, partition=partition))
    # Every future, before the commit: aiokafka commits a transaction although a batch in it failed.
    await asyncio.gather(*futures)
    await producer.commit_transaction()


def _batches(producer: AIOKafkaProducer, letters: Sequence[Letter], replay_id: str) -> list[BatchBuilder]:
    rows = [(each.record.key, each.record.value, again(each, replay_id)) for each in letters]
    return pack(producer.create_batch, rows, int(time.time() * 1000), lambda: squeezed(BATCH_BYTES, True))
