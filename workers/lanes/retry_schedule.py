"""Pure: which partitions of the retry ladder a lane reads now, and when it reads the others.

The ladder is every rung (a retry topic with a delay) and the replay topic. The lane passes in the clocks, the
partitions' end offsets and the breaker's answer. It gets decisions back as values, and does the seeks itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Generic, TypeVar

from failsoft.schemas.record import Record
from failsoft.topics import hold

ASK_AGAIN = 0.5
"""Seconds after which a lane asks again whether a paused ladder may be read. Nothing wakes it when a breaker closes."""

LOOK_AGAIN = 5.0
"""Seconds after which a lane looks again at a rung that is not due. The wall clock may have been set meanwhile."""

LEAST_WAIT_MS = 50
"""Milliseconds between two reads of a rung whose first record is not due. Under steady traffic a record becomes due
every few milliseconds, and each read also fetches the records after it. No record is attempted early."""

LADDER_RESTS = 3.0
"""Seconds for which the ladder is not read after each second spent on it, while live events arrive. After an outage the
ladder may hold millions of records, and live events have priority. The ladder gets a quarter of the lane's time."""

LIVE_SEEN = 1.0
"""Seconds after the last live event for which the lane assumes that more live events arrive."""

P = TypeVar("P", bound=tuple[str, int])
"""A partition, as its topic and number."""

Highwater = Callable[[P], int | None]
"""Gives the end offset of a partition, or None while no response of the broker has contained it."""


@dataclass(frozen=True, slots=True)
class Readable(Generic[P]):
    """What the lane fetches next from the ladder.

    Attributes:
        partitions: the partitions to fetch from.
        wait_seconds: the longest that the lane may wait for records; None: until some arrive.
        resume: the partitions that the lane resumes in its inbox before it takes records.
        pause: the partitions that the lane pauses in its inbox before it takes records.
    """

    partitions: Sequence[P]
    wait_seconds: float | None
    resume: Sequence[P] = ()
    pause: Sequence[P] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """How many of the fetched records are due.

    Attributes:
        count: the number of records, from the first one on, that are attempted now.
        hold_at: the offset of the first record that is not due, or None. The lane seeks to it and pauses the partition.
    """

    count: int
    hold_at: int | None = None


