"""A fetch session, as a conversation: full first, then what has changed; full again after any doubt."""

from __future__ import annotations

import pytest

from failsoft.workers.kafka import fetch_session
from failsoft.workers.kafka.fetch_session import FULL, NO_SESSION, SESSION_ID_NOT_FOUND, FetchContent, FetchSession

A, B, C = ("t", 0), ("t", 1), ("u", 0)
INVALID_EPOCH = 71


def _started() -> FetchSession:
    """A session, id 9, in which the broker fetches A from 5 and B from 6."""
    session = FetchSession()
    session.want(A, 5, 100)
    session.want(B, 6, 100)
    assert session.request() == FetchContent(NO_SESSION, FULL, [(A, 5, 100), (B, 6, 100)], [])
    assert session.answered(0, 9)
    return session


def test_an_unchanged_session_asks_with_nothing() -> None:
    """That is the point of sessions: no partition is named again."""
    session = _started()
    assert session.request() == FetchContent(9, 1, [], [])
    session.answered(0, 9)
    assert session.request() == FetchContent(9, 2, [], [])


def test_only_changes_are_sent() -> None:
    """A new partition, a new offset, other bytes, and a partition that is dropped."""
    session = _started()
    session.want(A, 7, 100)
    session.drop(B)
    session.want(C, 0, 50)
    content = session.request()
    assert (sorted(content.partitions), content.forgotten) == ([(A, 7, 100), (C, 0, 50)], [B])
    session.answered(0, 9)
    session.want(C, 0, 60)
    assert session.request() == FetchContent(9, 2, [(C, 0, 60)], [])


def test_a_change_that_is_taken_back_is_not_sent() -> None:
    """Paused and resumed between two requests, a partition stays in the session as it is."""
    session = _started()
    session.drop(A)
    session.want(A, 5, 100)
    session.want(C, 0, 100)
    session.drop(C)
    session.drop(("never", 0))
    assert session.request() == FetchContent(9, 1, [], [])


def test_an_answer_begins_where_its_request_said() -> None:
    """A change while the request is in flight is for the next one."""
    session = _started()
    session.want(A, 7, 100)
    session.drop(B)
    assert (session.sent(A), session.sent(B), session.sent(C)) == (5, 6, None)
    session.request()
    assert (session.sent(A), session.sent(B)) == (7, None)


@pytest.mark.parametrize(("error", "kept"), [(SESSION_ID_NOT_FOUND, NO_SESSION), (INVALID_EPOCH, 9), (106, 9), (-1, 9)])
def test_an_error_starts_a_new_session(error: int, kept: int) -> None:
    """The next request is full. It names the old session, if the broker has one to end."""
    session = _started()
    session.request()
    assert not session.answered(error, 0)
    assert session.request() == FetchContent(kept, FULL, [(A, 5, 100), (B, 6, 100)], [])
    assert session.answered(0, 10)
    assert session.request() == FetchContent(10, 1, [], [])


def test_a_lost_request_starts_a_new_session() -> None:
    """Whether the broker has applied it is unknown."""
    session = _started()
    session.drop(A)
    session.request()
    session.lost()
    assert session.request() == FetchContent(9, FULL, [(B, 6, 100)], [])


def test_without_a_session_every_request_is_full() -> None:
    """The broker's slots are all in use. A later answer may bring a session."""
    session = FetchSession()
    session.want(A, 5, 100)
    for _ in range(3):
        assert session.request() == FetchContent(NO_SESSION, FULL, [(A, 5, 100)], [])
        assert session.answered(0, NO_SESSION)
    session.request()
    session.answered(0, 4)
    assert session.request() == FetchContent(4, 1, [], [])


def test_partitions_take_turns_without_a_session() -> None:
    """One that goes on is named last, so each comes first in time: only the first gets a batch over its bytes."""
    session = FetchSession()
    session.want(A, 5, 100)
    session.want(B, 6, 100)
    session.request()
    session.answered(0, NO_SESSION)
    session.want(A, 9, 100)
    assert session.request().partitions == [(B, 6, 100), (A, 9, 100)]


def test_a_session_that_the_broker_ended_is_started_again() -> None:
    """It ends one that has no partitions left."""
    session = _started()
    session.drop(A)
    session.drop(B)
    assert session.idle and session.request().forgotten
    assert session.answered(0, NO_SESSION)
    session.want(A, 8, 100)
    assert not session.idle
    assert session.request() == FetchContent(NO_SESSION, FULL, [(A, 8, 100)], [])


def test_the_epoch_wraps_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 would be a full request."""
    assert fetch_session.LAST_EPOCH == 2**31 - 1
    monkeypatch.setattr(fetch_session, "LAST_EPOCH", 2)
    session = _started()
    epochs = []
    for _ in range(5):
        epochs.append(session.request().epoch)
        session.answered(0, 9)
    assert epochs == [1, 2, 1, 2, 1]
