"""Derives the ``[output]`` of a new card from a model's outputs, its labels, and what it gave for made-up rows. Pure.

What a net's numbers mean is not in its file. The rules here name the most likely meaning, and each guess is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from failsoft.models.catalog.fields import listed, toml
from failsoft.models.runtime.element_types import ELEMENT_TYPES
from failsoft.models.runtime.output_choice import FLOATS, MAPS, TENSORS, stacked
from failsoft.models.runtime.rounding import rounding
from failsoft.models.runtime.signature import Port
from failsoft.models.vetting.probabilities import is_margin
from failsoft.schemas.prediction import Label
from failsoft.workers.operations import own_choice
from failsoft.workers.operations.card_features import keyed, listed_in

Values = Mapping[str, NDArray[Any] | list[Any]]

_LABELS = ("tensor(int64)", "tensor(int32)", "tensor(string)", "tensor(bool)")
_LABEL_KEYS = ("labels", "class_names", "classes", "id2label", "class_labels", "names")
_PROBABILITY = re.compile(r"prob|sigmoid|softmax|confidence", re.IGNORECASE)
_LOGITS = re.compile(r"logit|margin|decision", re.IGNORECASE)
_FURTHER = re.compile(r"std|variance|sigma|uncert|lower|upper|embed|hidden|state|index|indices|ids|topk", re.IGNORECASE)
_AMOUNT = re.compile(r"variable|^y|pred|forecast|regress|value|mean|coord|box|quantile|price|target", re.IGNORECASE)
_REGRESSORS = {"TreeEnsembleRegressor", "LinearRegressor", "SVMRegressor"}
_CLASSIFIERS = {"TreeEnsembleClassifier", "LinearClassifier", "SVMClassifier"}

MOST_CARRIED = 100
"""Most numbers a row of an output that is carried along without being asked for."""


@dataclass(frozen=True, slots=True)
class Output:
    """The output of a new card.

    Attributes:
        kind: the ``kind`` in the card.
        lines: the lines of ``[output]``, without ``kind``.
        static: the static answer of its fallback.
        notes: what the user should check or do.
    """

    kind: str
    lines: Sequence[str] = ()
    static: str = "{ score = 0.0 }"
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is known of a model's outputs.

    Attributes:
        ports: the outputs.
        values: what each gave for made-up rows; empty if the model did not run.
        labels: the model's own labels in the order of its columns, by its file; None if it has none.
        metadata: the model's metadata.
        ops: its operators.
        tabular: a library for tables made it.
    """

    ports: Sequence[Port]
    values: Values = field(default_factory=dict)
    labels: Sequence[Label] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    ops: frozenset[str] = frozenset()
    tabular: bool = False


def output_of(model: Outputs, positive: str | None = None) -> Output:
    """The output that the card most likely has. ``positive``: the label whose probability is the score, by the user.

    Raises ValueError if no output can be a score, or if ``positive`` is none of the labels.
    """
    _refuse_columns(model)
    scores = _scores(model)
    label = _label(model, scores)
    labels = _labels(model, scores)
    notes: list[str] = []
    lines: list[str] = []
    floats = [port for port in model.ports if port.type in FLOATS or port.type in MAPS]
    if len(floats) > 1:
        lines.append(f"output = {toml(scores.name)}")
    guess = _kind(model, scores, label, labels)
    lines += guess.lines
    notes += guess.notes
    static = guess.static
    if guess.kind == "binary":
        two = _two(model, labels, label, positive)
        static = two.static
        lines += two.lines
        notes += two.notes
    elif positive is not None:
        raise ValueError(f"the model's output is {guess.kind}, and only a binary one has a positive label")
    elif guess.kind in ("multiclass", "multilabel") and labels is not None:
        lines.append(_own(labels, model))
    lines += _carried(model, scores, label, guess.kind)
    return Output(guess.kind, lines, static, notes)


def _scores(model: Outputs) -> Port:
    """The output of the scores: probabilities before others, and no spread or embedding if there is another."""
    able = [port for port in model.ports if port.type in MAPS or (port.type in FLOATS and (len(port.shape) <= 2))]
    able = able or [port for port in model.ports if _several(port)]
    if not able:
        types = ", ".join(f"{port.name!r}: {port.type} {list(port.shape)}" for port in model.ports)
        raise ValueError(
            f"no output is one number, or one row of numbers, for each event ({types}): export scores or probabilities"
        )

    def rank(port: Port) -> int:
        words = (_PROBABILITY.search(port.name), _LOGITS.search(port.name), not _FURTHER.search(port.name))
        return next((i for i, fits in enumerate(words) if fits), len(words))

    return min(able, key=rank)


