"""Turns the bytes of a CSV or NDJSON file into events to publish: lines, JSON values and keys. Pure."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from failsoft.schemas import nan, wire
from failsoft.schemas import times as event_times
from failsoft.schemas.event import Envelope
from failsoft.schemas.features.paths import Absent, find
from failsoft.schemas.features.spec import Spec
from failsoft.workers.operations import csv_cells
from failsoft.workers.operations.csv_cells import looks_like, object_at, put, typed

EventLine = tuple[bytes | None, bytes]
"""An event to publish: key and value."""

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
            odd = line.count(b'"') % 2
            if not self._open and not odd:
                rows.append(line)
                continue
            closes = bool(self._open and odd)
            self._open.append(line)
            if closes:
                rows.append(b"\n".join(self._open))
                self._open = []
        return rows


class Rows(Protocol):
    """Makes events of lines.

    Attributes:
        untimed: the times that could not be parsed so far; they are sent unchanged.
    """

    @property
    def untimed(self) -> int: ...

    def rows(self, lines: Sequence[bytes]) -> Iterator[EventLine]:
        """The events of ``lines``. Raises BadRow."""


class Ndjson:
    """Each line becomes an event, byte for byte. A malformed line is sent too; the worker decides about it.

    key: the path of the field whose value becomes the record's key. It is looked up in the event, then in its features.
    Default: the event's id.
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
            body = nan.loads_anywhere(line, self._envelope.max_bytes)
        except wire.Malformed:
            return None
        value = find(body, self._key)
        if value is None or isinstance(value, Absent):
            value = find(find(body, self._envelope.features), self._key)
        return as_key(value)


class Csv:
    """Each CSV row becomes an event in the pipeline's format. The first row names the columns.

    The id column has the envelope's name for the id, or else ``id``. The time column has the envelope's name for the
    time, or else ``timestamp``. Both are written under the envelope's names; all other columns are features. A column
    with a feature's name or path is written at its path and by its type; the others by their look.
    key: the column whose value becomes the record's key. Default: the id column.
    specs: the features of the models. A column of theirs is a feature, also if it is the id or the time.
    ``untimed`` counts times that could not be parsed; they are sent unchanged.
    """

    def __init__(self, envelope: Envelope, key: str | None, specs: Sequence[Spec] = ()) -> None:
        self._envelope = envelope
        self._key = key
        self._specs = specs
        self._columns: list[str] | None = None
        self._id = self._time = self._key_at = -1
        self._features: list[tuple[int, tuple[str, ...], Spec | None]] = []
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
        if line.count(b'"') % 2:  # only of the last row: see Lines
            raise BadRow(f"row {self._number}: a quote in it is never closed; a quote inside a cell is written twice")
        try:
            text = line.decode("utf-8-sig" if self._columns is None else "utf-8")
            return next(csv.reader([text.removesuffix("\r")], strict=True), [])
        except UnicodeDecodeError as e:
            raise BadRow(f"row {self._number} is not UTF-8 ({e.reason}): save the file as UTF-8") from None
        except csv.Error as e:
            raise BadRow(f"row {self._number}: {e}") from None

    def _head(self, columns: list[str]) -> None:
        problem = self._head_problem(columns)
        if problem is not None:
            raise BadRow(f"row 1 must name each column exactly once: {problem}")
        self._columns = columns
        self._id = _first(columns, self._envelope.id, "id")
        self._time = _first(columns, self._envelope.time, "timestamp")
        if self._key is not None and self._key not in columns:
            raise BadRow(f"no column is called {self._key!r}; there are: {', '.join(columns)}")
        self._key_at = columns.index(self._key) if self._key is not None else self._id
        try:
            known = csv_cells.by_column(self._specs, columns)
        except ValueError as e:
            raise BadRow(f"row 1: {e}") from None
        places = csv_cells.places(self._specs)
        self._features = [
            (i, places[known[i].path] if i in known else (column,), known.get(i))
            for i, column in enumerate(columns)
            if i in known or i not in (self._id, self._time)
        ]

    def _head_problem(self, columns: list[str]) -> str | None:
        """What is wrong with the first row, or None."""
        if columns and not columns[0]:
            return (
                "the first column has no name; if it numbers the rows, write the file without it "
                "(index=False in pandas, row.names = FALSE in R)"
            )
        if not columns or "" in columns:
            return "a column has no name"
        twice = next((c for c in columns if columns.count(c) > 1), None)
        if twice is not None:
            return f"{twice!r} appears twice"
        mark = next((mark for mark in ";\t|" if mark in columns[0]), None) if len(columns) == 1 else None
        if mark is None or columns[0] in {name for spec in self._specs for name in (spec.name, spec.path)}:
            return None
        return f"it has one column, {columns[0][:40]!r}; cells are separated by commas, not by {mark!r}"

    def _row(self, cells: list[str]) -> EventLine:
        assert self._columns is not None
        if len(cells) > len(self._columns):
            raise BadRow(f"row {self._number} has {len(cells)} cells, but the header has {len(self._columns)}")
        if len(cells) < len(self._columns):
            cells += [""] * (len(self._columns) - len(cells))
        e = self._envelope
        event: dict[str, Any] = {}
        if self._id >= 0 and cells[self._id]:  # an id stays text, even if it is all digits
            put(event, e.id.split(".") if e.id else [self._columns[self._id]], cells[self._id])
        if self._time >= 0 and cells[self._time]:
            when = self._when(cells[self._time])
            put(event, e.time.split(".") if e.time else [self._columns[self._time]], when)
        features = object_at(event, e.features.split(".")) if e.features else event
        for i, steps, spec in self._features:
            if cells[i]:
                put(features, steps, looks_like(cells[i]) if spec is None else typed(cells[i], spec))
        key = cells[self._key_at].encode() if self._key_at >= 0 and cells[self._key_at] else None
        return key, wire.dumps(event)

    def _when(self, text: str) -> str:
        found = event_times.time(text)
        if found is None:
            self.untimed += 1
        return found or text


def as_key(value: Any) -> bytes | None:
    """The record key for a JSON value: text unchanged, a number or boolean in JSON's notation, None for the rest."""
    if isinstance(value, str):
        return value.encode() or None
    if isinstance(value, (bool, int, float)):
        return wire.dumps(value)
    return None


def _first(columns: Sequence[str], *wanted: str | None) -> int:
    return next((columns.index(name) for name in wanted if name is not None and name in columns), -1)
