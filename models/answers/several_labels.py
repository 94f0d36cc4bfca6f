"""Multilabel answers: which labels reach the threshold, and which of them is the answer's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.prediction import Floats, Label, Predictions

LABELS = "labels"
"""The name in a multilabel answer's outputs of the labels that reach the threshold."""


def several_labels(probabilities: Floats, labels: Sequence[Label], reached: NDArray[np.bool_]) -> Predictions:
    """The answers of (n, k) probabilities, of which ``reached`` tells the labels that count, also (n, k).

    The most probable of these is the answer's label, and its probability the score. A row without one has the highest
    probability as its score, and no label. All that count are in the outputs, in the order of ``labels``.
    """
    rows = np.arange(len(probabilities))
    some = np.logical_or.reduce(reached, axis=1)
    best = np.where(some, np.where(reached, probabilities, -1).argmax(axis=1), probabilities.argmax(axis=1))
    first = [labels[j] if hit else None for j, hit in zip(best.tolist(), some.tolist(), strict=True)]
    every: list[list[Label]] = [[] for _ in rows]
    for i, j in np.argwhere(reached).tolist():
        every[i].append(labels[j])
    return Predictions(probabilities[rows, best], first, probabilities, None, {LABELS: every})
