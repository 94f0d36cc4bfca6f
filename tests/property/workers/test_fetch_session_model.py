"""A fetch session against a model of the broker's side, which loses requests, answers and sessions.

Whatever is lost, each answer that arrives is for exactly the partitions that were wanted, at their offsets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from unittest.mock import patch

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from failsoft.workers.kafka import fetch_session
from failsoft.workers.kafka.fetch_session import (
    FULL,
    NO_SESSION,
    SESSION_ID_NOT_FOUND,
    FetchContent,
    FetchSession,
    Partition,
)

INVALID_EPOCH = 71
LAST_EPOCH = 4
"""Instead of 2^31 - 1, so that the epoch wraps."""

PARTITIONS: list[Partition] = [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
Places = dict[Partition, tuple[int, int]]


@dataclass
class _Kept:
    epoch: int
    places: Places


@dataclass
class _Broker:
    """The broker's side, by Kafka's FetchManager.

    Attributes:
        full: no slot for a new session is left.
        sessions: by id.
        next_id: the id of the next session.
    """

    full: bool = False
    sessions: dict[int, _Kept] = field(default_factory=dict)
    next_id: int = 1

    def handle(self, content: FetchContent) -> tuple[int, int, Places]:
        """The error, the session id, and what the answer is about."""
        assert not {p for p, *_ in content.partitions} & set(content.forgotten), "Kafka would forget what it just added"
        added = {p: (offset, most) for p, offset, most in content.partitions}
        assert len(added) == len(content.partitions)
        if content.epoch == FULL:
            assert not content.forgotten
            self.sessions.pop(content.session_id, None)
            if self.full or not added:
                return 0, NO_SESSION, added
            self.next_id, new = self.next_id + 1, self.next_id
            self.sessions[new] = _Kept(1, added)
            return 0, new, added
        kept = self.sessions.get(content.session_id)
        if kept is None:
            return SESSION_ID_NOT_FOUND, NO_SESSION, {}
        if kept.epoch != content.epoch:
            return INVALID_EPOCH, NO_SESSION, {}
        kept.places |= added
        for partition in content.forgotten:
            del kept.places[partition]  # the broker ignores an unknown one, but a session must know better
        if not kept.places:
            del self.sessions[content.session_id]
            return 0, NO_SESSION, {}
        kept.epoch = 1 if kept.epoch == LAST_EPOCH else kept.epoch + 1
        return 0, content.session_id, dict(kept.places)


@dataclass
class _World:
    broker: _Broker = field(default_factory=_Broker)
    session: FetchSession = field(default_factory=FetchSession)
    wanted: Places = field(default_factory=dict)
    answers: int = 0

    def want(self, partition: Partition, offset: int) -> None:
        self.wanted[partition] = (offset, 100)
        self.session.want(partition, offset, 100)

    def drop(self, partition: Partition) -> None:
        self.wanted.pop(partition, None)
        self.session.drop(partition)

    def exchange(self, loses: str, meanwhile: Callable[[], None]) -> None:
        """One request and its answer, unless either is lost. ``meanwhile`` happens while it is in flight."""
        wanted = dict(self.wanted)
        content = self.session.request()
        if loses != "request":
            error, session_id, places = self.broker.handle(content)
        meanwhile()
        if loses:
            self.session.lost()
            return
        assert self.session.answered(error, session_id) is (error == 0)
        if not error:
            self.answers += 1
            assert places == wanted
            assert {p: self.session.sent(p) for p in PARTITIONS} == {
                p: wanted[p][0] if p in wanted else None for p in PARTITIONS
            }

    def settle(self) -> None:
        """Without faults, the third answer at the latest is a good one: an unknown session, and then a full request."""
        before = self.answers
        for _ in range(3):
            self.exchange("", lambda: None)
        assert self.answers >= before + 2


_CHANGES = st.lists(st.tuples(st.sampled_from(PARTITIONS), st.one_of(st.none(), st.integers(0, 3))), max_size=4)
_STEPS = st.one_of(
    st.tuples(st.just("change"), _CHANGES),
    st.tuples(st.just("exchange"), _CHANGES),
    st.tuples(st.sampled_from(["exchange", "request", "answer"]), _CHANGES),
    st.tuples(st.sampled_from(["restart", "full", "free"]), st.just([])),
)


def _run(steps: list[tuple[str, list[tuple[Partition, int | None]]]], session: FetchSession) -> None:
    world = _World(session=session)

    def change(changes: list[tuple[Partition, int | None]]) -> None:
        for partition, offset in changes:
            if offset is None:
                world.drop(partition)
            else:
                world.want(partition, offset)

    with patch.object(fetch_session, "LAST_EPOCH", LAST_EPOCH):
        for what, changes in steps:
            if what == "change":
                change(changes)
            elif what == "restart":
                world.broker.sessions.clear()
            elif what in ("full", "free"):
                world.broker.full = what == "full"
            else:
                world.exchange("" if what == "exchange" else what, partial(change, changes))
        world.settle()
        assert session.idle is not bool(world.wanted)
        assert sorted(session.wanted()) == sorted(world.wanted)


@given(steps=st.lists(_STEPS, max_size=40))
def test_each_answer_is_for_what_was_wanted(steps: list[tuple[str, list[tuple[Partition, int | None]]]]) -> None:
    """Changes between and during requests, lost requests and answers, restarts, and a broker without free slots."""
    _run(steps, FetchSession())


class _Careless(FetchSession):
    """A session with a mistake: a request that was lost is followed by the next one, with the same epoch."""

    def lost(self) -> None:
        pass


class _Hasty(FetchSession):
    """A session with a mistake: it sends a change of offset only once."""

    def request(self) -> FetchContent:
        content = super().request()
        if content.epoch != FULL:
            self._sent |= self._wanted
        return content

    def want(self, partition: Partition, offset: int, max_bytes: int) -> None:
        super().want(partition, offset, max_bytes)
        if self.sent(partition) is not None:
            self._changed.discard(partition)


@pytest.mark.parametrize("kind", [_Careless, _Hasty])
def test_the_model_finds_a_mistake(kind: type[FetchSession]) -> None:
    """A test that passes with a broken session would prove nothing."""

    @settings(phases=[Phase.generate], database=None, max_examples=1_000)
    @given(steps=st.lists(_STEPS, max_size=40))
    def broken(steps: list[tuple[str, list[tuple[Partition, int | None]]]]) -> None:
        _run(steps, kind())

    with pytest.raises((AssertionError, KeyError, ExceptionGroup)):
        broken()
