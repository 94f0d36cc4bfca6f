"""The registry's id of the schema of answers: ``failsoft topics apply`` keeps it in ``<name>.schemas``, and a worker
writes its answers by it, also while the registry is down.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from failsoft.schemas import scored_schema
from failsoft.schemas.formats.registered import Registered, SchemaType
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.topics.admin import KafkaUnreachable, TopologyRefused
from failsoft.workers.schema_registry import schemas_topic
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
    newest: dict[bytes | None, int | None] = {}
    try:
        async with asyncio.timeout(READ_WITHIN), aclosing(schemas_topic.entries(pipeline)) as entries:
            async for key, registered in entries:
                newest.pop(key, None)
                newest[key] = _id(registered)
    except TimeoutError:
        raise KafkaUnreachable(f"{pipeline.names.schemas} could not be read within {READ_WITHIN:g} s") from None
    return next((id for id in reversed(newest.values()) if id is not None), None)


def _id(found: Registered | None) -> int | None:
    """The id of a schema, if it is that of answers."""
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
