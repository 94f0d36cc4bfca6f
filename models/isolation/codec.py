"""What crosses between a worker and a model's process: columns there, answers back, as blocks of bytes and some JSON.

Numbers are the arrays' own bytes, text is UTF-8 with lengths, and what is rare (failures, reasons) is in the JSON.
Nothing is pickled: a process that ran foreign code is not to be trusted with that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.models.runtime.signature import ModelOutput
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features import Columns, FeatureType, Spec
from failsoft.schemas.prediction import Floats, Label, Predictions

About = dict[str, Any]
"""The JSON beside the blocks: what they are."""

Block = NDArray[Any] | bytes
Bytes = NDArray[np.uint8]
"""A block as it arrives: a view of shared memory, to be copied by whoever keeps it."""

_DTYPES: dict[FeatureType, Any] = {FeatureType.FLOAT: np.float64, FeatureType.INT: np.int64, FeatureType.BOOL: np.bool_}
_FLOATS = {"float32": np.float32, "float64": np.float64}


class Damaged(ValueError):
    """An answer that is none: the process that sent it is not to be used any more."""


def send_columns(columns: Columns) -> tuple[About, list[Block]]:
    """A batch on its way to the model. A matrix is one block, strings are two (lengths, text)."""
    about: About = {"rows": columns.size, "matrix": columns.matrix is not None}
    if columns.why:
        about["why"] = [[i, name, why] for (i, name), why in columns.why.items()]
    if columns.matrix is not None:
        return about, [np.ascontiguousarray(columns.matrix)]
    blocks: list[Block] = []
    for spec in columns.specs:
        column = columns.values[spec.name]
        if spec.type is FeatureType.STRING:
            blocks += _text(column.tolist())
        else:
            blocks.append(np.ascontiguousarray(column))
    return about, blocks


def columns(about: Mapping[str, Any], blocks: Sequence[Bytes], specs: tuple[Spec, ...]) -> Columns:
    """The batch that was sent; its arrays are views of ``blocks``."""
    n = int(about["rows"])
    made = Columns(specs, n, {})
    if about["matrix"]:
        made.matrix = blocks[0].view(np.float64).reshape(n, len(specs))
        made.values = {spec.name: made.matrix[:, j] for j, spec in enumerate(specs)}
    else:
        rest = iter(blocks)
        for spec in specs:
            if spec.type is FeatureType.STRING:
                column = np.empty(n, dtype=object)
                column[:] = _strings(next(rest), next(rest), n)
            else:
                column = next(rest).view(_DTYPES[spec.type])
            made.values[spec.name] = column
    for i, name, why in about.get("why", ()):
        made.unusable.setdefault(name, np.zeros(n, np.bool_))[i] = True
        made.why[i, name] = why
    return made


def send_answer(answer: ModelOutput | Failure) -> tuple[About, list[Block]]:
    """A batch's answers on their way back."""
    if isinstance(answer, Failure):
        return {"failure": [answer.kind, answer.message]}, []
    given = answer.predictions
    about: About = {"scores": str(given.scores.dtype)}
    blocks: list[Block] = [np.ascontiguousarray(given.scores)]
    if given.labels is not None:
        kinds = set(map(type, given.labels))
        if kinds <= {int}:
            about["labels"] = "int"
            blocks.append(np.array(given.labels, np.int64))
        elif kinds <= {str}:
            about["labels"] = "text"
            blocks += _text(given.labels)
        else:  # classes of both sorts, which hardly anybody has
            about["labels"] = list(given.labels)
    if given.probabilities is not None:
        about["probabilities"] = [given.probabilities.shape[1], str(given.probabilities.dtype)]
        blocks.append(np.ascontiguousarray(given.probabilities))
    if given.confidences is not None:
        about["confidences"] = "scores" if given.confidences is given.scores else str(given.confidences.dtype)
        if given.confidences is not given.scores:
            blocks.append(np.ascontiguousarray(given.confidences))
    if answer.bad:
        about["bad"] = [[i, failure.kind, failure.message] for i, failure in answer.bad.items()]
    return about, blocks


