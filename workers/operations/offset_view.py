"""Where the partitions of a pipeline stand, for operators, and what each order makes of a partition. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from failsoft.schemas.event import iso
from failsoft.schemas.fleet.breaker import Alert
from failsoft.schemas.rewind import Rewind
from failsoft.workers.lanes.standing import PartitionStanding, State

LOST, MOVED = "lost", "offsets"
"""The names of the alerts that are the history of orders: records that are lost, and other moves of an offset."""


class OrderRefused(ValueError):
    """An order would lose events in silence, or has nothing to do."""


@dataclass(frozen=True, slots=True)
class UnreadableBatch:
    """The next batch of a partition, which cannot be read.

    Attributes:
        first: its first offset that cannot be read.
        end: the offset after it; None if the damage hides it.
        why: what is wrong.
    """

    first: int
    end: int | None
    why: str


@dataclass(frozen=True, slots=True)
class OffsetRow:
    """One partition that workers read.

    Attributes:
        topic: its topic.
        partition: its number.
        standing: where it stands; None if it cannot be told.
        unreadable: its next batch, if that cannot be read.
        unknown: why it cannot be told.
    """

    topic: str
    partition: int
    standing: PartitionStanding | None
    unreadable: UnreadableBatch | None = None
    unknown: str = ""

    @property
    def place(self) -> str:
        """As the option ``--topic`` takes it."""
        return f"{self.topic}:{self.partition}"

    @property
    def state(self) -> str:
        if self.standing is None:
            return "unknown"
        return State.UNREADABLE if self.unreadable is not None else self.standing.state

    @property
    def is_wrong(self) -> bool:
        """Whether the lane of the partition is stopped, or would be."""
        return self.standing is None or self.unreadable is not None or self.standing.state.is_wrong

    @property
    def why(self) -> str:
        if self.unreadable is not None:
            return f"a batch cannot be read: {self.unreadable.why}"
        return self.unknown if self.standing is None else self.standing.why

    @property
    def mend(self) -> str:
        """The commands that settle it."""
        if self.unreadable is not None:
            to = "" if self.unreadable.end is not None else " --to OFFSET"
            return f"failsoft offsets skip --topic {self.place}{to} goes on after it and records it as lost"
        return "" if self.standing is None else self.standing.mend


def listed(rows: Sequence[OffsetRow]) -> list[dict[str, Any]]:
    """The rows as JSON objects."""
    return [
        {
            "topic": row.topic,
            "partition": row.partition,
            "state": row.state,
            "committed": s.committed if (s := row.standing) else None,
            "answered": s.answered if s else None,
            "first": s.first if s else None,
            "end": s.end if s else None,
            "lag": s.lag if s else None,
            "unanswered": s.passed if s else None,
            "rewind": s.rewind.id if s and s.rewind and s.state is State.REWINDING else None,
            "why": row.why,
            "mend": row.mend,
        }
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class OffsetMove:
    """What an order does to one partition.

    Attributes:
        row: the partition, as it was looked at.
        to: the offset to commit.
        metadata: its metadata.
        lost: the first offset that is never read, and the one after the last; None if none is lost.
        again: the same of the offsets that are answered again.
    """

    row: OffsetRow
    to: int
    metadata: str
    lost: tuple[int, int] | None = None
    again: tuple[int, int] | None = None

    def alert(self, order: str, who: str, why: str, now_ms: int) -> Alert:
        """The move as an alert: its history. ``order``: what was done, for people."""
        was = self.row.standing.committed if self.row.standing is not None else None
        told = f"{order}: {why or 'no reason given'}"[:2_000]
        key = f"{self.row.topic}-{self.row.partition}"
        if self.lost is not None:
            return Alert(LOST, key, now_ms, "unread", "lost", told, who, *self.lost)
        begin, end = self.again or (self.to, self.to)
        return Alert(MOVED, key, now_ms, "none" if was is None else str(was), str(self.to), told, who, begin, end)

    def described(self) -> dict[str, Any]:
        """The move as a JSON object."""
        lost, again = self.lost or (0, 0), self.again or (0, 0)
        was = self.row.standing.committed if self.row.standing is not None else None
        return {
            "topic": self.row.topic,
            "partition": self.row.partition,
            "from": was,
            "to": self.to,
            "lost": lost[1] - lost[0],
            "lost_from": self.lost[0] if self.lost else None,
            "again": again[1] - again[0],
        }


def _stands(row: OffsetRow) -> PartitionStanding:
    if row.standing is None:
        raise OrderRefused(f"{row.place}: {row.unknown}")
    return row.standing


def repaired(row: OffsetRow) -> OffsetMove:
    """The move to the position after what was answered. Raises OrderRefused."""
    stands = _stands(row)
    if not stands.can_repair or stands.answered is None:
        if stands.state.is_wrong or row.is_wrong:
            raise OrderRefused(f"{row.place}: repair cannot settle it: {row.why}; {row.mend}")
        raise OrderRefused(f"{row.place}: nothing to repair: its state is {row.state}")
    keep = stands.rewind.beside(stands.metadata) if stands.rewind is not None else stands.metadata
    return OffsetMove(row, stands.answered, keep)


def skipped(row: OffsetRow, to: int | None) -> OffsetMove:
    """The move past deleted records or a batch that cannot be read, to offset ``to`` if it is given.

    Raises OrderRefused.
    """
    stands = _stands(row)
    if stands.state in (State.MISSING, State.BEHIND, State.BEYOND):
        raise OrderRefused(f"{row.place}: {row.why}; settle that first: {row.mend}")
    begin = stands.next
    if stands.unread is not None:
        begin, least = stands.unread
    elif row.unreadable is not None:
        begin = row.unreadable.first
        if row.unreadable.end is None and to is None:
            raise OrderRefused(f"{row.place}: the damage hides where the batch at {begin} ends: say --to OFFSET")
        least = begin + 1 if row.unreadable.end is None else row.unreadable.end
    elif to is None:
        raise OrderRefused(f"{row.place}: nothing to skip: its state is {row.state}, and offset {begin} can be read")
    else:
        least = begin + 1
    end = least if to is None else to
    if least > stands.end:
        raise OrderRefused(f"{row.place}: nothing to skip: the log ends at {stands.end}, and all before it is read")
    if not least <= end <= stands.end:
        raise OrderRefused(f"{row.place}: --to {end}: use {least} to {stands.end}")
    keep = stands.rewind.beside(stands.metadata) if stands.rewind is not None else stands.metadata
    return OffsetMove(row, end, keep, (begin, end))


def rewound(row: OffsetRow, to: int, id: str) -> OffsetMove | None:
    """The move back to offset ``to``, with the permission to answer again what was answered after it. None if the
    partition is not read beyond that offset yet.

    Raises OrderRefused.
    """
    stands = _stands(row)
    if stands.state is State.DELETED:
        raise OrderRefused(f"{row.place}: {row.why}; settle that first: {row.mend}")
    if not stands.first <= to <= stands.end:
        raise OrderRefused(f"{row.place}: offset {to} is not in the log, which has {stands.first} to {stands.end}")
    until = max(stands.answered or 0, stands.committed or 0, stands.rewind.until if stands.rewind is not None else 0)
    if stands.state in (State.MISSING, State.BEHIND) and not stands.is_exact:
        until = max(until, stands.end)  # anything that is there now may have been answered
    if stands.state is State.NEW or (stands.state in (State.OK, State.REWINDING) and to >= stands.next):
        return None
    if stands.state in (State.MISSING, State.BEHIND) and stands.answered is not None and to > until:
        raise OrderRefused(f"{row.place}: offset {to} is after what was answered ({stands.answered}): use skip")
    permission = Rewind(id, until)
    return OffsetMove(row, to, permission.beside("") if to < until else "", again=(to, until) if to < until else None)


def history(alerts: Sequence[Alert]) -> list[dict[str, Any]]:
    """The orders among ``alerts``, oldest first."""
    found = sorted((a for a in alerts if a.name in (LOST, MOVED)), key=lambda a: a.at_ms)
    return [
        {
            "at": iso(a.at_ms),
            "partition": a.key,
            "what": a.name,
            "from": a.from_,
            "to": a.to,
            "first_offset": a.first_offset,
            "end_offset": a.end_offset,
            "count": (a.end_offset or 0) - (a.first_offset or 0),
            "who": a.worker,
            "why": a.reason,
        }
        for a in found
    ]


def places(named: Sequence[str], partitions: Mapping[str, int]) -> list[tuple[str, int]]:
    """The partitions that options ``--topic T`` or ``T:P`` name. ``partitions``: how many each topic has.

    Raises OrderRefused for a topic or partition that workers do not read.
    """
    found: dict[tuple[str, int], None] = {}
    for text in named:
        topic, colon, number = text.rpartition(":")
        if not colon:
            topic, number = text, ""
        if topic not in partitions:
            raise OrderRefused(f"{topic}: no topic that the pipeline reads; there are: {', '.join(partitions)}")
        if colon and not (number.isdecimal() and int(number) < partitions[topic]):
            raise OrderRefused(f"{text}: {topic} has partitions 0 to {partitions[topic] - 1}")
        found |= dict.fromkeys((topic, p) for p in ([int(number)] if colon else range(partitions[topic])))
    return list(found)
