"""Predictions and their sources: one row's answer, and a batch of answers in columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Label = int | str
Floats = NDArray[np.floating[Any]]


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
    """

    score: float
    label: Label | None = None
    probabilities: tuple[float, ...] | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Predictions:
    """A batch's answers in columns; index i is row i. A column is None when no row has the field.

    Attributes:
        scores: shape (n,), float32 or float64.
        labels: n integers or strings; None for a row without a label.
        probabilities: shape (n, classes).
        confidences: shape (n,); NaN for a row without a confidence.
    """

    scores: Floats
    labels: Sequence[Label | None] | None = None
    probabilities: Floats | None = None
    confidences: Floats | None = None

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
        )

    def take(self, rows: NDArray[np.intp]) -> Predictions:
        """The given rows, in that order."""
        return Predictions(
            scores=self.scores[rows],
            labels=None if self.labels is None else [self.labels[i] for i in rows.tolist()],
            probabilities=None if self.probabilities is None else self.probabilities[rows],
            confidences=None if self.confidences is None else self.confidences[rows],
        )

    @classmethod
    def of(cls, rows: Sequence[Prediction]) -> Predictions:
        """Columns of single answers. Either all have probabilities (of one length) or none has."""
        nan = float("nan")
        return cls(
            scores=np.array([p.score for p in rows], np.float64),
            labels=[p.label for p in rows] if any(p.label is not None for p in rows) else None,
            probabilities=np.array([p.probabilities for p in rows]) if rows and rows[0].probabilities else None,
            confidences=np.array([nan if p.confidence is None else p.confidence for p in rows], np.float64),
        )


def decimal(x: np.floating[Any]) -> float:
    """The shortest decimal that gives the same number in the type of ``x``: 0.93 and not 0.9300000071525574."""
    return float(str(x))
