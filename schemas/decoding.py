"""Decodes events: reads id, time and features from a record's bytes and headers.

The id is the first of: the ``ce_id`` header (CloudEvents, binary mode), the configured field, and
``<topic>-<partition>-<offset>`` of the record that first carried the event. A value whose ``content-type`` begins with
``application/cloudevents`` is a structured CloudEvent: its ``id``, ``time`` and ``data`` are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from failsoft.schemas import json_events, nan, wire
from failsoft.schemas.cloud_events import any_cloud, cloud
from failsoft.schemas.event import (
    NO_READERS,
    Envelope,
    Event,
    Events,
    Readers,
    fallback_id,
    iso,
    origin_of,
)
from failsoft.schemas.event_parts import at, bounded, first_time, holder, identity
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.paths import find
from failsoft.schemas.features.table import FeaturePart, FeatureTable
from failsoft.schemas.features.words import kind
from failsoft.schemas.formats import framing
from failsoft.schemas.formats.framing import SchemaGroup
from failsoft.schemas.formats.registered import SchemaRef
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.schemas.record import Origin, Record
from failsoft.schemas.schema_events import SchemaBatch
from failsoft.schemas.unwrapping import SchemaData, refusal, unwrap

_TO_SET = "set [input] format and [schema_registry] url"


def decode(
    records: Sequence[Record], origins: Mapping[int, Origin], envelope: Envelope, readers: Readers = NO_READERS
) -> Events:
    """Decode a batch of records. ``origins`` has the origin of each row that is a retry or a replay, by row index.

    Never raises because of a record's content: a row that cannot be read becomes a MALFORMED failure, or the failure
    that ``readers`` has in place of its schema's reader.
    """
    if envelope.format is WireFormat.JSON:
        plain = json_events.decode_all(records, origins, envelope)
        return plain or _decode_each(records, origins, envelope, readers)
    if any_cloud(records):
        return _decode_each(records, origins, envelope, readers)
    blank = [""] * len(records)
    events = Events(blank, [*blank], [])
    batch = SchemaBatch(events, records, origins, envelope, {})
    values: list[bytes | None] = [record.value for record in records]
    refused = {row: why for row, value in enumerate(values) if (why := refusal(value, envelope)) is not None}
    for row in refused:
        values[row] = None
    groups, unframed = framing.groups(values, records, envelope.format)
    batch.refuse(refused | unframed)
    batch.decode(groups, readers)
    events.features = FeatureTable(batch.parts, len(records))
    return events


def decode_one(record: Record, origin: Origin, envelope: Envelope) -> Event | SchemaData | Failure:
    """Decode one record; the data of one whose schema is needed; or a MALFORMED failure that says why it cannot be
    read.
    """
    raw = record.value
    try:
        data = unwrap(record, envelope)
        if isinstance(data, SchemaData):
            return data
        raw = data.raw
        body = data.body if data.raw is None else json_events.loads(data.raw, envelope)
        if not isinstance(body, dict):
            what = "the CloudEvent's data" if data.structured else "the event"
            raise wire.Malformed(f"{what} is {kind(body)}, not an object")
        fields = (None, None) if data.structured else (envelope.id, envelope.time)
        id = data.id or _identity(body, fields[0]) or fallback_id(origin)
        own = None if fields[1] is None else at(body, fields[1])
        time, untimed = first_time((data.time, own), origin)
        features = holder(find(body, envelope.features), envelope.features) if envelope.features else body
        return Event(bounded(id), time, features, untimed)
    except wire.NotJson as e:
        return Failure(Kind.MALFORMED, _unexpected(raw, record, envelope) or str(e))
    except wire.Malformed as e:
        return Failure(Kind.MALFORMED, str(e))


def best_id(record: Record, origin: Origin, envelope: Envelope, readers: Readers = NO_READERS) -> str:
    """The best id of an event, also of one that cannot be decoded: a retry must carry the same id as its answer."""
    ce = cloud(record)
    try:
        if ce.id and not ce.structured:
            return bounded(ce.id)
        if not ce.structured and isinstance(unwrap(record, envelope), SchemaData):
            return decode([record], {0: origin}, envelope, readers).ids[0]
        raw = None if record.value is None else json_events.bare(record.value)
        body = nan.loads_anywhere(raw, envelope.max_bytes, envelope.max_depth)
        found = _identity(body, "id" if ce.structured else envelope.id) if isinstance(body, dict) else None
        return bounded(found or fallback_id(origin))
    except wire.Malformed:
        return fallback_id(origin)


def _unexpected(raw: bytes | None, record: Record, envelope: Envelope) -> str | None:
    """What must be set to read ``raw``, which is no JSON but names a schema, in a pipeline of JSON."""
    if envelope.format is not WireFormat.JSON or raw is None or json_events.bare(raw).lstrip()[:1] in (b"{", b"["):
        return None
    header = framing.header_of(record.headers)
    try:
        ref, _ = framing.split(raw, header, WireFormat.AVRO)
    except framing.Unframed:
        return None
    form = f"the header {framing.HEADER}" if header is not None else f"{framing.PREFIX} bytes of Confluent framing"
    return f"{form}, {framing.named(ref)}: {_TO_SET}"


def _identity(body: Mapping[str, Any], path: str | None) -> str | None:
    return identity(at(body, path), path) if path else None


def _decode_each(
    records: Sequence[Record], origins: Mapping[int, Origin], envelope: Envelope, readers: Readers
) -> Events:
    """Decode each record by itself, and then those of each schema together."""
    batch = Events([], [], [])
    features: list[Mapping[str, Any]] = []
    wrapped: dict[int, SchemaData] = {}
    groups: dict[SchemaRef, SchemaGroup] = {}
    json: list[int] = []
    for row, record in enumerate(records):
        origin = origins.get(row) or origin_of(record)
        event = decode_one(record, origin, envelope)
        if isinstance(event, SchemaData):
            if event.id or event.time or event.structured:
                wrapped[row] = event
            group = groups.setdefault(event.ref, SchemaGroup())
            group.rows.append(row)
            group.values.append(event.payload)
            event = Event("", "", {})
        elif isinstance(event, Failure):
            batch.failures[row] = event
            if batch.unexpected is None and event.message.endswith(_TO_SET):
                batch.unexpected = event.message
            event = Event(best_id(record, origin, envelope), iso(origin.timestamp), {})
        else:
            json.append(row)
            if event.untimed is not None:
                batch.untimed[row] = event.untimed
        batch.ids.append(event.id)
        batch.times.append(event.time)
        features.append(event.features)
    batch.features = features
    if groups:
        by_schema = SchemaBatch(batch, records, origins, envelope, wrapped)
        by_schema.decode(groups, readers)
        parts = [*by_schema.parts, FeaturePart([features[row] for row in json], json)] if json else by_schema.parts
        batch.features = FeatureTable(parts, len(records))
    return batch
