"""Owns golden vectors: inputs with expected answers, read from a version's golden.ndjson, and their comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
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

MAX_BYTES = 16_000_000
MAX_LINES = 10_000
"""Limits of the file. Twenty lines are enough to check a version; a whole data set would slow every start."""

Numbers = TypeVar("Numbers", float, NDArray[np.float64])

SHOWN = 3
"""Mismatches that a message quotes; more of them add no information."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a number may be from the expected one: ``absolute`` plus ``relative`` times the expected value.

    A training framework and ONNX Runtime sum in another order. About a thousand units in the last place allow for that:
    1e-4 in float32, 2e-13 in float64; in float16 they would be everything, and ten are 1e-2. Another version of a model
    differs by far more. The absolute part is for numbers near 0, in which larger ones cancel.
    """

    absolute: float
    relative: float

    def of(self, expected: Numbers) -> Numbers:
        """The largest difference from ``expected`` that is allowed; for an array, from each of its numbers."""
        return self.absolute + self.relative * abs(expected)

    def looser(self, relative: float | None) -> Tolerance:
        """The same with at least this ``relative`` difference, which the card gives; None: it gives none."""
        return self if relative is None else Tolerance(self.absolute, max(self.relative, relative))


TOLERANCES: Mapping[str, Tolerance] = {
    "float16": Tolerance(1e-3, 1e-2),
    "float32": Tolerance(1e-6, 1e-4),
    "float64": Tolerance(1e-9, 2e-13),
}
"""By the type of the model's output, numpy's names."""


def tolerance(dtype: str, relative: float | None) -> Tolerance:
    """That of an output's type, of another type that of float32, or the card's ``relative`` one if it is looser."""
    return TOLERANCES.get(dtype, TOLERANCES["float32"]).looser(relative)


class _Expected(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    score: Finite
    label: Label | None = None
    probabilities: tuple[Finite, ...] | None = None
    outputs: dict[str, Any] | None = None


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
        outputs: the expected further outputs, by name; those that it leaves out are not compared.
        tolerance: an absolute tolerance; the model's own applies if it is larger.
    """

    line: int
    features: Mapping[str, Any]
    expected: Prediction
    tolerance: float = 0.0
    outputs: Mapping[str, Any] = field(default_factory=dict)


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
    return Golden(n, parsed.features, expected, parsed.tolerance, parsed.expected.outputs or {})


def rows(
    vectors: Sequence[Golden], card: ModelCard, statistics: Mapping[str, Statistic], dtypes: Mapping[str, str]
) -> tuple[Columns, dict[int, Failure]]:
    """The vectors' features, imputed as in a worker, and the rows that stay invalid, by index."""
    imputed = impute(columns([v.features for v in vectors], card.specs), card, statistics, dtypes)
    return imputed.columns, imputed.invalid


def mismatches(
    vectors: Sequence[Golden],
    got: Sequence[Prediction | Failure],
    tolerance: Tolerance = TOLERANCES["float32"],
    carried: Mapping[str, Tolerance] = MappingProxyType({}),
) -> list[str]:
    """One sentence for each vector with another answer than expected: its line, the expected and the given answer.

    ``tolerance`` is that of the scores; outputs that are ``carried`` along have types of their own.
    """
    sentences = []
    for vector, answer in zip(vectors, got, strict=True):
        if isinstance(answer, Failure):
            difference = (
                f"expected score {_shown(vector.expected.score)}, got no answer ({answer.kind}: {answer.message})"
            )
        else:
            difference = _Comparison(tolerance, carried, vector.tolerance).difference(vector, answer)
        if difference:
            sentences.append(f"line {vector.line}: {difference}")
    return sentences


@dataclass(frozen=True, slots=True)
class _Comparison:
    tolerance: Tolerance
    carried: Mapping[str, Tolerance]
    absolute: float

    def difference(self, vector: Golden, got: Prediction) -> str:
        """How the answer differs from the expected one; "" if it does not."""
        expected = vector.expected
        different = self._number("score", expected.score, got.score)
        if different:
            return different
        if expected.label is not None and expected.label != got.label:
            return f"expected label {expected.label!r}, got {got.label!r}"
        if expected.probabilities is not None:
            different = self.deviates("probabilities", list(expected.probabilities), _listed(got.probabilities))
        for name, value in vector.outputs.items():
            if different:
                break
            given = got.outputs or {}
            if name not in given:
                available = ", ".join(map(repr, given)) or "none"
                return f"expected the output {name!r}, and the answer has {available}: carry it in the card's [output]"
            own = replace(self, tolerance=self.carried.get(name, self.tolerance))
            different = own.deviates(f"outputs.{name}", value, given[name])
        return different

    def deviates(self, name: str, expected: Any, got: Any) -> str:
        """The same for JSON values: numbers may differ by the tolerance, whole ones by the line's own alone (they are
        ids), and all else must be equal.
        """
        if isinstance(expected, list):
            if not isinstance(got, list) or len(got) != len(expected):
                count = str(len(got)) if isinstance(got, list) else repr(got)
                return f"expected {len(expected)} {name}, got {'none' if got is None else count}"
            pairs = enumerate(zip(expected, got, strict=True))
            return next((d for j, (e, g) in pairs if (d := self.deviates(f"{name}[{j}]", e, g))), "")
        if _is_number(expected) and isinstance(got, float):
            return self._number(name, expected, got)
        if _is_number(expected) and _is_number(got) and abs(got - expected) <= self.absolute:
            return ""
        return "" if expected == got else f"expected {name} {expected!r}, got {got!r}"

    def _number(self, name: str, expected: float, got: float) -> str:
        allowed = max(self.tolerance.of(expected), self.absolute)
        apart = abs(got - expected)
        if apart <= allowed:
            return ""
        return f"expected {name} {_shown(expected)}, got {_shown(got)} ({apart:.2g} apart, {allowed:.2g} allowed)"


def _listed(probabilities: Sequence[float] | None) -> list[float] | None:
    return None if probabilities is None else list(probabilities)


def _shown(number: float) -> str:
    """All digits: two doubles may differ in the last ones."""
    return repr(number).removesuffix(".0")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def describe(sentences: Sequence[str], lines: int) -> str:
    """The mismatches as one message; ``lines`` is the number of golden vectors."""
    more = f"; and {len(sentences) - SHOWN} more" if len(sentences) > SHOWN else ""
    return f"{len(sentences)} of {lines} answers are not as expected: {'; '.join(sentences[:SHOWN])}{more}"
