"""Decodes events: reads id, time and features from a record's bytes and headers.

The id is the first of: the ``ce_id`` header (CloudEvents, binary mode), the configured JSON field, and
``<topic>-<partition>-<offset>`` of the record that first carried the event. A value whose ``content-type`` begins with
``application/cloudevents`` is a structured CloudEvent: its ``id``, ``time`` and ``data`` are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from failsoft.schemas import nan, wire
from failsoft.schemas import times as event_times
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.paths import Absent, find, getter, locate
from failsoft.schemas.features.words import kind
from failsoft.schemas.formats.reader import SchemaReader
from failsoft.schemas.formats.registered import SchemaRef
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.schemas.record import Origin, Record

MAX_ID = 1024
"""Characters of an id. The id is copied into every answer, so this limits the answer's size. UUIDs and URNs are far
shorter."""

_STRUCTURED = b"application/cloudevents"


@dataclass(frozen=True, slots=True)
class Envelope:
    """Where an event's parts are in its JSON. Fields are paths with dots (``features/paths.py``).

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
    """

    id: str | None = None
    time: str | None = None
    features: str = "features"
    max_bytes: int = 1_000_000
    max_depth: int = wire.MAX_DEPTH
    nans: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    format: WireFormat = WireFormat.JSON


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
        features: one mapping per row; empty for a failed row.
        failures: the failed rows, by row index.
        untimed: what is wrong with a row's own time, in whose place the record's stands, by row index.
    """

    ids: list[str]
    times: list[str]
    features: list[Mapping[str, Any]]
    failures: dict[int, Failure] = field(default_factory=dict)
    untimed: dict[int, str] = field(default_factory=dict)


def decode(
    records: Sequence[Record], origins: Mapping[int, Origin], envelope: Envelope, readers: Readers = NO_READERS
) -> Events:
    """Decode a batch of records. ``origins`` has the origin of each row that is a retry or a replay, by row index.

    Never raises because of a record's content: a row that cannot be read becomes a MALFORMED failure, or a DEPENDENCY
    failure where its schema is not known yet.
    """
    batch = _decode_all(records, origins, envelope)
    if batch is None:
        batch = _decode_each(records, origins, envelope)
    return batch


def decode_one(record: Record, origin: Origin, envelope: Envelope) -> Event | Failure:
    """Decode one record; a MALFORMED failure that says why, if it cannot be read."""
    ce = _cloud(record)
    try:
        body = _body(record.value, envelope, ce.structured)
        if not isinstance(body, dict):
            raise wire.Malformed(f"the event is {kind(body)}, not an object")
        if ce.structured:
            return _structured(body, origin, envelope)
        identity = ce.id or _identity(body, envelope.id) or fallback_id(origin)
        own = None if envelope.time is None else _at(body, envelope.time)
        time, untimed = _first_time((ce.time, own), origin)
        return Event(_bounded(identity), time, _features(body, envelope.features), untimed)
    except wire.Malformed as e:
        return Failure(Kind.MALFORMED, str(e))


def best_id(record: Record, origin: Origin, envelope: Envelope) -> str:
    """The best id of an event, also of one that cannot be decoded: a retry must carry the same id as its answer."""
    ce = _cloud(record)
    try:
        if ce.id and not ce.structured:
            return _bounded(ce.id)
        body = nan.loads_anywhere(record.value, envelope.max_bytes, envelope.max_depth)
        found = _identity(body, "id" if ce.structured else envelope.id) if isinstance(body, dict) else None
        return _bounded(found or fallback_id(origin))
    except wire.Malformed:
        return fallback_id(origin)


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


def _decode_all(records: Sequence[Record], origins: Mapping[int, Origin], envelope: Envelope) -> Events | None:
    """Decode the batch by columns, or return None when any row needs ``_decode_each``.

    Every row must be plain: no CloudEvent, and id, time and features as configured. List comprehensions over whole
    columns cost a fifth of one call per row.
    """
    if envelope.id is None or envelope.time is None or any(r.headers and _cloud(r) != _PLAIN for r in records):
        return None
    values: list[Any] = [r.value for r in records]
    bodies = wire.loads_all(values, envelope.max_bytes) or _bodies(values, envelope)
    if bodies is None:
        return None
    paths = (envelope.id, envelope.time, *([envelope.features] if envelope.features else []))
    found = getter(paths).columns(bodies)
    if found is None:
        return None
    ids, times = found[0], found[1]
    features = found[2] if envelope.features else bodies
    if {*map(type, ids)} != {str} or {*map(type, features)} != {dict}:
        return None
    if not all(ids) or max(map(len, ids)) > MAX_ID:
        return None
    if not wire.all_shallow(values, 2 if envelope.features else 1, envelope.max_depth):
        return None
    normal = event_times.times(times)
    if normal is times:
        return Events(ids, times, features)
    batch = Events(ids, [], features)
    for row, time in enumerate(normal):
        if time is None:
            origin = origins.get(row) or origin_of(records[row])
            time, untimed = _first_time((times[row],), origin)
            if untimed is not None:
                batch.untimed[row] = untimed
        batch.times.append(time)
    return batch


