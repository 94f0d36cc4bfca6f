"""Reads events in Avro: ``compile_avro`` makes the reader of one registered schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.formats.avro_batch import AvroBatch, ColumnPiece, Same
from failsoft.schemas.formats.avro_plan import AvroPlan, Slot, plan_avro, reader_of
from failsoft.schemas.formats.avro_schema import AvroType, parse_avro
from failsoft.schemas.formats.avro_values import form, numbers, values
from failsoft.schemas.formats.reader import Decoded, SchemaReader, Undecodable, Want, WantedFields
from failsoft.schemas.formats.registered import Registered


def compile_avro(registered: Registered, wanted: WantedFields) -> SchemaReader:
    """The reader of a schema's values. Needs fastavro. Raises Unusable."""
    root = parse_avro(registered)
    return AvroReader(root, plan_avro(root, wanted))


class AvroReader:
    """Reads values of one Avro schema. The methods are those of ``SchemaReader``."""

    def __init__(self, root: AvroType, plan: AvroPlan) -> None:
        self._root = root
        self._plan = plan

    def read(self, values: Sequence[bytes]) -> Decoded:
        kept: Sequence[int] = range(len(values))
        if not values:
            return Decoded(AvroRows(self._plan, 0, [[] for _ in self._plan.slots]), kept, {})
        batch, bad = self._batch(values), dict[int, str]()
        if batch.bad.any():
            odd = np.flatnonzero(batch.bad).tolist()
            bad = dict(zip(odd, self._faults([values[i] for i in odd]), strict=True))
            kept = np.flatnonzero(~batch.bad).tolist()
            if not kept:
                return Decoded(self.read(()).rows, kept, bad)
            batch = self._batch([values[i] for i in kept])
        return Decoded(AvroRows(self._plan, len(kept), batch.pieces), kept, bad)

    def value(self, value: bytes) -> Any:
        (fault,) = self._faults([value])
        if fault:
            raise Undecodable(fault)
        raw, made = reader_of(self._root)(BytesIO(value)), form(self._root, Want.STRING, people=True)
        return raw if made is None else made(raw)

    def _batch(self, values: Sequence[bytes], explained: bool = False) -> AvroBatch:
        batch = AvroBatch(values, len(self._plan.slots), self._plan.reach, explained)
        batch.read(self._plan.steps)
        return batch

    def _faults(self, values: Sequence[bytes]) -> list[str]:
        """Why each value does not fit the schema; "" for one that does."""
        faults = self._batch(values, explained=True).faults
        return [faults.get(i, "") for i in range(len(values))]


@dataclass(frozen=True, slots=True)
class AvroRows:
    """Decoded values, in columns. The methods are those of ``DecodedRows``.

    An object, such as the one that holds the features, is an empty dict: what is wanted of it has paths of its own.
    """

    plan: AvroPlan
    size: int
    pieces: Sequence[Sequence[ColumnPiece]]
    _made: dict[int, Sequence[Any]] = field(default_factory=dict)

    def column(self, path: str) -> Sequence[Any]:
        return self._column(self.plan.columns[path])

    def feature(self, path: str) -> Sequence[Any]:
        return self._column(self.plan.features[path])

    def matrix(self, paths: Sequence[str]) -> NDArray[np.float64] | None:
        made = np.full((self.size, len(paths)), np.nan)
        with np.errstate(invalid="ignore"):  # a signalling NaN of float32 is a NaN, too
            return (
                made if all(self._put(made[:, j], self.plan.features[path]) for j, path in enumerate(paths)) else None
            )

    def _put(self, column: NDArray[np.float64], slot: int) -> bool:
        """Put the numbers at a wanted path into ``column``. False if there is something else."""
        for piece in self.pieces[slot]:
            if isinstance(piece.values, Same):
                continue
            found = None if piece.kind is None else numbers(piece.kind, self.plan.slots[slot].want, piece.values)
            if found is None:
                return False
            column[slice(None) if piece.rows is None else piece.rows] = found
        return True

    def _column(self, slot: int) -> Sequence[Any]:
        if slot not in self._made:
            self._made[slot] = _joined(self.plan.slots[slot], self.pieces[slot], self.size)
        return self._made[slot]


def _joined(slot: Slot, pieces: Sequence[ColumnPiece], size: int) -> Sequence[Any]:
    column: list[Any] = [None] * size
    for piece in pieces:
        count = size if piece.rows is None else len(piece.rows)
        if isinstance(piece.values, Same):
            found = [piece.values.value] * count
        elif piece.kind is None:
            found = list(piece.values)
        else:
            found = values(piece.kind, slot.want or Want.STRING, piece.values)
        if piece.rows is None:
            return found
        for row, value in zip(piece.rows.tolist(), found, strict=True):
            column[row] = value
    return column
