"""Pure: where a lane's partitions stand against what was answered, and whether reading on is safe.

The group's offsets are one memory; the positions and origins in the lane's outputs are the second. A lane reads on only
where both agree (docs/decisions/0018-second-memory.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from failsoft.schemas import positions
from failsoft.schemas.record import Record
from failsoft.schemas.rewind import Rewind, split

ORIGINS = 500
"""Records whose origins are read where no record has positions: answers of an earlier version."""


@dataclass(frozen=True, slots=True)
class Tail:
    """What the end of one output partition remembers.

    Attributes:
        positions: the positions of its last record that has some; None if none has.
        origins: the offset after the last origin of each topic, of the records after that one.
        emptied: it has no records any more that can be read, and had some.
    """

    positions: Mapping[str, int] | None = None
    origins: Mapping[str, int] = field(default_factory=dict)
    emptied: bool = False

    @classmethod
    def of(cls, records: Sequence[Record]) -> Tail:
        """From the last committed records of a partition, in order."""
        origins: list[Mapping[str, int]] = []
        for record in reversed(records[-ORIGINS:]):
            found = positions.read(record.headers)
            if found is not None:
                return cls(found, positions.furthest(origins))
            origin = positions.origin_of(record.value, record.headers)
            if origin is not None:
                origins.append({origin[0]: origin[1] + 1})
        return cls(None, positions.furthest(origins))


@dataclass(frozen=True, slots=True)
class Memory:
    """What all outputs of a lane remember.

    Attributes:
        answered: by ``positions.key``, the offset after the last record that is known to be answered.
        committed: the same, but only what was committed. With at least once, a crash may leave answers after that.
        certain: False if answers were deleted, so that more may have been answered than ``answered`` says.
        by_origins: the last answers are of an earlier version. They say of which events they are, not how far the lane
            was: corrections come long after, and a quiet topic has none among them.
    """

    answered: Mapping[str, int]
    committed: Mapping[str, int]
    certain: bool = True
    by_origins: bool = False

    @classmethod
    def of(cls, scored: Tail, others: Iterable[Tail], exactly_once: bool) -> Memory:
        """From the tail of the lane's answers, and those of its dead letters and rungs."""
        tails = [scored, *others]
        known = positions.furthest(tail.positions for tail in tails if tail.positions is not None)
        answered = positions.furthest((known, *(tail.origins for tail in tails)))
        return cls(answered, answered if exactly_once else known, not scored.emptied, bool(scored.origins))


class State(StrEnum):
    """How the committed offset of a partition stands."""

    OK = "ok"
    NEW = "new"  # nothing was answered, and no offset is committed: it is read from its beginning
    REWINDING = "rewinding"  # behind what was answered, as an operator has permitted
    MISSING = "missing"  # no committed offset, although records were answered
    BEHIND = "behind"  # a committed offset before what was answered
    DELETED = "deleted"  # the next records were deleted before they were read
    BEYOND = "beyond_the_end"  # a committed offset after the log's end: the topic is a new one, or was truncated
    UNREADABLE = "unreadable"  # the next batch cannot be read

    @property
    def is_wrong(self) -> bool:
        """Whether a lane stops because of it."""
        return self not in (State.OK, State.NEW, State.REWINDING)


