"""A verdict -> outgoing records: the only place that decides a destination."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from schemas import scored
from schemas.attempt import Attempt
from schemas.record import Header, Record, own_headers, trace_headers
from schemas.scored import Answers
from topics.names import Names

Row = tuple[bytes | None, bytes | None, list[Header]]
"""A record to write: key, value, headers (a list, as aiokafka's batch builder wants it)."""


@dataclass(frozen=True, slots=True)
class Given:
    """Answers, and the records that they answer, row by row."""

    answers: Answers
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class Retries:
    """Records for one rung, with all their headers."""

    delay: str
    records: Sequence[Record]
    headers: Sequence[list[Header]]


@dataclass(frozen=True, slots=True)
class Dead:
    """A record that no attempt can help, or none did."""

    record: Record
    attempt: Attempt


@dataclass(slots=True)
class Verdicts:
    """What became of a batch. One record may be in several lists: a provisional answer has its retry beside it."""

    given: list[Given] = field(default_factory=list)
    retries: list[Retries] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)


def route(verdicts: Verdicts, names: Names) -> list[tuple[str, list[Row]]]:
    """(topic, rows) for everything to be written, in the order of writing.

    The partition is not decided here: everything of lane i goes to partition i.
    """
    out: list[tuple[str, list[Row]]] = []
    for given in verdicts.given:
        out.append((names.scored, list(_answers(given))))
    for retries in verdicts.retries:
        rows = [(r.key, r.value, h) for r, h in zip(retries.records, retries.headers, strict=True)]
        out.append((names.retry(retries.delay), rows))
    if verdicts.dead:
        out.append((names.dead, [dead_letter(d, names.group) for d in verdicts.dead]))
    return out


def dead_letter(dead: Dead, group: str) -> Row:
    """The event untouched, and beside its own headers the history of its failure."""
    own = own_headers(dead.record.headers, dead_letter=True)
    return dead.record.key, dead.record.value, [*own, *dead.attempt.dead_headers(group)]


def _answers(given: Given) -> Iterable[Row]:
    headers = scored.headers(given.answers)
    for record, value in zip(given.records, scored.encode(given.answers), strict=True):
        if record.headers:
            yield record.key, value, [*headers, *trace_headers(record.headers)]
        else:
            yield record.key, value, headers
