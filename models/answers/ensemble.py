"""Combines the outputs of an ensemble's members into one answer a row, and records pattern members answered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.models.answers.several_labels import LABELS, several_labels
from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.fields import OutputKind
from failsoft.models.catalog.output_section import OutputSection
from failsoft.models.catalog.sections import Combine
from failsoft.schemas.prediction import Floats, Label, OutputColumn, Predictions

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
    make = {OutputKind.MULTICLASS: _classes, OutputKind.MULTILABEL: _several}.get(card.output.kind, _scores)
    combined = make(card, predictions, shares)
    copied = {
        f"{card.ensemble.members[j].model}.{name}": column
        for j, each in zip(members, predictions, strict=True)
        for name, column in (each.outputs or {}).items()
        if name not in _combined_names(card.output)
    }
    if copied:
        combined = replace(combined, outputs={**(combined.outputs or {}), **copied})
    return MemberGroup(rows, members, combined)


def _scores(card: ModelCard, predictions: Sequence[Predictions], shares: Table) -> Predictions:
    """Binary, anomaly and regression: one number a row, and a label where the card has a threshold."""
    assert card.ensemble is not None
    method, output = card.ensemble.combine, card.output
    scores = _combined(method, [p.scores for p in predictions], shares)
    if output.kind is OutputKind.REGRESSION:
        return Predictions(scores, outputs=_columns(card, predictions, shares))
    if output.threshold is None:
        return Predictions(scores)
    binary = output.kind is OutputKind.BINARY
    positive, negative = _labels(output) if binary else (1, 0)
    ones = scores < output.threshold if output.anomalous == "low" else scores >= output.threshold
    if method is Combine.VOTE:
        voted = np.array([[label == positive for label in p.labels or ()] for p in predictions], np.float64)
        ones = _voted(voted, ones, shares)
        # The confidence belongs to the winning label. Where the vote contradicts the mean score, it is below one half.
        confidence = np.where(ones, scores, 1 - scores)
    else:
        confidence = np.maximum(scores, 1 - scores)
    labels = [positive if one else negative for one in ones.tolist()]
    return Predictions(scores, labels, None, confidence if binary else None)


def _columns(card: ModelCard, predictions: Sequence[Predictions], shares: Table) -> dict[str, OutputColumn] | None:
    """The columns of a regression that has several, each combined by itself."""
    assert card.ensemble is not None
    if card.output.outputs is None:
        return None
    return {
        name: _combined(card.ensemble.combine, [np.asarray((p.outputs or {})[name]) for p in predictions], shares)
        for name in card.output.outputs
    }


def _several(card: ModelCard, predictions: Sequence[Predictions], shares: Table) -> Predictions:
    """Multilabel: each label is combined by itself. With ``vote``, the labels that most of the weight has given are the
    answer's; a tie is decided by the mean probability. The score is the highest probability of these labels.
    """
    assert card.ensemble is not None and card.output.labels is not None and card.output.threshold is not None
    labels, method = card.output.labels, card.ensemble.combine
    probabilities = _combined(method, [_probabilities(p) for p in predictions], shares)
    reached = probabilities >= card.output.threshold
    if method is Combine.VOTE:
        voted = [[[label in row for label in labels] for row in (p.outputs or {})[LABELS]] for p in predictions]
        reached = _voted(np.array(voted, np.float64), reached, shares)
    return several_labels(probabilities, labels, reached)


def _combined_names(output: OutputSection) -> Sequence[str]:
    """The outputs that a model's kind gives, which an ensemble combines; all others are carried."""
    return (LABELS,) if output.kind is OutputKind.MULTILABEL else output.outputs or ()


def _labels(output: OutputSection) -> tuple[Label, Label]:
    """The positive and the other label of a binary ensemble."""
    labels = output.labels or (0, 1)
    positive = 1 if output.positive is None else output.positive
    return positive, labels[1 - labels.index(positive)]


def _combined(method: Combine, columns: Sequence[NDArray[Any]], shares: Table) -> Floats:
    """The members' numbers as one of each row: the highest, or the weighted mean. In float64, and rounded to the widest
    type of the members, so that a double stays one.
    """
    table = np.stack(columns).astype(np.float64)
    weights = shares.reshape(-1, *[1] * (table.ndim - 1))
    mean = table.max(axis=0) if method is Combine.MAXIMUM else _sum(weights * table)
    return mean.astype(np.result_type(*columns), copy=False)


def _voted(votes: Table, tied: NDArray[np.bool_], shares: Table) -> NDArray[np.bool_]:
    """Which votes have more than half of the weight; ``votes`` has members in its first dimension. Of even ones,
    ``tied`` decides.
    """
    weight = _sum(shares.reshape(-1, *[1] * (votes.ndim - 1)) * votes)
    return np.where(np.isclose(weight, 0.5), tied, weight > 0.5)


def _classes(card: ModelCard, predictions: Sequence[Predictions], shares: Table) -> Predictions:
    """Multiclass: probabilities for each row. The winning class's probability is the score and the confidence.

    With ``vote``, the class with the largest weight of votes wins; a tie goes to the higher mean probability. With
    ``maximum``, the answer is that of the member with the highest probability, or the mean of members that tie on the
    same class.
    """
    assert card.ensemble is not None and card.output.labels is not None
    method = card.ensemble.combine
    kind = np.result_type(*(_probabilities(p) for p in predictions))
    table = np.stack([_probabilities(p) for p in predictions]).astype(np.float64)
    all_rows = np.arange(table.shape[1])
    if method is Combine.MAXIMUM:
        best = table.max(axis=0)
        winner = best.argmax(axis=1)
        surest = table[:, all_rows, winner] == best[all_rows, winner]
        probabilities = _sum(np.where(surest[:, :, None], table, 0)) / surest.sum(axis=0)[:, None]
    else:
        probabilities = _sum(shares[:, None, None] * table)
        winner = probabilities.astype(kind).argmax(axis=1)
    if method is Combine.VOTE:
        votes = _sum(shares[:, None, None] * np.eye(table.shape[2])[table.argmax(axis=2)])
        tied = np.isclose(votes, votes.max(axis=1, keepdims=True))
        winner = np.where(tied, probabilities, -1).argmax(axis=1)
    rounded = probabilities.astype(kind, copy=False)
    scores = rounded[all_rows, winner]
    labels: list[Label] = [card.output.labels[i] for i in winner.tolist()]
    return Predictions(scores, labels, rounded, scores)


def _probabilities(predictions: Predictions) -> NDArray[Any]:
    assert predictions.probabilities is not None  # a session always gives them for multiclass and multilabel outputs
    return predictions.probabilities


def _sum(table: Table) -> Table:
    """Sums over the members, smallest value first, so that the order of members does not change the result by a bit."""
    total: Table = np.sort(table, axis=0).sum(axis=0)
    return total
