"""The steps that read an Avro value: each reads one part of the schema for all rows of a batch at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.formats.avro_batch import AvroBatch, AvroStep, Positions, Rows, Same
from failsoft.schemas.formats.avro_schema import AvroType

WIDE = 512
"""Bytes of a block. Of a wider one, no row is read that has fewer: garbage would take more memory than the values."""

_GAP = 64
"""Bytes between two wanted fields of a block from which on they are read apart."""

_MOST = 2**31 - 1
"""Bytes of numpy's largest type. A ``fixed`` may have as many."""


@dataclass(slots=True, eq=False)
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
            apart = last is None or each[0] - last[0] - (last[2].width or 0) >= _GAP
            if apart or each[0] - groups[-1][0][0] + (each[2].width or 0) > _MOST:
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
        new = at + self.width
        batch.note_cut(rows, at, new, self._where)
        if self.width > WIDE:
            fits = new <= batch.ends_of(rows)
            if not fits.all():
                batch.fail(rows, ~fits, at, lambda i: f"{self._where(0)} is cut off")
                kept = np.flatnonzero(fits)
                if len(kept):
                    self._read(batch, kept if rows is None else rows[kept], at[kept])
                return np.where(fits, new, at)
        self._read(batch, rows, at)
        return new

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

    def _where(self, room: int) -> str:
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
            left, said = np.maximum(batch.ends_of(rows) - begin, 0), lengths
            batch.fail(rows, odd, at, lambda i: f"{self.path} has a length of {said[i]}, with {left[i]} bytes left")
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


@dataclass(frozen=True, slots=True)
class Constant:
    """No bytes: a null, a record as a whole, or a path that leads to nothing."""

    slot: int
    value: Any

    def run(self, batch: AvroBatch, rows: Rows, at: Positions) -> Positions:
        batch.put(self.slot, rows, None, Same(self.value))
        return at


@dataclass(frozen=True, slots=True)
class Refusal:
    """A type that an event may not be."""

    why: str

    def run(self, batch: AvroBatch, rows: Rows, at: Positions) -> Positions:
        batch.fail(rows, np.ones(len(at), np.bool_), at, lambda _: self.why)
        return at


@dataclass(frozen=True, slots=True)
class Union:
    """One of several types, the steps of each in ``parts``."""

    path: str
    parts: Sequence[Sequence[AvroStep]]

    def run(self, batch: AvroBatch, rows: Rows, at: Positions) -> Positions:
        first = batch.bytes_at(at)
        common = int(first[0])
        if common < 2 * len(self.parts) and not common & 1 and common < 128 and (first == common).all():
            batch.note_cut(rows, at, at + 1, lambda _: self.path)
            return batch.run(self.parts[common >> 1], rows, at + 1)  # the usual case: no null, or nothing else
        chosen, new = batch.varints(rows, at, self.path)
        odd = (chosen < 0) | (chosen >= len(self.parts))
        if odd.any():
            batch.fail(rows, odd, at, lambda i: f"{self.path}: there is no type {chosen[i]} in its union")
        end = new.copy()
        for i, steps in enumerate(self.parts):
            some = np.flatnonzero(chosen == i)
            if len(some) and steps:
                end[some] = batch.run(steps, some if rows is None else rows[some], new[some])
        return end


@dataclass(frozen=True, slots=True)
class Vector:
    """An array whose items have a fixed width, such as floats. It is usually one block, which is read at once.

    Attributes:
        path: its path.
        item: the type of its items: float or double.
        slots: the slots that it is wanted in.
        other: reads the rows that have several blocks, and those that do not fit the schema.
    """

    path: str
    item: AvroType
    slots: Sequence[int]
    other: Collection

    def run(self, batch: AvroBatch, rows: Rows, at: Positions) -> Positions:
        counts, begin = batch.varints(rows, at, self.path)
        dtype = np.dtype(_dtype(self.item))
        room = (batch.ends_of(rows) - begin - 1) // dtype.itemsize
        simple = (counts == 0) | ((counts > 0) & (counts <= room))
        end = begin + np.where(simple & (counts > 0), counts * dtype.itemsize, -1)
        simple &= batch.bytes_at(end) == 0
        if simple.all():
            self._read(batch, rows, begin, counts, dtype)
            return end + 1
        new, kept, rest = end + 1, np.flatnonzero(simple), np.flatnonzero(~simple)
        if len(kept):
            self._read(batch, kept if rows is None else rows[kept], begin[kept], counts[kept], dtype)
        new[rest] = self.other.run(batch, rest if rows is None else rows[rest], at[rest])
        return new

    def _read(
        self, batch: AvroBatch, rows: Rows, begin: Positions, counts: NDArray[np.int64], dtype: np.dtype[Any]
    ) -> None:
        if not self.slots:
            return
        length = int(counts[0])
        if length and (counts == length).all():
            block = batch.gather(begin, np.dtype((np.void, length * dtype.itemsize)), 0)
            lists = block.view(dtype).reshape(len(counts), length).tolist()
        else:
            pairs = zip(begin.tolist(), counts.tolist(), strict=True)
            lists = [np.frombuffer(batch.raw, dtype, count, offset).tolist() for offset, count in pairs]
        for slot in self.slots:
            batch.put(slot, rows, None, lists)


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
                except (EOFError, IndexError, ValueError, StopIteration) as e:
                    odd[i], whys[i] = True, f"{self.path} {_why(e)}"
                new[i] += stream.tell()
            for column, one in zip(columns, found, strict=True):
                column.append(one)
        if whys:
            batch.fail(rows, odd, new, whys.__getitem__)
        for (slot, _), column in zip(self.sinks, columns, strict=True):
            batch.put(slot, rows, None, column)
        return new


def _why(error: Exception) -> str:
    """What is wrong with a collection that fastavro cannot read, or that has an enum of no symbol."""
    if isinstance(error, ValueError):
        return f"has a value that does not fit: {error}"
    if isinstance(error, IndexError) and "list" in str(error):
        return "has a type that is not in its union"
    return "is cut off" + (f": {str(error).lower()}" if str(error).startswith("Expected") else "")
