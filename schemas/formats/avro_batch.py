"""A batch of Avro values of one schema, read field by field: each step reads one part of the schema for all rows.

numpy does in one call for a field of all rows what a reader of single values does for each. Positions differ from row
to row: ``at`` has one for each. The rows of a step are all rows (None), or an array of indexes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.features.columns import Mask
from failsoft.schemas.formats.avro_schema import AvroType

_WORD = np.dtype("<u8")
_ZERO, _ONE, _TWO, _FOUR = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(4)
_ONE_BYTE, _THREE, _SEVEN_BITS = np.uint8(1), np.uint8(3), np.uint64(0x7F)
_HIGH_BITS = np.uint64(0x8080808080808080)
_LOW_7, _HIGH_7 = np.uint64(0x007F007F007F007F), np.uint64(0x7F007F007F007F00)
_LOW_14, _HIGH_14 = np.uint64(0x00003FFF00003FFF), np.uint64(0x3FFF00003FFF0000)
_LOW_28, _HIGH_28 = np.uint64(0x000000000FFFFFFF), np.uint64(0x0FFFFFFF00000000)

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
        raw: all values, one after another, and zeros behind them: a step may read beyond a row that is cut off.
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

    def read(self, steps: Sequence[AvroStep]) -> None:
        """Read all values. A value must end where its bytes do."""
        at = self.run(steps, None, self.starts)
        left = at != self.ends
        if left.any():
            self.fail(None, left, at, lambda i: f"{self.ends[i] - at[i]} bytes more than the schema has")

    def run(self, steps: Sequence[AvroStep], rows: Rows, at: Positions) -> Positions:
        """Run ``steps`` for some rows. Returns where they end."""
        for step in steps:
            at = step.run(self, rows, at)
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

    def note_cut(self, rows: Rows, at: Positions, new: Positions, where: Callable[[int], str]) -> None:
        """Note the rows that end before ``new``, if reasons are asked for: without, ``read`` finds them in the end.

        ``where`` says what does not fit into as many bytes as are left.
        """
        if self._explained:
            ends = self.ends_of(rows)
            cut = new > ends
            if cut.any():
                self.fail(rows, cut, at, lambda i: f"{where(int(ends[i] - at[i]))} is cut off")

    def varints(self, rows: Rows, at: Positions, path: str) -> tuple[NDArray[np.int64], Positions]:
        """A zigzag-encoded number of each row, and where it ends.

        Each byte has seven bits of the number, the least significant first, and says in its highest bit whether more
        follow. Eight bytes of each row are taken at once, and their bits moved together in three steps.
        """
        first = self._bytes[at]
        if first.max() < 128:
            small, new = first.astype(np.int64), at + 1
            self.note_cut(rows, at, new, lambda _: path)
            return (small >> 1) ^ -(small & 1), new
        word: NDArray[np.uint64] = self.gather(at, _WORD, 0)
        ends: NDArray[np.uint64] = ~word & _HIGH_BITS
        below: NDArray[np.uint64] = (
            ends - _ONE
        ) & ~ends  # the bits under the first byte that is the last one; all, if there is none
        bits = word & below
        bits = ((bits & _HIGH_7) >> _ONE) | (bits & _LOW_7)
        bits = ((bits & _HIGH_14) >> _TWO) | (bits & _LOW_14)
        bits = ((bits & _HIGH_28) >> _FOUR) | (bits & _LOW_28)
        new = at + ((np.bitwise_count(below) + _ONE_BYTE) >> _THREE)
        if not ends.all():
            self._long_varints(rows, at, path, np.flatnonzero(ends == 0), bits, new)
        self.note_cut(rows, at, new, lambda _: path)
        return ((bits >> _ONE) ^ -(bits & _ONE)).view(np.int64), new

    def _long_varints(
        self, rows: Rows, at: Positions, path: str, some: NDArray[np.intp], bits: NDArray[np.uint64], new: Positions
    ) -> None:
        """Correct ``bits`` and ``new`` for the rows with a number of nine or ten bytes."""
        ninth, tenth = (self._bytes[at[some] + i].astype(np.uint64) for i in (8, 9))
        ten = ninth >= 128
        bits[some] = bits[some] | (ninth & _SEVEN_BITS) << np.uint64(56) | np.where(ten, tenth << np.uint64(63), _ZERO)
        new[some] = at[some] + 9 + ten
        odd = np.zeros(len(at), np.bool_)
        odd[some] = ten & (tenth > 1)
        if odd.any():
            self.note_cut(rows, at, new, lambda _: path)
            self.fail(rows, odd, at, lambda i: f"{path}: a number of over 64 bits")

    def bytes_at(self, at: Positions) -> NDArray[np.uint8]:
        """The byte at each position."""
        return self._bytes[at]

    def gather(self, at: Positions, dtype: np.dtype[Any], offset: int) -> NDArray[Any]:
        """What each row has ``offset`` bytes after its position, as one array."""
        count = len(self.raw) - offset - dtype.itemsize + 1
        windows: NDArray[Any] = np.ndarray((count,), dtype, self.raw, offset, (1,))
        return windows[at]


class AvroStep(Protocol):
    """Reads one part of a schema."""

    def run(self, batch: AvroBatch, rows: Rows, at: Positions) -> Positions:
        """Read it for some rows, at least one. Returns where it ends in each."""
