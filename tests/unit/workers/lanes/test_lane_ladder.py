"""When a lane reads the ladder: only while the breaker allows it, and a quarter of the time while live events come."""

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


class LadderLane:
    """A lane with a clock and a breaker that the test controls, and partitions with given end offsets."""

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
        """Process a batch of ``live`` events and ``retries`` that takes ``seconds``."""
        self.fetched = {LIVE: events(live), RUNG: [waiting(offset=i) for i in range(retries)]}
        records = await self.lane._take()
        assert len(records) == live + retries
        self.spent(records, seconds)

    def spent(self, records: Sequence[Any], seconds: float) -> None:
        """Finish the last batch that was taken, after ``seconds``."""
        self.lane._schedule.spent(len(records), self.lane._retries, seconds, self.now)

    def reads(self) -> set[TopicPartition]:
        """The partitions that the lane fetches from now."""
        return {*self.lane._readable()[0]}

    def waits(self) -> bool:
        """Whether the lane requests probes now."""
        self.requested.clear()
        self.lane._readable()
        return bool(self.requested)


@pytest.mark.parametrize(("live", "retries"), [(10, 10), (1, 19), (19, 1)])
async def test_the_ladder_rests_for_the_time_spent_on_it(live: int, retries: int) -> None:
    """The rest depends on the share of retries in the batch: a few among many events cause a short one."""
    tested = LadderLane()
    await tested.took(0.4, live, retries)
    rest = LADDER_RESTS * 0.4 * retries / 20
    readable, wait = tested.lane._readable()
    assert readable == [LIVE] and wait == pytest.approx(min(rest, IDLE_FETCH))
    tested.now += rest - 0.01
    assert tested.reads() == {LIVE}
    tested.now += 0.02
    assert tested.reads() == {LIVE, *LADDER}


async def test_without_live_events_the_ladder_never_rests() -> None:
    """The ladder only rests to give live events priority."""
    tested = LadderLane()
    await tested.took(5.0, 0, 20)
    assert tested.reads() == {LIVE, *LADDER}


async def test_live_events_are_assumed_to_go_on_for_a_second() -> None:
    """A batch may hold records of one topic only, so live events need not be in every batch."""
    tested = LadderLane()
    await tested.took(0.2, 20, 0)
    assert tested.reads() == {LIVE, *LADDER}, "nothing was spent on the ladder"
    tested.now += LIVE_SEEN - 0.1
    await tested.took(0.2, 0, 20)
    assert tested.reads() == {LIVE}
    tested.now += LADDER_RESTS * 0.2
    await tested.took(0.2, 0, 20)
    assert tested.reads() == {LIVE, *LADDER}


async def test_a_record_that_is_not_due_costs_the_ladder_nothing() -> None:
    """A record that is not due is not in the batch, so no time counts for it."""
    tested = LadderLane()
    tested.fetched = {LIVE: events(3), RUNG: [waiting(due_ms=NOW_MS + 1000)]}
    tested.spent(await tested.lane._take(), 1.0)
    assert tested.reads() == {LIVE, NEXT, AGAIN}


async def test_while_the_ladder_rests_probes_are_still_requested() -> None:
    """Otherwise probes of a failing model would be requested only between the rests."""
    tested = LadderLane()
    await tested.took(1.0, 10, 10)
    tested.ends[NEXT] = 1
    assert tested.waits() and tested.reads() == {LIVE}


def test_while_the_breaker_allows_no_retries_the_ladder_is_paused() -> None:
    """Leaving a rung out of the fetch is not enough: a consumer prefetches every partition that is not paused."""
    tested = LadderLane()
    tested.go = False
    assert tested.reads() == {LIVE} and tested.paused == LADDER
    tested.go = True
    assert tested.reads() == {LIVE, *LADDER} and tested.paused == set() and set(tested.asked) == {"m"}


def test_an_ensembles_ladder_is_read_while_a_quorum_admits() -> None:
    """Probes are requested for every member, so that each breaker learns that retries wait."""
    tested = LadderLane(trio(quorum=2))
    tested.ends[RUNG] = 3
    tested.closed_to = {"a"}
    assert tested.reads() == {LIVE, *LADDER} and tested.asked == tested.requested == ["a", "b", "c"]
    tested.closed_to = {"a", "b"}
    assert tested.reads() == {LIVE} and tested.asked == ["a", "b", "c"] * 2


@pytest.mark.parametrize("ends", [{RUNG: None}, {NEXT: 1}, {AGAIN: 7}])
def test_a_record_on_a_rung_or_an_unknown_end_requests_probes(ends: Sequence[int]) -> None:
    """A rung whose end is unknown counts as holding a record."""
    tested = LadderLane()
    assert not tested.waits()
    tested.ends.update(ends)  # type: ignore[arg-type]
    assert tested.waits()


async def test_a_record_that_this_lane_wrote_waits_until_its_rung_is_empty() -> None:
    """A paused rung is not fetched, so its end offset is out of date."""
    tested = LadderLane()
    tested.lane._schedule.committed({}, [RUNG])
    assert tested.waits()
    await tested.lane._take()
    assert not tested.waits()


async def test_a_rung_that_was_read_to_its_end_is_empty_although_markers_follow() -> None:
    """Transactions leave markers after the records, and no offset is committed for these."""
    tested = LadderLane()
    tested.ends[RUNG] = 9
    assert tested.waits()
    await tested.lane._take()
    assert not tested.waits()
    tested.ends[RUNG] = 10
    assert tested.waits()


async def test_a_record_that_is_not_due_is_no_probe() -> None:
    """It becomes a possible probe when it is due."""
    tested = LadderLane()
    tested.fetched = {RUNG: [waiting(due_ms=NOW_MS + 1000)]}
    assert await tested.lane._take() == []
    tested.fetched = {}
    assert not tested.waits() and tested.lane._readable()[1] <= IDLE_FETCH
    tested.now += 1
    assert tested.waits()
