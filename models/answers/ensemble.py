"""k of n members -> one answer, and who spoke: in columns, by the members that spoke of a row."""

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
    """What one member says: ``rows`` are rows of the batch, ascending, and ``predictions`` has one for each."""

    rows: NDArray[np.intp]
    predictions: Predictions


@dataclass(frozen=True, slots=True)
class MemberGroup:
    """Rows of the batch of which the same members spoke: ``members`` are their places in the card, ascending."""

    rows: NDArray[np.intp]
    members: tuple[int, ...]
    predictions: Predictions


def combine(card: ModelCard, spoken: Sequence[MemberOutput | None], size: int) -> list[MemberGroup]:
    """One answer for each of ``size`` rows of which at least the quorum of the ensemble's ``card`` spoke.

    ``spoken`` has an entry for each member, in the card's order. Each row is in at most one group; rows under the
    quorum are in none. Raises ValueError for a card that is no ensemble's.
    """
    section = card.ensemble
    if section is None:
        raise ValueError(f"the card of {card.name!r} has no [ensemble]")
    said = np.zeros((len(section.members), size), np.bool_)
    for j, each in enumerate(spoken):
        if each is not None:
            said[j, each.rows] = True
    return [_together(card, spoken, members, rows) for members, rows in _sets(said, section.quorum)]


def _sets(said: NDArray[np.bool_], quorum: int) -> list[tuple[tuple[int, ...], NDArray[np.intp]]]:
    """The rows with a quorum, by who spoke of them."""
    if said.all():
        return [(tuple(range(len(said))), np.arange(said.shape[1]))] if said.shape[1] else []
    rows = np.flatnonzero(said.sum(axis=0) >= quorum)
    if not len(rows):
        return []
    patterns, which = np.unique(said[:, rows], axis=1, return_inverse=True)
    which = which.reshape(-1)
    return [(tuple(np.flatnonzero(who).tolist()), rows[which == i]) for i, who in enumerate(patterns.T)]


def _together(
    card: ModelCard, spoken: Sequence[MemberOutput | None], members: tuple[int, ...], rows: NDArray[np.intp]
) -> MemberGroup:
    assert card.ensemble is not None
    weighs = card.ensemble.combine.weighs
    weights = [card.ensemble.members[j].weight if weighs else 1.0 for j in members]
    shares = np.array(weights) / math.fsum(weights)
    said: list[Predictions] = []
    for j in members:
        each = spoken[j]
        assert each is not None
        same = len(each.rows) == len(rows)
        said.append(each.predictions if same else each.predictions.take(np.searchsorted(each.rows, rows)))
    make = _classes if card.output.kind is OutputKind.MULTICLASS else _scores
    return MemberGroup(rows, members, make(card, said, shares))


def _scores(card: ModelCard, said: Sequence[Predictions], shares: Table) -> Predictions:
    """Binary, anomaly and regression: one number a row, and a label where the card has a threshold."""
    assert card.ensemble is not None
    how, threshold, binary = card.ensemble.combine, card.output.threshold, card.output.kind is OutputKind.BINARY
    table = np.stack([p.scores for p in said]).astype(np.float64)
    mean = table.max(axis=0) if how is Combine.MAXIMUM else _sum(shares[:, None] * table)
    scores = mean.astype(np.float32)
    if threshold is None:
        return Predictions(scores)
    ones = scores >= threshold
    if how is Combine.VOTE:
        votes = _sum(shares[:, None] * np.array([p.labels for p in said], np.float64))
        ones = np.where(np.isclose(votes, 0.5), ones, votes > 0.5)
        # Of the label that won: where the vote goes against the mean score, it is under one half, and says so.
        sure = np.where(ones, scores, 1 - scores)
    else:
        sure = np.maximum(scores, 1 - scores)
    return Predictions(scores, ones.astype(np.int64).tolist(), None, sure if binary else None)


def _classes(card: ModelCard, said: Sequence[Predictions], shares: Table) -> Predictions:
    """Multiclass: probabilities a row, of which the winner's is the score and the confidence.

    A vote's winner has most weight behind it, and of equals the higher mean probability. The maximum is the answer of
    the member that is surest; of equals that agree, their mean.
    """
    assert card.ensemble is not None and card.output.classes is not None
    how = card.ensemble.combine
    table = np.stack([_probabilities(p) for p in said])
    every = np.arange(table.shape[1])
    if how is Combine.MAXIMUM:
        best = table.max(axis=0)
        winner = best.argmax(axis=1)
        surest = table[:, every, winner] == best[every, winner]
        probabilities = _sum(np.where(surest[:, :, None], table, 0)) / surest.sum(axis=0)[:, None]
    else:
        probabilities = _sum(shares[:, None, None] * table)
        winner = probabilities.astype(np.float32).argmax(axis=1)
    if how is Combine.VOTE:
        votes = _sum(shares[:, None, None] * np.eye(table.shape[2])[table.argmax(axis=2)])
        tied = np.isclose(votes, votes.max(axis=1, keepdims=True))
        winner = np.where(tied, probabilities, -1).argmax(axis=1)
    rounded = probabilities.astype(np.float32)
    scores = rounded[every, winner]
    labels: list[Label] = [card.output.classes[i] for i in winner.tolist()]
    return Predictions(scores, labels, rounded, scores)


def _probabilities(predictions: Predictions) -> NDArray[Any]:
    assert predictions.probabilities is not None  # the contract with the session: a multiclass output has them
    return predictions.probabilities.astype(np.float64)


def _sum(table: Table) -> Table:
    """Over the members, the small first: the same to the last bit in whatever order the card lists them."""
    total: Table = np.sort(table, axis=0).sum(axis=0)
    return total
