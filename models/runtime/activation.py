"""Turns a model's logits into probabilities. Stable: no logit, however large, overflows."""

from __future__ import annotations

import numpy as np

from failsoft.schemas.prediction import Floats


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)), with an exponential of numbers that are not positive."""
    small = np.exp(-np.abs(logits))
    probabilities: Floats = np.where(logits >= 0, 1, small) / (1 + small)
    return probabilities


def softmax(logits: Floats) -> Floats:
    """exp(x) / sum(exp(x)) of each row of (n, k), after the row's largest logit was subtracted."""
    with np.errstate(invalid="ignore"):  # inf - inf: the row becomes NaN, and fails as such
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Floats = raised / raised.sum(axis=1, keepdims=True)
    return probabilities
