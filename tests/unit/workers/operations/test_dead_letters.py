"""Dead letters: parsing, filters, groups, replays, and the headers of a replay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from failsoft.schemas.attempt import Attempt, parse
from failsoft.schemas.event import Envelope
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.letter_id import LetterId
from failsoft.schemas.record import Header, Origin
from failsoft.topics.replayed import Replayed
from failsoft.workers.operations.dead_letters import (
    DeadLetterFilter,
    DeadLetterGroup,
    Letter,
    again,
    bounded,
    described,
    event_id,
    letter,
    listed,
    place,
    tally,
)
from tests.kit import Rec, attempt, body

ENVELOPE = Envelope(id="id", time="at")
ORIGIN = Origin("loans.events", 3, 41, 1_700_000_000_000)
TOPIC_ID = "-yqePF1vToChssPU5fYHGA"
OWN: list[Header] = [("a", b"1"), ("a", b"\xff"), ("traceparent", b"00-x")]


def _attempt(kind: Kind = Kind.TIMEOUT, offset: int = 41, **changes: Any) -> Attempt:
    changes = {"origin": replace(ORIGIN, offset=offset), "failure": Failure(kind, "why"), "due_ms": None} | changes
    return attempt(**changes)


def _dead(kind: Kind = Kind.TIMEOUT, offset: int = 41, at: int = 1000, **changes: Any) -> Letter:
    headers = [*OWN, *_attempt(kind, offset, **changes).dead_headers("loans")]
    return letter(Rec("loans.dead", 3, offset + 7, at, b"k", body(f"e{offset}"), headers), TOPIC_ID)


def _replays(*letters: Letter) -> list[Rec]:
    return [Rec("loans.replay", 3, n, 0, b"k", b"{}", again(each, "r")) for n, each in enumerate(letters)]


def test_a_replay_keeps_the_event_and_resets_its_control_headers() -> None:
    """The event's headers are kept in order, with duplicates and non-UTF-8 bytes. Retries and crashes are 0, the number
    of replays grows by one, there is no due time, and the letter is named."""
    earlier = LetterId(TOPIC_ID, 3, 1)
    dead = _dead(number=3, replays=1, next_revision=2, version=4, crashes=2, letter=earlier, died_ms=9)
    headers = again(dead, "today")
    assert headers[: len(OWN)] == OWN
    assert not any(name.startswith("__dlq") for name, _ in headers)
    assert isinstance(dead.attempt, Attempt)
    plain = replace(dead.attempt, number=0, due_ms=None, died_ms=None, replays=2, replay_id="today", crashes=0)
    assert parse(headers) == replace(plain, letter=LetterId(TOPIC_ID, 3, 48))


def test_a_letter_was_replayed_if_its_replay_exists() -> None:
    """A replay names its letter. The same event at the same origin, in a recreated input topic, has another letter."""
    first, other = _dead(), _dead(offset=42)
    done = Replayed()
    done.observe(_replays(first))
    assert first.was_replayed(done) and not other.was_replayed(done)
    same_origin = replace(first, id=LetterId(TOPIC_ID, 3, 90))
    assert not same_origin.was_replayed(done)
    assert not replace(first, id=replace(first.id, topic_id="B" * 22)).was_replayed(done), "a recreated dead topic"


def test_a_letter_with_unreadable_headers_is_not_replayable() -> None:
    """Its origin is unknown; such letters form a group of their own."""
    strange = letter(Rec("loans.dead", 0, 0, 5, b"k", b"{}", [("failsoft-attempt", b"many")]), None)
    assert strange.group == ("unreadable", None, None)
    assert not strange.was_replayed(Replayed())
    with pytest.raises(ValueError, match=r"failsoft-.*: (missing|not a decimal number)"):
        again(strange, "r")
    assert described(strange, ENVELOPE, False)["kind"] == "unreadable"


@pytest.mark.parametrize(
    ("chosen", "passes"),
    [
        (DeadLetterFilter(), True),
        (DeadLetterFilter(kinds=frozenset({"timeout", "invalid"})), True),
        (DeadLetterFilter(kinds=frozenset({"invalid"})), False),
        (DeadLetterFilter(models=frozenset({"other"})), False),
        (DeadLetterFilter(versions=frozenset({9})), False),
        (DeadLetterFilter(since_ms=1000), True),
        (DeadLetterFilter(since_ms=1001), False),
        (DeadLetterFilter(until_ms=1001), True),
        (DeadLetterFilter(until_ms=1000), False),
        (DeadLetterFilter(event="e41"), True),
        (DeadLetterFilter(event="loans.events-3-41"), True),
        (DeadLetterFilter(event="e4"), False),
        (DeadLetterFilter(kinds=frozenset({"timeout"}), event="e42"), False),
    ],
)
def test_a_filter_matches_letters_that_meet_every_condition(chosen: DeadLetterFilter, passes: bool) -> None:
    """``since`` is inclusive and ``until`` exclusive; an event is found by its id or its origin."""
    assert chosen.passes(_dead(at=1000), ENVELOPE) is passes


def test_an_event_that_cannot_be_decoded_has_its_origin_as_id() -> None:
    """The id is the same as the one its answer would have."""
    headers = _attempt(Kind.MALFORMED).dead_headers("loans")
    assert event_id(letter(Rec("loans.dead", 3, 0, 0, None, b"bad{", headers), None), ENVELOPE) == "loans.events-3-41"


def test_letters_group_by_kind_model_and_version() -> None:
    """The largest group comes first; each has its first and last death and its number of replayed letters."""
    letters = [_dead(Kind.INVALID, 1, 3000), _dead(Kind.TIMEOUT, 2, 2000), _dead(Kind.TIMEOUT, 3, 1000)]
    done = Replayed()
    done.observe(_replays(letters[1]))
    groups: dict[tuple[str, str | None, int | None], DeadLetterGroup] = {}
    tally(groups, letters[:1], done)
    tally(groups, letters[1:], done)
    rows = listed(groups)
    assert [(r["kind"], r["count"], r["replayed"]) for r in rows] == [("timeout", 2, 1), ("invalid", 1, 0)]
    newest = letters[1].record, letters[0].record
    assert [r["newest"] for r in rows] == [f"{r.partition}:{r.offset}" for r in newest]
    assert (rows[0]["first"], rows[0]["last"]) == ("1970-01-01T00:00:01.000Z", "1970-01-01T00:00:02.000Z")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b'{"a":1}', {"json": {"a": 1}}),
        ("né".encode(), {"text": "né"}),
        (b"\xff\x00", {"hex": "ff00"}),
        (b'\0\0\0\0\x07{"a":1}', {"json": {"a": 1}}),
        (b"\0\0\0\0\x07\x04e1", {"hex": "0000000007046531"}),
        (None, None),
    ],
)
def test_a_value_is_shown_as_json_text_or_hex(value: bytes | None, shown: object) -> None:
    """A value is shown as JSON, else as text, else as hex; a tombstone is null."""
    about = described(replace(_dead(), record=Rec("d", 0, 0, 0, None, value, OWN)), ENVELOPE, True)
    assert about["value"] == shown and about["key"] is None
    assert about["headers"][1] == {"name": "a", "hex": "ff"}


@pytest.mark.parametrize(("text", "found"), [("3:17", (3, 17)), ("e1", None), ("a:1", None), ("1:", None), ("", None)])
def test_a_place_is_partition_and_offset(text: str, found: object) -> None:
    """Any other text is not a place, so the command takes it as an event's id."""
    assert place(text) == found


def test_batches_keep_order_and_limits() -> None:
    """Batches are limited by number and by bytes; a letter larger than the limit is a batch of its own."""
    letters = [replace(_dead(offset=n), record=Rec(offset=n, key=None, value=b"x" * n)) for n in (1, 5, 20, 1, 1, 1)]
    cut = [[each.record.offset for each in batch] for batch in bounded(letters, 2, 10)]
    assert cut == [[1, 5], [20], [1, 1], [1]]
    assert bounded([], 2, 10) == []
