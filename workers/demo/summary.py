"""Does it add up? The promise of the contract as sums over what the topics hold, each side counted by itself. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from failsoft.schemas import wire
from failsoft.schemas.attempt import Attempt, parse
from failsoft.schemas.record import Record, own_headers
from failsoft.topics.names import Names

Place = tuple[str, int, int]
"""Where an event was first read: topic, partition, offset. It names the event; ids are the user's."""


@dataclass(frozen=True, slots=True)
class Sum:
    """One line of the summary: ``total`` must be the sum of ``parts``; ``means`` says what that proves.

    Without a name it is about what there must be none of: its total is 0. ``least``: what the total must come to.
    """

    name: str
    total: int
    parts: Mapping[str, int]
    means: str
    least: int = 0

    @property
    def holds(self) -> bool:
        return self.total == sum(self.parts.values()) and self.total >= self.least

    def __str__(self) -> str:
        if not self.name:
            return ", ".join(f"{n:,} {part}" for part, n in self.parts.items())
        relation = "=" if self.total == sum(self.parts.values()) else "≠"
        parts = " + ".join(f"{n:,} {part}" for part, n in self.parts.items())
        few = f", and not {self.least:,} at least" if self.total < self.least else ""
        return f"{self.name} {self.total:,} {relation} {parts}{few}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A scored record, as far as the sums need it."""

    revision: int
    final: bool
    degraded: bool
    source: str
    reason: str | None
    at_ms: float
    model: str | None
    version: int | None


@dataclass(frozen=True, slots=True)
class Kept:
    """A record that carries an event on: a rung's, a dead letter or a replay."""

    attempt: Attempt
    written_ms: int
    record: Record


