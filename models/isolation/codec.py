"""Owns the encoding between a worker and a model's process: columns there, answers back, as bytes and some JSON.

Numbers are the arrays' own bytes. Text is UTF-8 with a list of lengths. Rare values (failures, reasons) are in the
JSON. Nothing is pickled: a process that has run foreign code is not trusted, and unpickling its bytes could run code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.models.runtime.element_types import ELEMENT_TYPES, element_type
from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.runtime.run_times import RunTimes
from failsoft.schemas import wire
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Column, Columns
from failsoft.schemas.features.spec import Spec
from failsoft.schemas.prediction import Floats, Label, OutputColumn, Predictions

JsonObject = dict[str, Any]
"""A message to or from a model's process: an order, a reply, or the header that describes the blocks of a batch."""

Block = NDArray[Any] | bytes
Bytes = NDArray[np.uint8]
"""A received block: a view of shared memory. Copy it to keep it."""

_FLOATS = {"float32": np.float32, "float64": np.float64}
_NUMBERS = frozenset(dtype.name for dtype in ELEMENT_TYPES.values() if dtype.kind in "iuf")
_OUTPUT_TYPES = {dtype.name: dtype for dtype in ELEMENT_TYPES.values() if dtype.kind in "iufb" and dtype != np.float16}

LARGEST_ROW = 1 << 32
"""Largest number of elements that a row may claim. Sums of such numbers stay far below the limit of int64."""


class Damaged(ValueError):
    """A message that a working process never sends. The process that sent it must not be used any more."""


def send_columns(columns: Columns) -> tuple[JsonObject, list[Block]]:
    """Encodes a batch for the model.

    A matrix is one block, and so is a column of numbers; of tensors, too. Strings are two blocks: lengths and text.
    A tensor whose length differs by row has one block more before these: the lengths of the rows.
    """
    about: JsonObject = {"rows": columns.size, "matrix": columns.matrix is not None}
    if columns.why:
        about["why"] = [[i, name, why] for (i, name), why in columns.why.items()]
    if columns.matrix is not None:
        return about, [np.ascontiguousarray(columns.matrix)]
    blocks: list[Block] = []
    for spec in columns.specs:
        column = columns.values[spec.name]
        if _is_ragged(spec):
            assert spec.tensor is not None
            axis = spec.tensor.shape.index(-1)
            blocks.append(np.fromiter((row.shape[axis] for row in column), np.int64, columns.size))
            column = np.concatenate([np.empty(0, element_type(spec)), *(row.ravel() for row in column)])
        if _is_text(spec):
            blocks += _text(column.ravel().tolist())
        else:
            blocks.append(np.ascontiguousarray(column))
    return about, blocks


def columns(about: Mapping[str, Any], blocks: Sequence[Bytes], specs: tuple[Spec, ...]) -> Columns:
    """Decodes a batch. Its arrays are views of ``blocks``. Raises Damaged if these are not a batch of ``specs``."""
    try:
        n = int(about["rows"])
        made = Columns(specs, n, {})
        if about["matrix"]:
            made.matrix = blocks[0].view(np.float64).reshape(n, len(specs))
            made.values = {spec.name: made.matrix[:, j] for j, spec in enumerate(specs)}
        else:
            rest = iter(blocks)
            made.values = {spec.name: _column(spec, rest, n) for spec in specs}
        for i, name, why in about.get("why", ()):
            made.unusable.setdefault(name, np.zeros(n, np.bool_))[_row(i, n)] = True
            made.why[i, name] = why
    except Damaged:
        raise
    except (IndexError, KeyError, OverflowError, TypeError, ValueError, StopIteration) as error:
        raise Damaged(f"a batch that cannot be decoded ({type(error).__name__}: {error})") from None
    return made


