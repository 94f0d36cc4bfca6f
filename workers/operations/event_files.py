"""Turns the bytes of a CSV or NDJSON file into events to publish: lines, JSON values and keys. Pure."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from failsoft.schemas import wire
from failsoft.schemas.event import Envelope

EventLine = tuple[bytes | None, bytes]
"""An event to publish: key and value."""

_NUMBER = re.compile(r"-?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
# 01234 may be a post code and +49 a phone number, so neither is a number. JSON does not allow them as numbers either.
_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_LONGEST_CELL = 16_000_000


class BadRow(Exception):
    """A row of a CSV file cannot be read, and reading stops there. The message names the row. Exit code 1."""


@dataclass(slots=True)
class Lines:
    """Cuts blocks of bytes into complete lines without line breaks.

    quoted: a line break inside CSV quotes does not end the line.
    """

    quoted: bool = False
    _rest: bytes = b""
    _open: list[bytes] = field(default_factory=list)

    def feed(self, block: bytes) -> list[bytes]:
        """The lines that ``block`` completes."""
        *whole, self._rest = (self._rest + block).split(b"\n")
        return self._join(whole) if self.quoted else whole

    def end(self) -> list[bytes]:
        """The rest at the end of the file: a line without a line break, or a CSV row whose quote is never closed."""
        last, self._rest = self._rest, b""
        lines = self._join([last]) if self.quoted else [last]
        if self._open:
            lines.append(b"\n".join(self._open))
            self._open = []
        return [line for line in lines if line]

    def _join(self, lines: Sequence[bytes]) -> list[bytes]:
        rows = []
        for line in lines:
            # In a CSV row quotes come in pairs (RFC 4180), so an odd count means that a quote is still open.
            if self._open or line.count(b'"') % 2:
                self._open.append(line)
                if sum(part.count(b'"') for part in self._open) % 2:
                    continue
                line, self._open = b"\n".join(self._open), []
            rows.append(line)
        return rows


class Ndjson:
    """Each line becomes an event, byte for byte. A malformed line is sent too; the worker decides about it.

    key: the field whose value becomes the record's key. It is looked up in the event, then in its features. Default:
    the event's id.
    """

    def __init__(self, envelope: Envelope, key: str | None) -> None:
        self._envelope = envelope
        self._key = key or envelope.id
        self.untimed = 0

    def rows(self, lines: Sequence[bytes]) -> Iterator[EventLine]:
        """One row for each line that is not empty."""
        for line in lines:
            if line and line != b"\r":
                yield self._key_of(line), line

    def _key_of(self, line: bytes) -> bytes | None:
        if self._key is None:
            return None
        try:
            body = wire.loads(line, self._envelope.max_bytes)
        except wire.Malformed:
            return None
        if not isinstance(body, dict):
            return None
        value = body.get(self._key)
        if value is None and isinstance(features := body.get(self._envelope.features), dict):
            value = features.get(self._key)
        return as_key(value)


class Csv:
    """Each CSV row becomes an event in the pipeline's format. The first row names the columns.

    The id column has the envelope's name for the id, or else ``id``. The time column has the envelope's name for the
    time, or else ``timestamp``. Both are written under the envelope's names; all other columns are features.
    key: the column whose value becomes the record's key. Default: the id column.
    ``untimed`` counts times that could not be parsed; they are sent unchanged.
    """

    def __init__(self, envelope: Envelope, key: str | None) -> None:
        self._envelope = envelope
        self._key = key
        self._columns: list[str] | None = None
        self._id = self._time = self._key_at = -1
        self._features: list[tuple[int, str]] = []
        self._number = 0
        self.untimed = 0

    def rows(self, lines: Sequence[bytes]) -> Iterator[EventLine]:
        """One row for each line after the header. Raises BadRow."""
        csv.field_size_limit(_LONGEST_CELL)
        for line in lines:
            self._number += 1
            cells = self._cells(line)
            if self._columns is None:
                self._head(cells)
            elif cells:
                yield self._row(cells)

    def _cells(self, line: bytes) -> list[str]:
        try:
            text = line.decode("utf-8-sig" if self._columns is None else "utf-8")
            return next(csv.reader([text.removesuffix("\r")], strict=True), [])
        except (csv.Error, UnicodeDecodeError) as e:
            raise BadRow(f"row {self._number}: {e}") from None

    def _head(self, columns: list[str]) -> None:
        twice = next((c for c in columns if columns.count(c) > 1), None)
        if not columns or "" in columns or twice is not None:
            problem = f"{twice!r} appears twice" if twice else "a column has no name"
            raise BadRow(f"row 1 must name each column exactly once: {problem}")
        self._columns = columns
        self._id = _first(columns, self._envelope.id, "id")
        self._time = _first(columns, self._envelope.time, "timestamp")
        if self._key is not None and self._key not in columns:
            raise BadRow(f"no column is called {self._key!r}; there are: {', '.join(columns)}")
        self._key_at = columns.index(self._key) if self._key is not None else self._id
        self._features = [(i, c) for i, c in enumerate(columns) if i not in (self._id, self._time)]

    def _row(self, cells: list[str]) -> EventLine:
        assert self._columns is not None
        if len(cells) > len(self._columns):
            raise BadRow(f"row {self._number} has {len(cells)} cells, but the header has {len(self._columns)}")
        if len(cells) < len(self._columns):
            cells += [""] * (len(self._columns) - len(cells))
        e = self._envelope
        features = {name: value(cells[i]) for i, name in self._features if cells[i]}
        event: dict[str, Any] = {}
        if self._id >= 0 and cells[self._id]:
            event[e.id or self._columns[self._id]] = cells[self._id]  # an id stays text, even if it is all digits
        if self._time >= 0 and cells[self._time]:
            event[e.time or self._columns[self._time]] = self._when(cells[self._time])
        if e.features:
            event[e.features] = features
        else:
            event |= features
        key = cells[self._key_at].encode() if self._key_at >= 0 and cells[self._key_at] else None
        return key, wire.dumps(event)

    def _when(self, text: str) -> str:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.untimed += 1
            return text
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.isoformat().replace("+00:00", "Z")


FORMATS: dict[str, Callable[[Envelope, str | None], Csv | Ndjson]] = {"csv": Csv, "ndjson": Ndjson}


def value(cell: str) -> bool | int | float | str:
    """The JSON value of a CSV cell: true, false, a number in JSON's notation, else text. ``cell`` is not empty."""
    if (word := _WORDS.get(cell)) is not None:
        return word
    if cell[0] not in "-.0123456789" or not _NUMBER.fullmatch(cell):
        return cell
    if cell.lstrip("-").isdigit() and -(2**63) <= (whole := int(cell)) < 2**63:
        return whole
    number = float(cell)
    return number if math.isfinite(number) else cell  # JSON has no infinity


def as_key(value: Any) -> bytes | None:
    """The record key for a JSON value: text unchanged, a number or boolean in JSON's notation, None for the rest."""
    if isinstance(value, str):
        return value.encode() or None
    if isinstance(value, (bool, int, float)):
        return wire.dumps(value)
    return None


def _first(columns: Sequence[str], *wanted: str | None) -> int:
    return next((columns.index(name) for name in wanted if name is not None and name in columns), -1)