def answer(about: Mapping[str, Any], blocks: Sequence[Bytes], n: int) -> ModelOutput | Failure:
    """The answers to a batch of ``n`` rows, copied out of ``blocks``. Raises Damaged for what no session would say."""
    try:
        if "failure" in about:
            return _failure(*about["failure"])
        rest = iter(blocks)
        scores = _floats(next(rest), about["scores"], n)
        labels = _labels(about.get("labels"), rest, n)
        probabilities = None
        if "probabilities" in about:
            width, dtype = about["probabilities"]
            probabilities = _floats(next(rest), dtype, n * int(width)).reshape(n, int(width))
        confidences: Floats | None = None
        if "confidences" in about:
            same = about["confidences"] == "scores"
            confidences = scores if same else _floats(next(rest), about["confidences"], n)
        bad = {_row(i, n): _failure(kind, message) for i, kind, message in about.get("bad", ())}
    except Damaged:
        raise
    except (KeyError, OverflowError, TypeError, ValueError, StopIteration) as error:
        raise Damaged(f"an answer that is none ({type(error).__name__}: {error})") from None
    # A session has judged its scores, and stands in a number for each that was none: who sends one is no session.
    if not np.isfinite(scores).all() or (probabilities is not None and not np.isfinite(probabilities).all()):
        raise Damaged("scores that are no numbers")
    return ModelOutput(Predictions(scores, labels, probabilities, confidences), bad)


def _labels(told: Any, rest: Iterator[Bytes], n: int) -> list[Label | None] | None:
    if told is None:
        return None
    labels: list[Label | None]
    if told == "int":
        labels = next(rest).view(np.int64).tolist()
    elif told == "text":
        labels = list(_strings(next(rest), next(rest), n))
        "".join(labels).encode()  # type: ignore[arg-type]  # half a character is a ValueError: no answer can hold one
    elif isinstance(told, list) and {*map(type, told)} <= {int, str, NoneType}:
        labels = told
    else:
        raise Damaged("labels that are none")
    if len(labels) != n:
        raise Damaged(f"{len(labels)} labels for {n} rows")
    return labels


def _floats(block: Bytes, dtype: str, n: int) -> Floats:
    found = block.view(_FLOATS[dtype])
    if len(found) != n:
        raise Damaged(f"{len(found)} numbers where {n} are right")
    return found.copy()


def _row(i: int, n: int) -> int:
    if type(i) is not int or not 0 <= i < n:
        raise Damaged(f"row {i} of {n}")
    return i


SAID = frozenset({Kind.MODEL_ERROR, Kind.TIMEOUT, Kind.BAD_OUTPUT, Kind.INVALID, Kind.UNAVAILABLE})
"""What a session says of a batch or a row. The other kinds are a worker's to find: ``malformed``, for one, would cost
an event its answer."""


def _failure(kind: str, message: str) -> Failure:
    found = Kind(kind)
    if found not in SAID:
        raise Damaged(f"a failure that is no model's: {found}")
    return Failure(found, str(message))


def _text(column: Sequence[Any]) -> list[Block]:
    """Lengths in characters and the text itself: two calls for the column, whatever the strings hold."""
    lengths = np.fromiter(map(len, column), np.int64, len(column))
    return [lengths, "".join(column).encode("utf-8", "surrogatepass")]


def _strings(lengths: Bytes, utf8: Bytes, n: int) -> list[str]:
    each = lengths.view(np.int64)
    ends = np.cumsum(each).tolist()
    text = bytes(utf8).decode("utf-8", "surrogatepass")
    if ((each < 0) | (each > len(text))).any() or len(ends) != n or (ends[-1] if ends else 0) != len(text):
        raise Damaged(f"{len(ends)} strings of {len(text)} characters for {n} rows")
    return [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
