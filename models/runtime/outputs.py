"""Owns the match of a card's [output] with a model's outputs: tensors to answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.models.answers.several_labels import LABELS, several_labels
from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.fields import OutputKind, listed, toml
from failsoft.models.catalog.output_section import OutputSection
from failsoft.models.runtime import labels as meaning
from failsoft.models.runtime.activation import sigmoid, softmax
from failsoft.models.runtime.carried import CarriedOutput, carried, rows_expected, table_of_maps, widened
from failsoft.models.runtime.labels import TwoLabels
from failsoft.models.runtime.output_choice import (
    MAPS,
    TENSORS,
    check_shape,
    label_port,
    misfit,
    per_label,
    scores_port,
)
from failsoft.models.runtime.rounding import Rounding, rounding
from failsoft.models.runtime.signature import Mismatch, Port
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.prediction import Floats, Label, OutputColumn, Predictions

Mask = NDArray[np.bool_]
Bad = dict[int, Failure]

_EVEN = 0.5
"""The threshold of a label that is simply the likelier one."""


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """A batch's answers. A row in ``bad`` failed; its value in ``predictions`` is a placeholder."""

    predictions: Predictions
    bad: dict[int, Failure]


@dataclass(frozen=True, slots=True)
class OutputReader:
    """Turns the model's outputs into predictions.

    Attributes:
        output: the card's [output] section.
        scores: name of the output with scores or probabilities.
        maps: ``scores`` is a sequence of maps (ZipMap).
        own: the model's own labels in column order; None if they are unknown.
        labels: the labels of the columns; None if they are unknown, or no columns have labels.
        binary: the labels of a binary model; None for other kinds, and where only the maps tell them.
        label: name of the model's label output if it is read, to give the labels or to check them; else None.
        carried: the outputs that are copied into the answers.
    """

    output: OutputSection
    scores: str
    maps: bool = False
    own: tuple[Label, ...] | None = None
    labels: tuple[Label, ...] | None = None
    binary: TwoLabels | None = None
    label: str | None = None
    carried: tuple[CarriedOutput, ...] = ()

    @property
    def names(self) -> list[str]:
        """The outputs to fetch, in the order that ``read`` expects."""
        label = () if self.label is None else (self.label,)
        return list(dict.fromkeys([self.scores, *label, *(each.name for each in self.carried)]))

    def read(self, tensors: Sequence[Any], n: int) -> ModelOutput | Failure:
        """Reads the outputs of ``n`` rows, in the order of ``names``.

        A row whose numbers cannot be its answer is bad by itself. A wrong shape, and labels that the card does not
        have, fail the whole batch: they are no row's fault.
        """
        given = dict(zip(self.names, tensors, strict=True))
        try:
            outputs = {each.name: each.column(given[each.name], n) for each in self.carried}
            own = None if self.label is None else self._own(given[self.label], n)
            answer = self._read(given[self.scores], own, n)
        except Mismatch as error:
            return Failure(Kind.BAD_OUTPUT, str(error))
        if not outputs:
            return answer
        p = answer.predictions
        together = {**(p.outputs or {}), **outputs}
        return ModelOutput(Predictions(p.scores, p.labels, p.probabilities, p.confidences, together), answer.bad)

    def _read(self, raw: Any, own: NDArray[Any] | None, n: int) -> ModelOutput:
        labels, loose = self.labels, rounding("float32")
        bad: Bad = {}
        if self.maps:
            if len(raw) != n:
                raise Mismatch(f"output {self.scores!r} has {len(raw)} maps for {n} rows")
            maps, keys, bad = table_of_maps(raw, self.own)
            table: Floats = maps
            labels = meaning.of_columns(self.output, keys) if self.own is None else labels
        else:
            tensor = self._stacked(raw)
            loose = rounding(tensor.dtype.name)
            table = self._table(widened(tensor), n)
            if tensor.ndim == 3 and self.output.activation is None:
                bad = _unpaired(widened(tensor), loose.total)
        reason = misfit(self.output, table.shape[1])
        if reason is None and labels is not None and self.binary is None and len(labels) != table.shape[1]:
            reason = f"not one column for each of the labels {listed(labels)}"
        if reason is not None:
            raise Mismatch(f"output {self.scores!r} is {table.shape[0]}×{table.shape[1]}, {reason}")
        if self.output.activation == "softmax":
            table = softmax(table)
        elif self.output.activation == "sigmoid":
            table = sigmoid(table)
        match self.output.kind:
            case OutputKind.BINARY:
                two = self.binary or meaning.two(self.output, labels)
                answer = self._binary(table, two, own, loose)
            case OutputKind.MULTICLASS:
                answer = self._multiclass(table, labels, own, loose)
            case OutputKind.MULTILABEL:
                answer = self._multilabel(table, labels, loose)
            case OutputKind.REGRESSION:
                answer = self._regression(table, loose)
            case OutputKind.ANOMALY:
                answer = self._anomaly(table, loose)
        answer.bad.update(bad)
        return answer

    def _stacked(self, raw: Any) -> NDArray[Any]:
        shapes = {np.shape(each) for each in raw} if isinstance(raw, list) else set()
        if len(shapes) > 1:
            sizes = " and ".join(sorted("×".join(map(str, shape)) for shape in shapes))
            raise Mismatch(
                f"output {self.scores!r} has tensors of {sizes}: each label must be there or not, two columns"
            )
        return np.stack(raw) if shapes else np.asarray(raw)

    def _table(self, tensor: NDArray[Any], n: int) -> Floats:
        """The scores as (n, columns)."""
        if tensor.ndim == 3 and per_label(tensor.shape, self.output) and tensor.shape[1] == n:
            return tensor[:, :, 1].T
        if tensor.ndim not in (1, 2) or len(tensor) != n:
            raise Mismatch(f"output {self.scores!r} {rows_expected(tensor, n)}")
        return tensor.reshape(n, -1 if tensor.size else (1 if tensor.ndim == 1 else tensor.shape[1]))

    def _own(self, tensor: Any, n: int) -> NDArray[Any]:
        values = np.asarray(tensor)
        if values.shape not in ((n,), (n, 1)):
            raise Mismatch(f"output {self.label!r} is not one label per row: it {rows_expected(values, n)}")
        return values.reshape(-1)

    # --- kinds ----------------------------------------------------------------------------------------------------

    def _binary(self, table: Floats, two: TwoLabels, own: NDArray[Any] | None, loose: Rounding) -> ModelOutput:
        assert self.output.threshold is not None  # the card's section sets it
        scores, bad = self._guard(table[:, two.column] if table.shape[1] == 2 else table[:, 0], loose.edge)
        if table.shape[1] == 2:
            _check_sums(table, loose.total, bad)
        if own is not None:
            self._check_own(own, two, scores, bad, loose.edge)
        reached = scores >= self.output.threshold
        if table.shape[1] == 2 and two.column == 1 and self.output.threshold == _EVEN:
            reached &= table[:, 1] > table[:, 0]  # of two equal columns the first, as the libraries' own label has it
        labels = _chosen(reached, two.positive, two.negative)
        return ModelOutput(Predictions(scores, labels, None, np.maximum(scores, 1 - scores)), bad)

    def _multiclass(
        self, table: Floats, labels: tuple[Label, ...] | None, own: NDArray[Any] | None, loose: Rounding
    ) -> ModelOutput:
        unsound: Bad = {}
        _check_sums(table, loose.total, unsound, low=-loose.edge)
        if unsound:
            table = table.copy()
            table[list(unsound)] = 0
        table = np.clip(table, 0, 1)
        best = table.argmax(axis=1)
        scores, bad = self._guard(table[np.arange(len(table)), best], loose.edge)
        bad.update(unsound)
        given: list[Label]
        if labels is not None:
            if own is not None:
                self._check_best(own, labels, table, best, bad, loose.edge)
            given = [labels[j] for j in best.tolist()]
        else:
            given = (best if own is None else own).tolist()
        return ModelOutput(Predictions(scores, given, table, scores), bad)

    def _multilabel(self, table: Floats, labels: tuple[Label, ...] | None, loose: Rounding) -> ModelOutput:
        assert self.output.threshold is not None  # the card's section sets it
        names = labels or tuple(range(table.shape[1]))
        flat, wrong = self._guard(table.reshape(-1), loose.edge)
        bad: Bad = {}
        for at, failure in wrong.items():
            row, j = divmod(at, table.shape[1])
            bad.setdefault(row, Failure(failure.kind, f"label {names[j]!r}: {failure.message}"))
        kept = flat.reshape(table.shape)
        return ModelOutput(several_labels(kept, names, kept >= self.output.threshold), bad)

    def _regression(self, table: Floats, loose: Rounding) -> ModelOutput:
        scores, bad = self._guard(table[:, 0], loose.edge)
        names = self.output.outputs
        if names is None:
            return ModelOutput(Predictions(scores), bad)
        columns: dict[str, OutputColumn] = {names[0]: scores}
        for j, name in enumerate(names[1:], 1):
            fine = np.isfinite(table[:, j])
            columns[name] = np.where(fine, table[:, j], table.dtype.type(0))
            for i in np.flatnonzero(~fine).tolist():
                bad.setdefault(i, Failure(Kind.BAD_OUTPUT, f"{name!r} is {table[i, j]:.6g}"))
        return ModelOutput(Predictions(scores, outputs=columns), bad)

    def _anomaly(self, table: Floats, loose: Rounding) -> ModelOutput:
        scores, bad = self._guard(table[:, 0], loose.edge)
        threshold = self.output.threshold
        if threshold is None:
            return ModelOutput(Predictions(scores), bad)
        anomalous = scores >= threshold if self.output.anomalous == "high" else scores < threshold
        return ModelOutput(Predictions(scores, _chosen(anomalous, 1, 0)), bad)

    # --- checks ---------------------------------------------------------------------------------------------------

    def _guard(self, scores: Floats, edge: float) -> tuple[Floats, Bad]:
        """The scores, finite and within range, and a failure for each one that was not, by its index."""
        fine = np.isfinite(scores)
        bounds = self.output.range
        if bounds is not None:
            low, high = bounds
            fine &= (scores >= low - edge * max(1, abs(low))) & (scores <= high + edge * max(1, abs(high)))
        if fine.all():
            return (scores if bounds is None else np.clip(scores, *bounds).astype(scores.dtype, copy=False)), {}
        bad = {
            i: Failure(Kind.BAD_OUTPUT, _bad_score(float(scores[i]), bounds)) for i in np.flatnonzero(~fine).tolist()
        }
        kept = np.where(fine, scores, scores.dtype.type(0 if bounds is None else bounds[0]))
        return (kept if bounds is None else np.clip(kept, *bounds).astype(scores.dtype, copy=False)), bad

    def _check_own(self, own: NDArray[Any], two: TwoLabels, scores: Floats, bad: Bad, edge: float) -> None:
        """Compares the card's two labels with the label that the model itself gives each row. Raises Mismatch.

        A row of the positive label has a higher score than one of the other label, whatever the model's threshold is.
        If all rows of a batch have it the other way round, the card takes one label for the other.
        """
        ones, zeros = own == two.own[0], own == two.own[1]
        strange = np.flatnonzero(~(ones | zeros))
        if len(strange):
            value: Label = own[strange[:1]].tolist()[0]
            raise Mismatch(
                f"the model's own label {toml(value)} is neither {toml(two.own[0])} nor {toml(two.own[1])}: write the "
                "model's labels in the order of its columns, labels = […, …], and one of them as positive"
            )
        if bad:
            sound = np.ones(len(scores), np.bool_)
            sound[list(bad)] = False
            ones, zeros = ones & sound, zeros & sound
        if ones.any() and zeros.any() and scores[ones].max() + edge < scores[zeros].min():
            raise Mismatch(
                f"the model's own labels say the opposite of the card: rows with its label {toml(two.own[0])} have a "
                f"lower score than those with {toml(two.own[1])}: check positive (a single column may be the "
                f"probability of {toml(two.negative)}), and the order of labels"
            )

    def _check_best(
        self,
        own: NDArray[Any],
        labels: tuple[Label, ...],
        table: Floats,
        best: NDArray[np.intp],
        bad: Bad,
        edge: float,
    ) -> None:
        """Compares the most probable label of each row with the model's own. Where they differ, the row is bad. Of
        labels that are equally probable, the model's own becomes the ``best``.
        """
        numbered = own.dtype.kind in "iu" and all(isinstance(label, str) for label in labels)
        if numbered and (own == best).all():  # the usual case, without a loop over the rows
            return
        columns = {label: j for j, label in enumerate(range(len(labels)) if numbered else labels)}
        for i, (value, j) in enumerate(zip(own.tolist(), best.tolist(), strict=True)):
            column = columns.get(value)
            if column is None:
                raise Mismatch(
                    f"the model's own label {toml(value)} is none of the card's {listed(labels)}: write the model's "
                    "labels in the order of its columns, or leave labels out"
                )
            if table[i, column] == table[i, j]:
                best[i] = column
            elif i not in bad and table[i, column] + edge < table[i, j]:
                bad[i] = Failure(
                    Kind.BAD_OUTPUT,
                    f"the model's own label is {toml(value)}, and the most probable one by the card is "
                    f"{toml(labels[j])}: check the order of labels in the card, or leave them out",
                )


