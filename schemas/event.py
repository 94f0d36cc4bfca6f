"""Decodes events: reads id, time and features from a record's bytes and headers.

The id is the first of: the ``ce_id`` header (CloudEvents, binary mode), the configured JSON field, and
``<topic>-<partition>-<offset>`` of the record that first carried the event. A value whose ``content-type`` begins with
``application/cloudevents`` is a structured CloudEvent: its ``id``, ``time`` and ``data`` are used.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from failsoft.schemas import wire
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.record import Origin, Record

MAX_ID = 1024
"""Characters of an id. The id is copied into every answer, so this limits the answer's size. UUIDs and URNs are far
shorter."""

_STRUCTURED = b"application/cloudevents"
# At most nine digits (nanoseconds): the time is copied into the answer, whose size must stay bounded.
_FORM = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z"
_RFC_3339 = re.compile(_FORM, re.ASCII)
_RFC_3339_LINES = re.compile(f"{_FORM}(?:\n{_FORM})*", re.ASCII)
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Envelope:
    """Where an event's parts are in its JSON.

    Attributes:
        id: field with the id; None: the event has no such field.
        time: field with the time; None: the event has no such field.
        features: field whose object holds the features; "" means the event itself.
        max_bytes: largest value accepted (bytes).
        max_depth: deepest nesting accepted (levels).
    """

    id: str | None = None
    time: str | None = None
    features: str = "features"
    max_bytes: int = 1_000_000
    max_depth: int = wire.MAX_DEPTH


@dataclass(frozen=True, slots=True)
class Event:
    """One decoded event; ``time`` is RFC 3339."""

    id: str
    time: str
    features: Mapping[str, Any]


@dataclass(slots=True)
class Events:
    """A batch of decoded events in columns; index i is row i.

    Attributes:
        ids: one id per row; for a failed row the best id that could be read.
        times: one RFC 3339 time per row.
        features: one mapping per row; empty for a failed row.
        failures: the failed rows, by row index.
    """

    ids: list[str]
    times: list[str]
    features: list[Mapping[str, Any]]
    failures: dict[int, Failure] = field(default_factory=dict)


def decode(records: Sequence[Record], origins: Mapping[int, Origin], envelope: Envelope) -> Events:
    """Decode a batch of records. ``origins`` has the origin of each row that is a retry or a replay, by row index.

    Never raises because of a record's content: a row that cannot be read becomes a MALFORMED failure.
    """
    batch = _decode_all(records, envelope)
    if batch is None:
        batch = _decode_each(records, origins, envelope)
    return batch


def decode_one(record: Record, origin: Origin, envelope: Envelope) -> Event | Failure:
    """Decode one record; a MALFORMED failure that says why, if it cannot be read."""
    ce = _cloud(record)
    try:
        body = wire.loads(record.value, envelope.max_bytes, envelope.max_depth)
        if not isinstance(body, dict):
            raise wire.Malformed(f"the event is {_named(body)}, not an object")
        if ce.structured:
            return _structured(body, origin, envelope)
        identity = ce.id or _identity(body, envelope.id) or fallback_id(origin)
        time = _time(ce.time) or _time(body.get(envelope.time)) or iso(origin.timestamp)
        return Event(_bounded(identity), time, _features(body, envelope.features))
    except wire.Malformed as e:
        return Failure(Kind.MALFORMED, str(e))


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


def _decode_all(records: Sequence[Record], envelope: Envelope) -> Events | None:
    """Decode the batch by columns, or return None when any row needs ``_decode_each``.

    Every row must be plain: no CloudEvent, and id, time and features as configured. List comprehensions over whole
    columns cost a fifth of one call per row.
    """
    if envelope.id is None or envelope.time is None or any(r.headers and _cloud(r) != _PLAIN for r in records):
        return None
    values: list[Any] = [r.value for r in records]
    bodies = wire.loads_all(values, envelope.max_bytes)
    if bodies is None:
        return None
    id_key, time_key, features_key = envelope.id, envelope.time, envelope.features
    try:
        ids = [b[id_key] for b in bodies]
        times = [b[time_key] for b in bodies]
        features = [b[features_key] for b in bodies] if features_key else bodies
    except (KeyError, TypeError, IndexError):
        return None
    if {*map(type, ids)} != {str} or {*map(type, features)} != {dict} or {*map(type, times)} != {str}:
        return None
    if not all(ids) or max(map(len, ids)) > MAX_ID:
        return None
    if not wire.all_shallow(values, 2 if features_key else 1, envelope.max_depth):
        return None
    normal = _times(times)
    return None if normal is None else Events(ids, normal, features)


def _decode_each(records: Sequence[Record], origins: Mapping[int, Origin], envelope: Envelope) -> Events:
    batch = Events([], [], [])
    for row, record in enumerate(records):
        origin = origins.get(row) or origin_of(record)
        event = decode_one(record, origin, envelope)
        if isinstance(event, Failure):
            batch.failures[row] = event
            event = Event(_best_id(record, origin, envelope), iso(origin.timestamp), {})
        batch.ids.append(event.id)
        batch.times.append(event.time)
        batch.features.append(event.features)
    return batch


def _best_id(record: Record, origin: Origin, envelope: Envelope) -> str:
    """The best id of an event that cannot be decoded. A retry confirms an earlier answer and must carry the same id."""
    ce = _cloud(record)
    try:
        if ce.id and not ce.structured:
            return _bounded(ce.id)
        body = wire.loads(record.value, envelope.max_bytes, envelope.max_depth)
        found = _identity(body, "id" if ce.structured else envelope.id) if isinstance(body, dict) else None
        return _bounded(found or fallback_id(origin))
    except wire.Malformed:
        return fallback_id(origin)


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
        raise wire.Malformed(f"the CloudEvent's data is {_named(data)}, not an object")
    time = _time(body.get("time")) or iso(origin.timestamp)
    return Event(_bounded(identity), time, _features(data, envelope.features))


def _identity(body: Mapping[str, Any], key: str | None) -> str | None:
    value = body.get(key) if key else None
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise wire.Malformed(f"{key} is {_named(value)}; an id is a string or a 64-bit integer")


def _bounded(identity: str) -> str:
    if len(identity) > MAX_ID:
        raise wire.Malformed(f"the id has {len(identity)} characters, over the limit of {MAX_ID}")
    return identity


def _features(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    if not key:
        return body
    value = body.get(key)
    if not isinstance(value, dict):
        raise wire.Malformed(f"{key} is {_named(value) if key in body else 'missing'}; it must hold the features")
    return value


def _times(column: list[str]) -> list[str] | None:
    """``_time`` of a whole column, or None when one value is not a time. A column of RFC 3339 costs half as much."""
    if _RFC_3339_LINES.fullmatch("\n".join(column)):
        try:
            deque(map(datetime.fromisoformat, column), maxlen=0)
            return column
        except ValueError:
            return None
    normal = [found for found in map(_time, column) if found is not None]
    return normal if len(normal) == len(column) else None


def _time(value: object) -> str | None:
    """An ISO 8601 time as RFC 3339; a time without a zone is UTC. None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    if _RFC_3339.fullmatch(value):  # fromisoformat also accepts other forms: weeks, a decimal comma, no separators
        return value
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    elif moment.utcoffset() % _MINUTE:  # type: ignore[operator]
        return None  # RFC 3339 offsets have no seconds
    return moment.isoformat().replace("+00:00", "Z")


def _named(value: object) -> str:
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return "null" if value is None else names[type(value)]