@dataclass(frozen=True, slots=True)
class PartitionStanding:
    """One partition that a lane reads.

    Attributes:
        topic: its topic.
        partition: its number.
        committed: the committed offset; None if there is none.
        metadata: that offset's metadata, without the permission of a rewind.
        rewind: the permission of a rewind beside the committed offset.
        answered: the offset after the last record that is known to be answered; None if nothing is known.
        before: the committed offset may not be before this one; None if nothing is known.
        certain: as in Memory.
        first: the first offset of the log.
        end: the offset after its last record.
        by_origins: as in Memory.
    """

    topic: str
    partition: int
    committed: int | None
    metadata: str
    rewind: Rewind | None
    answered: int | None
    before: int | None
    certain: bool
    first: int
    end: int
    by_origins: bool = False

    @classmethod
    def of(
        cls,
        tp: tuple[str, int],
        topic_id: str | None,
        committed: tuple[int, str] | None,
        memory: Memory,
        bounds: tuple[int, int],
    ) -> PartitionStanding:
        """From the topic's id, the committed offset with its metadata, the lane's memory and the bounds of the log."""
        topic, partition = tp
        known, before = (positions.position(m, topic, topic_id) for m in (memory.answered, memory.committed))
        nothing = cls(topic, partition, None, "", None, known, before, memory.certain, *bounds, memory.by_origins)
        return nothing.at(committed, bounds)

    def at(self, committed: tuple[int, str] | None, bounds: tuple[int, int]) -> PartitionStanding:
        """The same partition with another committed offset, and bounds that were read after it."""
        offset, text = committed if committed is not None else (None, "")
        rewind, metadata = split(text)
        first, end = bounds
        return replace(self, committed=offset, metadata=metadata, rewind=rewind, first=first, end=end)

    @property
    def state(self) -> State:
        if self.committed is None:
            return self._state_without_offset()
        before = self.before or 0
        if self.committed < self.first and (self.rewind is not None or before < self.first):
            return State.DELETED  # else the records that were deleted are answered
        if self.committed > self.end:
            return State.BEYOND
        if self.committed < before:
            return State.REWINDING if self.rewind is not None else State.BEHIND
        return State.OK

    def _state_without_offset(self) -> State:
        # With at least once, a crash before the first commit leaves answers, and no reason to stop.
        known = self.answered if self.before is None else self.before
        if known is None:
            return State.NEW if self.certain or self.first == self.end else State.MISSING
        if known > self.first or not (self.certain or self.first == self.end):
            return State.MISSING
        return State.DELETED if known < self.first else State.NEW

    @property
    def next(self) -> int:
        """Where a lane begins to read, if nothing is wrong."""
        return self.first if self.committed is None else self.committed

    @property
    def lag(self) -> int:
        """Offsets that are not read yet. Transaction markers count."""
        return max(0, self.end - max(self.next, self.first))

    @property
    def passed(self) -> int:
        """Offsets before the committed one that have no answer: skipped, or ignored, or passed by a reset."""
        if self.committed is None or self.answered is None or self.state is not State.OK:
            return 0
        return max(0, self.committed - self.answered)

    @property
    def unread(self) -> tuple[int, int] | None:
        """Of a deleted partition: the first offset that was deleted unread, and the first one that is left."""
        begin = self.committed if self.committed is not None else self.answered
        if self.state is not State.DELETED or begin is None:
            return None
        return begin if self.rewind is not None else max(begin, self.before or 0), self.first

    @property
    def again(self) -> tuple[int, int] | None:
        """The offsets that would be answered again: the first one, and the one after the last. None if none, or if
        they are not known.
        """
        if self.state in (State.MISSING, State.BEHIND) and self.answered is not None:
            return max(self.next, self.first), self.answered
        return None

    @property
    def why(self) -> str:
        """What is wrong, as a sentence without its end; "" if nothing is."""
        if self.state is State.DELETED and self.unread is not None:
            begin, end = self.unread
            return f"the records from {begin} to {end - 1} ({end - begin}) were deleted before they were read"
        if self.state is State.BEYOND:
            return (
                f"the committed offset {self.committed} is after the log's end, {self.end}: the topic was made anew, "
                f"or its end was lost"
            )
        if self.state not in (State.MISSING, State.BEHIND):
            return ""
        if self.committed is None:
            why = "no offset is committed, although events were answered (expired or deleted offsets)"
        else:
            why = f"the committed offset {self.committed} is before what was answered (a reset)"
        if self.answered is not None and self.answered > self.end:
            return f"{why}: up to {self.answered}, but the log ends at {self.end}, so the topic is another one now"
        if self.again is None or not self.is_exact:
            more = f", at least up to {self.answered}" if self.answered is not None else ""
            cause = "the last answers are of an earlier version"
            if not self.certain:
                cause = "their answers were deleted by retention"
            return f"{why}; which ones is not known{more}: {cause}"
        begin, end = self.again
        place = f"{self.topic}-{self.partition}"
        return f"{why}: {place} offsets {begin} to {end - 1} ({end - begin}) would be answered again"

    @property
    def mend(self) -> str:
        """The commands that settle it; "" if nothing is wrong."""
        place = f"{self.topic}:{self.partition}"
        again = f"failsoft offsets rewind --topic {place} --to {{}} --again --why TEXT"
        match self.state:
            case State.DELETED | State.UNREADABLE:
                return f"failsoft offsets skip --topic {place} goes on after them and records them as lost"
            case State.BEYOND:
                return (
                    f"{again.format(self.end)} goes on at the log's end, if that was lost; {again.format('earliest')} "
                    f"reads it from its beginning, if it is a new topic"
                )
            case State.MISSING | State.BEHIND:
                on_purpose = f"{again.format(max(self.next, self.first))} answers them again on purpose"
                if not self.can_repair:
                    return on_purpose
                return f"failsoft offsets repair --topic {place} goes on after what was answered; {on_purpose}"
        return ""

    @property
    def is_exact(self) -> bool:
        """Whether ``answered`` is where the answers end, and not only a bound that they have reached."""
        return self.certain and not self.by_origins

    @property
    def can_repair(self) -> bool:
        """Whether the position after what was answered is known, and in the log."""
        return (
            self.state in (State.MISSING, State.BEHIND)
            and self.is_exact
            and self.answered is not None
            and self.answered <= self.end
        )
