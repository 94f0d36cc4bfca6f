"""Compares the labels that a model gives itself with those that the card makes of its scores.

A card that takes the wrong column, or the wrong side of a threshold, turns every answer around, and passes each check
of shapes and ranges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.models.catalog.fields import OutputKind, listed, toml
from failsoft.models.catalog.graph import GraphFacts
from failsoft.models.catalog.output_section import OutputSection
from failsoft.models.vetting.verdict import CheckResult
from failsoft.schemas.prediction import Label, Predictions

LABELLED = (OutputKind.BINARY, OutputKind.MULTICLASS, OutputKind.MULTILABEL, OutputKind.ANOMALY)
"""Kinds of output whose answers have labels."""

CLOSE = 1e-3
"""A row whose two likeliest labels are closer than this is not compared: rounding may decide it."""

_POSITIVE = 0.5  # a model's own label of a binary answer changes here, whatever the card's threshold is


@dataclass(frozen=True, slots=True)
class LabelFinding:
    """What the comparison found: a result, and a sentence."""

    result: CheckResult
    message: str


def own_labels(raw: Mapping[str, Any], output: OutputSection, scores: str, n: int) -> list[Label] | None:
    """The model's own label of each of ``n`` rows; None if it gives none, or several outputs could be it."""
    found = {}
    for name, value in raw.items():
        carried = name in output.carry and "label" not in name.lower()  # neighbours' ids are no labels
        if name == scores or carried or isinstance(value, list):
            continue
        labels = np.asarray(value)
        if labels.dtype.kind == "f" and "label" in name.lower() and bool((labels == labels.round()).all()):
            labels = labels.astype(np.int64)
        if labels.shape in ((n,), (n, 1)) and labels.dtype.kind in "biuO":
            found[name] = [_label(label) for label in labels.reshape(-1).tolist()]
    named = {name: labels for name, labels in found.items() if "label" in name.lower()}
    candidates = list((named if len(found) > 1 else found).values())
    return candidates[0] if len(candidates) == 1 else None


def _label(given: Any) -> Label:
    if isinstance(given, bytes):
        return given.decode("utf-8", "replace")
    return int(given) if isinstance(given, bool) else given


def compare(
    own: Sequence[Label], ours: Predictions, output: OutputSection, facts: GraphFacts, columns: int
) -> LabelFinding:
    """The model's labels against the card's for the same rows.

    Args:
        own: the model's, one a row.
        ours: the answers.
        output: the card's [output].
        facts: of the file: its labels in the order of its columns, and the program that wrote it (scikit-learn's
            detectors label an outlier -1, others 1).
        columns: the number of columns of the model's scores.
    """
    labels = output.labels or facts.labels
    match output.kind:
        case OutputKind.ANOMALY:
            return _anomaly(own, ours.scores.astype(np.float64), output, facts.producer)
        case OutputKind.BINARY:
            return _binary(own, ours.scores.astype(np.float64), output, facts.labels, columns)
        case OutputKind.MULTICLASS if ours.probabilities is not None and ours.labels is not None:
            return _multiclass(own, ours.labels, ours.probabilities.astype(np.float64), labels or (), facts.labels)
    return LabelFinding(CheckResult.SKIPPED, f"a {output.kind} output has no label to compare")


