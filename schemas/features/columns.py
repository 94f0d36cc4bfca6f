"""The feature columns of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.features.spec import Spec

Column = NDArray[Any]
Mask = NDArray[np.bool_]


@dataclass(slots=True)
class Columns:
    """Feature columns of a batch.

    Attributes:
        specs: the features, in the model's order.
        size: number of rows.
        values: one array per name. Of a scalar: float64, int64, bool or object (str), shape (size,). Of a tensor of a
            fixed shape: its dtype (object for strings), shape (size, *shape). Of a tensor with a -1: object, shape
            (size,), of one array a row, of at most ``max_length`` and not padded. An unusable cell holds a placeholder:
            0, false or "", or an array of length 0 along -1.
        matrix: when every spec is FLOAT, the same numbers as one C-ordered (size, len(specs)) float64 array, of which
            ``values`` are column views; else None.
        unusable: a mask of shape (size,) for each name that has an unusable cell.
        why: the reason for each unusable cell, by (row, name).
        wide: a mask of shape (size,) for each name of a float that has a usable cell beyond float32.
    """

    specs: tuple[Spec, ...]
    size: int
    values: dict[str, Column]
    matrix: NDArray[np.float64] | None = None
    unusable: dict[str, Mask] = field(default_factory=dict)
    why: dict[tuple[int, str], str] = field(default_factory=dict)
    wide: dict[str, Mask] = field(default_factory=dict)

    def take(self, rows: NDArray[np.intp]) -> Columns:
        """Copy the given rows, in that order, into new columns."""
        if self.matrix is not None:
            taken = of_matrix(self.specs, self.matrix[rows])
        else:
            taken = Columns(self.specs, len(rows), {name: column[rows] for name, column in self.values.items()})
        for name, mask in self.unusable.items():
            kept = mask[rows]
            at = np.flatnonzero(kept).tolist()
            if at:
                taken.unusable[name] = kept
                taken.why.update({(i, name): self.why[int(rows[i]), name] for i in at})
        taken.wide = {name: kept for name, mask in self.wide.items() if (kept := mask[rows]).any()}
        return taken

    @staticmethod
    def concat(parts: Sequence[Columns]) -> Columns:
        """The rows of all ``parts``, in their order, in new columns.

        Raises ValueError if there is no part, or if the parts have different specs.
        """
        if not parts or any(part.specs is not parts[0].specs and part.specs != parts[0].specs for part in parts):
            raise ValueError("only columns of the same specs can be joined")
        specs = parts[0].specs
        matrices = [part.matrix for part in parts if part.matrix is not None]
        if len(matrices) == len(parts):
            joined = of_matrix(specs, np.concatenate(matrices))
        else:
            values = {spec.name: np.concatenate([part.values[spec.name] for part in parts]) for spec in specs}
            joined = Columns(specs, sum(part.size for part in parts), values)
        start = 0
        for part in parts:
            for masks, wholes in ((part.unusable, joined.unusable), (part.wide, joined.wide)):
                for name, mask in masks.items():
                    whole = wholes.setdefault(name, np.zeros(joined.size, np.bool_))
                    whole[start : start + part.size] = mask
            joined.why.update({(start + i, name): why for (i, name), why in part.why.items()})
            start += part.size
        return joined

    def row(self, i: int) -> dict[str, object]:
        """Row ``i`` as Python values, a tensor as lists, None for an unusable cell. Rules receive this."""
        values: dict[str, object] = {
            spec.name: self.values[spec.name].item(i) if spec.tensor is None else self.values[spec.name][i].tolist()
            for spec in self.specs
        }
        for name, mask in self.unusable.items():
            if mask[i]:
                values[name] = None
        return values


def of_matrix(specs: tuple[Spec, ...], matrix: NDArray[np.float64]) -> Columns:
    """Columns whose ``values`` are views of ``matrix``, shape (rows, len(specs))."""
    return Columns(specs, len(matrix), {spec.name: matrix[:, j] for j, spec in enumerate(specs)}, matrix)
