"""The scored record: an answer as bytes and headers, a batch at a time.

A record is a fixed text with seven columns in it, so each column is encoded by one call and the text is filled in;
a test holds the outcome to the JSON Schema and to a plain encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas import wire
from schemas.failure import Kind
from schemas.prediction import Predictions, Source
from schemas.record import Header


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers that share who gave them and why; the columns have one entry a row.

    ``imputed`` names the features that were imputed, by row (rows without any are left out). ``scored_at`` is RFC 3339.
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

    @property
    def degraded(self) -> bool:
        """Somebody other than the primary answered."""
        return self.source is not Source.PRIMARY


def encode(answers: Answers) -> list[bytes]:
    """One JSON object a row, keys in the contract's order."""
    n = len(answers.ids)
    if n == 0:
        return []
    p = answers.predictions
    null = [b"null"] * n
    scores = wire.numbers(p.scores)
    if p.confidences is None:
        confidences = null
    else:
        confidences = scores if p.confidences is p.scores else wire.numbers(p.confidences)
    names = {topic: wire.dumps(topic) for topic in set(answers.topics)}
    imputed = [b"[]"] * n
    for row, features in answers.imputed.items():
        imputed[row] = wire.dumps(features)
    columns = zip(
        wire.strings(answers.ids),
        scores,
        null if p.labels is None else _labels(p.labels),
        null if p.probabilities is None else wire.vectors(p.probabilities),
        confidences,
        imputed,
        [names[topic] for topic in answers.topics],
        answers.offsets,
        wire.strings(answers.times),
        strict=True,
    )
    template = _template(answers)
    return [template % row for row in columns]


def headers(answers: Answers) -> list[Header]:
    """What a reader may filter by without parsing."""
    return [
        ("content-type", b"application/json"),
        ("failsoft-revision", b"%d" % answers.revision),
        ("failsoft-source", answers.source.encode()),
    ]


def _template(a: Answers) -> bytes:
    """The record with a %-place for each column; constants are rendered once, their own percent signs doubled."""

    def constant(value: object) -> bytes:
        return wire.dumps(value).replace(b"%", b"%%")

    return (
        b'{"event_id":%%b,"score":%%b,"label":%%b,"probabilities":%%b,"confidence":%%b,'
        b'"source":%b,"model":%b,"version":%b,"degraded":%b,"reason":%b,"revision":%d,"final":%b,'
        b'"imputed":%%b,"origin":{"topic":%%b,"partition":%d,"offset":%%d},"event_time":%%b,"scored_at":%b}'
    ) % (
        constant(a.source),
        constant(a.model),
        constant(a.version),
        constant(a.degraded),
        constant(a.reason),
        a.revision,
        constant(a.final),
        a.partition,
        constant(a.scored_at),
    )


def _labels(labels: Sequence[int | str | None]) -> list[bytes]:
    if {*map(type, labels)} == {int}:
        return wire.dumps(list(labels))[1:-1].split(b",")
    return [wire.dumps(label) for label in labels]