def answers(outputs: Sequence[Port], card: ModelCard, labels: Sequence[Label] | None = None) -> OutputReader:
    """Which of the model's outputs gives the card's scores, and what their columns mean. Raises Mismatch.

    ``labels`` are the model's own labels in the order of its columns, as its file has them; None if unknown.
    """
    wanted = card.output
    copied = carried(outputs, wanted)
    scores = scores_port(outputs, wanted)
    check_shape(scores, outputs, wanted)
    maps = scores.type in MAPS
    clash = LABELS if wanted.kind is OutputKind.MULTILABEL else None
    if any(each.name == clash for each in copied):
        raise Mismatch(f"carry: {clash!r} is the name of the labels that reach the threshold: rename this output")
    label = label_port(outputs, wanted, scores)
    own = None if labels is None else tuple(labels)
    width = scores.shape[1] if scores.type not in (*MAPS, *TENSORS) and len(scores.shape) == 2 else None
    match wanted.kind:
        case OutputKind.BINARY:
            # Only the maps themselves tell the labels of a ZipMap whose file does not.
            two = None if maps and own is None else meaning.two(wanted, own, None if label is None else label.type)
            certain = own is not None and width == 2
            reads = None if maps or certain or label is None else label.name
            return OutputReader(wanted, scores.name, maps, own, meaning.of_columns(wanted, own), two, reads, copied)
        case OutputKind.MULTICLASS:
            of_columns = meaning.of_columns(wanted, own)
            if of_columns is not None and isinstance(width, int) and width != len(of_columns):
                raise Mismatch(f"output {scores.name!r} has {width} columns, not one for each of {listed(of_columns)}")
            reads = None if maps or own is not None or label is None else label.name
            return OutputReader(wanted, scores.name, maps, own, of_columns, None, reads, copied)
        case OutputKind.MULTILABEL:
            # A classifier for each label has 0 and 1 as its own labels, which are not the names of these labels.
            fits = own is not None and (width is None or len(own) == width) and any(isinstance(x, str) for x in own)
            own = own if fits or maps else None
            of_columns = meaning.of_columns(wanted, own)
            return OutputReader(wanted, scores.name, maps, own, of_columns, None, None, copied)
    return OutputReader(wanted, scores.name, maps, own if maps else None, carried=copied)