def _refuse_columns(model: Outputs) -> None:
    """Raises ValueError for probabilities that are one output for each label: a card's scores are one output."""
    ports = [port for port in model.ports if port.type in FLOATS and _single(port)]
    seen = [np.asarray(model.values[port.name]).astype(float) for port in ports if port.name in model.values]
    if model.labels is None or not 1 < len(model.labels) == len(ports) == len(seen):
        return
    if (np.abs(np.sum(seen, axis=0) - 1) <= rounding("float16").total).all():
        names = ", ".join(repr(port.name) for port in ports)
        raise ValueError(
            f"its probabilities are one output for each label ({names}), and a card takes one output: export them as "
            'one (skl2onnx: options={id(model): {"zipmap": False}})'
        )


def _several(port: Port) -> bool:
    """Whether this is scikit-learn's form of several labels: for each label a tensor of two columns."""
    return port.type in TENSORS or (port.type in FLOATS and stacked(port.shape))


def _label(model: Outputs, scores: Port) -> Port | None:
    """The output of the model's own label: one number or text for each row."""
    able = [port for port in model.ports if port is not scores and port.type in _LABELS and _single(port)]
    named = [port for port in able if re.search(r"label|class|predict", port.name, re.IGNORECASE)]
    only = able if len(able) == 1 and own_choice.zero_or_one(model.values.get(able[0].name)) else []
    return (named or only or [None])[0]  # type: ignore[list-item]


def _marks(model: Outputs, scores: Port) -> Port | None:
    """The output that marks each label whose probability is over a half: the own label of a model of several labels."""
    table = _columns(model, scores)
    for port in model.ports:
        own = model.values.get(port.name)
        if table is None or table.shape[1] == 1 or port.type not in _LABELS or not isinstance(own, np.ndarray):
            continue
        if own.shape == table.shape and (own == (table > 0.5)).all():
            return port
    return None


def _single(port: Port) -> bool:
    return len(port.shape) == 1 or (len(port.shape) == 2 and port.shape[1] == 1)


def _labels(model: Outputs, scores: Port) -> Sequence[Label] | None:
    """The labels of the columns: the file's, those of the maps that the model gave, or those of its metadata."""
    if _several(scores):
        return None  # those that the file has are 0 and 1 of each label's classifier
    if model.labels is not None:
        return model.labels
    value = model.values.get(scores.name)
    if isinstance(value, list) and value:
        return list(value[0])
    found, columns = listed_in(model.metadata, _LABEL_KEYS), _columns(model, scores)
    return found[1] if found is not None and columns is not None and columns.shape[1] == len(found[1]) else None


def _columns(model: Outputs, port: Port) -> NDArray[np.float64] | None:
    """The made-up rows' scores, (n, columns); None if they are not known."""
    value = model.values.get(port.name)
    if value is None or (isinstance(value, np.ndarray) and value.dtype == object):
        return None
    if isinstance(value, list):
        return np.array([list(row.values()) for row in value], dtype=np.float64)
    table = value.astype(np.float64)
    return table.reshape(len(table), -1)


def _width(model: Outputs, port: Port) -> int | None:
    table = _columns(model, port)
    if table is not None:
        return int(table.shape[1])
    declared = 1 if len(port.shape) == 1 else port.shape[1] if len(port.shape) == 2 else None
    return declared if isinstance(declared, int) else None