def _column(spec: Spec, rest: Iterator[Bytes], n: int) -> Column:
    if spec.tensor is None:
        return _elements(spec, rest, n)
    if not _is_ragged(spec):
        return _elements(spec, rest, n * math.prod(spec.tensor.shape)).reshape(n, *spec.tensor.shape)
    lengths = next(rest).view(np.int64)
    row_size = -math.prod(spec.tensor.shape)  # of one element along the dimension -1
    if len(lengths) != n or (lengths < 0).any() or (lengths > LARGEST_ROW // row_size).any():
        raise Damaged(f"{len(lengths)} lengths for {n} rows of {spec.name!r}")
    ends = (np.cumsum(lengths) * row_size).tolist()
    elements = _elements(spec, rest, ends[-1] if ends else 0)
    column = np.empty(n, object)
    for i, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
        column[i] = elements[begin:end].reshape(spec.tensor.shape)
    return column


def _elements(spec: Spec, rest: Iterator[Bytes], n: int) -> Column:
    """``n`` elements of a feature, in one dimension."""
    if _is_text(spec):
        texts = _strings(next(rest), next(rest), n)
        words = np.empty(n, object)
        words[:] = texts
        return words
    elements: Column = next(rest).view(element_type(spec))
    if len(elements) != n:
        raise Damaged(f"{len(elements)} elements of {spec.name!r} instead of {n}")
    return elements


def _is_ragged(spec: Spec) -> bool:
    return spec.tensor is not None and -1 in spec.tensor.shape


def _is_text(spec: Spec) -> bool:
    return element_type(spec).kind == "O"


def dtypes(message: Mapping[str, Any]) -> dict[str, str]:
    """The ``dtypes`` of the session that a forkserver has loaded. Raises Damaged for types that no input has."""
    given = message.get("dtypes")
    if not isinstance(given, dict) or not all(type(name) is str and name in _NUMBERS for name in given.values()):
        raise Damaged("a loaded model without the types of its inputs")
    return given


def times(message: Mapping[str, Any]) -> RunTimes | None:
    """The ``times`` of the session that a forkserver has loaded; None if they are not known. Raises Damaged."""
    match message.get("times"):
        case None:
            return None
        case [float() | int() as run, float() | int() as row] if run >= 0 and row >= 0:
            return RunTimes(run, row)
    raise Damaged("times of runs that are no seconds")


def send_answer(answer: ModelOutput | Failure) -> tuple[JsonObject, list[Block]]:
    """Encodes a batch's answers for the worker."""
    if isinstance(answer, Failure):
        return {"failure": [answer.kind, answer.message]}, []
    predictions = answer.predictions
    about: JsonObject = {"scores": str(predictions.scores.dtype)}
    blocks: list[Block] = [np.ascontiguousarray(predictions.scores)]
    if predictions.labels is not None:
        kinds = set(map(type, predictions.labels))
        if kinds <= {int}:
            about["labels"] = "int"
            blocks.append(np.array(predictions.labels, np.int64))
        elif kinds <= {str}:
            about["labels"] = "text"
            blocks += _text(predictions.labels)
        else:  # integers and strings mixed, which is rare
            about["labels"] = list(predictions.labels)
    if predictions.probabilities is not None:
        about["probabilities"] = [predictions.probabilities.shape[1], str(predictions.probabilities.dtype)]
        blocks.append(np.ascontiguousarray(predictions.probabilities))
    if predictions.confidences is not None:
        about["confidences"] = (
            "scores" if predictions.confidences is predictions.scores else str(predictions.confidences.dtype)
        )
        if predictions.confidences is not predictions.scores:
            blocks.append(np.ascontiguousarray(predictions.confidences))
    if predictions.outputs is not None:
        about["outputs"] = [_send_output(name, column, blocks) for name, column in predictions.outputs.items()]
    if answer.bad:
        about["bad"] = [[i, failure.kind, failure.message] for i, failure in answer.bad.items()]
    return about, blocks


def answer(about: Mapping[str, Any], blocks: Sequence[Bytes], n: int) -> ModelOutput | Failure:
    """Decodes the answers to ``n`` rows, copied out of ``blocks``. Raises Damaged for an impossible answer."""
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
        outputs: dict[str, OutputColumn] | None = None
        if "outputs" in about:
            outputs = {_text_of(name): _output(kind, next(rest), n) for name, kind in about["outputs"]}
            if not outputs or len(outputs) != len(about["outputs"]):
                raise Damaged("no further outputs, or two of one name")
        bad = {_row(i, n): _failure(kind, message) for i, kind, message in about.get("bad", ())}
    except Damaged:
        raise
    except (KeyError, OverflowError, TypeError, ValueError, StopIteration) as error:
        raise Damaged(f"an answer that cannot be decoded ({type(error).__name__}: {error})") from None
    # A session replaces each NaN or infinite score by a placeholder, so a session never sends one.
    if not np.isfinite(scores).all() or (probabilities is not None and not np.isfinite(probabilities).all()):
        raise Damaged("scores that are NaN or infinite")
    return ModelOutput(Predictions(scores, labels, probabilities, confidences, outputs), bad)


def _send_output(name: str, column: OutputColumn, blocks: list[Block]) -> list[Any]:
    """Adds a further output's block. Returns its description: the name, and the array's type and shape of a row, or
    None for a list of JSON values.
    """
    if isinstance(column, np.ndarray):
        blocks.append(np.ascontiguousarray(column))
        return [name, [str(column.dtype), *column.shape[1:]]]
    blocks.append(wire.dumps(column))
    return [name, None]


def _output(kind: Any, block: Bytes, n: int) -> OutputColumn:
    """Decodes a further output of ``n`` rows: numbers of one shape a row, or JSON values."""
    if kind is None:
        values = wire.loads(bytes(block), block.size)
        if type(values) is not list or len(values) != n:
            raise Damaged(f"an output that is not a list of {n} values")
        return values
    dtype, *shape = kind
    if not all(type(size) is int and size >= 0 for size in shape):
        raise Damaged(f"an output of the shape {shape}")
    numbers = block.view(_OUTPUT_TYPES[dtype])
    if len(numbers) != n * math.prod(shape):
        raise Damaged(f"{len(numbers)} numbers instead of {n} times {shape}")
    if dtype == "bool" and block.max(initial=0) > 1:
        raise Damaged("booleans that are neither true nor false")
    column: Column = numbers.reshape(n, *shape).copy()
    return column


def _text_of(name: Any) -> str:
    """An output's name. Half of a surrogate pair raises ValueError: an answer's JSON could not hold it."""
    if type(name) is not str:
        raise Damaged("an output without a name")
    name.encode()
    return name


def _labels(encoding: Any, rest: Iterator[Bytes], n: int) -> list[Label | None] | None:
    if encoding is None:
        return None
    labels: list[Label | None]
    if encoding == "int":
        labels = next(rest).view(np.int64).tolist()
    elif encoding == "text":
        labels = list(_strings(next(rest), next(rest), n))
        # Half of a surrogate pair raises ValueError here: an answer's JSON could not hold it.
        "".join(labels).encode()  # type: ignore[arg-type]
    elif isinstance(encoding, list) and {*map(type, encoding)} <= {int, str, NoneType}:
        labels = encoding
    else:
        raise Damaged("labels of an unknown type")
    if len(labels) != n:
        raise Damaged(f"{len(labels)} labels for {n} rows")
    return labels


def _floats(block: Bytes, dtype: str, n: int) -> Floats:
    numbers = block.view(_FLOATS[dtype])
    if len(numbers) != n:
        raise Damaged(f"{len(numbers)} numbers instead of {n}")
    return numbers.copy()


def _row(i: int, n: int) -> int:
    if type(i) is not int or not 0 <= i < n:
        raise Damaged(f"row {i} of {n}")
    return i


SESSION_KINDS = frozenset({Kind.MODEL_ERROR, Kind.TIMEOUT, Kind.BAD_OUTPUT, Kind.INVALID, Kind.UNAVAILABLE})
"""The failure kinds that a session gives for a batch or a row. Only a worker decides the other kinds. For example,
``malformed`` from a damaged process would send an event to the dead letters without an answer."""


def _failure(kind: str, message: str) -> Failure:
    parsed = Kind(kind)
    if parsed not in SESSION_KINDS:
        raise Damaged(f"a failure kind that a model cannot have: {parsed}")
    return Failure(parsed, str(message))


def _text(column: Sequence[Any]) -> list[Block]:
    """Encodes strings as lengths in characters and the joined text: two calls per column, for any content."""
    lengths = np.fromiter(map(len, column), np.int64, len(column))
    return [lengths, "".join(column).encode("utf-8", "surrogatepass")]


def _strings(lengths: Bytes, utf8: Bytes, n: int) -> list[str]:
    each = lengths.view(np.int64)
    ends = np.cumsum(each).tolist()
    text = bytes(utf8).decode("utf-8", "surrogatepass")
    if ((each < 0) | (each > len(text))).any() or len(ends) != n or (ends[-1] if ends else 0) != len(text):
        raise Damaged(f"{len(ends)} strings of {len(text)} characters for {n} rows")
    return [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
