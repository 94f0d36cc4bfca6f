"""Recognises dead letters that another tool sent back to an input topic, and makes their replays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter

from failsoft.schemas import attempt as attempts
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.letter_id import LetterId
from failsoft.schemas.record import KIP_1191_PREFIX, Header, Record, own_headers
from failsoft.topics.names import Names
from failsoft.topics.routing import OutgoingRecord

FEWEST = 17
"""Headers of a letter: those that each one has. Nearly all other records have fewer, and are not looked at further."""

_headers = attrgetter("headers")


def claims(records: Sequence[Record], names: Names) -> dict[int, Attempt]:
    """The records of input topics that carry all headers of a dead letter of this pipeline: the attempt, by row.

    The headers claim it; only the letter itself, on the dead topic, proves it.
    """
    if not any(map(_headers, records)):
        return {}
    mark = (f"{KIP_1191_PREFIX}group", names.group.encode())
    marked = [row for row, record in enumerate(records) if len(record.headers) >= FEWEST and mark in record.headers]
    found: dict[int, Attempt] = {}
    for row in marked:
        attempt = None if names.owns(records[row].topic) else _claim(records[row].headers, names.group)
        if attempt is not None:
            found[row] = attempt
    return found


def _claim(headers: Sequence[Header], group: str) -> Attempt | None:
    """The attempt in the headers of a dead letter; None if one is missing, malformed, given twice, or contradicts."""
    attempt = attempts.parse(headers)
    if not isinstance(attempt, Attempt):
        return None
    errors: dict[str, bytes | None] = {}
    for name, value in headers:
        if name.startswith(KIP_1191_PREFIX):
            if name in errors:
                return None
            errors[name] = value
    expected = [header for header in attempt.dead_headers(group) if header[0].startswith(KIP_1191_PREFIX)]
    return attempt if all(name in errors and errors[name] == value for name, value in expected) else None


def replay(record: Record, attempt: Attempt, letter: LetterId) -> OutgoingRecord:
    """The record for the replay topic: ``record`` untouched, with the headers of the letter's replay."""
    replay_id = f"redriven-{record.partition}-{record.offset}"
    own = own_headers(record.headers, dead_letter=True)
    return record.key, record.value, [*own, *attempt.replayed(letter, replay_id).headers()]


def partitions(found: Mapping[int, Attempt]) -> dict[int, dict[int, Attempt]]:
    """The claims by partition of the dead topic: a letter is on the partition of its event's origin."""
    by_partition: dict[int, dict[int, Attempt]] = {}
    for row, attempt in found.items():
        by_partition.setdefault(attempt.origin.partition, {})[row] = attempt
    return by_partition
