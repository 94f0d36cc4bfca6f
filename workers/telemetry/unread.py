"""Pure: the events that wait unanswered for their schemas, as far as a worker has met them, and when to say so."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from failsoft.schemas.event import origin_of
from failsoft.schemas.failure import Kind
from failsoft.schemas.record import Record
from failsoft.workers.scoring.plan import Scored

MOST = 100_000
"""Events that are counted: some megabytes. What waits beyond them is seen in the lag of the rungs."""

SAY_EVERY = 30.0
"""Seconds between two lines while events wait."""

REASONS = 5
"""The most reasons in a line: one for each schema."""


@dataclass(frozen=True, slots=True)
class UnreadNews:
    """What is to be said.

    Attributes:
        count: how many events wait now.
        before: how many did when it was last said.
        reasons: why, of those that were met since then.
    """

    count: int
    before: int
    reasons: tuple[str, ...]


class UnreadEvents:
    """Counts each event once, however often it goes to a rung again. A worker that starts, or gets lanes of another
    one, counts an event when it meets it on its rung.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, set[tuple[str, int]]] = {}  # topic and offset of each, by lane
        self._reasons: dict[str, None] = {}
        self._said, self._said_at = 0, 0.0

    @property
    def count(self) -> int:
        """How many events wait."""
        return sum(map(len, self._waiting.values()))

    def note(self, records: Sequence[Record], scored: Scored) -> None:
        """Count what waits after a committed batch, and what does no more."""
        if not records:
            return
        waiting = self._waiting.setdefault(records[0].partition, set())
        for row, attempt in scored.attempts.items() if waiting else ():
            if row not in scored.waiting and row not in scored.held:
                waiting.discard((attempt.origin.topic, attempt.origin.offset))
        room = MOST - self.count if scored.waiting else 0
        for row in scored.waiting:
            found = scored.attempts.get(row)
            origin = origin_of(records[row]) if found is None else found.origin
            if room > 0 and (origin.topic, origin.offset) not in waiting:
                waiting.add((origin.topic, origin.offset))
                room -= 1
            if len(self._reasons) < REASONS and scored.failures[row].kind is Kind.DEPENDENCY:
                self._reasons[scored.failures[row].message] = None

    def keep(self, lanes: Container[int]) -> None:
        """Forget the events of other lanes: another worker has them."""
        for lane in [lane for lane in self._waiting if lane not in lanes]:
            del self._waiting[lane]

    def news(self, now: float) -> UnreadNews | None:
        """What is to be said at ``now`` (monotonic seconds): at once that the first event waits, or that none does any
        more; then every SAY_EVERY seconds while some do.
        """
        count, before = self.count, self._said
        if not (count or before) or (count and before and now - self._said_at < SAY_EVERY):
            return None
        self._said, self._said_at = count, now
        reasons = tuple(self._reasons)
        self._reasons.clear()
        return UnreadNews(count, before, reasons)
