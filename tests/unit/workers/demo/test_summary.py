"""The demo's summary: all sums hold for a correct run, and each kind of error breaks one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from failsoft.schemas.attempt import Attempt
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.record import Header, Origin
from failsoft.topics.names import Names
from failsoft.workers.demo.summary import Sum, ledger, sums

NAMES = Names("loans")
INPUT = "loans.events"


@dataclass(frozen=True)
class Rec:
    topic: str
    offset: int
    value: bytes | None = b"{}"
    key: bytes | None = b"k"
    timestamp: int = 1_000
    partition: int = 0
    headers: Sequence[Header] = field(default_factory=list)


def event(offset: int) -> Rec:
    return Rec(INPUT, offset, b'{"n": %d}' % offset, headers=[("own", b"x")])


def answer(offset: int, revision: int, final: bool, reason: str | None = None, at: str = "00:00:01.000") -> Rec:
    scored = {
        "origin": {"topic": INPUT, "partition": 0, "offset": offset},
        "revision": revision,
        "final": final,
        "degraded": reason is not None,
        "source": "primary" if reason is None else "fallback_model",
        "model": "m" if reason is None else "lite",
        "version": 1,
        "reason": reason,
        "scored_at": f"1970-01-01T{at}Z",
    }
    return Rec(NAMES.scored, 0, json.dumps(scored).encode())


def attempt(offset: int, number: int, next_revision: int, kind: Kind = Kind.BAD_OUTPUT, replays: int = 0) -> Attempt:
    return Attempt(
        number=number,
        origin=Origin(INPUT, 0, offset, 1_000),
        first_failed_ms=1_000,
        failure=Failure(kind, "why"),
        model="m",
        version=1,
        next_revision=next_revision,
        replays=replays,
        replay_id="r" if replays else None,
    )


def rung(offset: int, number: int, due_ms: int, written_ms: int = 1_000, delay: str = "5s") -> Rec:
    carried = replace(attempt(offset, number, 1), due_ms=due_ms)
    e = event(offset)
    return Rec(NAMES.retry(delay), 0, e.value, timestamp=written_ms, headers=[*e.headers, *carried.headers()])


def letter(a: Attempt, written_ms: int = 9_000) -> Rec:
    e = event(a.origin.offset)
    return Rec(NAMES.dead, 0, e.value, timestamp=written_ms, headers=[*e.headers, *a.dead_headers("loans")])


def replayed(a: Attempt) -> Rec:
    e = event(a.origin.offset)
    return Rec(NAMES.replay, 0, e.value, headers=[*e.headers, *a.headers()])


# The records of a run: event 0 is answered; 1 is malformed, replayed and dead again; 2 is provisional and corrected;
# 3 is provisional, fails on both rungs, is confirmed, dead, replayed and corrected; 4 has low confidence on its retry.
GOOD = [
    *map(event, range(5)),
    answer(0, 0, True),
    letter(attempt(1, 0, 0, Kind.MALFORMED)),
    replayed(attempt(1, 0, 0, Kind.MALFORMED, replays=1)),
    letter(attempt(1, 0, 0, Kind.MALFORMED, replays=1)),
    answer(2, 0, False, "breaker_open"),
    rung(2, 0, due_ms=6_000),
    answer(2, 1, True, at="00:00:06.000"),
    answer(3, 0, False, "bad_output"),
    rung(3, 0, due_ms=6_000),
    rung(3, 1, due_ms=9_000, written_ms=6_000, delay="3s"),
    answer(3, 1, True, "bad_output", at="00:00:09.000"),
    letter(attempt(3, 2, 2), written_ms=9_000),
    replayed(attempt(3, 0, 2, replays=1)),
    answer(3, 2, True, at="00:00:20.000"),
    answer(4, 0, False, "timeout"),
    rung(4, 0, due_ms=6_000),
    answer(4, 1, True, "low_confidence", at="00:00:07.000"),
]


def wrong(records: Sequence[Rec], published: int = 5) -> list[str]:
    return [each.means for each in sums(ledger(records, [INPUT], NAMES), published) if not each.holds]


def test_all_sums_of_a_correct_run_hold() -> None:
    """Every sum holds and has the expected counts."""
    totals = sums(ledger(GOOD, [INPUT], NAMES), 5)
    assert [str(each) for each in totals if not each.holds] == []
    assert [str(each) for each in totals[:5]] == [
        "published 5 = 5 on the input topic",
        "published 5 = 4 first answers + 1 dead at once",
        "provisional 3 = 1 corrections + 2 confirmed",
        "confirmed 2 = 1 dead after all retries + 1 low confidence on the retry",
        "replayed 2 = 0 answered + 1 corrected + 1 dead again",
    ]


@pytest.mark.parametrize("lost", [i for i, r in enumerate(GOOD) if NAMES.delay_of(r.topic) is None])
def test_a_missing_record_breaks_a_sum(lost: int) -> None:
    """The loss of any event, answer, dead letter or replay breaks a sum."""
    assert wrong([r for i, r in enumerate(GOOD) if i != lost])


def test_a_retry_without_an_outcome_breaks_a_sum() -> None:
    """A retry must be followed by an answer, a record on the next rung, or a dead letter."""
    assert wrong([*GOOD, rung(0, 0, due_ms=6_000)]) == ["no retry is forgotten"]


@pytest.mark.parametrize("twice", [i for i, r in enumerate(GOOD) if r.topic in (NAMES.scored, NAMES.dead)])
def test_a_duplicate_record_breaks_a_sum(twice: int) -> None:
    """A duplicate of any answer or dead letter breaks a sum."""
    assert "nothing is duplicated" in wrong([*GOOD, GOOD[twice]])


def test_a_duplicate_does_not_hide_a_lost_event() -> None:
    """A lost event and a duplicate answer are both found, although the totals match."""
    broken = [answer(2, 0, False, "breaker_open") if r == answer(0, 0, True) else r for r in GOOD]
    assert {"nothing is lost", "nothing is duplicated"} <= set(wrong(broken))


def test_an_answer_without_an_event_breaks_a_sum() -> None:
    """An answer must belong to an event of the input topic."""
    assert "nothing is duplicated" in wrong([*GOOD, answer(77, 0, True)])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (answer(2, 1, True, at="00:00:06.000"), answer(2, 1, True, at="00:00:05.999")),
        (rung(3, 1, 9_000, 6_000, "3s"), rung(3, 1, 9_000, 5_999, "3s")),
        (letter(attempt(3, 2, 2), 9_000), letter(attempt(3, 2, 2), 8_999)),
    ],
)
def test_an_early_retry_breaks_a_sum(old: Rec, new: Rec) -> None:
    """Any outcome (answer, next rung or dead letter) one millisecond before the due time is early."""
    assert wrong([new if r == old else r for r in GOOD]) == ["no retry is early"]


@pytest.mark.parametrize(
    "changed",
    [
        {"value": b'{"n":3}'},
        {"key": None},
        {"headers": attempt(3, 2, 2).dead_headers("loans")},
    ],
)
def test_an_altered_dead_letter_breaks_a_sum(changed: dict[str, object]) -> None:
    """Key, value and own headers of a dead letter must equal the event's, byte for byte."""
    old = letter(attempt(3, 2, 2))
    assert wrong([replace(old, **changed) if r == old else r for r in GOOD]) == [
        "dead letters keep the event unchanged"
    ]


