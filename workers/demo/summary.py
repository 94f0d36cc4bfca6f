"""The demo's summary: the guarantees of the pipeline as sums over its topics, each side counted separately. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from failsoft.schemas import scored_read
from failsoft.schemas.attempt import Attempt, parse
from failsoft.schemas.record import Record, own_headers
from failsoft.topics.names import Names

Place = tuple[str, int, int]
"""Topic, partition and offset of an event in the input. It identifies the event, because ids belong to the user."""


@dataclass(frozen=True, slots=True)
class Sum:
    """One line of the summary: ``total`` must be the sum of ``parts``.

    Attributes:
        name: what ``total`` counts; "" if the parts must be 0, and then ``total`` is 0.
        total: the left side.
        parts: the right side, by label.
        means: the guarantee that the sum proves.
        least: the smallest allowed total.
    """

    name: str
    total: int
    parts: Mapping[str, int]
    means: str
    least: int = 0

    @property
    def holds(self) -> bool:
        """Are both sides equal, and is the total large enough?"""
        return self.total == sum(self.parts.values()) and self.total >= self.least

    def __str__(self) -> str:
        if not self.name:
            return ", ".join(f"{n:,} {part}" for part, n in self.parts.items())
        relation = "=" if self.total == sum(self.parts.values()) else "≠"
        parts = " + ".join(f"{n:,} {part}" for part, n in self.parts.items())
        few = f", but should be at least {self.least:,}" if self.total < self.least else ""
        return f"{self.name} {self.total:,} {relation} {parts}{few}"


@dataclass(frozen=True, slots=True)
class Answer:
    """The fields of a scored record that the sums need. ``at_ms`` is the time of scoring (epoch ms)."""

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
    """A record of an event on a retry, dead or replay topic.

    Attributes:
        attempt: its parsed control headers.
        written_ms: the record's timestamp (epoch ms).
        record: the record itself.
    """

    attempt: Attempt
    written_ms: int
    record: Record


@dataclass(slots=True)
class Ledger:
    """The records of all topics, by event.

    Attributes:
        events: the records of the input topics.
        answers: the answers to each event.
        retries: records of the retry topics.
        dead: dead letters.
        replays: records of the replay topic.
        unreadable: records of the pipeline's own topics whose control headers cannot be parsed.
    """

    events: dict[Place, Record] = field(default_factory=dict)
    answers: defaultdict[Place, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    retries: list[Kept] = field(default_factory=list)
    dead: list[Kept] = field(default_factory=list)
    replays: list[Kept] = field(default_factory=list)
    unreadable: int = 0


def ledger(records: Iterable[Record], inputs: Sequence[str], names: Names) -> Ledger:
    """Sorts the records of all the pipeline's topics into a ledger."""
    book = Ledger()
    for record in records:
        if record.topic in inputs:
            book.events[record.topic, record.partition, record.offset] = record
        elif record.topic == names.scored:
            _take_answer(book, record)
        else:
            _take_kept(book, record, names)
    return book


def sums(book: Ledger, published: int) -> list[Sum]:
    """The guarantees as sums. ``published``: events that Kafka acknowledged to the publisher."""
    first = [a for answers in book.answers.values() for a in answers if a.revision == 0]
    second = [a for answers in book.answers.values() for a in answers if a.revision == 1]
    later = [a for answers in book.answers.values() for a in answers if a.revision > 1]
    unanswered = [k for k in book.dead if k.attempt.replays == 0 and k.attempt.next_revision == 0]
    exhausted = [k for k in book.dead if k.attempt.replays == 0 and k.attempt.next_revision > 0]
    again = [k for k in book.dead if k.attempt.replays > 0]
    places = {where(k.attempt) for k in unanswered}
    belated = sum(1 for place in places for a in book.answers.get(place, []) if a.revision == 0)
    confirmed = [a for a in second if a.degraded]
    return [
        Sum("published", published, {"on the input topic": len(book.events)}, "the input topic holds what was sent"),
        Sum(
            "published",
            len(book.events),
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
                "low confidence on the retry": sum(a.reason == "low_confidence" for a in confirmed),
            },
            "no event is dropped after its last retry",
        ),
        Sum(
            "replayed",
            len(book.replays),
            {"answered": belated, "corrected": len(later), "dead again": len(again)},
            "each replay has exactly one result",
        ),
        *_nothing(book),
    ]


