"""The fallback chain's links: what a card may name, and how each link that is no model gives its answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from failsoft.schemas.prediction import Prediction

if TYPE_CHECKING:
    from failsoft.models.catalog.card import ModelCard


def static(card: ModelCard) -> Prediction:
    """The card's fixed answer, the last link of its chain. Raises ValueError for a card that has no ``[fallback]``."""
    if card.fallback is None:
        raise ValueError(f"the card of {card.name!r} has no [fallback], so no static answer")
    given = card.fallback.static
    return Prediction(given.score, given.label, given.probabilities)


def from_rule(value: object) -> Prediction | None:
    """What a rule returned, as a prediction; None when it could not answer.

    A rule returns a finite number (the score), a mapping of ``score`` and, if it likes, ``label`` (an integer or a
    string), ``confidence`` and ``probabilities`` (numbers), or None. Whatever else it returns counts as no answer:
    the chain's next link is asked, since a broken rule may not cost an event its answer.
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
    each: tuple[float | None, ...] | None = None
    if probabilities is not None:
        if isinstance(probabilities, (str, bytes)) or not isinstance(probabilities, Iterable):
            return None
        each = tuple(map(_number, probabilities))
    sure = None if confidence is None else _number(confidence)
    if score is None or (each is not None and None in each) or (confidence is not None and sure is None):
        return None
    return Prediction(score, label, None if each is None else tuple(p for p in each if p is not None), sure)


def _number(value: object) -> float | None:
    """A finite float, or None: numpy's numbers are Real too, and booleans are no scores."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
