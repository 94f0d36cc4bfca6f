"""Takes an event's data out of CloudEvents and out of Confluent's framing, and says which schema it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from failsoft.schemas import cloud_events, json_events, wire
from failsoft.schemas.cloud_events import Cloud
from failsoft.schemas.event import Envelope
from failsoft.schemas.event_parts import at, identity
from failsoft.schemas.features.words import kind
from failsoft.schemas.formats import framing
from failsoft.schemas.formats.registered import SchemaRef
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.schemas.record import Record

_FIRST_MESSAGE = b"\0"
"""The message indexes of a Protobuf schema's first message."""


@dataclass(frozen=True, slots=True)
class Data:
    """An event's data, and what CloudEvents say of it.

    Attributes:
        id: its id as a CloudEvent; None: the data's own field has it.
        time: its time as a CloudEvent, as it is written there.
        structured: it is a structured CloudEvent, so that the data's own id and time do not count.
    """

    id: str | None
    time: object
    structured: bool


@dataclass(frozen=True, slots=True)
class JsonData(Data):
    """Data in JSON.

    Attributes:
        raw: the JSON, with or without Confluent's framing; None if it is decoded already.
        body: the decoded JSON.
    """

    raw: bytes | None
    body: Any = None


@dataclass(frozen=True, slots=True)
class SchemaData(Data):
    """Data that a schema is needed for.

    Attributes:
        ref: the schema.
        payload: what its reader gets.
    """

    ref: SchemaRef
    payload: bytes


def schema_refs(records: Sequence[Record], envelope: Envelope) -> set[SchemaRef]:
    """The schemas that are needed to decode ``records``. There may be as many as records."""
    if not cloud_events.any_cloud(records):
        return framing.refs(records, envelope.format)
    found: set[SchemaRef] = set()
    for record in records:
        try:
            data = unwrap(record, envelope)
        except wire.Malformed:
            continue  # said when the event is decoded
        if isinstance(data, SchemaData):
            found.add(data.ref)
    return found


def refusal(value: bytes | None, envelope: Envelope) -> str | None:
    """Why a value is not even looked at; None if it is."""
    if value is None:
        return "the value is null (a tombstone)"
    size = len(value)
    return None if size <= envelope.max_bytes else f"{size} bytes, over the limit of {envelope.max_bytes}"


def unwrap(record: Record, envelope: Envelope) -> JsonData | SchemaData:
    """The data of a record's event. JSON is decoded only in a structured CloudEvent. Raises Malformed."""
    ce = cloud_events.cloud(record)
    if record.value is None:
        raise wire.Malformed("the value is null (a tombstone)")
    if ce.structured:
        return _structured(record.value, ce, envelope)
    format = cloud_events.data_format(ce.content_type) or envelope.format
    if format is WireFormat.JSON:
        return JsonData(ce.id, ce.time, False, record.value)
    header = framing.header_of(record.headers)
    ref, payload = _named(record.value, header, ce.data_schema, format, envelope)
    return SchemaData(ce.id, ce.time, False, ref, payload)


def _structured(value: bytes, ce: Cloud, envelope: Envelope) -> JsonData | SchemaData:
    cloud_events.check_mode(ce)
    body = json_events.loads(value, envelope, structured=True)
    if not isinstance(body, dict):
        raise wire.Malformed(f"the event is {kind(body)}, not an object")
    id, time = identity(at(body, "id"), "id"), body.get("time")
    if id is None:
        raise wire.Malformed("a structured CloudEvent without an id")
    raw = cloud_events.data_bytes(body)
    if raw is None:
        data = body.get("data")
        if not isinstance(data, dict):
            raise wire.Malformed(f"the CloudEvent's data is {kind(data)}, not an object")
        return JsonData(id, time, True, None, data)
    format = cloud_events.data_format(body.get("datacontenttype"))
    if format is None:  # left out, it means JSON; a zero byte says that it is not
        format = envelope.format if framing.is_prefix(raw) else WireFormat.JSON
    if format is WireFormat.JSON:
        return JsonData(id, time, True, raw)
    ref, payload = _named(raw, None, body.get("dataschema"), format, envelope)
    return SchemaData(id, time, True, ref, payload)


def _named(
    raw: bytes, header: bytes | None, data_schema: object, format: WireFormat, envelope: Envelope
) -> tuple[SchemaRef, bytes]:
    """The schema of data that is not JSON, and what its reader gets. Raises Malformed.

    Data with a ``dataschema`` of our own registry is bare, unless it has the framing of the same schema.
    """
    why = refusal(raw, envelope)
    if why is not None:
        raise wire.Malformed(why)
    ref = None if header is not None else cloud_events.schema_of(data_schema, envelope.registries)
    try:
        if ref is None or (framing.is_prefix(raw) and framing.split(raw, None, format)[0] == ref):
            return framing.split(raw, header, format)
    except framing.Unframed as e:
        raise wire.Malformed(str(e)) from None
    return ref, _FIRST_MESSAGE + raw if format is WireFormat.PROTOBUF else raw
