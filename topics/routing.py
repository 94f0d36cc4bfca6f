"""A verdict -> outgoing records: the only place that decides a destination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from failsoft.schemas import scored
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.record import Header, Record, own_headers, trace_headers
from failsoft.schemas.scored import Answers
from failsoft.topics.names import Names

Row = tuple[bytes | None, bytes | None, list[Header]]
"""A record to write: key, value, headers (a list, as aiokafka's batch builder wants it)."""


@dataclass(frozen=True, slots=True)
class AnswerBatch:
    """Answers, and the records that they answer, row by row; ``rows`` are the records' places in the batch."""

    answers: Answers
    records: Sequence[Record]
    rows: Sequence[int]


@dataclass(frozen=True, slots=True)
class Retries:
    """Records for one rung, with all their headers; ``rows`` are the records' places in the batch."""

    delay: str
    records: Sequence[Record]
    headers: Sequence[list[Header]]
    rows: Sequence[int]


@dataclass(frozen=True, slots=True)
class Dead:
    """A record that no attempt can help, or none did."""

    record: Record
    attempt: Attempt


@dataclass(slots=True)
class Verdicts:
    """What became of a batch. One record may be in several lists: a provisional answer has its retry beside it."""

    given: list[AnswerBatch] = field(default_factory=list)
    retries: list[Retries] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)


def route(verdicts: Verdicts, names: Names) -> list[tuple[str, list[Row]]]:
    """(topic, rows) for everything to be written, in the order of writing.

    The partition is not decided here: everything of lane i goes to partition i.
    """
    out: list[tuple[str, list[Row]]] = []
    if verdicts.given:
        out.append((names.scored, _in_order([(g.rows, _answers(g)) for g in verdicts.given])))
    rungs: dict[str, list[Retries]] = {}
    for retries in verdicts.retries:
        rungs.setdefault(retries.delay, []).append(retries)
    for delay, found in rungs.items():
        out.append((names.retry(delay), _in_order([(r.rows, _retries(r)) for r in found])))
    if verdicts.dead:
        out.append((names.dead, [dead_letter(d, names.group) for d in verdicts.dead]))
    return out


def dead_letter(dead: Dead, group: str) -> Row:
    """The event untouched, and beside its own headers the history of its failure."""
    own = own_headers(dead.record.headers, dead_letter=True)
    return dead.record.key, dead.record.value, [*own, *dead.attempt.dead_headers(group)]


def _in_order(groups: Sequence[tuple[Sequence[int], list[Row]]]) -> list[Row]:
    """The rows of all groups as the batch had them, so that a key's answers come in the order of its events."""
    if len(groups) == 1:
        return groups[0][1]
    placed = [pair for rows, written in groups for pair in zip(rows, written, strict=True)]
    placed.sort(key=itemgetter(0))
    return [row for _, row in placed]


def _retries(retries: Retries) -> list[Row]:
    return [(r.key, r.value, h) for r, h in zip(retries.records, retries.headers, strict=True)]


def _answers(given: AnswerBatch) -> list[Row]:
    headers = scored.headers(given.answers)
    return [
        (record.key, value, [*headers, *trace_headers(record.headers)] if record.headers else headers)
        for record, value in zip(given.records, scored.encode(given.answers), strict=True)
    ]
