"""Owns the match of a card with an ONNX model's inputs and outputs: columns to tensors, and tensors to answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.fields import OutputKind
from failsoft.models.catalog.output_section import OutputSection
from failsoft.schemas.config.refusal import near
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.spec import FeatureType, Spec
from failsoft.schemas.prediction import Label, Predictions

Tensor = NDArray[Any]


class Port(Protocol):
    """An input or output of a model. A dimension in ``shape`` is a number if it is fixed."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def shape(self) -> Sequence[int | str | None]: ...


class Mismatch(Exception):
    """The card and the model do not match. The message says where, and what to do."""


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """A batch's answers. A row in ``bad`` failed; its value in ``predictions`` is a placeholder."""

    predictions: Predictions
    bad: dict[int, Failure]


# The feature types that each tensor type accepts. A conversion that changes values (float to integer, number to string)
# is refused.
_NUMBERS = frozenset({FeatureType.FLOAT, FeatureType.INT, FeatureType.BOOL})
_TENSORS: dict[str, tuple[Any, frozenset[FeatureType]]] = {
    "tensor(float)": (np.float32, _NUMBERS),
    "tensor(double)": (np.float64, _NUMBERS),
    "tensor(int64)": (np.int64, frozenset({FeatureType.INT, FeatureType.BOOL})),
    "tensor(int32)": (np.int32, frozenset({FeatureType.INT, FeatureType.BOOL})),
    "tensor(bool)": (np.bool_, frozenset({FeatureType.BOOL})),
    "tensor(string)": (object, frozenset({FeatureType.STRING})),
}
_FLOATS = ("tensor(float)", "tensor(double)")
# Tolerances for rounding in float32: a softmax may exceed 1 by a few ulps, and its sum deviates more.
_EDGE = 1e-5
_SUM = 1e-3


@dataclass(frozen=True, slots=True)
class Feeds:
    """How a batch's columns become the model's inputs.

    Attributes:
        make: the inputs by name, from a batch.
        int32: features whose numbers must fit the model's int32.
    """

    make: Callable[[Columns], dict[str, Tensor]]
    int32: tuple[str, ...]

    def unfit(self, columns: Columns) -> dict[int, Failure]:
        """Rows that must not be answered: a number does not fit the model's int32, or a cell is still unusable."""
        bad: dict[int, Failure] = {}
        for name in self.int32:
            column = columns.values[name]
            for i in np.flatnonzero((column < -(2**31)) | (column >= 2**31)).tolist():
                bad[i] = Failure(Kind.INVALID, f"feature {name!r}: {column[i]} does not fit the model's int32")
        for (i, name), why in columns.why.items():
            bad[i] = Failure(Kind.INVALID, f"feature {name!r}: {why}")
        return bad


def feeds(inputs: Sequence[Port], specs: Sequence[Spec]) -> Feeds:
    """One matrix with its columns in the card's order, or one tensor per feature, matched by name. Raises Mismatch."""
    for port in inputs:
        if port.type not in _TENSORS:
            raise Mismatch(f"input {port.name!r} is a {port.type}; it may be one of {', '.join(_TENSORS)}")
        if len(port.shape) not in (1, 2):
            raise Mismatch(f"input {port.name!r} has {len(port.shape)} dimensions; it may have one or two")
        if isinstance(port.shape[0], int):
            raise Mismatch(
                f"input {port.name!r} takes batches of exactly {port.shape[0]}: export it with a dynamic first "
                "dimension (torch.onnx.export's dynamic_axes or dynamic_shapes, skl2onnx's [None, …])"
            )
    if len(inputs) == 1 and len(inputs[0].shape) == 2 and (len(specs) > 1 or inputs[0].name != specs[0].name):
        return _matrix(inputs[0], tuple(specs))
    return _by_name(inputs, specs)


def _matrix(port: Port, specs: tuple[Spec, ...]) -> Feeds:
    width = port.shape[1]
    if isinstance(width, int) and width != len(specs):
        raise Mismatch(f"input {port.name!r} has {width} columns, and the card lists {len(specs)} features")
    dtype, takes = _TENSORS[port.type]
    for spec in specs:
        _check_type(spec, port, takes)

    def make(columns: Columns) -> dict[str, Tensor]:
        if columns.matrix is not None:
            return {port.name: columns.matrix.astype(dtype)}
        block = np.empty((columns.size, len(specs)), dtype)
        for j, spec in enumerate(specs):
            block[:, j] = columns.values[spec.name]
        return {port.name: block}

    return Feeds(make, _narrowed(specs) if dtype is np.int32 else ())