class RetrySchedule(Generic[P]):
    """The state of one lane's ladder.

    ``ladder`` has the lane's partitions of the rungs and of the replay topic, ``rungs`` the delay of each retry topic
    in seconds.
    """

    def __init__(self, ladder: Iterable[P], rungs: Mapping[str, float]) -> None:
        self._ladder = set(ladder)
        self._rungs = rungs
        self._due: dict[P, int] = {}  # rungs whose first record is not due yet: its due time (epoch ms)
        self._stopped: set[P] = set()  # paused because the breaker is open
        self._next: dict[P, int] = {}  # the first offset that is not read and committed
        # Rungs to which this lane wrote since they were last empty, with the end offset that was known then.
        self._wrote: dict[P, int | None] = {}
        self._live_seen = -LIVE_SEEN  # when a live event was last read (monotonic seconds)
        self._rests_until = 0.0  # monotonic seconds

    @property
    def ladder(self) -> Set[P]:
        """The partitions of rungs and of replay."""
        return self._ladder

    @property
    def overdue(self) -> Mapping[str, int]:
        """When the first record of each waiting rung is due (epoch ms), by topic."""
        return {topic: due for (topic, _), due in self._due.items()}

    def lag(self, ends: Mapping[P, int]) -> Mapping[str, int]:
        """Records of each rung that are not read yet, by topic, given the end offsets. Transaction markers count."""
        return {partition[0]: max(0, ends[partition] - at) for partition, at in self._next.items() if partition in ends}

    def is_held(self, partition: P) -> bool:
        """Is ``partition`` paused until its first record is due?"""
        return partition in self._due

    def waits(self, now_ms: int, highwater: Highwater[P]) -> bool:
        """Whether the ladder may hold a record that is due now. If so, the lane requests probes from the breaker."""
        return any(self._has_record(p, highwater) for p in self._ladder if self._due.get(p, 0) <= now_ms)

    def _has_record(self, partition: P, highwater: Highwater[P]) -> bool:
        """Whether ``partition`` may hold a record: one is held, this lane wrote one, the end offset is unknown, or it
        is beyond the next offset to read.
        """
        if partition in self._due or partition in self._wrote:
            return True
        high = highwater(partition)
        return high is None or high > self._next.get(partition, 0)

    def readable(self, now_ms: int, now: float, may_retry: bool) -> Readable[P]:
        """What to read now.

        ``may_retry``: the breaker allows retries; if not, every rung is paused and no attempt is used. ``now`` is
        monotonic seconds.
        """
        rest = self._rests_until - now
        if rest > 0:
            return Readable((), max(min(ASK_AGAIN, rest), 0.001))
        waits: list[float] = []
        partitions: list[P] = []
        resume: list[P] = []
        pause: list[P] = []
        for partition in self._ladder:
            due = self._due.get(partition)
            if due is not None and due > now_ms:
                waits.append(min(max(hold.wait_seconds(due, now_ms), 0.001), LOOK_AGAIN))
            elif may_retry:
                if due is not None or partition in self._stopped:
                    self._due.pop(partition, None)
                    self._stopped.discard(partition)
                    resume.append(partition)
                partitions.append(partition)
            elif partition not in self._stopped:
                self._stopped.add(partition)
                pause.append(partition)
        if self._stopped:
            waits.append(ASK_AGAIN)
        return Readable(partitions, min(waits, default=None), resume, pause)

    def take(self, partition: P, fetched: Sequence[Record], now_ms: int) -> Taken:
        """Which of the records ``fetched`` from ``partition`` are due. Records of the replay topic are always due.

        The first record that is not due holds the ones after it. They are fetched again when it is due.
        """
        if partition[0] not in self._rungs:
            return Taken(len(fetched))
        delay = self._rungs[partition[0]]
        for n, record in enumerate(fetched):
            due = hold.due_ms(record.headers)
            # A due time that no worker wrote holds nothing: the record is taken now and goes to the dead letters.
            if due is not None and due > now_ms and hold.plausible(due, record.timestamp, delay):
                self._due[partition] = max(due, now_ms + LEAST_WAIT_MS)
                return Taken(n, record.offset)
        return Taken(len(fetched))

    def opened(self, partition: P, offset: int) -> None:
        """The lane opened ``partition`` and reads it from ``offset`` on."""
        if partition in self._ladder:
            self._next[partition] = offset

    def drained(self, partition: P, high: int | None) -> None:
        """Everything of ``partition`` before its end offset ``high`` was taken; None: the end is not known.

        The end offset may be beyond the last record: transaction markers have offsets too. It says nothing about
        records that this lane wrote after the broker reported it.
        """
        if high is None or self._wrote.get(partition, -1) == high:
            return
        self._wrote.pop(partition, None)
        self._next[partition] = max(high, self._next[partition])

    def committed(self, offsets: Mapping[P, int], wrote: Mapping[P, int | None]) -> None:
        """A batch was committed up to ``offsets``, and it wrote records to the rungs ``wrote``, each with the end
        offset that was known at that time, or None.
        """
        for partition, at in offsets.items():
            if partition in self._ladder:
                self._next[partition] = max(at, self._next[partition])
        self._wrote.update(wrote)

    def held(self, partition: P) -> None:
        """Taken records of ``partition`` wait for the breaker: they are read again as soon as it allows retries,
        whenever the records after them are due.
        """
        if partition in self._ladder:
            self._due.pop(partition, None)
            self._stopped.add(partition)

    def spent(self, records: int, retries: int, seconds: float, now: float) -> None:
        """A batch of ``records`` took ``seconds``; ``retries`` of its records came from the ladder.

        The ladder then rests for its share of that time, times LADDER_RESTS, if live events arrive too.
        """
        if retries < records:
            self._live_seen = now
        if retries and now - self._live_seen < LIVE_SEEN:
            self._rests_until = now + LADDER_RESTS * seconds * retries / records
