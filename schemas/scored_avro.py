"""Encodes scored records as Avro in Confluent's wire format, a batch of answers by columns like ``schemas.scored``.

A number is the one that JSON shows: a float32 in its shortest decimals, and not the double that it widens to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas import times, wire
from failsoft.schemas.formats import avro_encoding as avro
from failsoft.schemas.formats import framing
from failsoft.schemas.prediction import Floats, OutputColumn
from failsoft.schemas.scored import Answers

_NULL, _SOME = avro.long(0), avro.long(1)
"""The branches of a union of null and one type."""

_BOOLEAN, _LONG, _DOUBLE, _STRING, _ARRAY, _JSON = map(avro.long, range(1, 7))
"""The branches of an output's value, after null."""

_LABEL_LONG, _LABEL_STRING = _SOME, avro.long(2)


def encode(answers: Answers, schema_id: int) -> list[bytes]:
    """One value per row, by the schema ``scored_schema.SCHEMA`` of which ``schema_id`` is the registry's id.

    Raises ValueError when columns have different lengths.
    """
    n = len(answers.ids)
    if n == 0:
        return []
    columns: list[Sequence[bytes]] = []

    def place(column: Sequence[bytes]) -> bytes:
        columns.append(column)
        return b"%b"

    a, p = answers, answers.predictions
    scores = _doubles(p.scores)
    template = b"".join(
        (
            _constant(framing.prefix(schema_id)),
            place(avro.strings(a.ids)),
            place(avro.doubles(scores)),
            _NULL if p.labels is None else place(_labels(p.labels)),
            _NULL if p.probabilities is None else place(_arrays(_doubles(p.probabilities))),
            _NULL
            if p.confidences is None
            else place(_confidences(scores if p.confidences is p.scores else _doubles(p.confidences))),
            place(_outputs(p.outputs)) if p.outputs else avro.END,
            _constant(_common(a.source, a.model, a.version, a.members, a.degraded, a.reason, a.revision, a.final)),
            place(_names(a.imputed, n)) if a.imputed else avro.END,
            place(_names(a.missing, n)) if a.missing else avro.END,
            place(avro.strings(a.topics)) if len(set(a.topics)) > 1 else _constant(avro.string(a.topics[0])),
            _constant(avro.long(a.partition)),
            place(avro.longs(a.offsets)),
            place(avro.longs(times.microseconds(a.times))),
            _constant(avro.long(*times.microseconds((a.scored_at,)))),
            _constant(_optional(a.rewind)),
        )
    )
    return [template % row for row in zip(*columns, strict=True)]


def rewound(value: bytes, rewind: str) -> bytes:
    """An answer without the field ``rewind``, which is the last one, with it."""
    return value[: -len(_NULL)] + _optional(rewind)


@lru_cache(maxsize=256)
def _common(
    source: str,
    model: str | None,
    version: int | None,
    members: tuple[str, ...] | None,
    degraded: bool,
    reason: str | None,
    revision: int,
    final: bool,
) -> bytes:
    """The fields from ``source`` to ``final``: a pipeline has few different ones."""
    return b"".join(
        (
            avro.string(source),
            _optional(model),
            _NULL if version is None else _SOME + avro.long(version),
            avro.block(avro.strings(members or ())),
            _boolean(degraded),
            _optional(reason),
            avro.long(revision),
            _boolean(final),
        )
    )


def _constant(encoded: bytes) -> bytes:
    """Bytes for the template. Percent signs are doubled, because the template is %-formatted."""
    return encoded.replace(b"%", b"%%")


def _optional(text: str | None) -> bytes:
    return _NULL if text is None else _SOME + avro.string(text)


def _boolean(value: bool) -> bytes:
    return avro.TRUE if value else avro.FALSE


def _doubles(column: Floats | NDArray[Any]) -> NDArray[np.float64]:
    """Numbers as doubles: those that JSON shows. Not finite is NaN."""
    if column.dtype == np.float64:
        return np.asarray(column, np.float64)
    return np.array(wire.plain(column), np.float64).reshape(column.shape)


def _labels(labels: Sequence[int | str | None]) -> list[bytes]:
    return list(map(_label, labels))


@lru_cache(maxsize=4096)
def _label(label: int | str | None) -> bytes:
    """One label. Kept, because a model has few."""
    if label is None:
        return _NULL
    if isinstance(label, int) and avro.LEAST <= label <= avro.MOST:
        return _LABEL_LONG + avro.long(label)
    return _LABEL_STRING + avro.string(str(label))


def _confidences(column: NDArray[np.float64]) -> list[bytes]:
    none = np.isnan(column)
    encoded = [_SOME + value for value in avro.doubles(column)]
    for row in np.flatnonzero(none).tolist():
        encoded[row] = _NULL
    return encoded


def _arrays(table: NDArray[np.float64]) -> list[bytes]:
    """Each row of ``table`` as the second branch of a union: an array of doubles."""
    before = _SOME + avro.begin(table.shape[1])
    return [before + row + avro.END for row in avro.doubles(table)]


def _names(by_row: Mapping[int, tuple[str, ...]], n: int) -> list[bytes]:
    column = [avro.END] * n
    for row, names in by_row.items():
        column[row] = avro.block(avro.strings(names))
    return column


def _outputs(outputs: Mapping[str, OutputColumn]) -> list[bytes]:
    """Each row's map of further outputs."""
    columns = [[avro.string(name) + value for value in _values(column)] for name, column in outputs.items()]
    return [avro.block(row) for row in zip(*columns, strict=True)]


def _values(column: OutputColumn) -> list[bytes]:
    """Each row of an array, or each JSON value of a list, as an output's value. A number that is not finite is null."""
    if isinstance(column, np.ndarray) and column.dtype.kind == "f" and column.ndim <= 2:
        numbers = _doubles(column)
        if np.isfinite(numbers).all():
            return _numbers(numbers)
    return list(map(_value, wire.plain(column)))


def _numbers(column: NDArray[np.float64]) -> list[bytes]:
    """Finite numbers of shape (n,), or n rows of k of them."""
    if column.ndim == 1:
        return [_DOUBLE + value for value in avro.doubles(column)]
    items = np.empty(column.shape, np.dtype([("branch", "S1"), ("number", "<f8")]))
    items["branch"], items["number"] = _DOUBLE, column
    before = _ARRAY + avro.begin(column.shape[1])
    return [before + row.tobytes() + avro.END for row in items]


def _value(value: Any) -> bytes:
    """A JSON value as an output's value."""
    if isinstance(value, list):
        items = list(map(_plain, value))
        if None not in items:
            return _ARRAY + avro.block(items)  # type: ignore[arg-type]
    found = _plain(value)
    return _JSON + avro.string(wire.dumps(value).decode()) if found is None else found


def _plain(value: Any) -> bytes | None:
    """A JSON value without levels; None for a list, an object and an integer beyond 64 bits."""
    match value:
        case None:
            return _NULL
        case bool():
            return _BOOLEAN + _boolean(value)
        case int():
            return _LONG + avro.long(value) if avro.LEAST <= value <= avro.MOST else None
        case float():
            return _DOUBLE + avro.double(value)
        case str():
            return _STRING + avro.string(value)
    return None