def _kind(model: Outputs, scores: Port, label: Port | None, labels: Sequence[Label] | None) -> Output:
    """The kind, with its activation, threshold or names."""
    anomaly = _anomaly(model, scores, label)
    if anomaly is not None:
        return anomaly
    if _several(scores):
        return Output("multilabel")
    table, width = _columns(model, scores), _width(model, scores)
    maps = scores.type in MAPS
    marked = _marks(model, scores) is not None
    certain = maps or model.labels is not None or label is not None or marked or bool(model.ops & _CLASSIFIERS)
    classifies = certain or labels is not None
    logits = bool(_LOGITS.search(scores.name))
    regresses = (model.tabular or bool(model.ops & _REGRESSORS)) and not classifies and not logits
    if table is None:
        return _unseen(scores, width, classifies)
    finite = table[np.isfinite(table).all(axis=1)]
    edge, apart = rounding("float32" if maps else ELEMENT_TYPES[scores.type].name)
    unit = bool(len(finite)) and bool((finite >= -edge).all() and (finite <= 1 + edge).all())
    varies = bool(len(finite)) and bool(np.ptp(finite) > 0)
    if regresses or (not classifies and width == 1 and not (unit and varies) and not logits):
        return _regression(scores, width or 1)
    sums = unit and bool((np.abs(finite.sum(axis=1) - 1) <= apart).all())
    if unit and width == 1:
        others = [model.values.get(port.name) for port in model.ports if port.type in _LABELS]
        if own_choice.confidence(others, table):
            said = f"{scores.name!r} is the confidence in a class that another output gives, which the answer carries"
            return Output("regression", notes=[f"{said}: it is the probability of no single label"])
        return _binary(not certain and "its score was within [0, 1] for made-up rows")
    if sums:
        return _classes(width, not certain and "its scores were probabilities for made-up rows")
    if unit and marked:
        return Output("multilabel")
    if _ranked(model, width) and not classifies:
        return _regression(scores, width or 1)
    if unit and varies and not certain:
        return Output("multilabel", notes=[_guess("multilabel", "its scores were within [0, 1], each by itself")])
    if not classifies and _AMOUNT.search(scores.name) and not logits:
        return _regression(scores, width or 1)
    if label is not None and own_choice.lowest(model.values.get(label.name), table):
        said = f"the model's own label is the column with the lowest number, so {scores.name!r} are "
        turned = "decision values in the other order than the labels (export an SVC with probability=True)"
        said += turned if _margin(finite) else "distances to clusters"
        return Output(
            "regression", _regression(scores, width or 1).lines, notes=[f"{said}: each is in the answer's outputs"]
        )
    return _logits(width, finite)


def _unseen(scores: Port, width: int | None, classifies: bool) -> Output:
    """The kind of a model that could not be run, by the shape of its output."""
    note = "it did not run with made-up rows, so its scores are not known"
    if width == 1 and not classifies:
        return _regression(scores, 1)
    return _binary(note) if width in (1, 2) or width is None else _classes(width, note)


def _anomaly(model: Outputs, scores: Port, label: Port | None) -> Output | None:
    """An anomaly model labels outliers -1 and others 1; None if the model does not."""
    given = None if label is None else model.values.get(label.name)
    table = _columns(model, scores)
    if not isinstance(given, np.ndarray) or given.dtype == object or table is None or table.shape[1] != 1:
        return None
    own = given.reshape(-1).astype(np.int64)
    if not set(own.tolist()) <= {-1, 1} or model.labels is not None or len(own) != len(table):
        return None
    outlier, column = own == -1, table[:, 0]
    notes = [f"the model labels an outlier -1, and an answer's label is 1 for one: {_SIDE}"]
    as_labelled = "an outlier, as the model's own label says"
    if (outlier == (column < 0)).all():
        keys = [keyed('anomalous = "low"', f"a score under the threshold is {as_labelled}"), "threshold = 0.0"]
    elif (outlier == (column > 0)).all():
        keys = [keyed('anomalous = "high"', f"a score over the threshold is {as_labelled}"), "threshold = 0.0"]
    else:
        both = outlier.any() and not outlier.all()
        low = not both or bool(np.median(column[outlier]) < np.median(column[~outlier]))
        border = _border(column, outlier, low)
        keys = [f'anomalous = "{"low" if low else "high"}"', f"threshold = {border:.6g}"]
        notes.append(f"the threshold {border:.6g} is a guess from made-up rows: set the one of the training")
    return Output("anomaly", keys, "{ score = 0.0, label = 0 }", notes)


_SIDE = "anomalous and threshold in [output] decide it"


def _border(scores: NDArray[np.float64], outlier: NDArray[np.bool_], low: bool) -> float:
    """The middle between the outliers' scores and the others'."""
    if not outlier.any() or outlier.all():
        return 0.0
    inside, outside = scores[~outlier], scores[outlier]
    return float((inside.min() + outside.max()) / 2 if low else (inside.max() + outside.min()) / 2)


def _regression(scores: Port, width: int) -> Output:
    note = _guess("regression", f"{width} number{'s' if width > 1 else ''} a row without bounds")
    if width == 1:
        line = keyed("# range = [0.0, 100.0]", "a score outside is a failure of the model")
        logit = 'if it is the logit of a classifier, write kind = "binary" and activation = "sigmoid"'
        return Output("regression", [line], notes=[f"{note}; {logit}"])
    names = [f"{scores.name}_{k}" for k in range(1, width + 1)]
    line = keyed(f"outputs = {listed(names)}", "EDIT: the names of the columns; the first is the score")
    classes = "binary" if width == 2 else "multiclass"
    logits = f'if they are the logits of classes, write kind = "{classes}" and activation = "softmax"'
    return Output("regression", [line], notes=[f"{note}; {logits}"])


