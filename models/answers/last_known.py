"""The last known answer of each key, bounded by age and count."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from failsoft.schemas import wire
from failsoft.schemas.prediction import Label, Prediction, Predictions, decimal

# Keys that are kept. A key of 21 bytes with a binary answer takes 405 bytes (measured), so the total is some 40 MB; a
# worker may use 300 MB.
KEYS_KEPT = 100_000


class KnownAnswer(NamedTuple):
    """An earlier answer of a key.

    Attributes:
        prediction: the answer.
        model: the model or ensemble that gave it.
        version: the model's version; None for an ensemble, which has none.
        at: when it was given, in seconds on the clock of ``remember``'s ``now``.
    """

    prediction: Prediction
    model: str
    version: int | None
    at: float


class _Origin(NamedTuple):
    """What the answers of a batch share. ``narrow``: which of scores, probabilities and confidences are float32."""

    model: str
    version: int | None
    at: float
    narrow: tuple[bool, bool, bool]


# score, label, probabilities, confidence, further outputs as JSON, and the origin that a batch's answers share
_Entry = tuple[float, Label | None, tuple[float, ...] | None, float | None, bytes | None, _Origin]


class LastKnown:
    """The last known answer of each key, bounded by count and by age.

    The key that was answered longest ago is removed first. A batch is stored as plain tuples in one loop. The tuples
    hold no reference to the batch's arrays, so that one remaining key does not keep a whole batch in memory.
    """

    def __init__(self, max_age: float, max_count: int = KEYS_KEPT) -> None:
        """``max_age`` is in seconds; ``max_count`` is a number of keys."""
        self.max_age = max_age
        self.max_count = max_count
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def remember(
        self, keys: Sequence[bytes | None], predictions: Predictions, model: str, version: int | None, now: float
    ) -> None:
        """Stores row i of ``predictions`` as the answer of ``keys[i]``; a None key is skipped.

        Raises ValueError if the numbers of keys and predictions differ.
        """
        n = len(predictions)
        if len(keys) != n:
            raise ValueError(f"{len(keys)} keys for {n} predictions")
        columns = predictions.scores, predictions.probabilities, predictions.confidences
        score, share, sure = (column is not None and column.dtype == np.float32 for column in columns)
        origin = _Origin(model, version, now, (score, share, sure))
        nones = [None] * n
        entries = self._entries
        labels = nones if predictions.labels is None else predictions.labels
        probabilities = nones if predictions.probabilities is None else map(tuple, predictions.probabilities.tolist())
        confidences = nones if predictions.confidences is None else predictions.confidences.tolist()
        outputs = nones if predictions.outputs is None else wire.objects(predictions.outputs)
        scores = predictions.scores.tolist()
        for key, *answer in zip(keys, scores, labels, probabilities, confidences, outputs, strict=True):
            if key is not None:
                entries[key] = (*answer, origin)
                entries.move_to_end(key)
        self._trim(now)

    def recall(self, key: bytes | None, now: float) -> KnownAnswer | None:
        """The key's answer if it is at most ``max_age`` old, else None. Numbers are as in the scored record."""
        entry = None if key is None else self._entries.get(key)
        if entry is None:
            return None
        score, label, probabilities, confidence, outputs, origin = entry
        if now - origin.at > self.max_age:
            return None
        narrow_score, narrow_share, narrow_sure = origin.narrow
        prediction = Prediction(
            _written(score, narrow_score),
            label,
            None if probabilities is None else tuple(_written(p, narrow_share) for p in probabilities),
            None if confidence is None else _written(confidence, narrow_sure),
            None if outputs is None else wire.loads(outputs, len(outputs)),
        )
        return KnownAnswer(prediction, origin.model, origin.version, origin.at)

    def _trim(self, now: float) -> None:
        entries = self._entries
        while len(entries) > self.max_count:
            entries.popitem(last=False)
        while entries:
            oldest = next(iter(entries.values()))
            if now - oldest[-1].at <= self.max_age:
                break
            entries.popitem(last=False)


def _written(x: float, narrow: bool) -> float:
    """The number as the scored record has it: a widened float32 in its shortest decimals, a double with all digits."""
    return decimal(np.float32(x)) if narrow else x
