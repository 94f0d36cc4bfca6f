"""Reads the topic of schemas once, from its beginning to its end. A worker follows it instead (``kept_schemas``)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from failsoft.schemas.formats.registered import Registered, Unusable
from failsoft.workers.kafka import topic_reader
from failsoft.workers.settings import Settings


async def entries(pipeline: Settings) -> AsyncGenerator[tuple[bytes | None, Registered | None], None]:
    """The key and the schema of each record, in order; None for a tombstone. What is no schema is left out: workers log
    it.

    Raises NoSuchTopic or KafkaUnreachable.
    """
    async with (
        topic_reader.reader(pipeline, pipeline.names.schemas) as reader,
        aclosing(reader.until(await reader.bounds())) as batches,
    ):
        async for records in batches:
            for record in records:
                try:
                    found = None if record.value is None else Registered.parse(record.value)
                except Unusable:
                    continue
                yield record.key, found