def _ranked(model: Outputs, width: int | None) -> bool:
    """Whether the scores are the best few of many: another output has as many numbers, which say whose they are."""
    return any(width and width > 1 and port.type in _LABELS and _width(model, port) == width for port in model.ports)


def _binary(guessed: str | Literal[False], *lines: str) -> Output:
    """A binary output; ``guessed`` says why, unless the model says it itself."""
    return Output("binary", lines, notes=[_guess("binary", guessed)] if guessed else [])


def _classes(width: int | None, guessed: str | Literal[False], *lines: str) -> Output:
    if width in (1, 2, None):
        return _binary(guessed, *lines)
    notes = [_guess("multiclass", guessed)] if guessed else []
    return Output("multiclass", lines, '{ score = 0.5, label = "unknown" }', notes)


def _logits(width: int | None, seen: NDArray[np.float64]) -> Output:
    """A classifier that gives logits. Two columns that are a margin and its negative are the logit of a sigmoid."""
    activation = "sigmoid" if width == 1 or _margin(seen) else "softmax"
    least, most = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 0.0)
    why = f"its scores were from {least:.3g} to {most:.3g} for made-up rows, so they are logits"
    line = keyed(f'activation = "{activation}"', f"it gives logits: {least:.3g} to {most:.3g} for made-up rows")
    made = _classes(width, f"{why}, and {activation} makes them probabilities", line)
    other = 'if they are no logits, write kind = "regression" without activation'
    return Output(made.kind, made.lines, made.static, [f"{made.notes[0]}; {other}"])


def _margin(seen: NDArray[np.float64]) -> bool:
    return seen.shape[1] == 2 and bool(len(seen)) and is_margin(seen)


def _guess(kind: str, why: str) -> str:
    return f"the output looks like {kind}, because {why}: if it is not, change [output] in the card"


def _two(model: Outputs, labels: Sequence[Label] | None, label: Port | None, positive: str | None) -> Output:
    """The static answer of a binary model, and its lines on labels. Raises ValueError."""
    texts = label is not None and label.type == "tensor(string)"
    zero = "{ score = 0.5, label = 0 }"
    if labels is None and not texts:
        if positive not in (None, "0", "1"):
            raise ValueError(f"{positive} is none of the model's labels: it may be 0 or 1")
        return Output("binary", [] if positive is None else [f"positive = {positive}"], zero)
    known = {str(each): each for each in labels or ()}
    if positive is not None and labels is not None and positive not in known:
        raise ValueError(f"{positive!r} is none of the model's labels: it may be {' or '.join(known)}")
    lines = [] if labels is None else [_own(labels, model)]
    if positive is not None:
        said = known.get(positive, positive)
        other = next((toml(each) for each in labels or () if each != said), '"unknown"')
        return Output("binary", [*lines, f"positive = {toml(said)}"], f"{{ score = 0.5, label = {other} }}")
    if labels is not None and set(labels) == {0, 1}:
        return Output("binary", [], zero)
    choices = [f"positive = {toml(each)}" for each in labels or ()] or ['positive = "…"']
    edit = "# EDIT: the label whose probability is the score. The card is refused until one is said:"
    note = f"nothing says whose probability a score is: write {' or '.join(choices)}, or run init with --positive"
    return Output("binary", [*lines, edit, *(f"# {choice}" for choice in choices)], "{ score = 0.5 }", [note])


def _carried(model: Outputs, scores: Port, label: Port | None, kind: str) -> list[str]:
    """The line that carries further outputs along."""
    own = [label] if label is not None and kind != "regression" else []
    own += [port for port in model.ports if _several(scores) and port.type in _LABELS]
    marks = _marks(model, scores) if kind == "multilabel" else None
    further = [port for port in model.ports if port is not scores and port is not marks and port not in own]
    small: list[str] = []
    large: list[str] = []
    for port in further:
        value = model.values.get(port.name)
        if port.type.startswith("seq(") or len(port.shape) > 3:
            continue
        few = isinstance(value, np.ndarray) and value.size <= MOST_CARRIED * max(1, len(value))
        (small if few else large).append(port.name)
    lines = [keyed(f"carry = {listed(small)}", "copied into the answer's outputs")] if small else []
    lines += [keyed(f"# carry = {listed([*small, *large])}", "with outputs of many numbers")] if large else []
    return lines


def _own(labels: Sequence[Label], model: Outputs) -> str:
    whose = "the model's own" if model.labels is not None else "from the model's metadata"
    return keyed(f"labels = {listed(labels)}", f"{whose}, in the order of its columns")
