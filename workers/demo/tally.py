"""Counts for the live table: answers, dead letters, and the retries that wait on each rung. Pure."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from failsoft.schemas import scored_read
from failsoft.schemas.attempt import Attempt, parse
from failsoft.schemas.record import Record
from failsoft.topics.hold import due_ms
from failsoft.topics.names import Names


@dataclass(frozen=True, slots=True)
class RungTally:
    """The retries that wait on one rung.

    Attributes:
        waiting: number of waiting records.
        next_due_ms: due time of the next one (epoch ms); None when none waits.
    """

    waiting: int
    next_due_ms: int | None


@dataclass(slots=True)
class Tallies:
    """Counts over the pipeline's own topics.

    Attributes:
        names: the names of the topics.
        first: first answers by source.
        provisional: provisional first answers.
        corrected: provisional answers corrected by a retry.
        confirmed: provisional answers confirmed as final.
        imputed: first answers with imputed features.
        dead: dead letters by kind; those of replays are left out.
        dead_again: replays that became dead letters again.
        replayed: records of the replay topic.
        corrected_by_replay: replays that got an answer of the primary.
    """

    names: Names
    first: Counter[str] = field(default_factory=Counter)
    provisional: int = 0
    corrected: int = 0
    confirmed: int = 0
    imputed: int = 0
    dead: Counter[str] = field(default_factory=Counter)
    dead_again: int = 0
    replayed: int = 0
    corrected_by_replay: int = 0
    _rungs: dict[str, dict[int, deque[tuple[int, int | None]]]] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        """The number of first answers."""
        return self.first.total()

    @property
    def dead_at_once(self) -> int:
        """Dead letters of malformed and invalid events, which have no answer."""
        return self.dead["malformed"] + self.dead["invalid"]

    @property
    def exhausted(self) -> int:
        """Dead letters of events whose retries ran out."""
        return self.dead.total() - self.dead_at_once

    def fold(self, record: Record) -> None:
        """Counts a record of any of the pipeline's topics."""
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
        """Removes the retries before ``offset``: the workers have committed them."""
        waiting = self._rungs.get(topic, {}).get(partition, deque())
        while waiting and waiting[0][0] < offset:
            waiting.popleft()

    def rung(self, delay: str) -> RungTally:
        """The tally of one rung; ``delay`` is written as in the pipeline file."""
        lanes = [lane for lane in self._rungs.get(self.names.retry(delay), {}).values() if lane]
        dues = [due for lane in lanes if (due := lane[0][1]) is not None]
        return RungTally(sum(map(len, lanes)), min(dues, default=None))

    @property
    def waiting(self) -> int:
        """The number of records that wait on all rungs."""
        return sum(len(lane) for lanes in self._rungs.values() for lane in lanes.values())

    def _answer(self, record: Record) -> None:
        assert record.value is not None
        answer = scored_read.loads(record.value, len(record.value))
        if answer["revision"] == 0:
            self.first[answer["source"]] += 1
            self.provisional += not answer["final"]
            self.imputed += bool(answer["imputed"])
        elif answer["revision"] > 1:
            self.corrected_by_replay += 1
        elif answer["degraded"]:
            self.confirmed += 1
        else:
            self.corrected += 1
