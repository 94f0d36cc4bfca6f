"""The registry's id of the schema of answers: ``failsoft topics apply`` keeps it in ``<name>.schemas``, and a worker
writes its answers by it, also while the registry is down.
"""

from __future__ import annotations

import asyncio

from failsoft.schemas import scored_schema
from failsoft.schemas.formats.registered import Registered, SchemaType, Unusable
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.topics.admin import KafkaUnreachable, TopologyRefused
from failsoft.workers.kafka import topic_reader
from failsoft.workers.schema_registry.packages import check_packages
from failsoft.workers.settings import Settings

READ_WITHIN = 15.0
"""Seconds for the topic of schemas: as long as a starting worker waits for a broker that restarts."""


def is_avro(pipeline: Settings) -> bool:
    """Whether the pipeline writes its answers as Avro. Raises Refused if it does, and the extra is not installed."""
    if pipeline.output.format != "avro":
        return False
    check_packages("output.format", WireFormat.AVRO)
    return True


async def kept(pipeline: Settings) -> int | None:
    """The id that is kept for this version's schema of answers; None if there is none. Of several, it is the newest.

    Raises NoSuchTopic or KafkaUnreachable.
    """
    topic = pipeline.names.schemas
    newest: dict[bytes | None, int | None] = {}
    try:
        async with asyncio.timeout(READ_WITHIN), topic_reader.reader(pipeline, topic) as reader:
            async for records in reader.until(await reader.bounds()):
                for record in records:
                    newest.pop(record.key, None)
                    newest[record.key] = _id(record.value)
    except TimeoutError:
        raise KafkaUnreachable(f"{topic} could not be read within {READ_WITHIN:g} s") from None
    return next((id for id in reversed(newest.values()) if id is not None), None)


def _id(value: bytes | None) -> int | None:
    """The id in a record of the topic, if it is of the schema of answers."""
    try:
        found = None if value is None else Registered.parse(value)
    except Unusable:
        return None  # the worker's own reader of this topic logs it
    if found is None or found.type is not SchemaType.AVRO or not scored_schema.is_scored(found.text):
        return None
    return found.ref if isinstance(found.ref, int) else None


async def required(pipeline: Settings) -> int | None:
    """The id that a worker writes its answers by; None where they are JSON.

    Raises TopologyRefused if no id is kept; Refused, NoSuchTopic and KafkaUnreachable.
    """
    if not is_avro(pipeline):
        return None
    found = await kept(pipeline)
    if found is None:
        subject = scored_schema.subject(pipeline.name)
        raise TopologyRefused(
            [
                f"{pipeline.names.schemas}: the schema of answers, {subject}, is not in it; register it with: "
                "failsoft topics apply"
            ]
        )
    return found
