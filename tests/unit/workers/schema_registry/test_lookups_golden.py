"""Look-ups for events of Confluent's serializers: by ids, GUIDs and references, on topics of each format."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from failsoft.schemas.decoding import decode
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.formats.reader import WantedFields
from failsoft.schemas.formats.registered import SchemaType
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.workers.schema_registry.lookups import SchemaReaders
from failsoft.workers.schema_registry.memory import SchemaMemory
from failsoft.workers.serving.registry import ServingRegistry
from failsoft.workers.settings import Settings
from failsoft.workers.telemetry.metrics import Metrics
from tests import golden
from tests.kit import Rec
from tests.registry_server import RegistryServer


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        yield server


@asynccontextmanager
async def _golden(
    registry: RegistryServer, format: WireFormat
) -> AsyncIterator[tuple[SchemaReaders, Settings, SchemaMemory]]:
    """The look-ups of a pipeline, and a registry with the schemas of the golden events."""
    for schema, guid in golden.schemas():
        for i, each in enumerate(schema.references):
            registry.put(int(schema.ref) * 100 + i, schema.type, each.text, subject=each.name)
        references = [{"name": each.name, "subject": each.name, "version": 1} for each in schema.references]
        registry.put(int(schema.ref), schema.type, schema.text, references, "golden", guid)
    given = {"name": "p", "model": "m", "input": {"topics": ["t"], "format": format, "id": "event_id", "features": ""}}
    pipeline = Settings.model_validate(given | {"schema_registry": {"url": registry.url, "deadline": "5s"}})
    metrics = Metrics(CollectorRegistry())
    serving = ServingRegistry("w", metrics, time.monotonic, time.time, lambda: 0.5)
    wanted = WantedFields(id="event_id", features="")
    memory = SchemaMemory()
    schemas = SchemaReaders.of(pipeline, wanted, memory, serving, metrics)
    try:
        yield schemas, pipeline, memory
    finally:
        await schemas.close()


@pytest.mark.parametrize("format", [WireFormat.AVRO, WireFormat.PROTOBUF])
async def test_events_of_confluents_serializers_are_read_by_what_the_registry_has(
    registry: RegistryServer, format: WireFormat
) -> None:
    """The whole way of a pipeline's file: its ids and GUIDs, schemas with references, all its events decoded."""
    events = golden.events(SchemaType[format.name])
    records = [Rec(value=each.value, headers=each.headers) for each in events]
    async with _golden(registry, format) as (schemas, pipeline, memory):
        found = await schemas.readers(records)
        other = golden.events(next(kind for kind in SchemaType if kind.name != format.name))[0]
        (wrong,) = (await schemas.readers([Rec(value=other.value, headers=other.headers)])).values()
        assert set(memory.unwritten) == set(found) and {type(ref) for ref in found} == {int, str}
    batch = decode(records, {}, pipeline.envelope, found)
    assert batch.failures == {} and batch.ids == [event.event for event in events]
    assert isinstance(wrong, Failure) and wrong.kind is Kind.MALFORMED
    assert wrong.message.endswith(f'its type is {other.type}, and [input] format is "{format}"')


async def test_cloud_events_on_a_topic_of_json_may_have_data_in_other_formats(registry: RegistryServer) -> None:
    """Their schemas are looked up, by their framing or their dataschema; a schema of JSON is refused there."""

    def record(event: golden.Golden, media: str, bare: bool) -> Rec:
        address = f"{registry.url}/schemas/ids/{event.id}".encode()
        headers = [("ce_specversion", b"1.0"), ("content-type", media.encode())]
        return Rec(value=event.value[5:] if bare else event.value, headers=[*headers, ("ce_dataschema", address)])

    (avro, *_), (_, _, refund, *_) = (
        golden.events(kind, framing="value") for kind in (SchemaType.AVRO, SchemaType.PROTOBUF)
    )
    (json, *_) = golden.events(SchemaType.JSON, framing="value")
    records = [
        record(avro, "application/avro", False),
        record(avro, "avro/binary", True),
        record(refund, "application/protobuf", False),
        record(json, "application/avro", False),
        record(json, "application/json", False),
    ]
    async with _golden(registry, WireFormat.JSON) as (schemas, pipeline, _):
        batch = decode(records, {}, pipeline.envelope, await schemas.readers(records))
    expected = [avro.event, avro.event, refund.event, json.event]
    assert [batch.ids[row] for row in (0, 1, 2, 4)] == expected and list(batch.failures) == [3]
    assert "its type is JSON, and the CloudEvent that names it has Avro or Protobuf" in batch.failures[3].message
