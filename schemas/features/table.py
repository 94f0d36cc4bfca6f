"""The features of a batch that were decoded by schemas: columns of each schema's rows, and no object a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy import float64
from numpy.typing import NDArray


class FeatureRows(Protocol):
    """The features of decoded values of one schema, in columns; index i is row i.

    Values are those that JSON would give (None, bool, int, float, str, list, dict), and bytes. A float may be NaN or
    infinite. A place where a path leads to nothing has an ``Absent``.
    """

    @property
    def size(self) -> int: ...

    def feature(self, path: str) -> Sequence[Any]:
        """The values at a wanted ``path`` within the features."""

    def matrix(self, paths: Sequence[str]) -> NDArray[float64] | None:
        """The features at ``paths`` as an array of shape (size, len(paths)), which the caller may change. NaN also
        stands where there is no number: ``feature`` has what is there, such as None. None unless each value that is
        there is a plain number, and the array costs less than the columns.
        """


@dataclass(frozen=True, slots=True)
class FeaturePart:
    """Some rows of a batch whose features are kept alike.

    Attributes:
        features: the rows of one schema, or JSON objects.
        rows: the row of the batch that each of them is.
    """

    features: FeatureRows | Sequence[Mapping[str, Any]]
    rows: Sequence[int]


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """The features of a batch, in parts. A row that could not be decoded is in none, or nobody asks for it.

    Attributes:
        parts: each has other rows.
        size: rows of the batch.
    """

    parts: Sequence[FeaturePart]
    size: int