def _by_name(inputs: Sequence[Port], specs: Sequence[Spec]) -> Feeds:
    wanted, by_feature = [port.name for port in inputs], {spec.name: spec for spec in specs}
    missing = [f"{name!r}{near(name, by_feature)}" for name in wanted if name not in by_feature]
    unused = [f"{name!r}{near(name, wanted)}" for name in by_feature if name not in wanted]
    if missing:
        raise Mismatch(f"the model takes features that the card does not list: {', '.join(missing)}")
    if unused:
        raise Mismatch(f"the card lists features that the model does not take: {', '.join(unused)}")
    plan = []
    for port in inputs:
        dtype, takes = _TENSORS[port.type]
        _check_type(by_feature[port.name], port, takes)
        if len(port.shape) == 2 and isinstance(port.shape[1], int) and port.shape[1] != 1:
            raise Mismatch(f"input {port.name!r} has {port.shape[1]} columns, and a single feature has one")
        plan.append((port.name, dtype, (-1, 1)[: len(port.shape)]))

    def make(columns: Columns) -> dict[str, Tensor]:
        return {
            name: np.ascontiguousarray(columns.values[name], dtype=dtype).reshape(shape) for name, dtype, shape in plan
        }

    return Feeds(make, _narrowed([by_feature[name] for name, dtype, _ in plan if dtype is np.int32]))


def _check_type(spec: Spec, port: Port, takes: frozenset[FeatureType]) -> None:
    if spec.type not in takes:
        fits = ", ".join(sorted(takes))
        raise Mismatch(
            f"feature {spec.name!r} is a {spec.type} in the card, and input {port.name!r} is a {port.type}, which "
            f"takes {fits}: change the feature's type, or export the model with another input type"
        )


def _narrowed(specs: Sequence[Spec]) -> tuple[str, ...]:
    return tuple(spec.name for spec in specs if spec.type is FeatureType.INT)


@dataclass(frozen=True, slots=True)
class OutputReader:
    """Turns the model's output tensors into predictions.

    Attributes:
        output: the card's [output] section.
        scores: name of the output with scores or probabilities.
        label: name of the model's label output, None if it is not used.
    """

    output: OutputSection
    scores: str
    label: str | None

    @property
    def names(self) -> list[str]:
        """The outputs to fetch, in the order that ``read`` expects."""
        return [self.scores] if self.label is None else [self.scores, self.label]

    def read(self, tensors: Sequence[Tensor], n: int) -> ModelOutput | Failure:
        """Reads the tensors of ``n`` rows, in the order of ``names``. A wrong shape fails the whole batch."""
        raw = np.asarray(tensors[0])
        shape = "×".join(map(str, raw.shape)) or "scalar"
        if raw.ndim not in (1, 2) or raw.shape[0] != n:
            return Failure(Kind.BAD_OUTPUT, f"output {self.scores!r} is {shape} for {n} rows")
        width = 1 if raw.ndim == 1 else raw.shape[1]
        if not _fits(self.output.kind, width, self.output.labels):
            message = f"output {self.scores!r} is {shape}, which does not fit a {self.output.kind} output"
            return Failure(Kind.BAD_OUTPUT, message)
        table = raw.reshape(n, width).astype(np.float32, copy=False)
        if self.output.kind is OutputKind.MULTICLASS:
            model_labels = None if self.label is None else np.asarray(tensors[1])
            if model_labels is not None and model_labels.shape not in ((n,), (n, 1)):
                return Failure(Kind.BAD_OUTPUT, f"output {self.label!r} is not one label per row")
            return self._multiclass(table, model_labels)
        return self._score(table[:, 1] if width == 2 else table[:, 0])

    def _score(self, scores: NDArray[np.float32]) -> ModelOutput:
        kept, bad = self._guard(scores)
        labels: list[Label] | None = None
        if self.output.threshold is not None:
            labels = (kept >= self.output.threshold).astype(np.int64).tolist()
        confidences = np.maximum(kept, 1 - kept) if self.output.kind is OutputKind.BINARY else None
        return ModelOutput(Predictions(kept, labels, None, confidences), bad)

    def _multiclass(self, table: NDArray[np.float32], model_labels: Tensor | None) -> ModelOutput:
        sums = table.sum(axis=1)
        sound = np.isfinite(sums) & (table >= -_EDGE).all(axis=1) & (np.abs(sums - 1) <= _SUM)
        table = np.clip(np.where(sound[:, None], table, np.float32(0)), 0, 1)
        best = table.argmax(axis=1)
        scores, bad = self._guard(table[np.arange(len(table)), best])
        for i in np.flatnonzero(~sound).tolist():
            bad[i] = Failure(Kind.BAD_OUTPUT, f"invalid probabilities: they sum to {sums[i]:.6g}")
        labels: list[Label]
        if self.output.labels is not None:
            labels = [self.output.labels[j] for j in best.tolist()]
        else:
            labels = (best if model_labels is None else model_labels.reshape(-1)).tolist()
        return ModelOutput(Predictions(scores, labels, table, scores), bad)

    def _guard(self, scores: NDArray[np.float32]) -> tuple[NDArray[np.float32], dict[int, Failure]]:
        """The scores, finite and within range, and a failure for each row whose score was not."""
        fine = np.isfinite(scores)
        bounds = self.output.range
        if bounds is not None:
            low, high = bounds
            fine &= (scores >= low - _EDGE * max(1, abs(low))) & (scores <= high + _EDGE * max(1, abs(high)))
        if fine.all():
            return (scores if bounds is None else np.clip(scores, *bounds).astype(np.float32, copy=False)), {}
        bad = {
            i: Failure(Kind.BAD_OUTPUT, _bad_score(float(scores[i]), bounds)) for i in np.flatnonzero(~fine).tolist()
        }
        placeholder = np.float32(0 if bounds is None else bounds[0])
        kept = np.where(fine, scores, placeholder)
        return (kept if bounds is None else np.clip(kept, *bounds).astype(np.float32, copy=False)), bad


