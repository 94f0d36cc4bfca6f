"""What the live table shows of the topics: counts of answers and dead letters, and what waits on each rung. Pure."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from failsoft.schemas import wire
from failsoft.schemas.attempt import Attempt, parse
from failsoft.schemas.record import Record
from failsoft.topics.hold import due_ms
from failsoft.topics.names import Names


@dataclass(frozen=True, slots=True)
class RungTally:
    """How many records wait, and when the next of them is due (epoch milliseconds; None when none waits)."""

    waiting: int
    next_due_ms: int | None


@dataclass(slots=True)
class Tallies:
    """The pipeline's own topics so far, record by record."""

    names: Names
    first: Counter[str] = field(default_factory=Counter)  # first answers, by source
    provisional: int = 0
    corrected: int = 0
    confirmed: int = 0
    imputed: int = 0
    dead: Counter[str] = field(default_factory=Counter)  # first deaths, by kind
    dead_again: int = 0
    replayed: int = 0
    corrected_by_replay: int = 0
    _rungs: dict[str, dict[int, deque[tuple[int, int | None]]]] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        """First answers."""
        return self.first.total()

    @property
    def dead_at_once(self) -> int:
        """Dead letters that never had an answer."""
        return self.dead["malformed"] + self.dead["invalid"]

    @property
    def exhausted(self) -> int:
        """Dead letters whose retries came to nothing."""
        return self.dead.total() - self.dead_at_once

    def fold(self, record: Record) -> None:
        """One more record, of whichever topic."""
        if record.topic == self.names.scored:
            self._answer(record)
        elif record.topic == self.names.dead:
            attempt = parse(record.headers)
            if isinstance(attempt, Attempt) and attempt.replays:
                self.dead_again += 1
            else:
                kind = attempt.failure.kind if isinstance(attempt, Attempt) else "bad_header"
                self.dead[kind] += 1
        elif record.topic == self.names.replay:
            self.replayed += 1
        elif self.names.delay_of(record.topic) is not None:
            waiting = self._rungs.setdefault(record.topic, {}).setdefault(record.partition, deque())
            waiting.append((record.offset, due_ms(record.headers)))

    def committed(self, topic: str, partition: int, offset: int) -> None:
        """The group has dealt with everything before ``offset``."""
        waiting = self._rungs.get(topic, {}).get(partition, deque())
        while waiting and waiting[0][0] < offset:
            waiting.popleft()

    def rung(self, delay: str) -> RungTally:
        """The rung of ``delay`` as the pipeline file writes it."""
        lanes = [lane for lane in self._rungs.get(self.names.retry(delay), {}).values() if lane]
        dues = [due for lane in lanes if (due := lane[0][1]) is not None]
        return RungTally(sum(map(len, lanes)), min(dues, default=None))

    @property
    def waiting(self) -> int:
        """Records on all rungs."""
        return sum(len(lane) for lanes in self._rungs.values() for lane in lanes.values())

    def _answer(self, record: Record) -> None:
        assert record.value is not None
        said = wire.loads(record.value, len(record.value))
        if said["revision"] == 0:
            self.first[said["source"]] += 1
            self.provisional += not said["final"]
            self.imputed += bool(said["imputed"])
        elif said["revision"] > 1:
            self.corrected_by_replay += 1
        elif said["degraded"]:
            self.confirmed += 1
        else:
            self.corrected += 1
