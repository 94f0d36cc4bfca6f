"""Keeps a worker's memory of schemas and the topic ``<name>.schemas`` the same, so that workers start and run while the
registry is down.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
)
from mode import Service

from failsoft.schemas.backoff import doubled
from failsoft.schemas.formats.registered import Registered, SchemaRef, Unusable
from failsoft.workers.kafka.trouble_log import TroubleLog
from failsoft.workers.kafka.unreadable import Unreadable
from failsoft.workers.schema_registry.memory import SchemaMemory
from failsoft.workers.telemetry.logs import FewLines

log = structlog.get_logger("failsoft.schemas")

READ_WITHIN = 15.0
"""Seconds for which lanes wait for the topic. It has one record for each schema that was ever met, so it is short; the
longest part is a broker that restarts. Without it, ids that the registry knows are still answered."""

BACKOFF = (0.2, 5.0)
"""Seconds before a client that failed is made anew: first and longest wait."""

LAST_WRITES = 2.0
"""Seconds that a worker that ends has to write what it met last. What is not written is asked of the registry again."""

MOST_NAMED = 20
"""Schemas that a line of the log names."""

_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


class KeptSchemas(Service):  # type: ignore[misc]
    """Reads the topic of schemas before its start ends, follows it, and writes what the worker met.

    Args:
        topic: the topic of schemas; it has one partition.
        memory: what is known.
        make_reader: makes a consumer without a group.
        make_writer: makes a producer.
        read_within: seconds that the start may take.
    """

    def __init__(
        self,
        topic: str,
        memory: SchemaMemory,
        make_reader: Callable[[], AIOKafkaConsumer],
        make_writer: Callable[[], AIOKafkaProducer],
        read_within: float = READ_WITHIN,
    ) -> None:
        super().__init__()
        self._tp, self._memory = TopicPartition(topic, 0), memory
        self._make_reader, self._make_writer, self._read_within = make_reader, make_writer, read_within
        self._is_read = asyncio.Event()
        self._next = 0
        self._keys: dict[bytes | None, SchemaRef] = {}  # to know what a tombstone deletes
        self._writer: AIOKafkaProducer | None = None
        self._writing = asyncio.Lock()
        self._lines = FewLines(log)

    async def on_start(self) -> None:
        """Read the topic, for at most ``read_within`` seconds."""
        self.add_future(self._follow())
        self.add_future(self._write())
        try:
            await asyncio.wait_for(self._is_read.wait(), self._read_within)
        except TimeoutError:
            log.warning(
                "the topic of schemas is not read yet; until it is, each schema is asked of the registry",
                topic=self._tp.topic,
                after_s=self._read_within,
            )

    async def on_stop(self) -> None:
        """Write what was met last, if a broker answers soon."""
        try:
            async with asyncio.timeout(LAST_WRITES):
                await self._write_all()
        except (TimeoutError, KafkaError) as e:
            log.warning(
                "the worker ends, and schemas that it met are not kept; they are asked for again",
                topic=self._tp.topic,
                schemas=[*self._memory.unwritten][:MOST_NAMED],
                error=repr(e),
            )
        await self._close_writer()

    # --- read -----------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        trouble, failed = TroubleLog(), 0
        while not self.should_stop:
            consumer = self._make_reader()
            try:
                await consumer.start()
                if self._tp.topic not in await consumer.topics():
                    raise UnknownTopicOrPartitionError(self._tp.topic)
                consumer.assign([self._tp])
                end = (await consumer.end_offsets([self._tp]))[self._tp]
                # A topic that was made anew is read from its beginning.
                self._next = self._next if self._next <= end else 0
                consumer.seek(self._tp, self._next)
                while not self.should_stop:
                    if self._next >= end:
                        self._is_read.set()
                    await self._fetch(consumer)
                    trouble, failed = TroubleLog(), 0
            except KafkaError as e:
                trouble.note(f"the topic of schemas, {self._tp.topic}, cannot be read: {e!r}")
            finally:
                with suppress(KafkaError):
                    await consumer.stop()
            await self.sleep(doubled(*BACKOFF, failed))
            failed += 1

    async def _fetch(self, consumer: AIOKafkaConsumer) -> None:
        """Absorb what the topic has next; waits for it, at most a second."""
        try:
            records = (await consumer.getmany(self._tp, timeout_ms=1_000)).get(self._tp, [])
        except Unreadable as e:
            log.error("the topic of schemas has records that cannot be read; they are skipped", why=str(e))
            if e.next_offset is None:
                raise KafkaError(str(e)) from e
            consumer.seek(self._tp, e.next_offset)
            return
        for record in records:
            self._take(record)
        self._next = await consumer.position(self._tp)
        # The client asks for the metadata of a topic that is gone thousands of times a second: leave it.
        if not records and not consumer.partitions_for_topic(self._tp.topic):
            raise UnknownTopicOrPartitionError(self._tp.topic)

    def _take(self, record: Any) -> None:
        if record.value is None:
            ref = self._keys.pop(record.key, None)
            if ref is not None:
                self._memory.forget(ref)
            return
        try:
            found = Registered.parse(record.value)
        except Unusable as e:
            what = "a record of the topic of schemas is not used"
            self._lines.warning(what, time.monotonic(), offset=record.offset, why=str(e))
            return
        self._keys[record.key] = found.ref
        self._memory.absorb(found)

    # --- write ----------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        trouble, failed = TroubleLog(), 0
        while not self.should_stop:
            if await self.wait_for_stopped(self._memory.news.wait()):
                return
            try:
                await self._write_all()
                trouble, failed = TroubleLog(), 0
            except KafkaError as e:
                trouble.note(f"schemas cannot be written to {self._tp.topic}: {e!r}")
                await self._close_writer()
                await self.sleep(doubled(*BACKOFF, failed))
                failed += 1

    async def _write_all(self) -> None:
        """Write what the topic does not have. Raises KafkaError."""
        async with self._writing:
            await self._write_each()

    async def _write_each(self) -> None:
        for ref, registered in list(self._memory.unwritten.items()):
            if self._writer is None:
                writer = self._make_writer()
                self._writer = writer
                await writer.start()
            try:
                await self._writer.send_and_wait(self._tp.topic, registered.to_bytes(), str(ref).encode(), partition=0)
            except _TOO_LARGE as e:
                log.warning(
                    "a schema is too large to be kept; workers that start while the registry is down do not know it",
                    schema=ref,
                    topic=self._tp.topic,
                    why=str(e),
                )
            self._memory.written(ref)

    async def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(KafkaError, TimeoutError):
                await asyncio.wait_for(writer.stop(), LAST_WRITES)
