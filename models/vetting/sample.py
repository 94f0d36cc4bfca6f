"""Owns the rows that a vetting runs: golden vectors, which are real, or rows made up from the card's features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.feature_section import FeatureSection
from failsoft.models.catalog.repository import Artifact
from failsoft.models.catalog.statistics import Statistic
from failsoft.models.vetting import golden
from failsoft.models.vetting.golden import Golden
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns
from failsoft.schemas.features.spec import DType, FeatureType, TensorSpec

SAMPLE = 16
"""Rows that are tried one by one: enough to include each category of a small set and each scale, and few enough for the
time limits at a deadline of 200 ms."""

LENGTHS = (4, 1, 7, 16, 2)
"""Lengths of made-up rows where the length differs by row: short, because a batch is padded to its longest."""

# Valid for most features and for every index into a table. The model may not accept large or negative numbers.
_SMALL = (1, 0, 2, 0.5, 3, 0.25, 1.5)
# Of the last rows, for numbers with a fraction: a logit is within [0, 1] for some rows, and not at each scale and sign.
_SCALES = (-1, 0.01, 10, -10, 100, -100, 1000, -1000)
_ORDINARY = 2  # a row with small numbers
_WORDS = ("", "a", "1", "The quick brown fox", "?", "words of another text")


def sample(
    artifact: Artifact, card: ModelCard, vectors: Sequence[Golden] | None, dtypes: Mapping[str, str]
) -> tuple[Columns, str]:
    """Up to SAMPLE valid rows, and their origin: "golden" for golden vectors, which are real rows, else "made-up"."""
    if vectors:
        rows, invalid = golden.rows(vectors, card, artifact.statistics, dtypes)
        valid = [i for i in range(rows.size) if i not in invalid][:SAMPLE]
        if valid:
            return rows.take(np.array(valid, dtype=np.intp)), "golden"
    return made_up(artifact, card), "made-up"


def made_up(artifact: Artifact, card: ModelCard) -> Columns:
    """SAMPLE rows: the first has zeros and first categories, the second typical values of the training data, those in
    the middle small numbers, and the last numbers of several scales and both signs. A path with dots is one name in
    them, which is found first.
    """
    features = [(feature, artifact.statistics.get(feature.name)) for feature in card.features]
    rows = []
    for i in range(SAMPLE):
        length = LENGTHS[i % len(LENGTHS)]
        rows.append({f.spec.path: _value(f, known, i, j, length) for j, (f, known) in enumerate(features)})
    return columns(rows, card.specs)


def of_length(artifact: Artifact, card: ModelCard, length: int | None) -> Columns:
    """One made-up row whose tensors have ``length`` elements where it varies; None: each its ``max_length``."""
    known = artifact.statistics
    row = {f.spec.path: _value(f, known.get(f.name), _ORDINARY, j, length) for j, f in enumerate(card.features)}
    return columns([row], card.specs)


def _value(feature: FeatureSection, known: Statistic | None, i: int, j: int, length: int | None) -> object:
    """The value of feature ``j`` in row ``i``, as an event would have it."""
    if feature.spec.tensor is not None:
        return _tensor(feature.spec.tensor, i, j, length, feature.minimum, feature.maximum)
    match feature.type:
        case FeatureType.FLOAT | FeatureType.INT:
            typical = None if known is None else known.mean if known.median is None else known.median
            whole = feature.type is FeatureType.INT
            number = float(typical) if i == 1 and typical is not None else _number(i, j, whole)
            number = float(np.clip(number, feature.minimum, feature.maximum))
            return round(number) if whole else number
        case FeatureType.BOOL:
            return i > 0 and (i + j) % 2 == 1
    words = sorted(feature.categories or _WORDS)
    return words[0 if i == 0 else (i + j) % len(words)]


def _number(i: int, j: int, whole: bool) -> float:
    """Number ``j`` of row ``i``. Whole numbers stay small, and are 0 in some of the last rows: they may be indices."""
    at = i - (SAMPLE - len(_SCALES))
    if i <= 1 or (whole and at > 0 and at % 2):
        return 0.0
    small = _SMALL[(i + j) % len(_SMALL)]
    return float(small if whole or at < 0 else (small + 0.5) * _SCALES[at] * (-1) ** (j * at))


def _tensor(tensor: TensorSpec, i: int, j: int, length: int | None, low: float | None, high: float | None) -> Any:
    """A tensor as lists, with another number in each element."""
    longest = tensor.max_length or 1
    shape = [min(longest if length is None else length, longest) if n == -1 else n for n in tensor.shape]
    count = int(np.prod(shape))
    match tensor.dtype:
        case DType.STRING:
            elements = np.array([_WORDS[(i + j + k) % len(_WORDS)] for k in range(count)], object)
        case DType.BOOL:
            elements = np.array([i > 0 and (i + j + k) % 2 == 1 for k in range(count)])
        case _:
            floating = tensor.dtype.floating
            period = [_number(i, j + k, not floating) for k in range(2 * len(_SMALL))]
            numbers = np.clip(np.resize(np.array(period), count), low, high) if count else np.zeros(0)
            elements = numbers if floating else numbers.round().astype(np.int64)
    return elements.reshape(shape).tolist()