def _binary(
    own: Sequence[Label],
    scores: NDArray[np.float64],
    output: OutputSection,
    known: Sequence[Label] | None,
    columns: int,
) -> LabelFinding:
    labels = output.labels or known or (0, 1)
    positive: Label = 1 if output.positive is None else output.positive
    given = _named(own, labels, known)
    strange = sorted({str(label) for label in given if label not in labels and label != positive})
    if strange:
        return LabelFinding(
            CheckResult.FAILED,
            f"the model's own label output gives {' and '.join(map(repr, strange))}, and the card's labels are "
            f"{listed(labels)}: write the model's own as labels in [output], in the order of its columns, and the one "
            "that the score is the probability of as positive",
        )
    theirs = np.array([label == positive for label in given])
    clear = np.abs(scores - _POSITIVE) > CLOSE
    agree = theirs == (scores > _POSITIVE)
    if agree[clear].all():
        return LabelFinding(CheckResult.PASSED, f"as its own for {int(clear.sum())} rows")
    apart = int((~agree & clear).sum())
    switch = _switch(scores[~theirs], scores[theirs])
    if switch is not None:
        message = f"its own label changes between the scores {switch[0]:.4g} and {switch[1]:.4g}"
        threshold = "" if output.threshold is None else f"; the card's threshold is {output.threshold:g}"
        return LabelFinding(CheckResult.NOTE, f"{message}{threshold}")
    found = f"the model's own label output contradicts the card for {apart} of {int(clear.sum())} rows"
    row = int(np.flatnonzero(~agree & clear)[0])
    said = f"{found}: for a score of {scores[row]:.4g} it says {own[row]!r}, and the card takes the score for the"
    if columns == 1 and theirs.any() and not theirs.all() and (scores[clear] > _POSITIVE).all():
        return LabelFinding(
            CheckResult.FAILED,
            f"{said} probability of {positive!r}: its scores are all over 0.5, so that they are the probability of the "
            'likelier label, whichever it is: export that of one label, or write kind = "regression" in [output] and '
            "carry the label",
        )
    if 2 * apart < clear.sum() and _switch(scores[theirs], scores[~theirs]) is None:
        return LabelFinding(CheckResult.NOTE, f"{found}: its label is not that of its likelier class")
    mend = _turned(given, labels, positive, columns, known)
    return LabelFinding(CheckResult.FAILED, f"{said} probability of {positive!r}: {mend}")


def _turned(
    given: Sequence[Label],
    labels: Sequence[Label],
    positive: Label,
    columns: int,
    known: Sequence[Label] | None,
) -> str:
    """What mends a card that takes the probability of one label for that of the other.

    With two columns another ``positive`` is read from the other column, and is as wrong.
    """
    other = next((label for label in (*given, *labels) if label != positive), 0)
    turned = f"labels = {listed((labels[1], labels[0]))}"
    if columns == 2:
        right = f"in [output], write {turned} and positive = {toml(positive)}, if that is the order of its columns"
        if known is not None:
            right = (
                f"its file has the labels in the order {listed(known)}, and its columns have them in the other, as "
                "those of an SVC without probability=True: export probabilities in the file's order, or write kind = "
                '"regression" in [output], name both columns with outputs, and carry the label'
            )
    else:
        named = f", or {turned}, if it numbers them in this order" if isinstance(labels[0], str) else ""
        right = f"in [output], write positive = {toml(other)}, if it is that label's{named}"
    if len(set(given)) > 1:
        return right
    return f"{right}. It gives this label to all rows, so its own threshold may be above them: golden.ndjson would tell"


def _named(own: Sequence[Label], labels: Sequence[Label], known: Sequence[Label] | None) -> list[Label]:
    """The model's labels by the card's names, where the model numbers its classes and the card names them.

    So does CatBoost for two classes of numbers, although its file has them: ``known``.
    """
    counted = all(isinstance(label, int) and 0 <= label < len(labels) for label in own)
    numbered = counted and known is not None and tuple(labels) == tuple(known) and not set(own) <= set(labels)
    if not numbered and not all(isinstance(name, str) for name in labels):
        return list(own)
    return [labels[label] if isinstance(label, int) and 0 <= label < len(labels) else label for label in own]


def _switch(under: NDArray[np.float64], over: NDArray[np.float64]) -> tuple[float, float] | None:
    """Between which scores the label changes, if all of ``under`` are less than all of ``over``; None otherwise."""
    if not under.size or not over.size or under.max() > over.min():
        return None
    return float(under.max()), float(over.min())