def _bodies(values: Sequence[Any], envelope: Envelope) -> list[Any] | None:
    """The decoded values, of which some may have NaN where the envelope allows it; None when any is bad."""
    if not envelope.nans and not envelope.tensors:
        return None
    try:
        return [_body(value, envelope) for value in values]
    except wire.Malformed:
        return None


def _decode_each(records: Sequence[Record], origins: Mapping[int, Origin], envelope: Envelope) -> Events:
    batch = Events([], [], [])
    for row, record in enumerate(records):
        origin = origins.get(row) or origin_of(record)
        event = decode_one(record, origin, envelope)
        if isinstance(event, Failure):
            batch.failures[row] = event
            event = Event(best_id(record, origin, envelope), iso(origin.timestamp), {})
        elif event.untimed is not None:
            batch.untimed[row] = event.untimed
        batch.ids.append(event.id)
        batch.times.append(event.time)
        batch.features.append(event.features)
    return batch


def _body(raw: bytes | None, envelope: Envelope, structured: bool = False) -> Any:
    """The JSON value of an event. Raises Malformed."""

    def may_be_nan(body: Any) -> Iterator[nan.Place]:
        holder = body.get("data") if structured and isinstance(body, dict) else body
        features = find(holder, envelope.features) if envelope.features else holder
        for paths, lists in ((envelope.nans, False), (envelope.tensors, True)):
            for path in paths:
                place = locate(features, path)
                if place is not None and isinstance(place[0][place[1]], list) is lists:
                    yield place

    return nan.loads(raw, envelope.max_bytes, envelope.max_depth, may_be_nan)


@dataclass(frozen=True, slots=True)
class _Cloud:
    id: str | None = None
    time: str | None = None
    structured: bool = False


_PLAIN = _Cloud()
_CLOUD_HEADERS = frozenset({"ce_id", "ce_time", "content-type"})


def _cloud(record: Record) -> _Cloud:
    """The CloudEvents attributes in the headers (binary mode). Of duplicate headers the last one counts."""
    if not record.headers:
        return _PLAIN
    found = {name: v for k, v in record.headers if (name := k.lower()) in _CLOUD_HEADERS}
    if not found:
        return _PLAIN
    return _Cloud(
        id=_text(found.get("ce_id")),
        time=_text(found.get("ce_time")),
        structured=(found.get("content-type") or b"").strip().lower().startswith(_STRUCTURED),
    )


def _text(raw: bytes | None) -> str | None:
    """A header's value as text; None when it is empty or not UTF-8."""
    try:
        return raw.decode() or None if raw else None
    except UnicodeDecodeError:
        return None


def _structured(body: dict[str, Any], origin: Origin, envelope: Envelope) -> Event:
    identity = _identity(body, "id")
    if identity is None:
        raise wire.Malformed("a structured CloudEvent without an id")
    data = body.get("data")
    if not isinstance(data, dict):
        raise wire.Malformed(f"the CloudEvent's data is {kind(data)}, not an object")
    time, untimed = _first_time((body.get("time"),), origin)
    return Event(_bounded(identity), time, _features(data, envelope.features), untimed)


def _at(body: Mapping[str, Any], path: str) -> Any:
    """The value at ``path``; None if there is none."""
    found = find(body, path)
    return None if isinstance(found, Absent) else found


def _identity(body: Mapping[str, Any], path: str | None) -> str | None:
    value = _at(body, path) if path else None
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise wire.Malformed(f"{path} is {kind(value)}; an id is a string or a 64-bit integer")


def _bounded(identity: str) -> str:
    if len(identity) > MAX_ID:
        raise wire.Malformed(f"the id has {len(identity)} characters, over the limit of {MAX_ID}")
    return identity


def _features(body: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    if not path:
        return body
    value = find(body, path)
    if isinstance(value, dict):
        return value
    if not isinstance(value, Absent):
        problem = f"{path} is {kind(value)}"
    else:
        problem = f"{path} is missing" if "." not in path else f"{path}: {value.why}"
    raise wire.Malformed(f"{problem}; it must hold the features")


def _first_time(given: Sequence[object], origin: Origin) -> tuple[str, str | None]:
    """The first of the ``given`` values that is a time, or else the record's own; None stands for a missing one.

    With it, if none is a time, what is wrong with the first that is there.
    """
    present = [value for value in given if value is not None]
    for value in present:
        time = event_times.time(value)
        if time is not None:
            return time, None
    return iso(origin.timestamp), event_times.unreadable(present[0]) if present else None
