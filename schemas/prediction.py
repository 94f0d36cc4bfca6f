"""What a model says of a row, who said it, and the same for a batch in columns."""

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
    """Who gave an answer."""

    PRIMARY = "primary"
    FALLBACK_MODEL = "fallback_model"
    ENSEMBLE = "ensemble"
    LAST_KNOWN = "last_known"
    RULE = "rule"
    STATIC = "static"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row's answer: ``score`` is finite; the rest is None where the output kind has no such thing."""

    score: float
    label: Label | None = None
    probabilities: tuple[float, ...] | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Predictions:
    """A batch's answers, one row an index.

    ``scores`` is (n,) float32 or float64; ``labels`` n integers or strings (None where a row has none), or None;
    ``probabilities`` (n, classes), or None; ``confidences`` (n,), NaN where a row has none, or None.
    """

    scores: Floats
    labels: Sequence[Label | None] | None = None
    probabilities: Floats | None = None
    confidences: Floats | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def row(self, i: int) -> Prediction:
        """Row ``i`` by itself, as Python numbers (the shortest decimals that give the same float back)."""
        confidence = None if self.confidences is None else _decimal(self.confidences[i])
        return Prediction(
            score=_decimal(self.scores[i]),
            label=None if self.labels is None else self.labels[i],
            probabilities=None if self.probabilities is None else tuple(_decimal(p) for p in self.probabilities[i]),
            confidence=None if confidence is None or confidence != confidence else confidence,
        )

    def take(self, rows: NDArray[np.intp]) -> Predictions:
        """These rows alone, in this order."""
        return Predictions(
            scores=self.scores[rows],
            labels=None if self.labels is None else [self.labels[i] for i in rows.tolist()],
            probabilities=None if self.probabilities is None else self.probabilities[rows],
            confidences=None if self.confidences is None else self.confidences[rows],
        )

    @classmethod
    def of(cls, rows: Sequence[Prediction]) -> Predictions:
        """Columns of single answers that all have probabilities (of one length) or all have none."""
        nan = float("nan")
        return cls(
            scores=np.array([p.score for p in rows], np.float64),
            labels=[p.label for p in rows] if any(p.label is not None for p in rows) else None,
            probabilities=np.array([p.probabilities for p in rows]) if rows and rows[0].probabilities else None,
            confidences=np.array([nan if p.confidence is None else p.confidence for p in rows], np.float64),
        )


def _decimal(x: np.floating[Any]) -> float:
    return float(str(x))
