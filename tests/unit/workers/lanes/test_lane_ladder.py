"""When a lane reads the ladder: only while the breaker allows it, and a quarter of the time while live events come."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from failsoft.schemas.event import Envelope
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.workers.lanes.retry_schedule import ASK_AGAIN, LADDER_RESTS, LIVE_SEEN
from failsoft.workers.scoring.plan import Plan
from tests.kit import NOW_MS, broken, events, plan, trio, waiting
from tests.lane_kit import AGAIN, LIVE, NEXT, RUNG, LaneUnderTest, Ledger, ListChunk
from tests.schema_readers import encoded

LADDER = {RUNG, NEXT, AGAIN}


class LadderLane(LaneUnderTest):
    """An open lane with a clock and a breaker that the test controls."""

    def __init__(self, the_plan: Plan | None = None) -> None:
        super().__init__(the_plan=the_plan or plan())
        self.now, self.go = 100.0, True
        self.asked: list[str] = []
        self.closed_to: set[str] = set()
        self.requested: list[str] = []  # models for which probes were requested
        self.deps.wall = lambda: NOW_MS / 1000 + self.now - 100
        self.deps.registry.may_retry = self.may_retry
        self.deps.registry.request_probes = self.requested.append
        self.fetcher.ends = dict.fromkeys(LADDER, 0)
        self.open()

    def may_retry(self, model: str) -> bool:
        self.asked.append(model)
        return self.go and model not in self.closed_to

    async def take(self, fetched: Mapping[TopicPartition, list[Any]]) -> tuple[int, int]:
        """Let the lane take what was fetched: the number of records, and of retries among them."""
        for tp, records in fetched.items():
            self.lane.inbox.offer(ListChunk(tp, self.lane.inbox.position(tp), records))
        taken = await self.lane._take()
        retries = sum(len(records) for tp, records in taken.items() if tp in LADDER)
        return sum(map(len, taken.values())), retries

    async def took(self, seconds: float, live: int, retries: int) -> None:
        """Process a batch of ``live`` events and ``retries`` that takes ``seconds``."""
        fetched = {LIVE: [*events(live)], RUNG: [waiting(offset=i) for i in range(retries)]}
        assert await self.take({tp: records for tp, records in fetched.items() if records}) == (live + retries, retries)
        self.lane._schedule.spent(live + retries, retries, seconds, self.now)

    def reads(self) -> set[TopicPartition]:
        """The partitions that the lane takes records from now."""
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
    assert readable == [LIVE] and wait == pytest.approx(min(rest, ASK_AGAIN))
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
    records, retries = await tested.take({LIVE: [*events(3)], RUNG: [waiting(due_ms=NOW_MS + 1000)]})
    tested.lane._schedule.spent(records, retries, 1.0, tested.now)
    assert tested.reads() == {LIVE, NEXT, AGAIN}


async def test_while_the_ladder_rests_probes_are_still_requested() -> None:
    """Otherwise probes of a failing model would be requested only between the rests."""
    tested = LadderLane()
    await tested.took(1.0, 10, 10)
    tested.fetcher.ends[NEXT] = 1
    assert tested.waits() and tested.reads() == {LIVE}


def test_while_the_breaker_allows_no_retries_the_ladder_is_paused() -> None:
    """Leaving a rung out of the fetch is not enough: a consumer prefetches every partition that is not paused."""
    tested = LadderLane()
    tested.go = False
    assert tested.reads() == {LIVE} and tested.fetcher.paused == LADDER
    tested.go = True
    assert tested.reads() == {LIVE, *LADDER} and tested.fetcher.paused == set() and set(tested.asked) == {"m"}


def test_an_ensembles_ladder_is_read_while_a_quorum_admits() -> None:
    """Probes are requested for every member, so that each breaker learns that retries wait."""
    tested = LadderLane(trio(quorum=2))
    tested.fetcher.ends[RUNG] = 3
    tested.closed_to = {"a"}
    assert tested.reads() == {LIVE, *LADDER} and tested.asked == tested.requested == ["a", "b", "c"]
    tested.closed_to = {"a", "b"}
    assert tested.reads() == {LIVE} and tested.asked == ["a", "b", "c"] * 2


@pytest.mark.parametrize("ends", [{RUNG: None}, {NEXT: 1}, {AGAIN: 7}])
def test_a_record_on_a_rung_or_an_unknown_end_requests_probes(ends: dict[TopicPartition, int | None]) -> None:
    """A rung whose end is unknown counts as holding a record."""
    tested = LadderLane()
    assert not tested.waits()
    tested.fetcher.ends.update(ends)
    assert tested.waits()


async def test_a_record_that_this_lane_wrote_waits_until_its_rung_is_empty() -> None:
    """The end offset that the broker reported before the record was written says nothing about it: a paused rung is not
    fetched.
    """
    tested = LadderLane()
    tested.lane._schedule.committed({}, {RUNG: 0})
    assert tested.waits()
    await tested.take({LIVE: [*events(1)]})
    assert tested.waits(), "the same end offset as before"
    tested.fetcher.ends[RUNG] = 2
    assert await tested.take({RUNG: [waiting(), None]}) == (1, 1)
    assert tested.waits(), "it was taken, and may yet be held"
    await tested.take({LIVE: [*events(1, start=1)]})
    assert not tested.waits()


async def test_a_rung_that_was_read_to_its_end_is_empty_although_markers_follow() -> None:
    """Transactions leave markers after the records, and no offset is committed for these."""
    tested = LadderLane()
    tested.fetcher.ends[RUNG] = 9
    assert tested.waits()
    await tested.take({LIVE: [*events(1)], RUNG: [None] * 9})
    assert not tested.waits()
    tested.fetcher.ends[RUNG] = 10
    assert tested.waits()


async def test_a_record_that_is_not_due_is_no_probe() -> None:
    """It becomes a possible probe when it is due."""
    tested = LadderLane()
    tested.fetcher.ends[RUNG] = 1
    assert await tested.take({LIVE: [*events(1)], RUNG: [waiting(due_ms=NOW_MS + 1000)]}) == (1, 0)
    assert not tested.waits() and tested.lane._readable()[1] == pytest.approx(1.0)
    tested.now += 1
    assert tested.waits()


async def test_a_record_that_is_held_requests_probes() -> None:
    """It was the last one of its rung. A breaker that is not asked for probes never closes when live events have ended,
    and the rung must not wait until a later record is due.
    """
    tested = LadderLane()
    tested.fetcher.ends[RUNG] = 2
    tested.fetcher[RUNG] += [waiting(), waiting(offset=1, due_ms=NOW_MS + 30_000)]
    tested.fetcher.fetch(RUNG)
    taken = await tested.lane._take()
    assert [r.offset for r in taken[RUNG]] == [0]
    assert tested.lane._offsets(taken[RUNG], {0}, 1) == {}
    assert tested.waits() and RUNG in tested.reads()
    assert [r.offset for r in (await tested.lane._take())[RUNG]] == [0]


async def test_the_end_of_a_rung_is_noted_before_it_is_written_to() -> None:
    """At least once, the fetcher may report the new record before the commit ends. Noted only then, the end would be
    taken for the old one for ever, and the lane would ask for probes of an empty rung.
    """
    tested = LaneUnderTest({LIVE: [*events(1)]})
    tested.fetcher.ends[RUNG] = 0
    run = tested.deps.calls.run

    async def failing_run(call: Any, lane: int) -> Any:
        await run(call, lane)
        return broken(call)

    class Reported(Ledger):
        async def commit(self, outputs: Any, offsets: Any, member: Any) -> None:
            if outputs:
                tested.fetcher.ends[RUNG] = 1
            await super().commit(outputs, offsets, member)

    tested.deps.calls.run = failing_run
    tested.committer._producer = tested.ledger = Reported()
    await tested.run(lambda: RUNG.topic in tested.ledger.wrote and tested.ledger.offsets)
    assert tested.lane._schedule._wrote == {RUNG: 0}


@pytest.mark.parametrize(("is_open", "to"), [(True, RUNG), (False, NEXT)])
async def test_the_breaker_of_the_registry_decides_if_an_attempt_is_used(is_open: bool, to: TopicPartition) -> None:
    """It is asked after the look-ups of the batch. The model's breaker has nothing to do with it."""
    record = waiting(value=encoded(7, {}), next_revision=0)
    asked: list[bytes] = []

    async def readers(records: Any) -> Mapping[int, Failure]:
        asked.extend(record.value for record in records)
        tested.deps.schemas.registry_open = is_open
        return {7: Failure(Kind.DEPENDENCY, "schema id 7: the registry does not answer")}

    tested = LaneUnderTest({RUNG: [record]}, the_plan=plan(envelope=Envelope(id="id", format=WireFormat.AVRO)))
    tested.deps.schemas = SimpleNamespace(readers=readers, registry_open=not is_open)
    await tested.run(lambda: tested.ledger.wrote)
    assert tested.ledger.wrote == [to.topic] and asked == [record.value]
    assert tested.ledger.offsets[-1][RUNG] == 1
