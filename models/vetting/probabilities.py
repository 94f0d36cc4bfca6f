"""Whether a model's scores are probabilities, or logits that the card's ``activation`` turns into probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.models.catalog.fields import OutputKind
from failsoft.models.catalog.output_section import OutputSection
from failsoft.models.runtime.rounding import rounding

Table = NDArray[np.float64]

FEWEST = 4
"""Different rows without which scores within [0, 1] do not show that they are probabilities."""


def table(raw: Any, n: int) -> tuple[Table, str] | None:
    """The scores of an output for ``n`` rows, shape (n, columns), and the type that the model gives; None for another
    shape.

    A sequence of maps (ZipMap) has a column for each key. A sequence or stack of one (n, 2) tensor a label, as
    scikit-learn's multilabel models give it, has the second column of each.
    """
    if isinstance(raw, list):
        if not raw:
            return None
        if all(isinstance(row, dict) and row.keys() == raw[0].keys() for row in raw):
            return np.array([list(row.values()) for row in raw], np.float64), "float32"
        if len({np.shape(each) for each in raw}) > 1:
            return None
    scores = np.asarray(raw)
    if scores.ndim == 3 and scores.shape[1:] == (n, 2):
        scores = scores[:, :, 1].T
    if scores.dtype.kind != "f" or scores.ndim not in (1, 2) or len(scores) != n or not scores.size:
        return None
    return scores.reshape(n, -1).astype(np.float64), scores.dtype.name


def logits(scores: Table, dtype: str, output: OutputSection) -> str | None:
    """What is wrong with scores that are no probabilities, and the activation that mends it; None if nothing is.

    Args:
        scores: the model's own, shape (rows, columns); rows that are not finite are left out.
        dtype: the numpy name of the output's type.
        output: the card's [output].
    """
    if output.activation is not None or output.kind not in _PROBABILITIES:
        return None
    scores = scores[np.isfinite(scores).all(axis=1)]
    edge, apart = rounding(dtype)
    outside: NDArray[np.bool_] = np.any((scores < -edge) | (scores > 1 + edge), axis=1)
    sums = scores.sum(axis=1)
    whole = output.kind is OutputKind.MULTICLASS or (output.kind is OutputKind.BINARY and scores.shape[1] == 2)
    off = np.abs(sums - 1) > apart if whole else np.zeros(len(scores), np.bool_)
    beyond = bool(outside.any())
    if not beyond and not off.any():
        return None
    if beyond:
        found = f"{_count(outside)} have scores outside [0, 1], from {scores.min():.4g} to {scores.max():.4g}"
    else:
        worst = sums[int(np.abs(sums - 1).argmax())]
        found = f"{_count(off)} have scores that do not sum to 1 but, in one, to {worst:.4g}"
    return f"{found}: they are no probabilities. {_mend(scores, beyond, whole, output.kind)}"


_PROBABILITIES = (OutputKind.BINARY, OutputKind.MULTICLASS, OutputKind.MULTILABEL)


def _count(rows: NDArray[np.bool_]) -> str:
    return f"{int(rows.sum())} of {len(rows)} rows"


def _mend(scores: Table, outside: bool, whole: bool, kind: OutputKind) -> str:
    if whole and scores.shape[1] == 2 and is_margin(scores):
        lines = "add " if kind is OutputKind.BINARY else 'write kind = "binary" and '
        return (
            f"Its two columns are a margin and its negative: if the margin is a logit, {lines}"
            'activation = "sigmoid" in [output]'
        )
    name = "softmax" if whole else "sigmoid"
    mend = f'If they are logits, add activation = "{name}" to [output]'
    if whole and not outside:
        return f'{mend}; if each column is a probability of its own, write kind = "multilabel"'
    return f'{mend}; if they are amounts or distances, write kind = "regression" or "anomaly"'


def misapplied(scores: Table, dtype: str, output: OutputSection) -> str | None:
    """Why the card's activation is not for these scores; None if it is, or if that is not known.

    A softmax of probabilities, or of a margin and its negative, passes every other check, and each of its answers is
    wrong.
    """
    if output.activation is None:
        return None
    scores = scores[np.isfinite(scores).all(axis=1)]
    if len(np.unique(scores.round(6), axis=0)) < FEWEST:
        return None
    if scores.shape[1] == 2:
        margin, binary = is_margin(scores), output.kind is OutputKind.BINARY
        if margin and output.activation == "softmax":
            mend = "" if binary else 'kind = "binary" and '
            return (
                "the model's two columns are a margin and its negative, whose softmax is the sigmoid of twice the "
                f'margin: write {mend}activation = "sigmoid" in [output]'
            )
        if binary and not margin and output.activation == "sigmoid":
            return (
                "the model's two columns are not a margin and its negative, so that their sigmoids do not sum to 1: "
                'write activation = "softmax" in [output]'
            )
    edge, apart = rounding(dtype)
    if ((scores < -edge) | (scores > 1 + edge)).any():
        return None
    summing = ""
    if output.activation == "softmax":
        if (np.abs(scores.sum(axis=1) - 1) > apart).any():
            return (
                f"the model's own scores for {len(scores)} rows are within [0, 1], each by itself: they look like one "
                'probability for each label, which activation = "softmax" would change: remove it from [output], and '
                'write kind = "multilabel"'
            )
        summing = ", and each row's sum to 1"
    return (
        f"the model's own scores for {len(scores)} rows are within [0, 1]{summing}: they are probabilities already, "
        f'and activation = "{output.activation}" would change them: remove it from [output]'
    )


def is_margin(scores: Table) -> bool:
    """Whether two columns are a margin and its negative: one logit, and not two."""
    return bool(np.allclose(scores[:, 0], -scores[:, 1], rtol=1e-3))
