"""Owns the match of a card's [output] with a model's outputs: tensors to answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.fields import OutputKind
from failsoft.models.catalog.output_section import OutputSection
from failsoft.models.runtime.signature import Mismatch, Port
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.prediction import Label, Predictions

Tensor = NDArray[Any]

_FLOATS = ("tensor(float)", "tensor(double)")
# Tolerances for rounding in float32: a softmax may exceed 1 by a few ulps, and its sum deviates more.
_EDGE = 1e-5
_SUM = 1e-3


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """A batch's answers. A row in ``bad`` failed; its value in ``predictions`` is a placeholder."""

    predictions: Predictions
    bad: dict[int, Failure]


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
