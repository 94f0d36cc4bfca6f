"""Decodes events of JSON: a batch by columns where all are plain, and one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from failsoft.schemas import nan, wire
from failsoft.schemas import times as event_times
from failsoft.schemas.cloud_events import any_cloud
from failsoft.schemas.event import MAX_ID, Envelope, Events, origin_of
from failsoft.schemas.event_parts import first_time
from failsoft.schemas.features.paths import find, getter, locate
from failsoft.schemas.formats.framing import PREFIX
from failsoft.schemas.record import Origin, Record

_BOM = b"\xef\xbb\xbf"


def bare(raw: bytes) -> bytes:
    """The JSON in a value, without Confluent's framing and without a byte order mark, which some writers put first."""
    if raw[:1] == b"\0" and len(raw) >= PREFIX:
        raw = raw[PREFIX:]
    return raw[len(_BOM) :] if raw[:3] == _BOM else raw


def loads(raw: bytes | None, envelope: Envelope, structured: bool = False) -> Any:
    """The JSON value of an event; of a CloudEvent if it is ``structured``. Raises Malformed."""

    def may_be_nan(body: Any) -> Iterator[nan.Place]:
        holder = body.get("data") if structured and isinstance(body, dict) else body
        features = find(holder, envelope.features) if envelope.features else holder
        for paths, lists in ((envelope.nans, False), (envelope.tensors, True)):
            for path in paths:
                place = locate(features, path)
                if place is not None and isinstance(place[0][place[1]], list) is lists:
                    yield place

    if raw is not None and len(raw) > envelope.max_bytes:
        raise wire.Malformed(f"{len(raw)} bytes, over the limit of {envelope.max_bytes}")
    return nan.loads(None if raw is None else bare(raw), envelope.max_bytes, envelope.max_depth, may_be_nan)


def decode_all(records: Sequence[Record], origins: Mapping[int, Origin], envelope: Envelope) -> Events | None:
    """Decode the batch by columns, or return None when any row must be decoded by itself.

    Every row must be plain: no CloudEvent, and id, time and features as configured. List comprehensions over whole
    columns cost a fifth of one call per row.
    """
    if envelope.id is None or envelope.time is None or any_cloud(records):
        return None
    values: list[Any] = [r.value for r in records]
    bodies = wire.loads_all(values, envelope.max_bytes)
    if bodies is None and None not in values and max(map(len, values)) <= envelope.max_bytes:
        given, values = values, list(map(bare, values))
        bodies = (values != given and wire.loads_all(values, envelope.max_bytes)) or _with_nan(given, envelope)
    if not bodies:
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
            time, untimed = first_time((times[row],), origin)
            if untimed is not None:
                batch.untimed[row] = untimed
        batch.times.append(time)
    return batch


def _with_nan(values: Sequence[bytes], envelope: Envelope) -> list[Any] | None:
    """The decoded values, of which some may have NaN where the envelope allows it; None when any is bad."""
    if not envelope.nans and not envelope.tensors:
        return None
    try:
        return [loads(value, envelope) for value in values]
    except wire.Malformed:
        return None
