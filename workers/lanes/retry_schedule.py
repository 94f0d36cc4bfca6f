"""Pure: which partitions of the retry ladder a lane reads now, and when it looks at the others again.

The ladder is every rung (a retry topic with a delay) and the replay topic. The lane passes in the clocks, the
consumer's highwater marks and the breaker's answer. It gets its decisions back as values, and does the seeks itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Generic, TypeVar

from failsoft.schemas.record import Record
from failsoft.topics import hold

IDLE_FETCH = 0.5
"""The most seconds that one fetch waits for records. A rung whose head becomes due earlier shortens the wait."""

LEAST_WAIT_MS = 50
"""A rung that is not due is left alone for at least this long. Under steady traffic a record becomes due every few
milliseconds, and each look at the rung also fetches the records behind it. No record is attempted early."""

LADDER_RESTS = 3.0
"""Seconds that the ladder is not read for each second that was spent on it, while live events come. After an outage the
ladder may hold millions of records, and live events have priority. The ladder keeps a quarter of the lane's time."""

LIVE_SEEN = 1.0
"""Seconds after the last live event for which live traffic is assumed to go on."""

P = TypeVar("P", bound=tuple[str, int])
"""A partition, as its topic and number."""

Highwater = Callable[[P], int | None]
"""The end offset of a partition, or None while the broker has not told it."""


@dataclass(frozen=True, slots=True)
class Readable(Generic[P]):
    """``partitions`` of the ladder to fetch from, and for at most how long.

    The lane resumes ``resume`` and pauses ``pause`` at the consumer first.
    """

    partitions: Sequence[P]
    wait_seconds: float
    resume: Sequence[P] = ()
    pause: Sequence[P] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """The first ``count`` of the fetched records are attempted now.

    ``hold_at`` is the offset of the first record that is not due: the lane seeks to it and pauses the partition.
    """

    count: int
    hold_at: int | None = None


class RetrySchedule(Generic[P]):
    """The state of one lane's ladder. ``rungs`` gives the delay of each retry topic in seconds."""

    def __init__(self, ladder: Iterable[P], rungs: Mapping[str, float]) -> None:
        self._ladder = set(ladder)
        self._rungs = rungs
        self._due: dict[P, int] = {}  # rungs whose first record is not due: when it is (epoch ms)
        self._stopped: set[P] = set()  # paused because the breaker is open
        self._next: dict[P, int] = {}  # the first offset that is not read and committed
        self._wrote: set[P] = set()  # rungs to which this lane wrote since they were last empty
        self._live_seen = -LIVE_SEEN  # when a live event was last read (monotonic)
        self._rests_until = 0.0  # monotonic

    @property
    def ladder(self) -> Set[P]:
        """The partitions of rungs and of replay."""
        return self._ladder

    @property
    def overdue(self) -> Mapping[str, int]:
        """Rungs that wait, and when their first records are due (epoch ms)."""
        return {topic: due for (topic, _), due in self._due.items()}

    def lag(self, ends: Mapping[P, int]) -> Mapping[str, int]:
        """Records of each rung that are written and not read, by its end offset. Transaction markers count too."""
        return {place[0]: max(0, ends[place] - at) for place, at in self._next.items() if place in ends}

    def is_held(self, place: P) -> bool:
        """Is ``place`` paused until its first record is due?"""
        return place in self._due

    def waits(self, now_ms: int, highwater: Highwater[P]) -> bool:
        """Is there a record that may be attempted now, as far as is known? The breaker is told, for its probes."""
        return any(self._has_record(p, highwater) for p in self._ladder if self._due.get(p, 0) <= now_ms)

    def _has_record(self, place: P, highwater: Highwater[P]) -> bool:
        """One was read and is held, or this lane wrote one, or the end is not known, or the end is further on."""
        if place in self._due or place in self._wrote:
            return True
        high = highwater(place)
        return high is None or high > self._next.get(place, 0)

    def readable(self, now_ms: int, now: float, may: bool) -> Readable[P]:
        """What to read now. ``may``: the breaker lets retries go. ``now`` is monotonic seconds."""
        rest = self._rests_until - now
        if rest > 0:
            return Readable((), max(min(IDLE_FETCH, rest), 0.001))
        wait = IDLE_FETCH
        partitions: list[P] = []
        resume: list[P] = []
        pause: list[P] = []
        for place in self._ladder:
            due = self._due.get(place)
            if due is not None and due > now_ms:
                wait = min(wait, hold.wait_seconds(due, now_ms))
            elif may:
                if due is not None or place in self._stopped:
                    self._due.pop(place, None)
                    self._stopped.discard(place)
                    resume.append(place)
                partitions.append(place)
            elif place not in self._stopped:
                self._stopped.add(place)
                pause.append(place)
        return Readable(partitions, max(wait, 0.001), resume, pause)

    def take(self, place: P, found: Sequence[Record], now_ms: int) -> Taken:
        """Which of the records that were fetched from ``place`` are due. The rest is fetched again when it is due."""
        if place[0] not in self._rungs:
            return Taken(len(found))
        dues = [hold.due_ms(r.headers) for r in found]
        delay, n = self._rungs[place[0]], 0
        while (n := n + hold.due_count(dues[n:], now_ms)) < len(found):
            due = dues[n]
            assert due is not None
            if hold.plausible(due, found[n].timestamp, delay):
                self._due[place] = max(due, now_ms + LEAST_WAIT_MS)
                return Taken(n, found[n].offset)
            n += 1  # no worker wrote this due time: the record is taken now and goes to the dead letters
        return Taken(n)

    def opened(self, place: P, offset: int) -> None:
        """The lane reads ``place`` from ``offset`` on."""
        if place in self._ladder:
            self._next[place] = offset

    def drained(self, places: Iterable[P], highwater: Highwater[P]) -> None:
        """A fetch found nothing on these. Their end may still be further on: transaction markers have offsets too."""
        for place in places:
            self._wrote.discard(place)
            high = highwater(place)
            if high is not None:
                self._next[place] = max(high, self._next[place])

    def committed(self, offsets: Mapping[P, int], wrote: Iterable[P]) -> None:
        """A batch was committed up to ``offsets``, and it put records on the rungs ``wrote``."""
        self._next.update((place, at) for place, at in offsets.items() if place in self._ladder)
        self._wrote.update(wrote)

    def spent(self, records: int, retries: int, seconds: float, now: float) -> None:
        """A batch of ``records``, of which ``retries`` came from the ladder, took ``seconds``."""
        if retries < records:
            self._live_seen = now
        if retries and now - self._live_seen < LIVE_SEEN:
            self._rests_until = now + LADDER_RESTS * seconds * retries / records
