"""Confluent's framing: which schema a value is written by, and the bytes that the schema's reader gets.

A value begins with a zero byte and the schema's id (4 bytes, big-endian). In the header form, the header
``__value_schema_id`` has a byte 1 and a GUID (16 bytes), or the same five bytes as above, and the value is bare. The
header comes first, and of several the last one counts, as in Confluent's Java client. Of Protobuf, message indexes
follow the id or the GUID. A reader gets them in front of the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from failsoft.schemas.formats.registered import SchemaRef
from failsoft.schemas.formats.wire_format import WireFormat

HEADER = "__value_schema_id"
"""The header with the schema of a record's value."""

PREFIX = 5
"""Bytes before a framed value."""

_GUID = 17
"""Bytes of the header before a Protobuf's message indexes."""
_QUOTED = 8
"""Bytes of a value that a message shows."""
_KNOWN_BEGINNINGS = (
    (b"Obj\x01", "an Avro file"),
    (b"\xc3\x01", "Avro's single-object encoding"),
    (b"{", 'JSON, which [input] format = "json" reads'),
)


class Carrier(Protocol):
    """The fields of a record that say which schema its value has."""

    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


class Unframed(ValueError):
    """A value does not say which schema it has. The text says what was found, and what would be right."""


@dataclass(slots=True)
class SchemaGroup:
    """The values of a batch that have one schema.

    Attributes:
        rows: the row of each.
        values: what the schema's reader gets of each.
    """

    rows: list[int] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)


def refs(records: Sequence[Carrier], format: WireFormat) -> set[SchemaRef]:
    """The schemas that ``records`` of a topic of this format name; none for JSON, which is read without its schema.

    There may be as many as records: an id that nobody registered costs its writer nothing.
    """
    if format is WireFormat.JSON:
        return set()
    if not _headed(records):
        prefixes = {value[:PREFIX] for record in records if (value := record.value) is not None}
        return {_id(each) for each in prefixes if is_prefix(each)}
    return set(groups([record.value and record.value[:PREFIX] for record in records], records, format)[0])


def groups(
    values: Sequence[bytes | None], records: Sequence[Carrier], format: WireFormat
) -> tuple[dict[SchemaRef, SchemaGroup], dict[int, str]]:
    """The values of a batch by their schemas, and why each other value names none, by row.

    Args:
        values: the values of ``records``; None for one that is passed over.
        records: their headers count.
        format: Avro or Protobuf.
    """
    if not _headed(records):
        whole = [value for value in values if value is not None]
        different = {value[:PREFIX] for value in whole} if len(whole) == len(values) else set()
        if len(different) == 1 and is_prefix(common := different.pop()):
            return {_id(common): SchemaGroup(list(range(len(whole))), [value[PREFIX:] for value in whole])}, {}
    found: dict[SchemaRef, SchemaGroup] = {}
    bad: dict[int, str] = {}
    known: dict[bytes, tuple[SchemaRef, bytes]] = {}
    for row, (value, record) in enumerate(zip(values, records, strict=True)):
        if value is None:
            continue
        header = header_of(record.headers) if record.headers else None
        try:
            if header is None:
                ref, payload = split(value, None, format)
            else:
                if header not in known:
                    known[header] = split(b"", header, format)
                ref, indexes = known[header]
                payload = indexes + value if indexes else value
        except Unframed as e:
            bad[row] = str(e)
            continue
        group = found.get(ref) or found.setdefault(ref, SchemaGroup())
        group.rows.append(row)
        group.values.append(payload)
    return found, bad


def _headed(records: Sequence[Carrier]) -> bool:
    """Whether one of the records has the schema header."""
    return HEADER in {name for record in records if record.headers for name, _ in record.headers}


def _id(framed: bytes) -> int:
    return int.from_bytes(framed[1:PREFIX])


def header_of(headers: Iterable[tuple[str, bytes | None]]) -> bytes | None:
    """The value of the schema header, or None without one."""
    found = None
    for name, value in headers:
        if name == HEADER:
            found = value
    return found


def prefix(schema_id: int) -> bytes:
    """The framing of a value whose schema has this id."""
    return b"\0" + schema_id.to_bytes(PREFIX - 1)


def is_prefix(raw: bytes) -> bool:
    """Whether ``raw`` begins with Confluent's framing, as far as that can be told."""
    return len(raw) >= PREFIX and raw[0] == 0


def split(value: bytes, header: bytes | None, format: WireFormat) -> tuple[SchemaRef, bytes]:
    """The schema that a value names, and the bytes for the schema's reader.

    Args:
        value: the record's value.
        header: its schema header; None: it has none.
        format: Avro or Protobuf.

    Raises Unframed.
    """
    if header is None:
        if not is_prefix(value):
            raise Unframed(_not_framed(value, format))
        return _id(value), value[PREFIX:]
    end = {0: PREFIX, 1: _GUID}.get(header[0]) if header else None
    if end is None or len(header) < end:
        raise Unframed(
            f"the header {HEADER} {_beginning(header)}: it takes a byte 1 and a GUID of 16 bytes, "
            f"or a byte 0 and an id of 4 bytes"
        )
    ref: SchemaRef = _id(header) if end == PREFIX else guid(header[1:end])
    indexes = header[end:]
    if format is WireFormat.PROTOBUF:
        if not indexes:
            raise Unframed(f"the header {HEADER} ends before the Protobuf message's indexes")
        return ref, indexes + value
    if indexes:
        raise Unframed(f"the header {HEADER} has {len(header)} bytes, not {end}: a schema of Avro has no indexes")
    return ref, value


def named(ref: SchemaRef) -> str:
    """A schema in words, such as ``schema id 7``."""
    return f"schema id {ref}" if isinstance(ref, int) else f"schema {ref}"


def guid(raw: bytes) -> str:
    """The canonical text of 16 bytes of a GUID or UUID."""
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _not_framed(value: bytes, format: WireFormat) -> str:
    known = next((f" ({words})" for begin, words in _KNOWN_BEGINNINGS if value.startswith(begin)), "")
    return (
        f"the value {_beginning(value)}{known}, not with Confluent's framing: a byte 0 and a schema's id of 4 bytes "
        f'before the data, as [input] format = "{format}" takes'
    )


def _beginning(raw: bytes) -> str:
    if not raw:
        return "is empty"
    if len(raw) < PREFIX:
        return f"has only the bytes {raw.hex(' ')}"
    return f"begins with the bytes {raw[:_QUOTED].hex(' ')}"
