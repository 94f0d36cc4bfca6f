"""Reads the value of a scored record back, in either format: the answer as JSON has it."""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from failsoft.schemas import times, wire
from failsoft.schemas.formats.framing import PREFIX
from failsoft.schemas.scored_schema import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable

_MAGIC = b"\x00"
"""The first byte of Confluent's framing; JSON never begins with it."""

_UNFIT = (EOFError, ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error, MemoryError)
"""What fastavro raises for bytes that do not fit the schema."""


class NoAvroReader(wire.Malformed):
    """An answer in Avro cannot be read: the extra is not installed. The text says how to install it."""


def is_avro(value: bytes | None) -> bool:
    """Whether a scored record's value is in Confluent's wire format."""
    return value is not None and value.startswith(_MAGIC)


def loads(value: bytes | None, max_bytes: int) -> Any:
    """The answer in a scored record: the same JSON object, whatever format it was written in.

    Other programs may write to the topic, so it may be any JSON value. Raises Malformed for what is neither JSON nor an
    answer in Avro, and for what is larger than ``max_bytes``; NoAvroReader, which is Malformed, without the extra.
    """
    if value is None or not value.startswith(_MAGIC):
        return wire.loads(value, max_bytes)
    if len(value) > max_bytes:
        raise wire.Malformed(f"{len(value)} bytes, over the limit of {max_bytes}")
    read = _reader()
    try:
        found = read(value[PREFIX:])
        answer = {name: found[name] for name in found if name not in _OPTIONAL or found[name]}
        answer["event_time"], answer["scored_at"] = map(times.rfc_3339, (found["event_time"], found["scored_at"]))
        if found["outputs"]:
            answer["outputs"] = {name: _output(output) for name, output in found["outputs"].items()}
    except _UNFIT as e:
        raise wire.Malformed(f"not an answer in Avro: {type(e).__name__}: {e}") from None
    if not found["event_id"] or not found["origin"]["topic"] or found["origin"]["offset"] < 0:
        raise wire.Malformed("not an answer in Avro: it has no event, or no origin")
    return answer


_OPTIONAL = frozenset({"outputs", "members", "missing", "rewind"})
"""Fields that JSON has only where they say something."""


def _output(value: Any) -> Any:
    if isinstance(value, dict):
        return wire.loads(value["json"].encode(), len(value["json"]) * 4)
    return value


@lru_cache(maxsize=1)
def _reader() -> Callable[[bytes], dict[str, Any]]:
    """Reads an answer's bytes, of which those of later fields may follow. Its times are microseconds."""
    try:
        from fastavro import parse_schema, schemaless_reader
    except ImportError:
        raise NoAvroReader("an answer in Avro cannot be read: pip install 'failsoft[avro]'") from None
    schema = parse_schema(_without_logical_types(SCHEMA))

    def read(raw: bytes) -> dict[str, Any]:
        found: dict[str, Any] = schemaless_reader(io.BytesIO(raw), schema, None)
        return found

    return read


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _without_logical_types(value) for key, value in schema.items() if key != "logicalType"}
    return list(map(_without_logical_types, schema)) if isinstance(schema, list) else schema
