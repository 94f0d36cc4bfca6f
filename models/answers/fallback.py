"""Answers of the fallback chain's links that are not models: the static answer and the result of a rule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from failsoft.schemas.prediction import Label, Prediction, Predictions

if TYPE_CHECKING:
    from failsoft.models.catalog.card import ModelCard


def static(card: ModelCard) -> Prediction:
    """The card's fixed answer, the last link of its chain. Raises ValueError if the card has no ``[fallback]``."""
    if card.fallback is None:
        raise ValueError(f"the card of {card.name!r} has no [fallback], so there is no static answer")
    answer = card.fallback.static
    return Prediction(answer.score, answer.label, answer.probabilities)


def in_order(predictions: Predictions, own: Sequence[Label] | None, wanted: Sequence[Label] | None) -> Predictions:
    """A fallback model's answers with the probabilities in the order of the labels that are ``wanted``, the primary's.

    ``own`` are the labels of the fallback's columns. If they are others, the answers have no probabilities: a reader
    would take each for another label's. Where either is not known, the answers stay as they are.
    """
    table = predictions.probabilities
    if table is None or own is None or wanted is None or tuple(own) == tuple(wanted):
        return predictions
    if set(own) != set(wanted):
        return replace(predictions, probabilities=None)
    return replace(predictions, probabilities=table[:, [own.index(label) for label in wanted]])


def from_rule(value: object) -> Prediction | None:
    """The return value of a rule as a prediction, or None if it is no answer.

    A rule returns a finite number (the score), a mapping, or None for no answer. The mapping has ``score`` and
    optionally ``label`` (an integer or a string), ``confidence`` (a number) and ``probabilities`` (numbers). Any other
    value counts as no answer, so that the next link answers: a broken rule must not leave an event unanswered.
    """
    if not isinstance(value, Mapping):
        score = _number(value)
        return None if score is None else Prediction(score)
    if "score" not in value or not value.keys() <= {"score", "label", "confidence", "probabilities"}:
        return None
    score, label = _number(value["score"]), value.get("label")
    confidence, probabilities = value.get("confidence"), value.get("probabilities")
    if isinstance(label, bool) or not (label is None or isinstance(label, (int, str))):
        return None
    numbers: tuple[float | None, ...] | None = None
    if probabilities is not None:
        if isinstance(probabilities, (str, bytes)) or not isinstance(probabilities, Iterable):
            return None
        numbers = tuple(map(_number, probabilities))
    certainty = None if confidence is None else _number(confidence)
    if score is None or (numbers is not None and None in numbers) or (confidence is not None and certainty is None):
        return None
    return Prediction(score, label, None if numbers is None else tuple(p for p in numbers if p is not None), certainty)


def _number(value: object) -> float | None:
    """``value`` as a finite float, or None. NumPy numbers count as Real; booleans are not scores."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
