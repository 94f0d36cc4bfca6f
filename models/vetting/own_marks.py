"""Compares the labels that a multilabel model marks itself with those that the card makes of its scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.models.catalog.output_section import OutputSection
from failsoft.models.runtime.activation import sigmoid
from failsoft.models.runtime.rounding import rounding
from failsoft.models.vetting.own_labels import CLOSE, LabelFinding
from failsoft.models.vetting.probabilities import table
from failsoft.models.vetting.verdict import CheckResult

_HALF = 0.5


def compare_marks(raw: Mapping[str, Any], output: OutputSection, scores: str, n: int) -> LabelFinding:
    """The model's own marks of ``n`` rows against its scores, which the card reads.

    Args:
        raw: the model's outputs.
        output: the card's [output].
        scores: the name of the output of the scores.
        n: the number of rows.
    """
    pairs = _pairs(raw[scores], n)
    if pairs is not None and output.activation is None:
        off = ~(np.abs(pairs.astype(np.float64).sum(axis=2) - 1) <= rounding(pairs.dtype.name).total)
        if off.any():
            message = f"the two probabilities of a label do not sum to 1 in {int(off.any(axis=0).sum())} of {n} rows"
            return LabelFinding(
                CheckResult.FAILED, f"{message}, so that neither is one: export one probability for each label"
            )
    read = table(raw[scores], n)
    own = None if read is None else _own(raw, output, scores, read[0].shape)
    if read is None or own is None:
        return LabelFinding(CheckResult.SKIPPED, "the model has no label output")
    if own.dtype.kind not in "biu":
        if pairs is None:
            return LabelFinding(CheckResult.SKIPPED, "its own labels are texts")
        seen = " and ".join(map(repr, sorted({str(each) for each in own.reshape(-1).tolist()})[:4]))
        return LabelFinding(
            CheckResult.FAILED,
            f"the model's own labels are texts ({seen}), and nothing says which one means that a label is there. The "
            "card takes the second column for it: train with 0 and 1, or add golden.ndjson with labels that agree",
        )
    given = read[0] if output.activation is None else sigmoid(read[0])
    clear = np.abs(given - _HALF) > CLOSE
    agree = (own > 0) == (given > _HALF)
    apart = int((~agree & clear).sum())
    if not apart:
        return LabelFinding(CheckResult.PASSED, f"as its own for {n} rows")
    found = f"the model's own marks contradict the card for {apart} of {int(clear.sum())} labels of {n} rows"
    if 2 * apart < clear.sum():
        return LabelFinding(CheckResult.NOTE, f"{found}: it marks a label at another score than 0.5")
    return LabelFinding(CheckResult.FAILED, f"{found}: export the probability that each label is there")


def _pairs(raw: Any, n: int) -> NDArray[Any] | None:
    """(labels, n, 2), scikit-learn's form; None for another."""
    if isinstance(raw, list) and len({np.shape(each) for each in raw}) > 1:
        return None
    pairs = np.asarray(raw)
    return pairs if pairs.ndim == 3 and pairs.shape[1:] == (n, 2) else None


def _own(raw: Mapping[str, Any], output: OutputSection, scores: str, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """The only output with a mark for each score: 0 and 1, -1 and 1, or texts."""
    found = []
    for name, value in raw.items():
        if name == scores or isinstance(value, list) or (name in output.carry and "label" not in name.lower()):
            continue
        marks = np.asarray(value)
        fits = marks.dtype.kind in "bO" or (marks.dtype.kind in "iu" and bool(np.isin(marks, (-1, 0, 1)).all()))
        if marks.shape == shape and fits:
            found.append(marks)
    return found[0] if len(found) == 1 else None
