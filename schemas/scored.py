"""The scored record: an answer as bytes and headers, a batch at a time.

A record is a fixed text with seven columns in it, so each column is encoded by one call and the text is filled in;
a test holds the outcome to the JSON Schema and to a plain encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from failsoft.schemas import wire
from failsoft.schemas.failure import Kind
from failsoft.schemas.prediction import Predictions, Source
from failsoft.schemas.record import Header


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers that share who gave them and why; the columns have one entry a row.

    ``imputed`` names the features that were imputed, by row (rows without any are left out). ``scored_at`` is RFC 3339.
    ``members`` are those of an ensemble that spoke, as model@version; only an ensemble's answer has them.
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

    @property
    def degraded(self) -> bool:
        """Somebody other than the primary answered, or an ensemble without some member."""
        return self.source is not Source.PRIMARY and (self.source is not Source.ENSEMBLE or self.reason is not None)


def encode(answers: Answers) -> list[bytes]:
    """One JSON object a row, keys in the contract's order.

    The text that the rows share is made once; a column goes into it only where its rows may differ.
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
            place(None if p.probabilities is None else wire.vectors(p.probabilities)),
            b',"confidence":',
            place(_confidences(p, scores)),
            b',"source":%b,"model":%b,"version":%b' % tuple(map(_constant, (a.source, a.model, a.version))),
            b"" if a.members is None else b',"members":%b' % _constant(a.members),
            b',"degraded":%b,"reason":%b' % tuple(map(_constant, (a.degraded, a.reason))),
            b',"revision":%d,"final":%b,"imputed":' % (a.revision, _constant(a.final)),
            place(_imputed(a.imputed, n)) if a.imputed else b"[]",
            b',"origin":{"topic":',
            place(wire.strings(a.topics), b'"%b"') if len(set(a.topics)) > 1 else _constant(a.topics[0]),
            b',"partition":%d,"offset":' % a.partition,
            place(a.offsets, b"%d"),
            b'},"event_time":',
            place(wire.strings(a.times), b'"%b"'),
            b',"scored_at":%b}' % _constant(a.scored_at),
        )
    )
    return [template % row for row in zip(*columns, strict=True)]


def headers(answers: Answers) -> list[Header]:
    """What a reader may filter by without parsing."""
    return [
        ("content-type", b"application/json"),
        ("failsoft-revision", b"%d" % answers.revision),
        ("failsoft-source", answers.source.encode()),
    ]


def _constant(value: object) -> bytes:
    """JSON that stands in a template: its own percent signs are doubled."""
    return wire.dumps(value).replace(b"%", b"%%")


def _confidences(p: Predictions, scores: list[bytes]) -> list[bytes] | None:
    if p.confidences is None:
        return None
    return scores if p.confidences is p.scores else wire.numbers(p.confidences)


def _imputed(by_row: dict[int, tuple[str, ...]], n: int) -> list[bytes]:
    column = [b"[]"] * n
    for row, features in by_row.items():
        column[row] = wire.dumps(features)
    return column


def _labels(labels: Sequence[int | str | None]) -> list[bytes]:
    if {*map(type, labels)} == {int}:
        return wire.dumps(list(labels))[1:-1].split(b",")
    return [wire.dumps(label) for label in labels]
