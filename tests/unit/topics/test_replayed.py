"""Which letters were replayed: by their identity, and by origin or place and time where replays do not tell it."""

from __future__ import annotations

import pytest

from failsoft.schemas.attempt import Attempt
from failsoft.schemas.letter_id import LetterId, parse
from failsoft.schemas.record import Origin
from failsoft.topics.replayed import SKEW_MS, Replayed
from tests.kit import Rec, attempt

ID = "-yqePF1vToChssPU5fYHGA"
AT = 1_000_000


def _history(timestamp: int = 5, replays: int = 0, letter: LetterId | None = None) -> Attempt:
    return attempt(origin=Origin("in", 0, 7, timestamp), replays=replays, letter=letter, due_ms=None)


def _replays(*given: Attempt, at: int = AT) -> Replayed:
    done = Replayed()
    done.observe(Rec("loans.replay", 0, n, at, headers=each.headers()) for n, each in enumerate(given))
    return done


@pytest.mark.parametrize("letter", [LetterId(ID, 3, 17), LetterId(None, 0, 0), LetterId(ID, 2**31 - 1, 2**63 - 1)])
def test_an_identity_is_read_back_from_its_text(letter: LetterId) -> None:
    """With and without a topic's id."""
    assert parse(str(letter)) == letter


@pytest.mark.parametrize(
    "text", ["", "1", "1:", ":1", f"{ID}/1", f"{ID}:1:1", "x/1:1", "-1:1", "1:-1", "\u0661:1", "1:1\n"]
)
def test_another_text_is_no_identity(text: str) -> None:
    """A header that is nearly one is refused, not guessed at."""
    assert parse(text) is None


def test_a_letter_with_an_identity_needs_no_time() -> None:
    """A replay that names another letter says nothing about this one, whatever its origin and time."""
    done = _replays(_history(replays=1, letter=LetterId(ID, 0, 1)))
    assert done.has(LetterId(ID, 0, 1), _history(), AT + 10 * SKEW_MS)
    assert not done.has(LetterId(ID, 0, 2), _history(), 0)
    assert not done.has(LetterId("B" * 22, 0, 1), _history(), 0)


@pytest.mark.parametrize(
    ("history", "written", "replayed"),
    [
        (_history(), AT - 1, True),
        (_history(), AT + SKEW_MS, True),
        (_history(), AT + SKEW_MS + 1, False),  # the letter of a later event at the same origin
        (_history(timestamp=6), AT - 1, False),  # another event: its record has another time
        (_history(replays=1), AT - 1, False),  # the event died again
    ],
)
def test_a_replay_of_an_earlier_version_stands_for_the_letters_before_it(
    history: Attempt, written: int, replayed: bool
) -> None:
    """It names no letter: origin with timestamp, number of replays, and a letter that is not younger than it."""
    done = _replays(_history(replays=1))
    assert done.has(LetterId(ID, 0, 1), history, written) is replayed


def test_without_topic_ids_a_place_holds_for_older_letters() -> None:
    """A letter at the same place that is younger than the replay is one of a recreated dead topic."""
    done = _replays(_history(replays=1, letter=LetterId(None, 0, 1)))
    assert done.has(LetterId(None, 0, 1), _history(), AT)
    assert done.has(LetterId(ID, 0, 1), _history(), AT), "the brokers were upgraded since"
    assert not done.has(LetterId(None, 0, 1), _history(), AT + SKEW_MS + 1)
    assert not done.has(LetterId(None, 0, 2), _history(), 0)


def test_a_letter_can_be_added_while_it_is_replayed() -> None:
    """With and without a topic's id; the newest time counts."""
    done = Replayed()
    done.add(LetterId(ID, 0, 1), AT)
    done.add(LetterId(None, 0, 2), AT)
    done.add(LetterId(None, 0, 2), 0)
    assert done.has(LetterId(ID, 0, 1), _history(), AT) and done.has(LetterId(None, 0, 2), _history(), AT)


def test_a_record_that_is_no_replay_is_passed_over() -> None:
    """Another program wrote it."""
    done = Replayed()
    done.observe([Rec("loans.replay", 0, 0, 0, headers=[("failsoft-letter", b"0:1")])])
    assert not done.identified and not done.untold
