"""Puts together what a worker needs for events with schemas."""

from __future__ import annotations

from failsoft.schemas.formats.reader import WantedFields
from failsoft.workers.kafka.clients import Clients
from failsoft.workers.schema_registry.kept_schemas import KeptSchemas
from failsoft.workers.schema_registry.lookups import SchemaReaders
from failsoft.workers.schema_registry.memory import SchemaMemory
from failsoft.workers.serving.registry import ServingRegistry
from failsoft.workers.settings import Settings
from failsoft.workers.telemetry.metrics import Metrics


class WorkerSchemas:
    """The schemas of a worker whose pipeline has a registry.

    Attributes:
        kept: keeps the schemas that were met in the topic of schemas. It starts before the lanes.
        readers: what the lanes ask.
    """

    def __init__(
        self, pipeline: Settings, wanted: WantedFields, registry: ServingRegistry, clients: Clients, metrics: Metrics
    ) -> None:
        memory = SchemaMemory()
        self.kept = KeptSchemas(pipeline.names.schemas, memory, clients.schema_reader, clients.schema_writer)
        self.readers = SchemaReaders.of(pipeline, wanted, memory, registry, metrics)


def worker_schemas(
    pipeline: Settings, wanted: WantedFields, registry: ServingRegistry, clients: Clients, metrics: Metrics
) -> WorkerSchemas | None:
    """The schemas of a worker; None for a pipeline without a registry. Raises Refused, as ``SchemaReaders.of`` does."""
    if pipeline.schema_registry.url is None:
        return None
    return WorkerSchemas(pipeline, wanted, registry, clients, metrics)
