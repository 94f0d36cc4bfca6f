"""Lines of a file -> events to publish: bytes to lines, CSV cells to JSON values, and the key of each. Pure."""

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

Row = tuple[bytes | None, bytes]
"""An event to publish: key and value."""

_NUMBER = re.compile(r"-?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
# A cell such as 01234 is a post code, and +49 a telephone's: JSON knows neither as a number.
_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_LONGEST_CELL = 16_000_000


class BadRow(Exception):
    """A CSV file that cannot be read on from some line; the message says which. Exit code 1."""


@dataclass(slots=True)
class Lines:
    """Bytes as they come -> whole lines, without their ends. ``quoted``: a quoted line break belongs to its CSV row."""

    quoted: bool = False
    _rest: bytes = b""
    _open: list[bytes] = field(default_factory=list)

    def feed(self, block: bytes) -> list[bytes]:
        """The lines that ``block`` completes."""
        *whole, self._rest = (self._rest + block).split(b"\n")
        return self._join(whole) if self.quoted else whole

    def end(self) -> list[bytes]:
        """The last line of a file that does not end in a line break; of CSV, also a row whose quote is never closed."""
        last, self._rest = self._rest, b""
        found = self._join([last]) if self.quoted else [last]
        if self._open:
            found.append(b"\n".join(self._open))
            self._open = []
        return [line for line in found if line]

    def _join(self, lines: Sequence[bytes]) -> list[bytes]:
        rows = []
        for line in lines:
            # Within a row quotes come in pairs (RFC 4180), so an odd count leaves one open.
            if self._open or line.count(b'"') % 2:
                self._open.append(line)
                if sum(part.count(b'"') for part in self._open) % 2:
                    continue
                line, self._open = b"\n".join(self._open), []
            rows.append(line)
        return rows


class Ndjson:
    """Each line is an event, byte for byte, whatever it holds: what is malformed is the worker's to judge.

    ``key``: the field whose value becomes the key, of the event or of its features; by default the event's id.
    """

    def __init__(self, envelope: Envelope, key: str | None) -> None:
        self._envelope = envelope
        self._key = key or envelope.id
        self.untimed = 0

    def rows(self, lines: Sequence[bytes]) -> Iterator[Row]:
        """A row a line; empty lines are no events."""
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
        found = body.get(self._key)
        if found is None and isinstance(inside := body.get(self._envelope.features), dict):
            found = inside.get(self._key)
        return as_key(found)


class Csv:
    """Each row becomes an event of the pipeline's shape. The first row names the columns.

    The column of the id is the envelope's, or ``id``; that of the time the envelope's, or ``timestamp``; both move
    under the envelope's names, and the others are features. ``untimed`` counts the times that could not be read: they
    are sent as they are.
    """

    def __init__(self, envelope: Envelope, key: str | None) -> None:
        self._envelope = envelope
        self._key = key
        self._columns: list[str] | None = None
        self._id = self._time = self._key_at = -1
        self._features: list[tuple[int, str]] = []
        self._number = 0
        self.untimed = 0

    def rows(self, lines: Sequence[bytes]) -> Iterator[Row]:
        """A row a line but the header's. Raises BadRow."""
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
            what = f"{twice!r} stands there twice" if twice else "a column has no name"
            raise BadRow(f"row 1 must name the columns, each once: {what}")
        self._columns = columns
        self._id = _first(columns, self._envelope.id, "id")
        self._time = _first(columns, self._envelope.time, "timestamp")
        if self._key is not None and self._key not in columns:
            raise BadRow(f"no column is called {self._key!r}; there are: {', '.join(columns)}")
        self._key_at = columns.index(self._key) if self._key is not None else self._id
        self._features = [(i, c) for i, c in enumerate(columns) if i not in (self._id, self._time)]

    def _row(self, cells: list[str]) -> Row:
        assert self._columns is not None
        if len(cells) > len(self._columns):
            raise BadRow(f"row {self._number} has {len(cells)} cells, and the header {len(self._columns)}")
        if len(cells) < len(self._columns):
            cells += [""] * (len(self._columns) - len(cells))
        e = self._envelope
        features = {name: value(cells[i]) for i, name in self._features if cells[i]}
        event: dict[str, Any] = {}
        if self._id >= 0 and cells[self._id]:
            event[e.id or self._columns[self._id]] = cells[self._id]  # text: an id's digits are no quantity
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
    """What a CSV cell means: true or false, a number as JSON writes it, else text. Never empty."""
    if (word := _WORDS.get(cell)) is not None:
        return word
    if cell[0] not in "-.0123456789" or not _NUMBER.fullmatch(cell):
        return cell
    if cell.lstrip("-").isdigit() and -(2**63) <= (whole := int(cell)) < 2**63:
        return whole
    number = float(cell)
    return number if math.isfinite(number) else cell  # JSON has no infinity


def as_key(found: Any) -> bytes | None:
    """A JSON value as a record's key: text as it is, a number or a boolean as JSON writes it."""
    if isinstance(found, str):
        return found.encode() or None
    if isinstance(found, (bool, int, float)):
        return wire.dumps(found)
    return None


def _first(columns: Sequence[str], *wanted: str | None) -> int:
    return next((columns.index(name) for name in wanted if name is not None and name in columns), -1)
