"""A batch of Avro values of one schema, read field by field: each step reads one part of the schema for all rows.

numpy does in one call for a field of all rows what a reader of single values does for each. Positions differ from row
to row: ``at`` has one for each. The rows of a step are all rows (None), or an array of indexes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.features.columns import Mask
from failsoft.schemas.formats.avro_schema import AvroType

Positions = NDArray[np.int64]
Rows = NDArray[np.intp] | None


@dataclass(frozen=True, slots=True)
class Same:
    """One value for many rows."""

    value: Any


@dataclass(frozen=True, slots=True)
class ColumnPiece:
    """What some rows have at a wanted path: raw values of one type, or values as they are wanted (``kind`` is None)."""

    rows: Rows
    kind: AvroType | None
    values: NDArray[Any] | Sequence[Any] | Same


class AvroBatch:
    """The values' bytes and what was read of them.

    Attributes:
        raw: all values, one after another, and zeros behind them: a row that is cut off is noticed only later.
        ends: where each value ends in ``raw``.
        bad: the rows that do not fit the schema. What is read of them means nothing.
        pieces: for each wanted path, pieces that together have each row once.
        faults: why a row is bad, by row; only if asked for.
    """

    def __init__(self, values: Sequence[bytes], wanted: int, reach: int, explained: bool = False) -> None:
        """
        Args:
            values: at least one.
            wanted: how many paths are wanted.
            reach: how far beyond a value the steps may read (bytes).
            explained: also note why a row is bad. This costs a comparison a step.
        """
        self.raw = b"".join([*values, bytes(reach)])
        self._bytes = np.frombuffer(self.raw, np.uint8)
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        self.ends: Positions = np.cumsum(lengths)
        self.starts: Positions = self.ends - lengths
        self.bad: Mask = np.zeros(len(values), np.bool_)
        self.pieces: list[list[ColumnPiece]] = [[] for _ in range(wanted)]
        self.faults: dict[int, str] = {}
        self._explained = explained

    def read(self, steps: Sequence[Step]) -> None:
        """Read all values. A value must end where its bytes do."""
        at = self.run(steps, None, self.starts)
        left = at != self.ends
        if left.any():
            self.fail(None, left, at, lambda i: f"{self.ends[i] - at[i]} bytes more than the schema has")

    def run(self, steps: Sequence[Step], rows: Rows, at: Positions) -> Positions:
        """Run ``steps`` for some rows. Returns where they end."""
        for step in steps:
            new = step.run(self, rows, at)
            if self._explained:
                ends = self.ends_of(rows)
                cut = new > ends
                if cut.any():
                    before = at
                    self.fail(rows, cut, at, lambda i: f"{step.where(int(ends[i] - before[i]))} is cut off")  # noqa: B023
            at = new
        return at

    def ends_of(self, rows: Rows) -> Positions:
        return self.ends if rows is None else self.ends[rows]

    def put(self, slot: int, rows: Rows, kind: AvroType | None, values: NDArray[Any] | Sequence[Any] | Same) -> None:
        """Keep what ``rows`` have at a wanted path."""
        self.pieces[slot].append(ColumnPiece(rows, kind, values))

    def fail(self, rows: Rows, mask: Mask, at: Positions, why: Callable[[int], str]) -> None:
        """Note that the rows in ``mask`` are bad. ``why`` says it for an index into ``at``; the first reason counts."""
        chosen = np.flatnonzero(mask)
        which = chosen if rows is None else rows[chosen]
        self.bad[which] = True
        if self._explained:
            for i, row in zip(chosen.tolist(), which.tolist(), strict=True):
                if row not in self.faults:
                    self.faults[row] = f"at byte {at[i] - self.starts[row]}: {why(i)}"

    def varints(self, rows: Rows, at: Positions, path: str) -> tuple[NDArray[np.int64], Positions]:
        """A zigzag-encoded number of each row, and where it ends."""
        first = self._bytes[at]
        if first.max() < 128:
            small = first.astype(np.int64)
            return (small >> 1) ^ -(small & 1), at + 1
        value, more = (first & 127).astype(np.uint64), first >= 128
        new = at + 1
        for shift in range(7, 70, 7):
            byte = np.where(more, self._bytes[new], np.uint8(0))
            value |= (byte & 127).astype(np.uint64) << np.uint64(shift)
            new = new + more
            long = more & (byte > 1) if shift == 63 else None
            more = byte >= 128
            if not more.any() and long is None:
                break
            if long is not None and long.any():
                self.fail(rows, long, at, lambda i: f"{path}: a number of over 64 bits")
        return ((value >> np.uint64(1)) ^ -(value & np.uint64(1))).view(np.int64), new

    def gather(self, at: Positions, dtype: np.dtype[Any], offset: int) -> NDArray[Any]:
        """What each row has ``offset`` bytes after its position, as one array."""
        count = len(self.raw) - offset - dtype.itemsize + 1
        windows: NDArray[Any] = np.ndarray((count,), dtype, self.raw, offset, (1,))
        return windows[at]


class Step(Protocol):
    """Reads one part of a schema."""

    def run(self, batch: AvroBatch, rows: Rows, at: Positions) -> Positions:
        """Read it for some rows, at least one. Returns where it ends in each."""

    def where(self, room: int) -> str:
        """The path of what does not fit into ``room`` bytes."""


_CHECKED = 512
"""Bytes of a block from which on no row is read that has fewer: garbage would take more memory than the values."""

_GAP = 64
"""Bytes between two wanted fields of a block from which on they are read apart."""


@dataclass(slots=True)
class Block:
    """Adjacent fields that each have a fixed width.

    Attributes:
        fields: the offset, path, type and slot of each; None: it is not wanted.
        width: bytes of all of them.
    """

    fields: list[tuple[int, str, AvroType, int | None]] = field(default_factory=list)
    width: int = 0
    _gathers: list[tuple[int, np.dtype[Any], list[tuple[str, str, AvroType, int | None]]]] = field(default_factory=list)

    def add(self, path: str, kind: AvroType, slots: Sequence[int]) -> None:
        """Add a field that follows the others."""
        for slot in slots or (None,):
            self.fields.append((self.width, path, kind, slot))
        self.width += kind.width or 0

    def append(self, other: Block) -> None:
        """Add the fields of another block, which follows this one."""
        self.fields += [(self.width + offset, path, kind, slot) for offset, path, kind, slot in other.fields]
        self.width += other.width

    def prepare(self) -> None:
        """To be called when all fields are there. Also a boolean that is not wanted is read: it may be neither."""
        read = [each for each in self.fields if each[3] is not None or each[2].kind == "boolean"]
        groups: list[list[tuple[int, str, AvroType, int | None]]] = []
        for each in read:
            last = groups[-1][-1] if groups else None
            if last is None or each[0] - last[0] - (last[2].width or 0) >= _GAP:
                groups.append([])
            groups[-1].append(each)
        for group in groups:
            start, names = group[0][0], [f"f{i}" for i in range(len(group))]
            formats = [_dtype(kind) for _, _, kind, _ in group]
            offsets = [offset - start for offset, *_ in group]
            size = max(offset - start + (kind.width or 0) for offset, _, kind, _ in group)
            dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})
            fields = [(name, *each[1:]) for name, each in zip(names, group, strict=True)]
            self._gathers.append((start, dtype, fields))

    def run(self, batch: AvroBatch, rows: Rows, at: Positions) -> Positions:
        if self.width <= _CHECKED:
            self._read(batch, rows, at)
            return at + self.width
        fits = at + self.width <= batch.ends_of(rows)
        if not fits.all():
            ends, before = batch.ends_of(rows), at
            batch.fail(rows, ~fits, at, lambda i: f"{self.where(int(ends[i] - before[i]))} is cut off")
            kept = np.flatnonzero(fits)
            if not len(kept):
                return at
            self._read(batch, kept if rows is None else rows[kept], at[kept])
            return np.where(fits, at + self.width, at)
        self._read(batch, rows, at)
        return at + self.width

    def _read(self, batch: AvroBatch, rows: Rows, at: Positions) -> None:
        for start, dtype, fields in self._gathers:
            found = batch.gather(at, dtype, start)
            for name, path, kind, slot in fields:
                column = found[name]
                if kind.kind == "boolean":
                    if column.max() > 1:
                        batch.fail(rows, column > 1, at, lambda i: f"{path} is neither true nor false")  # noqa: B023
                    column = column == 1
                if slot is not None:
                    batch.put(slot, rows, kind, column)

    def where(self, room: int) -> str:
        """The first field that ends beyond ``room``."""
        i = bisect_right(self.fields, room, key=lambda each: each[0] + (each[2].width or 0))
        return self.fields[min(i, len(self.fields) - 1)][1]


def _dtype(kind: AvroType) -> str:
    return {"boolean": "u1", "float": "<f4", "double": "<f8"}.get(kind.kind) or f"V{kind.width}"


@dataclass(frozen=True, slots=True)
class Number:
    """An int, a long or an enum."""

    path: str
    kind: AvroType
    slots: Sequence[int]

    def run(self, batch: AvroBatch, rows: Rows, at: Positions) -> Positions:
        values, new = batch.varints(rows, at, self.path)
        if self.kind.kind == "enum":
            odd = (values < 0) | (values >= len(self.kind.symbols))
            if odd.any():
                batch.fail(rows, odd, at, lambda i: f"{self.path}: there is no symbol {values[i]}")
                values = np.where(odd, 0, values)
        elif self.kind.kind == "int":
            odd = values.astype(np.int32) != values
            if odd.any():
                batch.fail(rows, odd, at, lambda i: f"{self.path}: {values[i]} is no int of 32 bits")
        for slot in self.slots:
            batch.put(slot, rows, self.kind, values)
        return new

    def where(self, room: int) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class Text:
    """A string, or bytes. Also a string that is not wanted is held to UTF-8."""

    path: str
    kind: AvroType
    slots: Sequence[int]

    def run(self, batch: AvroBatch, rows: Rows, at: Positions) -> Positions:
        lengths, begin = batch.varints(rows, at, self.path)
        odd = (lengths < 0) | (lengths > batch.ends_of(rows) - begin)
        if odd.any():
            ends, started = batch.ends_of(rows), begin
            batch.fail(
                rows,
                odd,
                at,
                lambda i: f"{self.path} is {lengths[i]} bytes long, with {max(ends[i] - started[i], 0)} left",
            )
            lengths = np.where(odd, 0, lengths)
        end = begin + lengths
        if self.slots or self.kind.kind == "string":
            parts: Sequence[Any] = [batch.raw[i:j] for i, j in zip(begin.tolist(), end.tolist(), strict=True)]
            if self.kind.kind == "string":
                parts = self._decoded(batch, rows, at, parts)
            for slot in self.slots:
                batch.put(slot, rows, self.kind, parts)
        return end

    def _decoded(self, batch: AvroBatch, rows: Rows, at: Positions, parts: Sequence[bytes]) -> Sequence[str]:
        """All at once: a zero byte cannot end or begin a character, so together they are UTF-8 if each is."""
        try:
            texts = b"\0".join(parts).decode().split("\0")
            if len(texts) == len(parts):
                return texts
        except UnicodeDecodeError:
            pass
        texts, odd, whys = [], np.zeros(len(parts), np.bool_), dict[int, str]()
        for i, part in enumerate(parts):
            try:
                texts.append(part.decode())
            except UnicodeDecodeError as e:
                odd[i], whys[i] = True, f"{self.path} is not UTF-8: {e.reason} in its byte {e.start}"
                texts.append("")
        if whys:
            batch.fail(rows, odd, at, whys.__getitem__)
        return texts

    def where(self, room: int) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class Constant:
    """No bytes: a null, a record as a whole, or a path that leads to nothing."""

    slot: int
    value: Any

    def run(self, batch: AvroBatch, rows: Rows, at: Positions) -> Positions:
        batch.put(self.slot, rows, None, Same(self.value))
        return at

    def where(self, room: int) -> str:
        raise AssertionError("it takes no bytes")


@dataclass(frozen=True, slots=True)
class Union:
    """One of several types, the steps of each in ``parts``."""

    path: str
    parts: Sequence[Sequence[Step]]

    def run(self, batch: AvroBatch, rows: Rows, at: Positions) -> Positions:
        chosen, new = batch.varints(rows, at, self.path)
        low, high = int(chosen.min()), int(chosen.max())
        if low < 0 or high >= len(self.parts):
            odd = (chosen < 0) | (chosen >= len(self.parts))
            batch.fail(rows, odd, at, lambda i: f"{self.path}: there is no type {chosen[i]} in its union")
        elif low == high:
            return batch.run(self.parts[low], rows, new)
        end = new.copy()
        for i, steps in enumerate(self.parts):
            some = np.flatnonzero(chosen == i)
            if len(some) and steps:
                end[some] = batch.run(steps, some if rows is None else rows[some], new[some])
        return end

    def where(self, room: int) -> str:
        return self.path


Sink = Callable[[Any], Any]
"""Takes a raw array or map, and returns what is wanted of it. Raises ValueError if it does not fit the schema."""


@dataclass(frozen=True, slots=True)
class Collection:
    """An array or a map, which fastavro reads row by row.

    Attributes:
        path: its path.
        read: reads one from a stream.
        sinks: what is wanted of it, by slot.
    """

    path: str
    read: Callable[[BytesIO], Any]
    sinks: Sequence[tuple[int, Sink]]

    def run(self, batch: AvroBatch, rows: Rows, at: Positions) -> Positions:
        new, odd, whys = at.copy(), np.zeros(len(at), np.bool_), dict[int, str]()
        columns: list[list[Any]] = [[] for _ in self.sinks]
        bad = batch.bad if rows is None else batch.bad[rows]
        for i, (begin, end) in enumerate(zip(at.tolist(), batch.ends_of(rows).tolist(), strict=True)):
            stream = BytesIO(batch.raw[begin:end])
            found: list[Any] = [None] * len(self.sinks)
            if not bad[i]:
                try:
                    value = self.read(stream)
                    found = [sink(value) for _, sink in self.sinks]
                    new[i] += stream.tell()
                except (EOFError, IndexError, ValueError, StopIteration, OverflowError) as e:
                    odd[i], whys[i] = True, f"{self.path}, {stream.tell()} bytes on: {e or 'it is cut off'}"
            for column, one in zip(columns, found, strict=True):
                column.append(one)
        if whys:
            batch.fail(rows, odd, at, whys.__getitem__)
        for (slot, _), column in zip(self.sinks, columns, strict=True):
            batch.put(slot, rows, None, column)
        return new

    def where(self, room: int) -> str:
        return self.path
