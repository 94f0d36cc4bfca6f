"""A card's ``[output]`` section: what the model's scores mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from failsoft.models.catalog.fields import CardSection, Finite, Label, OutputKind, one_of, toml
from failsoft.schemas.config.key import means

_CLASSIFIES = (OutputKind.BINARY, OutputKind.MULTICLASS, OutputKind.MULTILABEL)
_ACTIVATIONS = {
    OutputKind.BINARY: ("sigmoid", "softmax"),
    OutputKind.MULTICLASS: ("softmax",),
    OutputKind.MULTILABEL: ("sigmoid",),
}
_THRESHOLDS = (OutputKind.BINARY, OutputKind.ANOMALY, OutputKind.MULTILABEL)


class OutputSection(CardSection):
    """The meaning of the model's outputs, and which of them is the answer."""

    kind: Annotated[
        OutputKind, one_of(OutputKind), means("The kind of the output, which defines the meaning of a score.", "binary")
    ]
    min_confidence: Annotated[
        Annotated[float, Field(strict=True, ge=0, le=1)] | None,
        means(
            "An answer with less confidence is replaced by the fallback's. Only for binary and multiclass.",
            0.6,
            left_out="every answer is accepted",
        ),
    ] = None
    range: Annotated[
        tuple[Finite, Finite] | None,
        means(
            "The range of valid scores; a score outside it is `bad_output`.",
            [0.0, 1.0],
            left_out="`[0.0, 1.0]` for binary and multilabel; otherwise any finite number",
        ),
    ] = None
    threshold: Annotated[
        Finite | None,
        means(
            "Binary: the label is the positive one if the score is at least this. Multilabel: the same for each label. "
            "Anomaly: the label is 1 if the score is on the anomalous side of this.",
            0.7,
            left_out="`0.5` for binary and multilabel; an anomaly score has no label without it",
        ),
    ] = None
    labels: Annotated[
        tuple[Label, ...] | None,
        means(
            "The labels of the model's columns, in order. Only for binary, multiclass and multilabel; a multiclass "
            "ensemble must have it. `classes` is its former name.",
            ["legit", "fraud"],
            left_out="the model's own, otherwise the column's number",
            minItems=2,
            uniqueItems=True,
        ),
    ] = None
    positive: Annotated[
        Label | None,
        means(
            "The label whose probability is `score`. Only for binary, which must have it unless its labels are 0 and "
            "1, or false and true.",
            "fraud",
            left_out="`1`",
        ),
    ] = None
    activation: Annotated[
        Literal["sigmoid", "softmax"] | None,
        one_of(["sigmoid", "softmax"]),
        means(
            "The function that turns the model's logits into probabilities: `sigmoid` for binary and multilabel, "
            "`softmax` for multiclass, or for binary with a logit for each label. Two columns that are a margin and "
            "its negative are `sigmoid`.",
            "sigmoid",
            left_out="the model gives probabilities",
        ),
    ] = None
    anomalous: Annotated[
        Literal["high", "low"],
        one_of(["high", "low"]),
        means(
            "The side of `threshold` whose label is 1: `high` (at least the threshold) or `low` (under it). Only for "
            "anomaly.",
            "low",
        ),
    ] = "high"
    output: Annotated[
        str | None,
        means(
            "The ONNX output that holds the scores or probabilities.",
            "probabilities",
            left_out="the only output of numbers with a fraction, or of maps",
        ),
    ] = None
    outputs: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...] | None,
        means(
            "The names of the columns of a regression with several: each is in the answer's `outputs`, and the first "
            "is its `score`.",
            ["latitude", "longitude"],
            left_out="the model has one column",
            minItems=2,
            uniqueItems=True,
        ),
    ] = None
    carry: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        means(
            "Further ONNX outputs that are copied into the answer's `outputs`. Their first dimension is the batch's.",
            ["std"],
            left_out="none",
            uniqueItems=True,
        ),
    ] = ()

    tolerance: Annotated[
        Annotated[float, Field(strict=True, gt=0, lt=1)] | None,
        means(
            "The relative difference from a number in `golden.ndjson` that still counts as equal, where the model's "
            "exact type is too strict: a float64 output of a model that computes in float32.",
            1e-5,
            left_out="that of the output's type: `1e-2` for float16, `1e-4` for float32, `2e-13` for float64",
        ),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, given: Any) -> Any:
        """Defaults by kind. ``classes`` is read as ``labels``, and TOML's false and true among them as 0 and 1."""
        if not isinstance(given, dict):
            return given
        read = dict(given)
        if "classes" in read:
            if "labels" in read:
                raise ValueError("classes: the former name of labels: remove it")
            read["labels"] = read.pop("classes")
        if isinstance(read.get("labels"), (list, tuple)):
            read["labels"] = [_of_bool(label) for label in read["labels"]]
        if "positive" in read:
            read["positive"] = _of_bool(read["positive"])
        if read.get("kind") in (OutputKind.BINARY, OutputKind.MULTILABEL):
            read = {"range": (0.0, 1.0), "threshold": 0.5, **read}
        return read

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        kind = self.kind
        if self.min_confidence is not None and kind not in (OutputKind.BINARY, OutputKind.MULTICLASS):
            raise ValueError(f"min_confidence: a {kind} output has no confidence; only binary and multiclass do")
        if self.threshold is not None and kind not in _THRESHOLDS:
            raise ValueError(f"threshold: only {_and(_THRESHOLDS)} outputs have one, not {kind}")
        if self.labels is not None:
            self._check_labels(self.labels)
        self._check_positive()
        if self.activation is not None and self.activation not in _ACTIVATIONS.get(kind, ()):
            may = _ACTIVATIONS.get(kind)
            raise ValueError(
                f"activation: {self.activation!r} does not fit a {kind} output"
                + (f": it may be {' or '.join(map(repr, may))}" if may else ", whose scores are not probabilities")
            )
        if self.anomalous != "high" and kind is not OutputKind.ANOMALY:
            raise ValueError(f"anomalous: only an anomaly output has this side, not {kind}")
        if self.outputs is not None:
            if kind is not OutputKind.REGRESSION:
                raise ValueError(f"outputs: only a regression has several outputs, not {kind}; copy others with carry")
            if len(self.outputs) < 2:
                raise ValueError("outputs: list at least two; a single one needs no name")
        twice = _twice((*(self.outputs or ()), *self.carry))
        if twice is not None:
            raise ValueError(f"{'carry' if twice in self.carry else 'outputs'}: {twice!r} is named twice")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError(f"range: {list(self.range)} is empty; the lower bound comes first")
        if kind in _CLASSIFIES and self.range is not None and not 0 <= self.range[0] < self.range[1] <= 1:
            raise ValueError(
                f'range: a {kind} score is a probability, within [0, 1]; for a margin use kind = "anomaly"'
            )
        return self

    def _check_labels(self, labels: Sequence[Label]) -> None:
        if self.kind not in _CLASSIFIES:
            raise ValueError(f"labels: only {_and(_CLASSIFIES)} outputs have them, not {self.kind}")
        if len(labels) < 2 or _twice(labels) is not None:
            raise ValueError("labels: list at least two, without duplicates")
        if self.kind is OutputKind.BINARY and len(labels) != 2:
            raise ValueError(f'labels: {len(labels)} given, and a binary output has two; more are kind = "multiclass"')

    def _check_positive(self) -> None:
        if self.positive is not None:
            if self.kind is not OutputKind.BINARY:
                raise ValueError(f"positive: only a binary output has one, not {self.kind}")
            if self.labels is not None and self.positive not in self.labels:
                raise ValueError(f"positive: {self.positive!r} is not one of the labels {list(self.labels)}")
        elif self.kind is OutputKind.BINARY and self.labels is not None and set(self.labels) != {0, 1}:
            first, second = self.labels
            raise ValueError(
                f"positive: missing, and nothing says whether a score is the probability of {first!r} or {second!r}: "
                f"add positive = {toml(first)} or positive = {toml(second)}"
            )


def _of_bool(label: Any) -> Any:
    return int(label) if isinstance(label, bool) else label


def _twice(names: Sequence[Any]) -> Any:
    return next((name for i, name in enumerate(names) if name in names[:i]), None)


def _and(kinds: Sequence[OutputKind]) -> str:
    return f"{', '.join(kinds[:-1])} and {kinds[-1]}"
