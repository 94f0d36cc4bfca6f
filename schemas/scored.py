"""Encodes scored records: a batch of answers as JSON bytes and headers.

A record is a fixed text with up to ten varying columns, and those of further outputs. Each column is encoded by one
call and inserted into the text, which is faster than encoding each record. Tests compare the result with the JSON
Schema and with a plain encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from failsoft.schemas import wire
from failsoft.schemas.failure import Kind
from failsoft.schemas.positions import REWIND
from failsoft.schemas.prediction import OutputColumn, Predictions, Source
from failsoft.schemas.record import Header

CONTENT_TYPE = "application/json"
"""The header of an answer in JSON."""


@dataclass(frozen=True, slots=True)
class Answers:
    """A batch of answers with one common source, reason and revision.

    Attributes:
        source: what gave the answers.
        model: the model or rule that answered; None for the static answer.
        version: the model's version, if the source has one.
        reason: the failure kind that kept the primary from answering, if any.
        revision: 0 for a first answer, higher for a correction or confirmation.
        final: no correction will follow.
        ids, times, predictions, topics, offsets: one entry per row; ``times`` are RFC 3339, ``topics`` and ``offsets``
            are the origin's.
        partition: the origin's partition, common to all rows.
        imputed: names of the imputed features, by row; rows without any are omitted.
        scored_at: RFC 3339.
        members: the ensemble's members that answered, as model@version; None unless the source is an ensemble.
        rewind: the rewind that read the events again, if one did.
        missing: names of the features that went to the model as NaN, by row; rows without any are omitted.
    """

    source: Source
    model: str | None
    version: int | None
    reason: Kind | None
    revision: int
    final: bool
    ids: Sequence[str]
    times: Sequence[str]
    predictions: Predictions
    topics: Sequence[str]
    partition: int
    offsets: Sequence[int]
    imputed: dict[int, tuple[str, ...]]
    scored_at: str
    members: tuple[str, ...] | None = None
    rewind: str | None = None
    missing: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    @property
    def degraded(self) -> bool:
        """True when the primary did not answer, or an ensemble answered without a member."""
        return self.source is not Source.PRIMARY and (self.source is not Source.ENSEMBLE or self.reason is not None)


def encode(answers: Answers) -> list[bytes]:
    """One JSON object per row, keys in the contract's order.

    The text common to all rows is built once, as a template. Only fields that may differ between rows are columns.
    Raises ValueError when columns have different lengths.
    """
    n = len(answers.ids)
    if n == 0:
        return []
    columns: list[Sequence[object]] = []

    def place(column: Sequence[object] | None, form: bytes = b"%b") -> bytes:
        if column is None:
            return b"null"
        columns.append(column)
        return form

    a, p = answers, answers.predictions
    scores = wire.numbers(p.scores)
    template = b"".join(
        (
            b'{"event_id":',
            place(wire.strings(a.ids), b'"%b"'),
            b',"score":',
            place(scores),
            b',"label":',
            place(None if p.labels is None else _labels(p.labels)),
            b',"probabilities":',
            place(None if p.probabilities is None else wire.values(p.probabilities)),
            b',"confidence":',
            place(_confidences(p, scores)),
            b"" if p.outputs is None else _outputs(p.outputs, place),
            _common(a.source, a.model, a.version, a.members, a.degraded, a.reason, a.revision, a.final),
            place(_imputed(a.imputed, n)) if a.imputed else b"[]",
            place(_missing(a.missing, n)) if a.missing else b"",
            b',"origin":{"topic":',
            place(wire.strings(a.topics), b'"%b"') if len(set(a.topics)) > 1 else _constant(a.topics[0]),
            b',"partition":%d,"offset":' % a.partition,
            place(a.offsets, b"%d"),
            b'},"event_time":',
            place(wire.strings(a.times), b'"%b"'),
            b',"scored_at":%b' % _constant(a.scored_at),
            b',"rewind":%b}' % _constant(a.rewind) if a.rewind is not None else b"}",
        )
    )
    return [template % row for row in zip(*columns, strict=True)]


def headers(answers: Answers, content_type: str = CONTENT_TYPE) -> list[Header]:
    """The headers of every answer in the batch. A reader can filter by them without parsing the value."""
    return [
        ("content-type", content_type.encode()),
        ("failsoft-revision", b"%d" % answers.revision),
        ("failsoft-source", answers.source.encode()),
        *([(REWIND, answers.rewind.encode())] if answers.rewind is not None else ()),
    ]


@lru_cache(maxsize=256)
def _common(
    source: Source,
    model: str | None,
    version: int | None,
    members: tuple[str, ...] | None,
    degraded: bool,
    reason: Kind | None,
    revision: int,
    final: bool,
) -> bytes:
    """The template's part from "source" to "imputed". Kept, because it is a third of the cost of a batch of one row,
    and a pipeline has few different ones.
    """
    return b"".join(
        (
            b',"source":%b,"model":%b,"version":%b' % tuple(map(_constant, (source, model, version))),
            b"" if members is None else b',"members":%b' % _constant(members),
            b',"degraded":%b,"reason":%b' % tuple(map(_constant, (degraded, reason))),
            b',"revision":%d,"final":%b,"imputed":' % (revision, _constant(final)),
        )
    )


def _constant(value: object) -> bytes:
    """``value`` as JSON for the template. Its percent signs are doubled, because the template is %-formatted."""
    return wire.dumps(value).replace(b"%", b"%%")


def _confidences(p: Predictions, scores: list[bytes]) -> list[bytes] | None:
    if p.confidences is None:
        return None
    return scores if p.confidences is p.scores else wire.numbers(p.confidences)


def _outputs(outputs: Mapping[str, OutputColumn], place: Callable[[Sequence[object]], bytes]) -> bytes:
    """The template's object of further outputs: the names are common to all rows, and each value is placed."""
    members = [b"%b:%b" % (_constant(name), place(wire.values(column))) for name, column in outputs.items()]
    return b',"outputs":{%b}' % b",".join(members)


def _imputed(by_row: dict[int, tuple[str, ...]], n: int) -> list[bytes]:
    column = [b"[]"] * n
    for row, features in by_row.items():
        column[row] = wire.dumps(features)
    return column


def _missing(by_row: Mapping[int, tuple[str, ...]], n: int) -> list[bytes]:
    """Each row's key ``missing`` with its value, or nothing: a row without missing features has no such key."""
    column = [b""] * n
    for row, features in by_row.items():
        column[row] = b',"missing":%b' % wire.dumps(features)
    return column


def _labels(labels: Sequence[int | str | None]) -> list[bytes]:
    if {*map(type, labels)} == {int}:
        return wire.dumps(list(labels))[1:-1].split(b",")
    return [wire.dumps(label) for label in labels]