def test_a_degraded_answer_without_a_reason_breaks_a_sum() -> None:
    """Each degraded answer must name its reason."""
    book = ledger(GOOD, [INPUT], NAMES)
    place = (INPUT, 0, 2)
    book.answers[place][0] = replace(book.answers[place][0], reason=None)
    assert [each.means for each in sums(book, 5) if not each.holds] == ["each degraded answer has a reason"]


def test_a_dead_letter_without_control_headers_breaks_a_sum() -> None:
    """A dead letter whose headers cannot be parsed belongs to no event and is counted as unreadable."""
    assert "dead letters keep the event unchanged" in wrong([*GOOD, Rec(NAMES.dead, 9)])


def test_a_lost_acknowledged_event_breaks_a_sum() -> None:
    """Every event that Kafka acknowledged to the publisher must be on the topic."""
    assert wrong(GOOD, published=6) == ["the input topic holds what was sent"]


def test_a_sum_is_printed_with_both_sides() -> None:
    """A sum that does not hold is printed with ≠ and its figures; counts that must be 0 have no left side."""
    assert str(Sum("published", 1_200, {"first answers": 1_000, "dead at once": 1}, "…")) == (
        "published 1,200 ≠ 1,000 first answers + 1 dead at once"
    )
    assert str(Sum("", 0, {"retries never made": 2}, "…")) == "2 retries never made"
    assert not Sum("", 0, {"retries never made": 2}, "…").holds