def _chosen(first: Mask, one: Label, other: Label) -> list[Label]:
    """``one`` where ``first`` is true, ``other`` elsewhere."""
    choices = np.array([other, one], dtype=np.int64 if (one, other) == (1, 0) else object)
    labels: list[Label] = choices[first.astype(np.intp)].tolist()
    return labels


def _unpaired(pairs: NDArray[Any], loose: float) -> Bad:
    """A failure for each row of (labels, n, 2) that has a label whose two probabilities do not sum to 1."""
    sums = pairs[:, :, 0] + pairs[:, :, 1]
    bad: Bad = {}
    for j, i in np.argwhere(~(np.abs(sums - 1) <= loose)).tolist():
        bad.setdefault(i, Failure(Kind.BAD_OUTPUT, f"label {j}: its two probabilities sum to {sums[j, i]:.6g}"))
    return bad


def _check_sums(table: Floats, loose: float, bad: Bad, low: float = -np.inf) -> None:
    """Adds a failure for each row of probabilities that do not sum to 1, or of which one is under ``low``."""
    sums = table[:, 0] + table[:, 1] if table.shape[1] == 2 else table.sum(axis=1)  # of few columns, sum is slow
    sound = np.abs(sums - 1) <= loose
    if low > -np.inf:
        sound &= (table >= low).all(axis=1)
    if sound.all():
        return
    for i in np.flatnonzero(~sound).tolist():
        bad.setdefault(i, Failure(Kind.BAD_OUTPUT, f"invalid probabilities: they sum to {sums[i]:.6g}"))


def _bad_score(score: float, bounds: tuple[float, float] | None) -> str:
    return f"a score of {score:.6g}" + ("" if bounds is None else f"; the range is [{bounds[0]:g}, {bounds[1]:g}]")