def _multiclass(
    own: Sequence[Label],
    ours: Sequence[Label | None],
    table: NDArray[np.float64],
    labels: Sequence[Label],
    known: Sequence[Label] | None,
) -> LabelFinding:
    if not labels and all(isinstance(label, int) and 0 <= label < table.shape[1] for label in own):
        labels = range(table.shape[1])  # the label of a column without a name is its number
        ours = table.argmax(axis=1).tolist()
    ordered = np.sort(table, axis=1)
    clear = np.flatnonzero(ordered[:, -1] - ordered[:, -2] > CLOSE).tolist()
    given = _named(own, labels, known)
    apart = [i for i in clear if given[i] != ours[i]]
    if not apart:
        return LabelFinding(CheckResult.PASSED, f"as its own for {len(clear)} rows")
    i = apart[0]
    found = f"the model's own label output contradicts the card for {len(apart)} of {len(clear)} rows"
    if 2 * len(apart) < len(clear):  # as scikit-learn's SVC, whose probabilities are fitted apart from its labels
        return LabelFinding(CheckResult.NOTE, f"{found}: its label is not that of its likeliest class")
    by_column = dict(zip(table[clear].argmax(axis=1).tolist(), [given[k] for k in clear], strict=True))
    order = [by_column.get(j) for j in range(table.shape[1])]
    mend = "write labels in the order of the model's columns"
    known = [label for label in order if label is not None]
    if len(known) == len(order) == len(set(known)):
        mend = f"write labels = {listed(known)}"
    return LabelFinding(
        CheckResult.FAILED,
        f"{found}: it says {own[i]!r} where the card says {ours[i]!r}: {mend} in [output]",
    )


def _anomaly(own: Sequence[Label], scores: NDArray[np.float64], output: OutputSection, producer: str) -> LabelFinding:
    outlier = _outlier(own, producer)
    if outlier is None:
        return LabelFinding(
            CheckResult.SKIPPED, f"its own label is {own[0]!r} for each row, which does not tell the side"
        )
    anomalous = np.array([label == outlier for label in own])
    low, high = scores[anomalous], scores[~anomalous]
    below, above = _switch(low, high), _switch(high, low)
    edges = below or above
    if edges is None:
        return _one_side(anomalous, scores, output, "low" if outlier == -1 else "high")
    side = "low" if below else "high"
    between = (
        f"its own label of an anomaly, {outlier}, is on the {side} side of a score between {edges[0]:.4g} and "
        f"{edges[1]:.4g}"
    )
    if output.anomalous != side:
        return LabelFinding(CheckResult.FAILED, f'{between}: write anomalous = "{side}" in [output]')
    if output.threshold is None:
        return LabelFinding(
            CheckResult.NOTE, f"{between}, and the card has no threshold, so that answers have no label"
        )
    if not edges[0] <= output.threshold <= edges[1]:
        return LabelFinding(CheckResult.NOTE, f"{between}; the card's threshold is {output.threshold:g}")
    return LabelFinding(CheckResult.PASSED, f"as its own for {len(own)} rows")


def _one_side(
    anomalous: NDArray[np.bool_], scores: NDArray[np.float64], output: OutputSection, usual: str
) -> LabelFinding:
    """All rows have one label, or the scores do not part the labels. ``usual`` is the side that such labels mean."""
    if output.threshold is None:
        return LabelFinding(CheckResult.SKIPPED, "the card has no threshold, so that answers have no label")
    ours = scores >= output.threshold if output.anomalous == "high" else scores < output.threshold
    apart = int((ours != anomalous).sum())
    if not apart:
        return LabelFinding(CheckResult.PASSED, f"as its own for {len(scores)} rows")
    found = f"the model's own label output contradicts the card for {apart} of {len(scores)} rows"
    if 2 * apart > len(scores) and output.anomalous != usual:
        return LabelFinding(CheckResult.FAILED, f'{found}: write anomalous = "{usual}" in [output]')
    return LabelFinding(CheckResult.NOTE, f"{found}; the card's threshold is {output.threshold:g}")


def _outlier(own: Sequence[Label], producer: str) -> Label | None:
    """The label that means an anomaly: -1 of -1 and 1 (scikit-learn), 1 of 0 and 1 (others); None if it is not sure."""
    seen = set(own)
    if seen <= {-1, 1} and (-1 in seen or producer == "skl2onnx"):
        return -1
    return 1 if seen <= {0, 1} and 0 in seen else None
