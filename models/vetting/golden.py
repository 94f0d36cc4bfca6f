"""Golden vectors: inputs with the answers they must get, read from a version's golden.ndjson, and compared."""

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
from failsoft.schemas import wire
from failsoft.schemas.config.refusal import Refused, refuse
from failsoft.schemas.failure import Failure
from failsoft.schemas.features import Columns, columns
from failsoft.schemas.prediction import Prediction

FILE = "golden.ndjson"

RELATIVE = 1e-4
ABSOLUTE = 1e-6
"""The default tolerance. ONNX Runtime computes in float32, whose own steps are 6e-8 of a number, and reorders sums: a
training framework in float64 ends some 1e-5 away, another version of the model far more than 1e-4."""

MAX_BYTES = 16_000_000
MAX_LINES = 10_000
"""Of a file and of its lines. Twenty lines prove a version; a data set belongs elsewhere, and costs every start."""

SHOWN = 3
"""Mismatches that a message quotes; more of them say nothing new."""


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
    """One line: the event's features, and the answer. ``tolerance`` is absolute, and widens the default."""

    line: int
    features: Mapping[str, Any]
    expected: Prediction
    tolerance: float = 0.0


def read(path: Path) -> list[Golden] | None:
    """The vectors at ``path``, or None if there is no such file. Raises Refused: line, key, what it may be."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Refused(str(path), [f"over {MAX_BYTES // 1_000_000} MB: a few dozen lines are enough"])
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(str(path), [f"cannot be read: {error.strerror}"]) from error
    found = [_golden(path, n, line) for n, line in enumerate(raw.splitlines(), 1) if line.strip()]
    if not found:
        raise Refused(str(path), ["is empty: give it lines, or take it away"])
    if len(found) > MAX_LINES:
        raise Refused(str(path), [f"{len(found)} lines, over {MAX_LINES}: a few dozen are enough"])
    return found


def _golden(path: Path, n: int, line: bytes) -> Golden:
    where = f"{path}, line {n}"
    try:
        describe = _Line.model_validate(wire.loads(line, MAX_BYTES))
    except wire.Malformed as error:
        raise Refused(where, [str(error)]) from None
    except ValidationError as error:
        raise refuse(where, error, _Line) from None
    expected = Prediction(describe.expected.score, describe.expected.label, describe.expected.probabilities)
    return Golden(n, describe.features, expected, describe.tolerance)


def rows(
    vectors: Sequence[Golden], card: ModelCard, statistics: Mapping[str, Statistic]
) -> tuple[Columns, dict[int, Failure]]:
    """The vectors' features, imputed as a worker does it, and the rows that stay invalid, by index."""
    imputed = impute(columns([v.features for v in vectors], card.specs), card, statistics)
    return imputed.columns, imputed.invalid


def mismatches(vectors: Sequence[Golden], got: Sequence[Prediction | Failure]) -> list[str]:
    """One sentence for each vector whose answer is not the expected one: its line, what was expected, what came."""
    found = []
    for vector, came in zip(vectors, got, strict=True):
        if isinstance(came, Failure):
            describe = f"expected score {vector.expected.score:.7g}, got no answer ({came.kind}: {came.message})"
        else:
            describe = _difference(vector, came)
        if describe:
            found.append(f"line {vector.line}: {describe}")
    return found


def _difference(vector: Golden, got: Prediction) -> str:
    """What is not as expected, or nothing."""
    expected = vector.expected
    off = _off(expected.score, got.score, vector.tolerance)
    if off:
        return f"expected score {expected.score:.7g}, got {got.score:.7g} ({off})"
    if expected.label is not None and expected.label != got.label:
        return f"expected label {expected.label!r}, got {got.label!r}"
    if expected.probabilities is not None:
        given = got.probabilities
        if given is None or len(given) != len(expected.probabilities):
            there = "none" if given is None else str(len(given))
            return f"expected {len(expected.probabilities)} probabilities, got {there}"
        for j, (wanted, came) in enumerate(zip(expected.probabilities, given, strict=True)):
            off = _off(wanted, came, vector.tolerance)
            if off:
                return f"expected probabilities[{j}] {wanted:.7g}, got {came:.7g} ({off})"
    return ""


def _off(expected: float, got: float, tolerance: float) -> str:
    allowed = max(ABSOLUTE + RELATIVE * abs(expected), tolerance)
    difference = abs(got - expected)
    return "" if difference <= allowed else f"{difference:.2g} apart, {allowed:.2g} allowed"


def describe(found: Sequence[str], lines: int) -> str:
    """The mismatches as one message."""
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{len(found)} of {lines} answers are not as expected: {'; '.join(found[:SHOWN])}{more}"
