"""Predictions and their sources: one row's answer, and a batch of answers in columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas import wire

Label = int | str
Floats = NDArray[np.floating[Any]]
OutputColumn = NDArray[Any] | list[Any]
"""A further output of a batch: numbers of shape (n,) or (n, k…), or a list of n JSON values."""


class Source(StrEnum):
    """What gave an answer."""

    PRIMARY = "primary"
    FALLBACK_MODEL = "fallback_model"
    ENSEMBLE = "ensemble"
    LAST_KNOWN = "last_known"
    RULE = "rule"
    STATIC = "static"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row's answer. Fields that the model's output kind does not have are None.

    Attributes:
        score: a finite number.
        label: the model's own label.
        probabilities: one number per class.
        confidence: the model's confidence.
        outputs: further outputs by name, as JSON values; None where a number is not finite.
    """

    score: float
    label: Label | None = None
    probabilities: tuple[float, ...] | None = None
    confidence: float | None = None
    outputs: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Predictions:
    """A batch's answers in columns; index i is row i. A column is None when no row has the field.

    Attributes:
        scores: shape (n,), float32 or float64.
        labels: n integers or strings; None for a row without a label.
        probabilities: shape (n, classes).
        confidences: shape (n,); NaN for a row without a confidence.
        outputs: further outputs by name.
    """

    scores: Floats
    labels: Sequence[Label | None] | None = None
    probabilities: Floats | None = None
    confidences: Floats | None = None
    outputs: Mapping[str, OutputColumn] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def row(self, i: int) -> Prediction:
        """Row ``i`` as Python numbers: the shortest decimals that convert back to the same float."""
        confidence = None if self.confidences is None else decimal(self.confidences[i])
        return Prediction(
            score=decimal(self.scores[i]),
            label=None if self.labels is None else self.labels[i],
            probabilities=None if self.probabilities is None else tuple(decimal(p) for p in self.probabilities[i]),
            confidence=None if confidence is None or confidence != confidence else confidence,
            outputs=None if self.outputs is None else {k: wire.plain(c[i : i + 1])[0] for k, c in self.outputs.items()},
        )

    def take(self, rows: NDArray[np.intp]) -> Predictions:
        """The given rows, in that order."""
        return Predictions(
            scores=self.scores[rows],
            labels=None if self.labels is None else [self.labels[i] for i in rows.tolist()],
            probabilities=None if self.probabilities is None else self.probabilities[rows],
            confidences=None if self.confidences is None else self.confidences[rows],
            outputs=None if self.outputs is None else {k: _taken(c, rows) for k, c in self.outputs.items()},
        )

    def part(self, start: int, end: int) -> Predictions:
        """The rows from ``start`` up to ``end``, as views of the columns."""
        return Predictions(
            scores=self.scores[start:end],
            labels=None if self.labels is None else self.labels[start:end],
            probabilities=None if self.probabilities is None else self.probabilities[start:end],
            confidences=None if self.confidences is None else self.confidences[start:end],
            outputs=None if self.outputs is None else {k: c[start:end] for k, c in self.outputs.items()},
        )

    @classmethod
    def concat(cls, parts: Sequence[Predictions]) -> Predictions:
        """The rows of several batches of one model, at least one. All have the same fields."""
        first = parts[0]
        return cls(
            scores=np.concatenate([p.scores for p in parts]),
            labels=None if first.labels is None else [label for p in parts for label in p.labels or ()],
            probabilities=None if first.probabilities is None else np.concatenate([p.probabilities for p in parts]),
            confidences=None if first.confidences is None else np.concatenate([p.confidences for p in parts]),
            outputs=None
            if first.outputs is None
            else {name: _joined([p.outputs[name] for p in parts if p.outputs]) for name in first.outputs},
        )

    @classmethod
    def of(cls, rows: Sequence[Prediction]) -> Predictions:
        """Columns of single answers. Either all have probabilities (of one length) or none has, and so for outputs."""
        nan = float("nan")
        return cls(
            scores=np.array([p.score for p in rows], np.float64),
            labels=[p.label for p in rows] if any(p.label is not None for p in rows) else None,
            probabilities=np.array([p.probabilities for p in rows]) if rows and rows[0].probabilities else None,
            confidences=np.array([nan if p.confidence is None else p.confidence for p in rows], np.float64),
            outputs={name: [p.outputs[name] for p in rows if p.outputs] for name in rows[0].outputs}
            if rows and rows[0].outputs
            else None,
        )


def decimal(x: np.floating[Any]) -> float:
    """The shortest decimal that gives the same number in the type of ``x``: 0.93 and not 0.9300000071525574."""
    return float(str(x))


def _taken(column: OutputColumn, rows: NDArray[np.intp]) -> OutputColumn:
    return column[rows] if isinstance(column, np.ndarray) else [column[i] for i in rows.tolist()]


def _joined(columns: Sequence[OutputColumn]) -> OutputColumn:
    """One column of several. Where batches have another width each, the rows become JSON values."""
    arrays = [column for column in columns if isinstance(column, np.ndarray)]
    if len(arrays) == len(columns) and len({column.shape[1:] for column in arrays}) == 1:
        return np.concatenate(arrays)
    return [v for column in columns for v in (column if isinstance(column, list) else wire.plain(column))]