def answers(outputs: Sequence[Port], card: ModelCard) -> OutputReader:
    """Which of the model's outputs gives the card's scores. Raises Mismatch."""
    wanted = card.output
    floats = [port for port in outputs if port.type in _FLOATS]
    if wanted.output is not None:
        named = [port for port in outputs if port.name == wanted.output]
        if not named:
            available = [port.name for port in outputs]
            raise Mismatch(f"the card's output {wanted.output!r} is not an output of the model, which has {available}")
        floats = [port for port in named if port.type in _FLOATS]
    if not floats:
        if any(port.type.startswith("seq(map") for port in outputs):
            raise Mismatch(
                "the probabilities are a sequence of maps (zipmap), which is slow and not a tensor: export without it, "
                'to_onnx(model, …, options={"zipmap": False})'
            )
        types = ", ".join(f"{port.name!r}: {port.type}" for port in outputs)
        raise Mismatch(f"no output is a float tensor ({types}): export scores or probabilities, not only labels")
    if len(floats) > 1:
        names = ", ".join(repr(port.name) for port in floats)
        raise Mismatch(f'several float outputs ({names}): choose one in the card\'s [output], output = "…"')
    (scores,) = floats
    if len(scores.shape) > 2:
        raise Mismatch(f"output {scores.name!r} has {len(scores.shape)} dimensions; it may have one or two")
    width = scores.shape[1] if len(scores.shape) == 2 else None
    if isinstance(width, int) and not _fits(wanted.kind, width, wanted.labels):
        of_classes = f" of {len(wanted.labels)} labels" if wanted.labels else ""
        raise Mismatch(f"output {scores.name!r} has {width} columns, not those of a {wanted.kind} output{of_classes}")
    labels = [p.name for p in outputs if p.type in ("tensor(int64)", "tensor(string)") and len(p.shape) in (1, 2)]
    uses_label = wanted.kind is OutputKind.MULTICLASS and wanted.labels is None and len(labels) == 1
    return OutputReader(wanted, scores.name, labels[0] if uses_label else None)


def _fits(kind: OutputKind, width: int, classes: Sequence[Label] | None) -> bool:
    match kind:
        case OutputKind.BINARY:
            return width in (1, 2)
        case OutputKind.MULTICLASS:
            return width >= 2 and (classes is None or width == len(classes))
    return width == 1


def _bad_score(score: float, bounds: tuple[float, float] | None) -> str:
    return f"a score of {score:.6g}" + ("" if bounds is None else f"; the range is [{bounds[0]:g}, {bounds[1]:g}]")
