"""Publishes the rows of a file as events, as fast as the broker acknowledges them or at a given rate."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from failsoft.workers.kafka import topic_reader
from failsoft.workers.kafka.produce_batches import Batch
from failsoft.workers.operations.event_files import BadRow, EventLine, Lines, Rows
from failsoft.workers.operations.rate import Schedule
from failsoft.workers.settings import Settings

BATCH_BYTES = 500_000
"""Bytes of a produce batch: half of a broker's default limit; larger batches are not faster."""

AT_ONCE = 2_000
"""Rows packed into batches at a time; the event loop sends between two such steps."""

IN_FLIGHT = 64
"""Maximum unacknowledged batches: at most 32 MB."""

LAST_ACKS = 10.0
"""Seconds that an interrupted command waits for acknowledgements of sent batches."""

READ_BYTES = 1 << 18
"""Bytes read at a time."""


@dataclass(slots=True)
class Sent:
    """The progress of a publish.

    Attributes:
        partitions: partitions of the topic.
        started: monotonic time of the start (s).
        published: events acknowledged by every in-sync replica.
        seconds: total duration (s), set at the end.
    """

    partitions: int
    started: float
    published: int = 0
    seconds: float = 0.0


async def blocks(fd: int) -> AsyncIterator[bytes]:
    """Blocks of bytes from a file, pipe or terminal, as soon as they arrive. A pipe does not block the event loop."""
    regular = stat.S_ISREG(os.fstat(fd).st_mode)
    loop = asyncio.get_running_loop()
    while True:
        if not regular:
            readable: asyncio.Future[None] = loop.create_future()
            loop.add_reader(fd, _once, readable)
            try:
                await readable
            finally:
                loop.remove_reader(fd)
        block = os.read(fd, READ_BYTES)
        if not block:
            return
        yield block


def _once(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


class Publisher:
    """Sends rows to one topic with one idempotent producer.

    on_progress: called with the number of acknowledged events after each batch.
    """

    def __init__(self, producer: AIOKafkaProducer, topic: str, sent: Sent, on_progress: Callable[[int], None]) -> None:
        self._producer = producer
        self._topic = topic
        self._sent = sent
        self._on_progress = on_progress
        self._waiting: set[asyncio.Future[object]] = set()
        self._failed: BaseException | None = None
        self._turn = itertools.cycle(range(sent.partitions))

        # Cached because keys repeat, and the hash is slow pure Python.
        @functools.lru_cache(maxsize=100_000)
        def partition(key: bytes) -> int:
            return int((murmur2(key) & 0x7FFFFFFF) % sent.partitions)

        self._partition = partition

    async def send(self, rows: Sequence[EventLine]) -> None:
        """Sends ``rows``. A row with a key goes to the partition that Kafka's default partitioner gives it.

        Raises KafkaError if an earlier batch failed.
        """
        now_ms = int(time.time() * 1000)
        anywhere = next(self._turn)  # rows without a key stay together, as with Kafka's own producer
        groups: dict[int, list[EventLine]] = {}
        for row in rows:
            groups.setdefault(anywhere if row[0] is None else self._partition(row[0]), []).append(row)
        for partition, group in groups.items():
            for batch in self._batches(group, now_ms):
                while len(self._waiting) >= IN_FLIGHT:
                    await asyncio.wait(self._waiting, return_when=asyncio.FIRST_COMPLETED)
                self._check()
                count = batch.record_count()
                future = await self._producer.send_batch(batch, self._topic, partition=partition)
                self._waiting.add(future)
                future.add_done_callback(functools.partial(self._acknowledged, count))

    async def flush(self) -> None:
        """Waits until all batches are acknowledged. Raises KafkaError if one failed."""
        while self._waiting:
            await asyncio.wait(self._waiting)
        self._check()

    def _batches(self, rows: Sequence[EventLine], now_ms: int) -> list[Batch]:
        batch = self._producer.create_batch()
        batches = [batch]
        for key, value in rows:
            if batch.append(timestamp=now_ms, key=key, value=value) is None:  # full: the row is not in it
                batch = self._producer.create_batch()
                batches.append(batch)
                batch.append(timestamp=now_ms, key=key, value=value)  # an empty batch takes a row of any size
        for each in batches:
            each.close()
        return batches

    def _acknowledged(self, count: int, future: asyncio.Future[object]) -> None:
        self._waiting.discard(future)
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._sent.published += count
            self._on_progress(self._sent.published)
        else:
            self._failed = self._failed or error

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed


async def publish(
    pipeline: Settings,
    topic: str,
    source: AsyncIterator[list[EventLine]],
    rate: float | None,
    limit: int | None,
    on_progress: Callable[[int], None],
    began: Callable[[Sent], None],
) -> Sent:
    """Publishes the rows from ``source`` and waits for all acknowledgements.

    rate: events a second; None is as fast as possible.
    limit: maximum events to publish.
    began: called once with the live ``Sent`` counter, so that a caller has it after an interruption or an error.
    Raises NoSuchTopic, KafkaUnreachable or KafkaError.
    """
    count = await topic_reader.partitions(pipeline, topic)
    producer = AIOKafkaProducer(
        **pipeline.connection(),
        client_id="failsoft-publish",
        acks="all",
        enable_idempotence=True,
        max_batch_size=BATCH_BYTES,
        max_request_size=16 * 1_048_576,  # high, so that the topic's own limit decides
    )
    await producer.start()
    sent = Sent(count, time.monotonic())
    began(sent)
    publisher = Publisher(producer, topic, sent, on_progress)
    try:
        try:
            await _all(publisher, source, Schedule(rate, sent.started), limit)
            await publisher.flush()
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(publisher.flush(), LAST_ACKS)
            raise
    finally:
        sent.seconds = time.monotonic() - sent.started
        await producer.stop()
    return sent


async def _all(
    publisher: Publisher, source: AsyncIterator[list[EventLine]], schedule: Schedule, limit: int | None
) -> None:
    done = 0
    async for rows in source:
        if limit is not None:
            rows = rows[: limit - done]
        at = 0
        while at < len(rows):
            await asyncio.sleep(schedule.wait(done, time.monotonic()))
            n = int(min(AT_ONCE, len(rows) - at, schedule.allowed(done, time.monotonic())))
            await publisher.send(rows[at : at + n])
            at += n
            done += n
        if limit is not None and done >= limit:
            return


async def read_rows(source: AsyncIterator[bytes], lines: Lines, parse: Rows) -> AsyncIterator[list[EventLine]]:
    """Parses blocks of bytes into lists of rows. Raises BadRow, after it has yielded the rows before the bad one."""
    async for block in source:
        for rows in _until_bad(parse, lines.feed(block)):
            yield rows
    for rows in _until_bad(parse, lines.end()):
        yield rows


def _until_bad(parse: Rows, lines: list[bytes]) -> Iterator[list[EventLine]]:
    rows: list[EventLine] = []
    try:
        rows.extend(parse.rows(lines))  # ``rows`` keeps the items from before an error
    except BadRow:
        yield rows
        raise
    yield rows
