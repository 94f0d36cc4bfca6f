"""Puts together what a worker needs for events with schemas."""

from __future__ import annotations

from failsoft.workers.kafka.clients import Clients
from failsoft.workers.schema_registry.kept_schemas import KeptSchemas
from failsoft.workers.schema_registry.memory import SchemaMemory
from failsoft.workers.settings import Settings


def kept_schemas(pipeline: Settings, clients: Clients, memory: SchemaMemory) -> KeptSchemas | None:
    """What keeps ``memory`` in the topic of schemas; None for a pipeline without a registry."""
    if pipeline.schema_registry.url is None:
        return None
    return KeptSchemas(pipeline.names.schemas, memory, clients.schema_reader, clients.schema_writer)
