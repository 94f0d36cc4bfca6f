"""What an event is: its id, time and features; a batch of them; and where they are found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from failsoft.schemas import wire
from failsoft.schemas.failure import Failure
from failsoft.schemas.features.table import FeatureTable
from failsoft.schemas.formats.reader import SchemaReader
from failsoft.schemas.formats.registered import SchemaRef
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.schemas.record import Origin, Record

MAX_ID = 1024
"""Characters of an id. The id is copied into every answer, so this limits the answer's size. UUIDs and URNs are far
shorter."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Where an event's parts are in its value. Fields are paths with dots (``features/paths.py``).

    Attributes:
        id: field with the id; None: the event has no such field.
        time: field with the time; None: the event has no such field.
        features: field whose object holds the features; "" means the event itself.
        max_bytes: largest value accepted (bytes).
        max_depth: deepest nesting accepted (levels).
        nans: fields within the features that may be the literal NaN.
        tensors: fields within the features whose lists may have the literals NaN and Infinity: the feature is unusable
            then, and not the event malformed.
        format: how values are encoded.
        registries: the addresses of the schema registry. A CloudEvent's ``dataschema`` below one names a schema.
    """

    id: str | None = None
    time: str | None = None
    features: str = "features"
    max_bytes: int = 1_000_000
    max_depth: int = wire.MAX_DEPTH
    nans: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    format: WireFormat = WireFormat.JSON
    registries: tuple[str, ...] = ()


Readers = Mapping[SchemaRef, SchemaReader | Failure]
"""A reader of each schema that a batch names, or why there is none: DEPENDENCY while the registry does not answer,
MALFORMED if it has no such schema or if the schema cannot be used."""


NO_READERS: Readers = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Event:
    """One decoded event.

    Attributes:
        id: its id.
        time: its time in RFC 3339.
        features: its features.
        untimed: what is wrong with its own time, so that ``time`` is the record's; None if it has none or a good one.
    """

    id: str
    time: str
    features: Mapping[str, Any]
    untimed: str | None = None


@dataclass(slots=True)
class Events:
    """A batch of decoded events in columns; index i is row i.

    Attributes:
        ids: one id per row; for a failed row the best id that could be read.
        times: one RFC 3339 time per row.
        features: one mapping per row, empty for a failed row; or a table, if schemas were needed to read them.
        failures: the failed rows, by row index.
        untimed: what is wrong with a row's own time, in whose place the record's stands, by row index.
        unexpected: of a value that has Confluent's framing and is not in the pipeline's format, which there are; None:
            no such value.
    """

    ids: list[str]
    times: list[str]
    features: list[Mapping[str, Any]] | FeatureTable
    failures: dict[int, Failure] = field(default_factory=dict)
    untimed: dict[int, str] = field(default_factory=dict)
    unexpected: str | None = None


def fallback_id(origin: Origin) -> str:
    """The id of an event that carries none. It is unique, and the same on every retry and replay."""
    return f"{origin.topic}-{origin.partition}-{origin.offset}"


def origin_of(record: Record) -> Origin:
    """The origin of an event that is read for the first time: the record itself."""
    return Origin(record.topic, record.partition, record.offset, record.timestamp)


@lru_cache(maxsize=64)
def iso(ms: int) -> str:
    """Epoch milliseconds as RFC 3339 in UTC. An absent timestamp (-1) or one beyond the calendar gives the epoch."""
    try:
        moment = datetime.fromtimestamp(max(ms, 0) / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
