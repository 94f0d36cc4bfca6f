"""CloudEvents: their attributes in a record's headers (binary mode), and their JSON (structured mode)."""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from failsoft.schemas import wire
from failsoft.schemas.features.words import kind, quote
from failsoft.schemas.formats.registered import SchemaRef
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.schemas.record import Record

_ALL = b"application/cloudevents"
_JSON_MODES = frozenset({"application/cloudevents", "application/cloudevents+json"})
_BATCHES = "application/cloudevents-batch"
_CONTENT_TYPE = "content-type"
_HEADERS = frozenset({"ce_specversion", "ce_id", "ce_time", "ce_dataschema", _CONTENT_TYPE})
_AVRO = frozenset({"avro", "x-avro", "vnd.apache.avro", "vnd.confluent.avro"})
_PROTOBUF = frozenset({"protobuf", "x-protobuf", "vnd.google.protobuf", "vnd.confluent.protobuf"})


@dataclass(frozen=True, slots=True)
class Cloud:
    """The CloudEvents attributes in a record's headers. Of duplicate headers the last one counts.

    Attributes:
        id: its id; None without one that can be read.
        time: its time, as it is written there.
        content_type: the type of the data, or of the whole event in structured mode.
        data_schema: a URI of the data's schema.
        structured: the value is the whole event.
    """

    id: str | None = None
    time: str | None = None
    content_type: str | None = None
    data_schema: str | None = None
    structured: bool = False


PLAIN = Cloud()
"""A record that is no CloudEvent. Its content-type is not read."""


def any_cloud(records: Sequence[Record]) -> bool:
    """Whether one of the records is a CloudEvent. The names of all headers are looked at once."""
    names = {name for record in records if record.headers for name, _ in record.headers}
    found = {name for name in names if name.lower() in _HEADERS}
    types = {name for name in found if name.lower() == _CONTENT_TYPE}
    if not types:
        return bool(found)
    values = {value for record in records for name, value in record.headers if name in types}
    return found != types or any(map(_structured, values))


def cloud(record: Record) -> Cloud:
    """The attributes in the headers of ``record``; PLAIN if it is no CloudEvent."""
    if not record.headers:
        return PLAIN
    found = {name: value for each, value in record.headers if (name := each.lower()) in _HEADERS}
    content_type = found.pop(_CONTENT_TYPE, None)
    structured = _structured(content_type)
    if not found and not structured:
        return PLAIN
    return Cloud(
        id=_text(found.get("ce_id")),
        time=_text(found.get("ce_time")),
        content_type=_text(content_type),
        data_schema=_text(found.get("ce_dataschema")),
        structured=structured,
    )


def _structured(content_type: bytes | None) -> bool:
    return (content_type or b"").strip().lower().startswith(_ALL)


def _text(raw: bytes | None) -> str | None:
    """A header's value as text; None when it is empty or not UTF-8."""
    try:
        return raw.decode() or None if raw else None
    except UnicodeDecodeError:
        return None


def check_mode(ce: Cloud) -> None:
    """Raises Malformed for a structured CloudEvent that is not in JSON, or for a batch of them."""
    media = _media(ce.content_type)
    if media.startswith(_BATCHES):
        raise wire.Malformed(f"a batch of CloudEvents (content-type {media}): a record must have one event")
    if media not in _JSON_MODES:
        raise wire.Malformed(
            f"a CloudEvent as {quote(media)}: in structured mode it must be JSON (application/cloudevents+json); "
            f"other data can be sent in binary mode"
        )


def data_format(content_type: object) -> WireFormat | None:
    """The format that a media type means, such as ``application/json``; None if it is none that is known here."""
    media = _media(content_type)
    top, _, subtype = media.partition("/")
    parts = subtype.split("+")
    if top not in ("application", "text"):
        return WireFormat.AVRO if media == "avro/binary" else None
    if parts[-1] == "json":
        return WireFormat.JSON
    return WireFormat.AVRO if not _AVRO.isdisjoint(parts) else WireFormat.PROTOBUF if parts[-1] in _PROTOBUF else None


def _media(content_type: object) -> str:
    """A media type without its parameters."""
    return content_type.split(";")[0].strip().lower() if isinstance(content_type, str) else ""


def data_bytes(body: Mapping[str, Any]) -> bytes | None:
    """The bytes in ``data_base64`` of a structured CloudEvent; None if it has ``data``. Raises Malformed."""
    text = body.get("data_base64")
    if text is None:
        return None
    if body.get("data") is not None:
        raise wire.Malformed("the CloudEvent has data and data_base64: it must have one of them")
    if not isinstance(text, str):
        raise wire.Malformed(f"the CloudEvent's data_base64 is {kind(text)}, not a string")
    try:
        return a2b_base64(text, strict_mode=True)
    except ValueError as e:
        raise wire.Malformed(f"the CloudEvent's data_base64 is not base64: {e}") from None


def schema_of(data_schema: object, registries: Sequence[str]) -> SchemaRef | None:
    """The schema that a ``dataschema`` names, if it is an address of a schema in one of these registries."""
    if not isinstance(data_schema, str):
        return None
    path = next((data_schema[len(each) :] for each in registries if data_schema.startswith(f"{each}/")), "")
    *before, last = path.split("?")[0].split("/")
    if before == ["", "schemas", "ids"] and last.isascii() and last.isdigit() and int(last) < 2**32:
        return int(last)
    return last.lower() if before == ["", "schemas", "guids"] and last else None
