"""Finds the schemas of events that a command shows: in the pipeline's topic of schemas, else in the registry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress

from failsoft.schemas.event import Readers
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.formats.framing import named
from failsoft.schemas.formats.reader import SchemaReader, WantedFields
from failsoft.schemas.formats.registered import Registered, SchemaRef, Unusable
from failsoft.schemas.record import Record
from failsoft.schemas.unwrapping import schema_refs
from failsoft.workers.kafka import topic_reader
from failsoft.workers.schema_registry import schemas_topic
from failsoft.workers.schema_registry.client import (
    COMMAND_DEADLINE,
    RegistryClient,
    RegistryRefusal,
    RegistryUnavailable,
    SchemaNotFound,
)
from failsoft.workers.schema_registry.compiling import compile_reader
from failsoft.workers.schema_registry.protoc import ProtocFailed
from failsoft.workers.settings import Settings

MOST_SCHEMAS = 1_000
"""Schemas that one command looks up. An id that nobody registered costs its writer nothing."""


class EventReaders:
    """The readers of the schemas that records name, each looked up once. Keeps nothing when the command ends."""

    def __init__(self, pipeline: Settings, client: RegistryClient | None) -> None:
        self._pipeline = pipeline
        self._client = client
        self._kept: dict[SchemaRef, Registered] | None = None
        self._readers: dict[SchemaRef, SchemaReader | Failure] = {}
        self._down: Failure | None = None

    async def of(self, records: Sequence[Record]) -> Readers:
        """A reader of each schema that ``records`` name, or why there is none. A registry that is down is asked once.

        Raises KafkaError.
        """
        for ref in schema_refs(records, self._pipeline.envelope) - self._readers.keys():
            self._readers[ref] = await self._reader(ref)
        return self._readers

    async def _reader(self, ref: SchemaRef) -> SchemaReader | Failure:
        if len(self._readers) >= MOST_SCHEMAS:
            return Failure(Kind.DEPENDENCY, f"{named(ref)}: not looked up, after {MOST_SCHEMAS} other schemas")
        if self._kept is None:
            self._kept = await _kept(self._pipeline)
        found = self._kept.get(ref) or await self._asked(ref)
        if isinstance(found, Failure):
            return found
        envelope = self._pipeline.envelope
        try:
            return await compile_reader(
                found, WantedFields(envelope.id, envelope.time, envelope.features), envelope.format
            )
        except Unusable as e:
            return Failure(Kind.MALFORMED, f"{named(ref)}: {e}")
        except ProtocFailed as e:
            return Failure(Kind.DEPENDENCY, f"{named(ref)}: {e}")

    async def _asked(self, ref: SchemaRef) -> Registered | Failure:
        if self._client is None:
            return Failure(Kind.DEPENDENCY, f"{named(ref)}: not known, and [schema_registry] has no url")
        if self._down is not None:
            return self._down
        try:
            return await self._client.schema(ref)
        except (SchemaNotFound, Unusable) as e:
            return Failure(Kind.MALFORMED, str(e))
        except (RegistryUnavailable, RegistryRefusal) as e:
            self._down = Failure(Kind.DEPENDENCY, str(e))
            return self._down


@asynccontextmanager
async def event_readers(pipeline: Settings) -> AsyncIterator[EventReaders]:
    """The readers of a pipeline's events, for one command. Nothing is looked up before it is needed."""
    section = pipeline.schema_registry
    client = None if section.url is None else RegistryClient(section, pipeline.folder, COMMAND_DEADLINE)
    try:
        yield EventReaders(pipeline, client)
    finally:
        if client is not None:
            await client.close()


async def _kept(pipeline: Settings) -> dict[SchemaRef, Registered]:
    """The schemas in the pipeline's topic of schemas; none if it has no such topic."""
    found: dict[bytes | None, Registered] = {}
    if pipeline.schema_registry.url is None:
        return {}
    with suppress(topic_reader.NoSuchTopic):
        async with aclosing(schemas_topic.entries(pipeline)) as entries:
            async for key, registered in entries:
                if registered is None:
                    found.pop(key, None)
                else:
                    found.setdefault(key, registered)  # the first one stays, as workers have it
    return {each.ref: each for each in found.values()}
