"""Turns the verdicts of a batch into outgoing records: the topic, key, value and headers of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import attrgetter, itemgetter

from failsoft.schemas import scored, scored_avro, scored_schema
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.record import Header, Record, own_headers, trace_headers
from failsoft.schemas.scored import Answers
from failsoft.topics.names import Names

OutgoingRecord = tuple[bytes | None, bytes | None, list[Header]]
"""A record to write: key, value, headers. Headers are a list, which aiokafka's batch builder requires."""


@dataclass(frozen=True, slots=True)
class AnswerBatch:
    """Answers and the records that they answer.

    Attributes:
        answers: one answer per record.
        records: the answered records, in the same order.
        rows: the index of each record in the lane's batch.
    """

    answers: Answers
    records: Sequence[Record]
    rows: Sequence[int]


@dataclass(frozen=True, slots=True)
class Retries:
    """Records for one rung.

    Attributes:
        delay: the rung's delay as the pipeline file writes it.
        records: the records to retry.
        headers: all headers of each record.
        rows: the index of each record in the lane's batch.
    """

    delay: str
    records: Sequence[Record]
    headers: Sequence[list[Header]]
    rows: Sequence[int]


@dataclass(frozen=True, slots=True)
class Dead:
    """A record for the dead letters: no attempt can answer it, or its retries are exhausted."""

    record: Record
    attempt: Attempt


@dataclass(slots=True)
class Verdicts:
    """The results of a batch. A record may be in several lists: with a provisional answer it also has a retry.

    Attributes:
        answered: the answers.
        retries: the records for the rungs.
        dead: the records for the dead letters.
        replays: the records for the replay topic, by partition: an event's letter may come back on another partition.
    """

    answered: list[AnswerBatch] = field(default_factory=list)
    retries: list[Retries] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)
    replays: dict[int, list[OutgoingRecord]] = field(default_factory=dict)


def route(verdicts: Verdicts, names: Names, answer_schema: int | None = None) -> list[tuple[str, list[OutgoingRecord]]]:
    """The records to write as (topic, rows), in write order, without the replays.

    ``answer_schema`` is the registry's id of the schema of answers; None: they are JSON. The partition is not decided
    here: lane i writes everything but replays to partition i.
    """
    out: list[tuple[str, list[OutgoingRecord]]] = []
    if verdicts.answered:
        out.append((names.scored, _in_order([(g.rows, _answers(g, answer_schema)) for g in verdicts.answered])))
    rungs: dict[str, list[Retries]] = {}
    for retries in verdicts.retries:
        rungs.setdefault(retries.delay, []).append(retries)
    for delay, found in rungs.items():
        out.append((names.retry(delay), _in_order([(r.rows, _retries(r)) for r in found])))
    if verdicts.dead:
        out.append((names.dead, [dead_letter(d, names.group) for d in verdicts.dead]))
    return out


def dead_letter(dead: Dead, group: str) -> OutgoingRecord:
    """The event with key, value and own headers unchanged, plus the headers with the history of its failure."""
    own = own_headers(dead.record.headers, dead_letter=True)
    return dead.record.key, dead.record.value, [*own, *dead.attempt.dead_headers(group)]


def _in_order(groups: Sequence[tuple[Sequence[int], list[OutgoingRecord]]]) -> list[OutgoingRecord]:
    """The rows of all groups, sorted in batch order: the answers of one key keep the order of its events."""
    if len(groups) == 1:
        return groups[0][1]
    placed = [pair for rows, written in groups for pair in zip(rows, written, strict=True)]
    placed.sort(key=itemgetter(0))
    return [row for _, row in placed]


def _retries(retries: Retries) -> list[OutgoingRecord]:
    return [(r.key, r.value, h) for r, h in zip(retries.records, retries.headers, strict=True)]


def _answers(batch: AnswerBatch, schema: int | None) -> list[OutgoingRecord]:
    if schema is None:
        headers, values = scored.headers(batch.answers), scored.encode(batch.answers)
    else:
        headers = scored.headers(batch.answers, scored_schema.CONTENT_TYPE)
        values = scored_avro.encode(batch.answers, schema)
    if not any(map(attrgetter("headers"), batch.records)):
        return list(zip([r.key for r in batch.records], values, repeat(headers, len(values)), strict=True))
    return [
        (record.key, value, [*headers, *trace_headers(record.headers)] if record.headers else headers)
        for record, value in zip(batch.records, values, strict=True)
    ]
