"""The fallback chain's links: what a card may name, and how each link that is no model gives its answer."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from failsoft.schemas.prediction import Label, Prediction, Predictions

if TYPE_CHECKING:
    from failsoft.models.catalog.card import ModelCard

# Measured at 405 bytes a key of 21 bytes with a binary answer: some 40 MB of a worker that may take 300.
REMEMBERED = 100_000


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


class Known(NamedTuple):
    """An earlier answer: by whom (an ensemble has no version), and when it was given (seconds, by the clock of
    ``remember``'s ``now``).
    """

    prediction: Prediction
    model: str
    version: int | None
    at: float


class _Origin(NamedTuple):
    model: str
    version: int | None
    at: float


# score, label, probabilities, confidence, and the origin that a batch's answers share
_Entry = tuple[float, Label | None, tuple[float, ...] | None, float | None, _Origin]


class LastKnown:
    """The latest answer of each key, bounded by count and by age.

    Order is by writing: the key that was answered longest ago is the first to go. A batch costs one loop over plain
    tuples, which hold no reference to the batch's arrays (a single surviving key would keep a whole batch alive).
    """

    def __init__(self, max_age: float, max_count: int = REMEMBERED) -> None:
        """``max_age`` in seconds; ``max_count`` keys."""
        self.max_age = max_age
        self.max_count = max_count
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def remember(
        self, keys: Sequence[bytes | None], predictions: Predictions, model: str, version: int | None, now: float
    ) -> None:
        """Row i of ``predictions`` is the answer of ``keys[i]``; an event without a key (None) has no last known."""
        n = len(predictions)
        if len(keys) != n:
            raise ValueError(f"{len(keys)} keys for {n} predictions")
        origin = _Origin(model, version, now)
        nothing = [None] * n
        entries = self._entries
        labels = nothing if predictions.labels is None else predictions.labels
        probabilities = nothing if predictions.probabilities is None else map(tuple, predictions.probabilities.tolist())
        confidences = nothing if predictions.confidences is None else predictions.confidences.tolist()
        for key, *answer in zip(keys, predictions.scores.tolist(), labels, probabilities, confidences, strict=True):
            if key is not None:
                entries[key] = (*answer, origin)
                entries.move_to_end(key)
        self._trim(now)

    def recall(self, key: bytes | None, now: float) -> Known | None:
        """The key's answer if it is at most ``max_age`` old, as the decimals that the scored record carried."""
        entry = None if key is None else self._entries.get(key)
        if entry is None:
            return None
        score, label, probabilities, confidence, origin = entry
        if now - origin.at > self.max_age:
            return None
        each = None if probabilities is None else tuple(map(_decimal, probabilities))
        sure = None if confidence is None else _decimal(confidence)
        return Known(Prediction(_decimal(score), label, each, sure), *origin)

    def _trim(self, now: float) -> None:
        entries = self._entries
        while len(entries) > self.max_count:
            entries.popitem(last=False)
        while entries:
            oldest = next(iter(entries.values()))
            if now - oldest[-1].at <= self.max_age:
                break
            entries.popitem(last=False)


def _decimal(x: float) -> float:
    """A float32 that ``tolist`` widened, as the shortest decimals that give the same float32."""
    return float(str(np.float32(x)))
