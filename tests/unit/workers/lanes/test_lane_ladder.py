"""What a lane reads of the ladder: as much as the breaker lets it, and a quarter of its time while live events come."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from failsoft.workers.lanes.lane import Deps, Lane
from failsoft.workers.lanes.retry_schedule import IDLE_FETCH, LADDER_RESTS, LIVE_SEEN
from failsoft.workers.scoring.plan import Plan
from tests.kit import INPUT, NOW_MS, REPLAY, RUNGS, Rec, events, plan, trio, waiting

LIVE, RUNG, NEXT, AGAIN = (TopicPartition(t, 0) for t in (INPUT, *RUNGS, REPLAY))
LADDER = {RUNG, NEXT, AGAIN}


class Desk:
    """A lane, a clock that is moved by hand, partitions of which the ends are known, and a breaker that is told."""

    def __init__(self, the_plan: Plan | None = None) -> None:
        self.now, self.go = 100.0, True
        self.asked: list[str] = []
        self.closed_to: set[str] = set()
        self.requested: list[str] = []  # models for which probes were requested
        self.ends: dict[TopicPartition, int | None] = dict.fromkeys(LADDER, 0)
        self.fetched: dict[TopicPartition, list[Rec]] = {}
        self.paused: set[TopicPartition] = set()
        consumer = SimpleNamespace(
            highwater=self.ends.get,
            pause=lambda *tps: self.paused.update(tps),
            resume=lambda *tps: self.paused.difference_update(tps),
            seek=lambda tp, offset: None,
            getmany=self.getmany,
        )
        deps = SimpleNamespace(
            plan=the_plan or plan(),
            registry=SimpleNamespace(may_retry=self.may_retry, request_probes=self.requested.append),
            reporter=SimpleNamespace(idle=lambda: None),
            wall=lambda: NOW_MS / 1000 + self.now - 100,
            clock=lambda: self.now,
        )
        self.lane = Lane(0, [LIVE, *LADDER], cast(Any, consumer), cast(Deps, deps))
        for tp in LADDER:
            self.lane._schedule.opened(tp, 0)

    def may_retry(self, model: str) -> bool:
        self.asked.append(model)
        return self.go and model not in self.closed_to

    async def getmany(self, *tps: TopicPartition, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Rec]]:
        return {tp: found for tp, found in self.fetched.items() if tp in tps}

    async def took(self, seconds: float, live: int, retries: int) -> None:
        """A batch of so many, and the time that it took."""
        self.fetched = {LIVE: events(live), RUNG: [waiting(offset=i) for i in range(retries)]}
        records = await self.lane._take()
        assert len(records) == live + retries
        self.spent(records, seconds)

    def spent(self, records: Sequence[Any], seconds: float) -> None:
        """The batch that was taken last is done, and took so long."""
        self.lane._schedule.spent(len(records), self.lane._retries, seconds, self.now)

    def reads(self) -> set[TopicPartition]:
        return {*self.lane._readable()[0]}

    def waits(self) -> bool:
        """Does the lane request probes now?"""
        self.requested.clear()
        self.lane._readable()
        return bool(self.requested)


@pytest.mark.parametrize(("live", "retries"), [(10, 10), (1, 19), (19, 1)])
async def test_the_ladder_rests_for_what_was_spent_on_it(live: int, retries: int) -> None:
    """By its part of the batch: a few retries among many events hold nothing up."""
    desk = Desk()
    await desk.took(0.4, live, retries)
    rest = LADDER_RESTS * 0.4 * retries / 20
    readable, wait = desk.lane._readable()
    assert readable == [LIVE] and wait == pytest.approx(min(rest, IDLE_FETCH))
    desk.now += rest - 0.01
    assert desk.reads() == {LIVE}
    desk.now += 0.02
    assert desk.reads() == {LIVE, *LADDER}


async def test_without_live_events_the_ladder_never_rests() -> None:
    """There is nobody to wait for."""
    desk = Desk()
    await desk.took(5.0, 0, 20)
    assert desk.reads() == {LIVE, *LADDER}


async def test_live_events_are_taken_to_go_on_for_a_second() -> None:
    """Batches come from one topic or from the other."""
    desk = Desk()
    await desk.took(0.2, 20, 0)
    assert desk.reads() == {LIVE, *LADDER}, "nothing was spent on the ladder"
    desk.now += LIVE_SEEN - 0.1
    await desk.took(0.2, 0, 20)
    assert desk.reads() == {LIVE}
    desk.now += LADDER_RESTS * 0.2
    await desk.took(0.2, 0, 20)
    assert desk.reads() == {LIVE, *LADDER}


async def test_a_record_that_is_not_due_costs_the_ladder_nothing() -> None:
    """It is not in the batch."""
    desk = Desk()
    desk.fetched = {LIVE: events(3), RUNG: [waiting(due_ms=NOW_MS + 1000)]}
    desk.spent(await desk.lane._take(), 1.0)
    assert desk.reads() == {LIVE, NEXT, AGAIN}


async def test_while_it_rests_the_breaker_still_hears_what_waits() -> None:
    """Or probes of a model that is down would be asked for only between the rests."""
    desk = Desk()
    await desk.took(1.0, 10, 10)
    desk.ends[NEXT] = 1
    assert desk.waits() and desk.reads() == {LIVE}


def test_while_the_breaker_says_no_the_ladder_is_paused_and_then_read_again() -> None:
    """Paused, and not only left out: a consumer fetches ahead what it may."""
    desk = Desk()
    desk.go = False
    assert desk.reads() == {LIVE} and desk.paused == LADDER
    desk.go = True
    assert desk.reads() == {LIVE, *LADDER} and desk.paused == set() and set(desk.asked) == {"m"}


def test_an_ensembles_ladder_is_read_while_a_quorum_admits() -> None:
    """Every member is asked each time: that is also how a breaker hears that something waits for its probes."""
    desk = Desk(trio(quorum=2))
    desk.closed_to = {"a"}
    assert desk.reads() == {LIVE, *LADDER} and desk.asked == ["a", "b", "c"]
    desk.closed_to = {"a", "b"}
    assert desk.reads() == {LIVE} and desk.asked == ["a", "b", "c"] * 2


@pytest.mark.parametrize("ends", [{RUNG: None}, {NEXT: 1}, {AGAIN: 7}])
def test_what_is_on_a_rung_or_was_not_looked_at_yet_waits(ends: Sequence[int]) -> None:
    """Of a rung that nobody looked at, it is asked for probes rather than left."""
    desk = Desk()
    assert not desk.waits()
    desk.ends.update(ends)  # type: ignore[arg-type]
    assert desk.waits()


async def test_what_this_lane_wrote_waits_until_its_rung_is_empty() -> None:
    """A rung that is paused is not fetched, so that its end is not heard of."""
    desk = Desk()
    desk.lane._schedule.committed({}, [RUNG])
    assert desk.waits()
    await desk.lane._take()
    assert not desk.waits()


async def test_a_rung_that_was_read_to_its_end_is_empty_though_markers_follow() -> None:
    """Transactions leave them behind the records, and no offset is committed for them."""
    desk = Desk()
    desk.ends[RUNG] = 9
    assert desk.waits()
    await desk.lane._take()
    assert not desk.waits()
    desk.ends[RUNG] = 10
    assert desk.waits()


async def test_a_record_that_is_not_due_is_nothing_to_probe_with() -> None:
    """Not before its time; then it is."""
    desk = Desk()
    desk.fetched = {RUNG: [waiting(due_ms=NOW_MS + 1000)]}
    assert await desk.lane._take() == []
    desk.fetched = {}
    assert not desk.waits() and desk.lane._readable()[1] <= IDLE_FETCH
    desk.now += 1
    assert desk.waits()
