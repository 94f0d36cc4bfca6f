"""Registers the schema of answers under ``<name>.scored-value``, and keeps its id in the topic of schemas."""

from __future__ import annotations

from dataclasses import dataclass

from failsoft.schemas import scored_schema
from failsoft.schemas.formats.registered import Registered, SchemaType
from failsoft.workers.kafka.clients import Clients
from failsoft.workers.kafka.topic_reader import NoSuchTopic
from failsoft.workers.schema_registry import answer_schema
from failsoft.workers.schema_registry.client import (
    COMMAND_DEADLINE,
    RegistryClient,
    RegistryRefusal,
    RegistryUnavailable,
    SchemaNotFound,
)
from failsoft.workers.settings import Settings


@dataclass(frozen=True, slots=True)
class AnswerSubject:
    """The subject of a pipeline's answers, before anything is changed.

    Attributes:
        name: the subject.
        kept: the id that the topic of schemas has; None if it has none.
        latest: the id of the subject's newest schema, if that is this version's; None: it is to be registered.
        silent: why the registry was not asked, although ``kept`` is not None; None if it answered.
    """

    name: str
    kept: int | None
    latest: int | None
    silent: str | None = None

    @property
    def id(self) -> int | None:
        """The id that answers will have; None if it is not known before the registration."""
        return self.kept if self.silent is not None else self.latest


async def look(pipeline: Settings) -> AnswerSubject:
    """Ask the topic of schemas and the registry; change nothing.

    A registry that does not answer matters only if no id is kept. Raises RegistryRefusal with the registry's words if
    it would refuse the schema, RegistryUnavailable, KafkaUnreachable, and Refused for ``[schema_registry]``.
    """
    subject = scored_schema.subject(pipeline.name)
    try:
        kept = await answer_schema.kept(pipeline)
    except NoSuchTopic:
        kept = None
    client = RegistryClient(pipeline.schema_registry, pipeline.folder, COMMAND_DEADLINE)
    try:
        try:
            newest = await client.latest(subject)
        except SchemaNotFound:
            newest = None
        if newest is not None and newest.type is SchemaType.AVRO and scored_schema.is_scored(newest.text):
            return AnswerSubject(subject, kept, int(newest.ref))
        problems = await client.incompatibilities(subject, SchemaType.AVRO, scored_schema.TEXT)
        if problems:
            lines = [f"{subject}: the registry refuses the schema of answers: {problem}" for problem in problems]
            raise RegistryRefusal("\n".join(lines))
        return AnswerSubject(subject, kept, None)
    except RegistryUnavailable as e:
        if kept is None:
            raise
        return AnswerSubject(subject, kept, None, str(e))
    finally:
        await client.close()


async def register(pipeline: Settings, found: AnswerSubject) -> int:
    """Register the schema where it is not, keep its id where the topic of schemas has another, and return it.

    The topic must exist. Raises RegistryRefusal, RegistryUnavailable and KafkaError.
    """
    id = found.id
    if id is None:
        client = RegistryClient(pipeline.schema_registry, pipeline.folder, COMMAND_DEADLINE)
        try:
            id = await client.register(found.name, SchemaType.AVRO, scored_schema.TEXT)
        finally:
            await client.close()
    if id != found.kept:
        record = Registered(id, SchemaType.AVRO, scored_schema.TEXT)
        producer = Clients(pipeline, "failsoft").schema_writer()
        await producer.start()
        try:
            await producer.send_and_wait(pipeline.names.schemas, record.to_bytes(), str(id).encode(), partition=0)
        finally:
            await producer.stop()
    return id
