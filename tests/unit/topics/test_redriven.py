"""Which records claim to be dead letters that came back, and what becomes of them on the replay topic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failsoft.schemas.attempt import Attempt, parse
from failsoft.schemas.letter_id import LetterId
from failsoft.schemas.record import Header
from failsoft.topics.names import Names
from failsoft.topics.redriven import FEWEST, claims, partitions, replay
from tests.kit import INPUT, NOW_MS, Rec, attempt, events

NAMES = Names("loans")
OWN: list[Header] = [("a", b"1"), ("a", b"\xff"), ("nothing", None)]
DIED: Attempt = attempt(number=2, due_ms=None, next_revision=2, died_ms=NOW_MS)
LETTER = [*OWN, *DIED.dead_headers("loans")]


def _claims(*headers: Header, topic: str = INPUT) -> dict[int, Attempt]:
    return claims([Rec(topic, 0, 1, headers=headers)], NAMES)


def test_a_letter_is_recognised_among_events() -> None:
    """By row, whatever headers the event itself has, in any order, and with those that a tool adds."""
    plain = [replace(each, headers=OWN) for each in events(2)]
    assert claims(events(3), NAMES) == {} == claims(plain, NAMES)
    back = Rec(headers=[("redriven-by", b"a tool"), *reversed(LETTER)])
    assert claims([*plain, back, *events(1)], NAMES) == {2: DIED}


def test_a_letter_with_the_fewest_headers_is_recognised() -> None:
    """An event without headers of its own, that no version failed, of a version that wrote no time of death."""
    fewest = attempt(due_ms=None, version=None)
    headers = fewest.dead_headers("loans")
    assert len(headers) == FEWEST and _claims(*headers) == {0: fewest}


@pytest.mark.parametrize("name", [name for name, _ in LETTER if name.startswith(("failsoft-", "__dlq"))])
def test_a_header_that_is_missing_or_altered_makes_it_an_event(name: str) -> None:
    """A tool that drops some headers, or changes them, sends something else. Only an optional header that is missing
    makes another claim, which no letter will prove.
    """
    without = [header for header in LETTER if header[0] != name]
    assert _claims(*without) == {} or name in ("failsoft-died-ms", "failsoft-model-version", "failsoft-next-revision")
    assert _claims(*without).get(0) != DIED
    assert _claims(*without, (name, b"\xff")).get(0) != DIED
    assert _claims(*LETTER, (name, b"1")) == {}, "given twice"


def test_other_letters_are_events() -> None:
    """Those of another pipeline, those that contradict themselves, and those of Kafka's own (KIP-1191)."""
    assert _claims(*DIED.dead_headers("other")) == {}
    kafkas = [header for header in LETTER if not header[0].startswith("failsoft-")]
    ours = [header for header in LETTER if not header[0].startswith("__dlq")]
    elsewhere = replace(DIED, origin=replace(DIED.origin, offset=78)).dead_headers("loans")
    assert _claims(*kafkas) == {} == _claims(*ours)
    assert _claims(*ours, *(header for header in elsewhere if header[0].startswith("__dlq"))) == {}


@pytest.mark.parametrize("topic", ["loans.retry.5s", "loans.replay", "loans.dead"])
def test_the_pipelines_own_topics_have_no_claims(topic: str) -> None:
    """An event's own ``__dlq`` headers travel with it to a rung."""
    assert _claims(*LETTER, topic=topic) == {}


def test_a_letter_that_came_back_goes_on_as_the_replay_of_its_letter() -> None:
    """The record's key, value and own headers are untouched, and the replay names the letter and the record."""
    letter = LetterId("A" * 22, 0, 5)
    key, value, headers = replay(Rec(INPUT, 3, 9, 0, b"k", b"\xff", LETTER), DIED, letter)
    assert (key, value, headers[: len(OWN)]) == (b"k", b"\xff", OWN)
    assert parse(headers) == DIED.replayed(letter, "redriven-3-9")
    assert not any(name.startswith("__dlq") for name, _ in headers)


def test_letters_lie_on_the_partition_of_their_origin() -> None:
    """Also when the tool sent them to another one."""
    other = replace(DIED, origin=replace(DIED.origin, partition=2))
    assert partitions({0: DIED, 4: other, 5: DIED}) == {0: {0: DIED, 5: DIED}, 2: {4: other}}
