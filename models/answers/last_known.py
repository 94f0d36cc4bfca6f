"""The last answer of each key, bounded by age and count."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from failsoft.schemas.prediction import Label, Prediction, Predictions

# Measured at 405 bytes a key of 21 bytes with a binary answer: some 40 MB of a worker that may take 300.
REMEMBERED = 100_000


class KnownAnswer(NamedTuple):
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

    def recall(self, key: bytes | None, now: float) -> KnownAnswer | None:
        """The key's answer if it is at most ``max_age`` old, as the decimals that the scored record carried."""
        entry = None if key is None else self._entries.get(key)
        if entry is None:
            return None
        score, label, probabilities, confidence, origin = entry
        if now - origin.at > self.max_age:
            return None
        each = None if probabilities is None else tuple(map(_decimal, probabilities))
        sure = None if confidence is None else _decimal(confidence)
        return KnownAnswer(Prediction(_decimal(score), label, each, sure), *origin)

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
