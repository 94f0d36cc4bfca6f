"""Decodes events by their schemas: the rows of each schema at once, so that a bad one changes none of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from failsoft.schemas import times as event_times
from failsoft.schemas import wire
from failsoft.schemas.event import MAX_ID, Envelope, Events, Readers, fallback_id, iso, origin_of
from failsoft.schemas.event_parts import bounded, first_time, holder, identity
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.table import FeaturePart
from failsoft.schemas.formats.framing import SchemaGroup, named
from failsoft.schemas.formats.reader import DecodedRows
from failsoft.schemas.formats.registered import SchemaRef
from failsoft.schemas.record import Origin, Record
from failsoft.schemas.unwrapping import SchemaData


class SchemaBatch:
    """Decodes the groups of a batch into ``events``, whose ids and times have a place for each row already.

    Attributes:
        parts: the features of the rows that were decoded.
    """

    def __init__(
        self,
        events: Events,
        records: Sequence[Record],
        origins: Mapping[int, Origin],
        envelope: Envelope,
        wrapped: Mapping[int, SchemaData],
    ) -> None:
        """``wrapped``: what CloudEvents say of rows, by row."""
        self._events, self._records, self._origins = events, records, origins
        self._envelope, self._wrapped = envelope, wrapped
        self.parts: list[FeaturePart] = []

    def decode(self, groups: Mapping[SchemaRef, SchemaGroup], readers: Readers) -> None:
        """Decode all groups."""
        for ref, group in groups.items():
            reader = readers.get(ref)
            if reader is None:
                why = f"{named(ref)}, but there is no [schema_registry] url to ask for it"
                reader = Failure(Kind.MALFORMED, why)
            if isinstance(reader, Failure):
                self._fail(group.rows, reader)
                continue
            decoded = reader.read(group.values)
            for i, why in decoded.bad.items():
                self._fail([group.rows[i]], Failure(Kind.MALFORMED, f"{named(ref)}: {why}"))
            rows = group.rows if not decoded.bad else [group.rows[i] for i in decoded.kept]
            if rows:
                self._identify(rows, decoded.rows)
                self._time(rows, decoded.rows)
                self.parts.append(FeaturePart(decoded.rows, rows))

    def refuse(self, bad: Mapping[int, str]) -> None:
        """Fail the rows that name no schema, or that are too large: why, by row."""
        for row, why in bad.items():
            self._fail([row], Failure(Kind.MALFORMED, why))

    def _fail(self, rows: Sequence[int], failure: Failure) -> None:
        """Nothing of these rows can be read but what CloudEvents say of them."""
        for row in rows:
            wrapped = self._wrapped.get(row)
            origin = self._origin(row)
            self._events.failures[row] = failure
            self._events.ids[row] = _of_cloud(wrapped) or fallback_id(origin)
            self._events.times[row] = iso(origin.timestamp)

    def _origin(self, row: int) -> Origin:
        return self._origins.get(row) or origin_of(self._records[row])

    def _identify(self, rows: Sequence[int], decoded: DecodedRows) -> None:
        """Set the ids, and fail the rows whose id is none, or that have no object with the features."""
        path, features = self._envelope.id, self._envelope.features
        found = None if path is None else decoded.column(path)
        holders = decoded.column(features) if features else None
        good = holders is None or set(map(type, holders)) <= {dict}
        if good and found is not None and not self._wrapped and _all_ids(found):
            _put(self._events.ids, rows, found)
            return
        for i, row in enumerate(rows):
            wrapped, origin = self._wrapped.get(row), self._origin(row)
            try:
                own = found[i] if found is not None and (wrapped is None or not wrapped.structured) else None
                id = (wrapped and wrapped.id) or identity(own, str(path))
                self._events.ids[row] = bounded(id or fallback_id(origin))
                if holders is not None:
                    holder(holders[i], features)
            except wire.Malformed as e:
                self._events.failures[row] = Failure(Kind.MALFORMED, str(e))
                self._events.ids[row] = self._events.ids[row] or fallback_id(origin)

    def _time(self, rows: Sequence[int], decoded: DecodedRows) -> None:
        path = self._envelope.time
        found: Sequence[Any] = [None] * len(rows) if path is None else decoded.column(path)
        normal = [None] * len(rows) if self._wrapped else event_times.times(found)
        if None not in normal:
            _put(self._events.times, rows, normal)
            return
        for i, row in enumerate(rows):
            time, wrapped = normal[i], self._wrapped.get(row)
            if time is None:
                given = [found[i]] if wrapped is None else [wrapped.time, None if wrapped.structured else found[i]]
                time, untimed = first_time(given, self._origin(row))
                if untimed is not None and row not in self._events.failures:
                    self._events.untimed[row] = untimed
            self._events.times[row] = time


def _of_cloud(wrapped: SchemaData | None) -> str | None:
    return wrapped.id if wrapped is not None and wrapped.id and len(wrapped.id) <= MAX_ID else None


def _all_ids(found: Sequence[Any]) -> bool:
    return set(map(type, found)) == {str} and all(found) and max(map(len, found)) <= MAX_ID


def _put(column: list[str], rows: Sequence[int], values: Sequence[Any]) -> None:
    """Set the values of some rows, which are in ascending order."""
    if len(rows) == len(column):
        column[:] = values
        return
    for row, value in zip(rows, values, strict=True):
        column[row] = value