def _nothing(book: Ledger) -> list[Sum]:
    """The counts that must be 0."""
    answered = set(book.answers)
    dead = {where(k.attempt) for k in book.dead}
    known = answered | dead
    twice = sum(n - 1 for answers in book.answers.values() for n in Counter(a.revision for a in answers).values())
    twice += sum(n - 1 for n in Counter((where(k.attempt), k.attempt.replays) for k in book.dead).values())
    all_answers = [a for answers in book.answers.values() for a in answers]
    silent = sum(a.degraded and a.reason is None for a in all_answers)
    none: list[tuple[dict[str, int], str]] = [
        ({"events without an answer or dead letter": len(book.events.keys() - known)}, "nothing is lost"),
        (
            {"duplicate answers or dead letters": twice, "without an event": len(known - book.events.keys())},
            "nothing is duplicated",
        ),
        ({"retries before they were due": early(book)}, "no retry is early"),
        ({"retries never made": stranded(book)}, "no retry is forgotten"),
        ({"degraded answers without a reason": silent}, "each degraded answer has a reason"),
        (
            {"dead letters altered": altered(book), "unreadable": book.unreadable},
            "dead letters keep the event unchanged",
        ),
    ]
    return [Sum("", 0, parts, means) for parts, means in none]


def early(book: Ledger) -> int:
    """The number of retries whose outcome was written before they were due."""
    return sum(at < (kept.attempt.due_ms or 0) for kept, at in _outcomes(book) if at is not None)


def stranded(book: Ledger) -> int:
    """The number of retries without an outcome."""
    return sum(at is None for _, at in _outcomes(book))


def altered(book: Ledger) -> int:
    """The number of dead letters whose key, value or own headers differ from those of their event."""
    n = 0
    for kept in book.dead:
        event = book.events.get(where(kept.attempt))
        if event is not None:
            own = own_headers(kept.record.headers, dead_letter=True)
            same = (kept.record.key, kept.record.value) == (event.key, event.value)
            n += not (same and own == own_headers(event.headers))
    return n


def _outcomes(book: Ledger) -> list[tuple[Kept, float | None]]:
    """Each retry with the time of its outcome: a record on the next rung, a dead letter, or an answer; None without."""
    written: dict[tuple[Place, int, int], float] = {}
    for kept in (*book.retries, *book.dead):
        a = kept.attempt
        written[where(a), a.replays, a.number] = kept.written_ms
    outcomes: list[tuple[Kept, float | None]] = []
    for kept in book.retries:
        a = kept.attempt
        at = written.get((where(a), a.replays, a.number + 1))
        if at is None:
            answers = book.answers.get(where(a), [])
            at = next((answer.at_ms for answer in answers if answer.revision == a.next_revision), None)
        outcomes.append((kept, at))
    return outcomes


def _take_answer(book: Ledger, record: Record) -> None:
    assert record.value is not None
    scored: dict[str, Any] = scored_read.loads(record.value, len(record.value))
    origin = scored["origin"]
    at = datetime.fromisoformat(scored["scored_at"]).timestamp() * 1000
    answer = Answer(
        scored["revision"],
        scored["final"],
        scored["degraded"],
        scored["source"],
        scored["reason"],
        round(at),
        scored["model"],
        scored["version"],
    )
    book.answers[origin["topic"], origin["partition"], origin["offset"]].append(answer)


def _take_kept(book: Ledger, record: Record, names: Names) -> None:
    attempt = parse(record.headers)
    if not isinstance(attempt, Attempt):
        book.unreadable += 1
        return
    kept = Kept(attempt, record.timestamp, record)
    if record.topic == names.dead:
        book.dead.append(kept)
    elif record.topic == names.replay:
        book.replays.append(kept)
    elif names.delay_of(record.topic) is not None:
        book.retries.append(kept)


def where(attempt: Attempt) -> Place:
    """The place of the event that a retry, dead letter or replay belongs to."""
    o = attempt.origin
    return o.topic, o.partition, o.offset
