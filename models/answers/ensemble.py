"""Combines the outputs of an ensemble's members into one answer a row, and records pattern members answered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.fields import OutputKind
from failsoft.models.catalog.sections import Combine
from failsoft.schemas.prediction import Label, Predictions

Table = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MemberOutput:
    """The output of one member.

    Attributes:
        rows: the batch rows that the member answered, ascending.
        predictions: one prediction for each of ``rows``.
    """

    rows: NDArray[np.intp]
    predictions: Predictions


@dataclass(frozen=True, slots=True)
class MemberGroup:
    """The rows of a batch that were answered by the same set of members.

    Attributes:
        rows: the batch rows, ascending.
        members: the members that answered, as positions in the card, ascending.
        predictions: the combined prediction for each of ``rows``.
    """

    rows: NDArray[np.intp]
    members: tuple[int, ...]
    predictions: Predictions


def combine(card: ModelCard, outputs: Sequence[MemberOutput | None], size: int) -> list[MemberGroup]:
    """One answer for each of ``size`` rows that at least ``quorum`` members answered, by ``card``.

    ``outputs`` has one entry for each member in the card's order, None for a member without output. Each row is in at
    most one group; rows below the quorum are in none. Raises ValueError if ``card`` is not an ensemble's.
    """
    section = card.ensemble
    if section is None:
        raise ValueError(f"the card of {card.name!r} has no [ensemble]")
    answered = np.zeros((len(section.members), size), np.bool_)
    for j, each in enumerate(outputs):
        if each is not None:
            answered[j, each.rows] = True
    return [_combine_group(card, outputs, members, rows) for members, rows in _group_rows(answered, section.quorum)]


def _group_rows(answered: NDArray[np.bool_], quorum: int) -> list[tuple[tuple[int, ...], NDArray[np.intp]]]:
    """Groups the rows with a quorum by the set of members that answered them.

    ``answered`` is a matrix of members by rows. Returns pairs of member positions and rows.
    """
    if answered.all():
        return [(tuple(range(len(answered))), np.arange(answered.shape[1]))] if answered.shape[1] else []
    rows = np.flatnonzero(answered.sum(axis=0) >= quorum)
    if not len(rows):
        return []
    patterns, pattern = np.unique(answered[:, rows], axis=1, return_inverse=True)
    pattern = pattern.reshape(-1)
    return [(tuple(np.flatnonzero(column).tolist()), rows[pattern == i]) for i, column in enumerate(patterns.T)]


def _combine_group(
    card: ModelCard, outputs: Sequence[MemberOutput | None], members: tuple[int, ...], rows: NDArray[np.intp]
) -> MemberGroup:
    assert card.ensemble is not None
    weighs = card.ensemble.combine.weighs
    weights = [card.ensemble.members[j].weight if weighs else 1.0 for j in members]
    shares = np.array(weights) / math.fsum(weights)
    predictions: list[Predictions] = []
    for j in members:
        each = outputs[j]
        assert each is not None
        same = len(each.rows) == len(rows)
        predictions.append(each.predictions if same else each.predictions.take(np.searchsorted(each.rows, rows)))
    make = _classes if card.output.kind is OutputKind.MULTICLASS else _scores
    return MemberGroup(rows, members, make(card, predictions, shares))


def _scores(card: ModelCard, predictions: Sequence[Predictions], shares: Table) -> Predictions:
    """Binary, anomaly and regression: one number a row, and a label where the card has a threshold."""
    assert card.ensemble is not None
    method, threshold, binary = card.ensemble.combine, card.output.threshold, card.output.kind is OutputKind.BINARY
    table = np.stack([p.scores for p in predictions]).astype(np.float64)
    mean = table.max(axis=0) if method is Combine.MAXIMUM else _sum(shares[:, None] * table)
    scores = mean.astype(np.float32)
    if threshold is None:
        return Predictions(scores)
    ones = scores >= threshold
    if method is Combine.VOTE:
        votes = _sum(shares[:, None] * np.array([p.labels for p in predictions], np.float64))
        ones = np.where(np.isclose(votes, 0.5), ones, votes > 0.5)
        # The confidence belongs to the winning label. Where the vote contradicts the mean score, it is below one half.
        confidence = np.where(ones, scores, 1 - scores)
    else:
        confidence = np.maximum(scores, 1 - scores)
    return Predictions(scores, ones.astype(np.int64).tolist(), None, confidence if binary else None)


def _classes(card: ModelCard, predictions: Sequence[Predictions], shares: Table) -> Predictions:
    """Multiclass: probabilities for each row. The winning class's probability is the score and the confidence.

    With ``vote``, the class with the largest weight of votes wins; a tie goes to the higher mean probability. With
    ``maximum``, the answer is that of the member with the highest probability, or the mean of members that tie on the
    same class.
    """
    assert card.ensemble is not None and card.output.labels is not None
    method = card.ensemble.combine
    table = np.stack([_probabilities(p) for p in predictions])
    all_rows = np.arange(table.shape[1])
    if method is Combine.MAXIMUM:
        best = table.max(axis=0)
        winner = best.argmax(axis=1)
        surest = table[:, all_rows, winner] == best[all_rows, winner]
        probabilities = _sum(np.where(surest[:, :, None], table, 0)) / surest.sum(axis=0)[:, None]
    else:
        probabilities = _sum(shares[:, None, None] * table)
        winner = probabilities.astype(np.float32).argmax(axis=1)
    if method is Combine.VOTE:
        votes = _sum(shares[:, None, None] * np.eye(table.shape[2])[table.argmax(axis=2)])
        tied = np.isclose(votes, votes.max(axis=1, keepdims=True))
        winner = np.where(tied, probabilities, -1).argmax(axis=1)
    rounded = probabilities.astype(np.float32)
    scores = rounded[all_rows, winner]
    labels: list[Label] = [card.output.labels[i] for i in winner.tolist()]
    return Predictions(scores, labels, rounded, scores)


def _probabilities(predictions: Predictions) -> NDArray[Any]:
    assert predictions.probabilities is not None  # a session always gives them for a multiclass output
    return predictions.probabilities.astype(np.float64)


def _sum(table: Table) -> Table:
    """Sums over the members, smallest value first, so that the order of members does not change the result by a bit."""
    total: Table = np.sort(table, axis=0).sum(axis=0)
    return total
