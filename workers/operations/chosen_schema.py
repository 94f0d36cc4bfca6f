"""Chooses the schema of events to publish: from a file, which is registered, or the newest in the registry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from failsoft.schemas.formats.registered import Registered, SchemaType, Unusable
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.workers.operations import avro_tree, protobuf_tree, schema_file
from failsoft.workers.operations.avro_writer import AvroWriter
from failsoft.workers.operations.protobuf_writer import ProtobufWriter
from failsoft.workers.operations.schema_file import UnusableFile
from failsoft.workers.operations.schema_rows import EventWriter
from failsoft.workers.operations.schema_tree import Node
from failsoft.workers.schema_registry import protoc
from failsoft.workers.schema_registry.client import COMMAND_DEADLINE, RegistryClient, SchemaNotFound
from failsoft.workers.settings import Settings

LATEST = "latest"
"""The word for the newest schema in the registry."""


@dataclass(frozen=True, slots=True)
class ChosenSchema:
    """What events are written by.

    Attributes:
        id: the schema's id in the registry.
        writer: writes events.
        root: the tree of an event's values.
        said: what was chosen, in words.
    """

    id: int
    writer: EventWriter
    root: Node
    said: str


async def choose(pipeline: Settings, topic: str, wanted: str, message: str | None) -> ChosenSchema:
    """The schema to publish to ``topic`` by, under the subject ``<topic>-value``.

    Args:
        pipeline: whose registry is asked; it must have one.
        topic: the topic.
        wanted: a file, or LATEST.
        message: of a Protobuf schema, the message's name; None: the first that no other one holds.

    Raises UnusableFile for a schema that events of this pipeline cannot have, OSError for a file that cannot be read,
    SchemaNotFound, RegistryUnavailable or RegistryRefusal.
    """
    subject = f"{topic}-value"
    client = RegistryClient(pipeline.schema_registry, pipeline.folder, COMMAND_DEADLINE)
    try:
        if wanted == LATEST:
            schema, where = await _latest(client, subject), f"the schema of {subject}"
        else:
            schema, where = schema_file.read(Path(wanted)), wanted
        writer, root = await _writer(schema, where, message, WireFormat(pipeline.input.format))
        if wanted == LATEST:
            return ChosenSchema(int(schema.ref), writer, root, f"schema id {schema.ref}, the latest of {subject}")
        number = await client.register(subject, schema.type, schema.text)
        return ChosenSchema(number, writer, root, f"schema id {number}: {wanted}, registered as {subject}")
    finally:
        await client.close()


async def _latest(client: RegistryClient, subject: str) -> Registered:
    try:
        return await client.latest(subject)
    except SchemaNotFound as e:
        raise SchemaNotFound(f"{e}; give --schema a file, which is registered") from None


async def _writer(schema: Registered, where: str, message: str | None, wanted: WireFormat) -> tuple[EventWriter, Node]:
    """What writes events of a schema, and the tree of their values. Raises UnusableFile."""
    if schema.type.wire_format is not wanted:
        raise UnusableFile(f'{where}: a schema of type {schema.type}, but [input] format is "{wanted}"')
    try:
        if schema.type is SchemaType.AVRO:
            if message is not None:
                raise UnusableFile(f"{where}: only a Protobuf schema has messages: leave out --message")
            references = [json.loads(each.text) for each in schema.references]
            return AvroWriter(schema), avro_tree.read(json.loads(schema.text), references)
        if schema.ref == 0 and schema.references:
            raise UnusableFile(
                f"{where}: it imports {schema.references[0].name}, and failsoft registers single files only: register "
                f"both as your producers do, and give --schema {LATEST}"
            )
        found = protobuf_tree.messages(await protoc.descriptors(schema))
        one = protobuf_tree.chosen(found, message)
        return ProtobufWriter(one), protobuf_tree.read(one)
    except (Unusable, ValueError, RecursionError) as e:
        raise UnusableFile(f"{where}: {e}") from None
