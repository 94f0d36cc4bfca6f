"""Which dead letters were replayed, as the records of the replay topic say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from failsoft.schemas import attempt as attempts
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.letter_id import LetterId
from failsoft.schemas.record import Origin, Record

SKEW_MS = 2_000
"""Milliseconds by which the clocks of those who write letters and replays may differ. It only matters where a letter
has no identity but its time: on replays by an earlier version, and on brokers that give topics no ids."""

_Death = tuple[Origin, int]
"""The origin of an event, and how often it was replayed before it died."""

_Place = tuple[int, int]
"""Partition and offset of a dead topic that has no id."""


@dataclass(slots=True)
class Replayed:
    """The letters that were replayed: those whose replays were observed, and those added since.

    A replay names its letter (``failsoft-letter``). Where this is not enough, a replay stands for the letters that were
    written before it:

    - A replay by an earlier version names no letter. It stands for those with its origin, the origin's timestamp
      included, and one replay less than its own.
    - On brokers that give topics no ids, a letter of a recreated dead topic may have the place of an earlier one.

    Attributes:
        identified: the replayed letters that have a topic id.
        untold: the time of the newest replay (epoch ms), by a place without a topic id or by an origin and replays.
    """

    identified: set[LetterId] = field(default_factory=set)
    untold: dict[_Place | _Death, int] = field(default_factory=dict)

    def observe(self, records: Iterable[Record]) -> None:
        """Adds records of the replay topic. A record whose headers cannot be parsed is not a replay of ours."""
        for record in records:
            attempt = attempts.parse(record.headers)
            if isinstance(attempt, Attempt):
                self._add(attempt.letter or (attempt.origin, attempt.replays - 1), record.timestamp)

    def add(self, letter: LetterId, at: int) -> None:
        """Adds a letter that is being replayed. ``at`` is the time of its replay, or of its record (epoch ms)."""
        self._add(letter, at)

    def has(self, letter: LetterId, attempt: Attempt, written: int) -> bool:
        """Was this letter replayed?

        Args:
            letter: its identity.
            attempt: its headers.
            written: the timestamp of its record (epoch ms).
        """
        if letter in self.identified:
            return True
        if not self.untold:
            return False
        keys: tuple[_Place | _Death, ...] = ((letter.partition, letter.offset), (attempt.origin, attempt.replays))
        return any(written <= self.untold[key] + SKEW_MS for key in keys if key in self.untold)

    def _add(self, letter: LetterId | _Death, at: int) -> None:
        if isinstance(letter, LetterId):
            if letter.topic_id is not None:
                self.identified.add(letter)
                return
            key: _Place | _Death = (letter.partition, letter.offset)
        else:
            key = letter
        self.untold[key] = max(at, self.untold.get(key, at))
