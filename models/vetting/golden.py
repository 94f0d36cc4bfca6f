"""Owns golden vectors: inputs with expected answers, read from a version's golden.ndjson, and their comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from failsoft.models.answers.imputation import impute
from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.fields import Finite, Label
from failsoft.models.catalog.statistics import Statistic
from failsoft.schemas import nan, wire
from failsoft.schemas.config.refusal import Refused, refuse
from failsoft.schemas.failure import Failure
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns
from failsoft.schemas.prediction import Prediction

FILE = "golden.ndjson"

RELATIVE = 1e-4
ABSOLUTE = 1e-6
"""The default tolerance: an answer may differ by ABSOLUTE plus RELATIVE times the expected value.

ONNX Runtime computes in float32, whose relative precision is 6e-8, and reorders sums. A training framework in float64
therefore differs by about 1e-5, another version of the model by far more than 1e-4."""

MAX_BYTES = 16_000_000
MAX_LINES = 10_000
"""Limits of the file. Twenty lines are enough to check a version; a whole data set would slow every start."""

SHOWN = 3
"""Mismatches that a message quotes; more of them add no information."""


class _Expected(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    score: Finite
    label: Label | None = None
    probabilities: tuple[Finite, ...] | None = None


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    features: dict[str, Any]
    expected: _Expected
    tolerance: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = 0.0


@dataclass(frozen=True, slots=True)
class Golden:
    """One golden vector.

    Attributes:
        line: its line in the file, from 1.
        features: the event's features.
        expected: the expected answer.
        tolerance: an absolute tolerance; the default applies if it is larger.
    """

    line: int
    features: Mapping[str, Any]
    expected: Prediction
    tolerance: float = 0.0


def read(path: Path) -> list[Golden] | None:
    """The vectors at ``path``, None without the file. Raises Refused with the line, the key and what it may be."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Refused(str(path), [f"over {MAX_BYTES // 1_000_000} MB: a few dozen lines are enough"])
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(str(path), [f"cannot be read: {error.strerror}"]) from error
    vectors = [_golden(path, n, line) for n, line in enumerate(raw.splitlines(), 1) if line.strip()]
    if not vectors:
        raise Refused(str(path), ["is empty: add lines, or delete the file"])
    if len(vectors) > MAX_LINES:
        raise Refused(str(path), [f"{len(vectors)} lines, over {MAX_LINES}: a few dozen are enough"])
    return vectors


def _golden(path: Path, n: int, line: bytes) -> Golden:
    where = f"{path}, line {n}"
    try:
        parsed = _Line.model_validate(nan.loads(line, MAX_BYTES))
    except wire.Malformed as error:
        raise Refused(where, [str(error)]) from None
    except ValidationError as error:
        raise refuse(where, error, _Line) from None
    expected = Prediction(parsed.expected.score, parsed.expected.label, parsed.expected.probabilities)
    return Golden(n, parsed.features, expected, parsed.tolerance)


def rows(
    vectors: Sequence[Golden], card: ModelCard, statistics: Mapping[str, Statistic], dtypes: Mapping[str, str]
) -> tuple[Columns, dict[int, Failure]]:
    """The vectors' features, imputed as in a worker, and the rows that stay invalid, by index."""
    imputed = impute(columns([v.features for v in vectors], card.specs), card, statistics, dtypes)
    return imputed.columns, imputed.invalid


def mismatches(vectors: Sequence[Golden], got: Sequence[Prediction | Failure]) -> list[str]:
    """One sentence for each vector with another answer than expected: its line, the expected and the given answer."""
    sentences = []
    for vector, answer in zip(vectors, got, strict=True):
        if isinstance(answer, Failure):
            difference = f"expected score {vector.expected.score:.7g}, got no answer ({answer.kind}: {answer.message})"
        else:
            difference = _difference(vector, answer)
        if difference:
            sentences.append(f"line {vector.line}: {difference}")
    return sentences


def _difference(vector: Golden, got: Prediction) -> str:
    """How the answer differs from the expected one; "" if it does not."""
    expected = vector.expected
    deviation = _deviation(expected.score, got.score, vector.tolerance)
    if deviation:
        return f"expected score {expected.score:.7g}, got {got.score:.7g} ({deviation})"
    if expected.label is not None and expected.label != got.label:
        return f"expected label {expected.label!r}, got {got.label!r}"
    if expected.probabilities is not None:
        given = got.probabilities
        if given is None or len(given) != len(expected.probabilities):
            count = "none" if given is None else str(len(given))
            return f"expected {len(expected.probabilities)} probabilities, got {count}"
        for j, (probability, actual) in enumerate(zip(expected.probabilities, given, strict=True)):
            deviation = _deviation(probability, actual, vector.tolerance)
            if deviation:
                return f"expected probabilities[{j}] {probability:.7g}, got {actual:.7g} ({deviation})"
    return ""


def _deviation(expected: float, got: float, tolerance: float) -> str:
    allowed = max(ABSOLUTE + RELATIVE * abs(expected), tolerance)
    difference = abs(got - expected)
    return "" if difference <= allowed else f"{difference:.2g} apart, {allowed:.2g} allowed"


def describe(sentences: Sequence[str], lines: int) -> str:
    """The mismatches as one message; ``lines`` is the number of golden vectors."""
    more = f"; and {len(sentences) - SHOWN} more" if len(sentences) > SHOWN else ""
    return f"{len(sentences)} of {lines} answers are not as expected: {'; '.join(sentences[:SHOWN])}{more}"