@dataclass(slots=True)
class Ledger:
    """Everything that the topics say of each event."""

    events: dict[Place, Record] = field(default_factory=dict)
    answers: defaultdict[Place, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    retries: list[Kept] = field(default_factory=list)
    dead: list[Kept] = field(default_factory=list)
    replays: list[Kept] = field(default_factory=list)
    unreadable: int = 0  # records of our own topics that do not say whose they are


def ledger(records: Iterable[Record], inputs: Sequence[str], names: Names) -> Ledger:
    """Records of all the pipeline's topics, in the order of each partition."""
    found = Ledger()
    for record in records:
        if record.topic in inputs:
            found.events[record.topic, record.partition, record.offset] = record
        elif record.topic == names.scored:
            _take_answer(found, record)
        else:
            _take_kept(found, record, names)
    return found


def sums(found: Ledger, published: int) -> list[Sum]:
    """The promise as sums. ``published`` is how many events were acknowledged to whoever published them."""
    first = [a for answers in found.answers.values() for a in answers if a.revision == 0]
    second = [a for answers in found.answers.values() for a in answers if a.revision == 1]
    later = [a for answers in found.answers.values() for a in answers if a.revision > 1]
    unanswered = [k for k in found.dead if k.attempt.replays == 0 and k.attempt.next_revision == 0]
    exhausted = [k for k in found.dead if k.attempt.replays == 0 and k.attempt.next_revision > 0]
    again = [k for k in found.dead if k.attempt.replays > 0]
    places = {where(k.attempt) for k in unanswered}
    belated = sum(1 for place in places for a in found.answers.get(place, []) if a.revision == 0)
    confirmed = [a for a in second if a.degraded]
    return [
        Sum("published", published, {"on the input topic": len(found.events)}, "the input is what was sent"),
        Sum(
            "published",
            len(found.events),
            {"first answers": len(first) - belated, "dead at once": len(unanswered)},
            "each event has one first answer, or is a dead letter",
        ),
        Sum(
            "provisional",
            sum(not a.final for a in first),
            {"corrections": len(second) - len(confirmed), "confirmed": len(confirmed)},
            "each provisional answer has one final one",
        ),
        Sum(
            "confirmed",
            len(confirmed),
            {
                "dead after all retries": len(exhausted),
                "unsure on the retry": sum(a.reason == "low_confidence" for a in confirmed),
            },
            "no event whose retries ran out is dropped",
        ),
        Sum(
            "replayed",
            len(found.replays),
            {"answered": belated, "corrected": len(later), "dead again": len(again)},
            "each replay came to something, once",
        ),
        *_nothing(found),
    ]


def _nothing(found: Ledger) -> list[Sum]:
    """What there must be none of."""
    answered = set(found.answers)
    dead = {where(k.attempt) for k in found.dead}
    known = answered | dead
    twice = sum(n - 1 for answers in found.answers.values() for n in Counter(a.revision for a in answers).values())
    twice += sum(n - 1 for n in Counter((where(k.attempt), k.attempt.replays) for k in found.dead).values())
    all_answers = [a for answers in found.answers.values() for a in answers]
    silent = sum(a.degraded and a.reason is None for a in all_answers)
    none: list[tuple[dict[str, int], str]] = [
        ({"events without a trace": len(found.events.keys() - known)}, "nothing is lost"),
        ({"answers or letters twice": twice, "to no event": len(known - found.events.keys())}, "nothing is doubled"),
        ({"retries before their time": early(found)}, "no retry comes early"),
        ({"retries never made": stranded(found)}, "no retry is forgotten"),
        ({"degraded answers without a reason": silent}, "each degraded answer says why"),
        ({"dead letters altered": altered(found), "unreadable": found.unreadable}, "a dead letter is the event itself"),
    ]
    return [Sum("", 0, parts, means) for parts, means in none]


def early(found: Ledger) -> int:
    """Retries whose outcome was written before they were due."""
    return sum(at < (kept.attempt.due_ms or 0) for kept, at in _outcomes(found) if at is not None)


def stranded(found: Ledger) -> int:
    """Retries without an outcome."""
    return sum(at is None for _, at in _outcomes(found))


def altered(found: Ledger) -> int:
    """Dead letters whose key, value or own headers are not those of the event that they came from."""
    n = 0
    for kept in found.dead:
        event = found.events.get(where(kept.attempt))
        if event is not None:
            own = own_headers(kept.record.headers, dead_letter=True)
            same = (kept.record.key, kept.record.value) == (event.key, event.value)
            n += not (same and own == own_headers(event.headers))
    return n


def _outcomes(found: Ledger) -> list[tuple[Kept, float | None]]:
    """Each retry, and when what it came to was written: the next rung, a dead letter, or an answer."""
    written: dict[tuple[Place, int, int], float] = {}
    for kept in (*found.retries, *found.dead):
        a = kept.attempt
        written[where(a), a.replays, a.number] = kept.written_ms
    outcomes: list[tuple[Kept, float | None]] = []
    for kept in found.retries:
        a = kept.attempt
        at = written.get((where(a), a.replays, a.number + 1))
        if at is None:
            answers = found.answers.get(where(a), [])
            at = next((answer.at_ms for answer in answers if answer.revision == a.next_revision), None)
        outcomes.append((kept, at))
    return outcomes


def _take_answer(found: Ledger, record: Record) -> None:
    assert record.value is not None
    said: dict[str, Any] = wire.loads(record.value, len(record.value))
    origin = said["origin"]
    at = datetime.fromisoformat(said["scored_at"]).timestamp() * 1000
    answer = Answer(
        said["revision"],
        said["final"],
        said["degraded"],
        said["source"],
        said["reason"],
        round(at),
        said["model"],
        said["version"],
    )
    found.answers[origin["topic"], origin["partition"], origin["offset"]].append(answer)


def _take_kept(found: Ledger, record: Record, names: Names) -> None:
    attempt = parse(record.headers)
    if not isinstance(attempt, Attempt):
        found.unreadable += 1
        return
    kept = Kept(attempt, record.timestamp, record)
    if record.topic == names.dead:
        found.dead.append(kept)
    elif record.topic == names.replay:
        found.replays.append(kept)
    elif names.delay_of(record.topic) is not None:
        found.retries.append(kept)


def where(attempt: Attempt) -> Place:
    """The event that a record carries on."""
    o = attempt.origin
    return o.topic, o.partition, o.offset
