"""A lane that is stopped by its partitions opens again, and says so once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from failsoft.workers.kafka.partition_errors import OFFSET_OUT_OF_RANGE, UNKNOWN_TOPIC_OR_PARTITION, partition_error
from failsoft.workers.kafka.unreadable import Unreadable
from failsoft.workers.lanes import keeper as module
from failsoft.workers.lanes.keeper import Keeper
from failsoft.workers.lanes.stage import Stage
from failsoft.workers.lanes.trouble import Cause, LaneTrouble, trouble_of
from tests.kafka import eventually

TP = TopicPartition("in", 3)
BROKEN = LaneTrouble(Cause.UNREADABLE, TP, 7, "a batch cannot be read", "skip it")


class StubLane:
    """A lane that raises ``error``, or runs until it is closed."""

    def __init__(self, error: Exception | None) -> None:
        self.error, self.is_past, self.stage = error, False, Stage.FETCHING
        self.closed = asyncio.Event()
        self.committed = {TP: 3}
        self.asked: list[int | None] = []

    async def run(self) -> None:
        if self.error is not None:
            raise self.error
        await self.closed.wait()

    def close(self) -> None:
        self.closed.set()

    def has_passed(self, tp: TopicPartition, offset: int | None) -> bool:
        self.asked.append(offset)
        return self.is_past


class KeeperUnderTest:
    """A keeper whose lanes end with ``errors`` in turn; the last one runs."""

    def __init__(self, *errors: Exception) -> None:
        self.lanes: list[StubLane] = []
        self.told: list[tuple[LaneTrouble | None, LaneTrouble | None]] = []
        self.now = 5.0
        self._errors: Iterator[Exception] = iter(errors)
        self.keeper = Keeper(cast(Any, self._make), lambda *told: self.told.append(told), lambda: self.now)
        self.running = asyncio.get_running_loop().create_task(self.keeper.run())

    def _make(self) -> StubLane:
        self.lanes.append(StubLane(next(self._errors, None)))
        return self.lanes[-1]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes open again at once."""
    monkeypatch.setattr(module, "BACKOFF", (0.001, 0.001))


async def test_a_stopped_lane_opens_again_and_the_same_trouble_is_told_once() -> None:
    """The log and the alerts would else repeat it with each try."""
    other = LaneTrouble(Cause.OUT_OF_RANGE, TP, 7, "gone", "skip them")
    kept = KeeperUnderTest(BROKEN, BROKEN, other)
    await eventually(lambda: len(kept.lanes) == 4, 10, "the fourth lane")
    assert kept.told == [(BROKEN, None), (other, BROKEN)] and kept.keeper.since == 5.0
    kept.keeper.look([])
    assert kept.keeper.trouble is other
    kept.lanes[-1].is_past = True
    kept.keeper.look([])
    assert kept.keeper.trouble is None and kept.told[-1] == (None, other)
    kept.keeper.close()
    await asyncio.wait_for(kept.running, 10)


@pytest.mark.parametrize(
    ("cause", "past"),
    [(Cause.UNREADABLE, 7), (Cause.RECREATED, None), (Cause.OUT_OF_RANGE, None), (Cause.OFFSETS_BEHIND, None)],
)
async def test_a_lane_that_begins_elsewhere_need_not_come_to_the_offset_of_its_trouble(
    cause: Cause, past: int | None
) -> None:
    """The topic made anew may take days to get there, and the worker would not be live after two minutes."""
    kept = KeeperUnderTest(LaneTrouble(cause, TP, 7, "why", "mend"))
    await eventually(lambda: len(kept.lanes) == 2, 10, "the second lane")
    kept.keeper.look([])
    assert kept.keeper.trouble is not None and kept.lanes[-1].asked == [past]
    kept.keeper.close()
    await asyncio.wait_for(kept.running, 10)


async def test_the_trouble_of_an_output_is_over_when_the_lane_is_open() -> None:
    """The lane does not read that topic, so it never comes past its offset."""
    kept = KeeperUnderTest(LaneTrouble(Cause.NOT_AUTHORIZED, TopicPartition("scored", 3), 99, "why", "grant it"))
    await eventually(lambda: len(kept.lanes) == 2, 10, "the second lane")
    kept.lanes[-1].stage = Stage.OPENING
    kept.keeper.look([])
    assert kept.keeper.trouble is not None
    kept.lanes[-1].stage = Stage.FETCHING
    kept.keeper.look([])
    assert kept.keeper.trouble is None and not kept.lanes[-1].asked
    kept.keeper.close()
    await asyncio.wait_for(kept.running, 10)


async def test_time_for_which_the_cluster_was_to_mend_it_does_not_count() -> None:
    """After an outage of ten minutes a damaged batch gets its two minutes too."""
    kept = KeeperUnderTest()
    kept.keeper.look([TP])
    kept.now = 605.0
    kept.keeper._note(BROKEN)
    assert kept.keeper.since == 605.0
    kept.now = 700.0
    kept.keeper._note(LaneTrouble(Cause.OUT_OF_RANGE, TP, 7, "why", "mend"))
    assert kept.keeper.since == 605.0
    kept.keeper.close()
    await asyncio.wait_for(kept.running, 10)


async def test_a_stopped_lane_ends_when_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rebalance must not wait for the back-off."""
    monkeypatch.setattr(module, "BACKOFF", (3600.0, 3600.0))
    kept = KeeperUnderTest(BROKEN)
    await eventually(lambda: kept.told, 10, "the trouble")
    kept.keeper.close()
    await asyncio.wait_for(kept.running, 10)
    assert len(kept.lanes) == 1


async def test_any_other_error_of_a_lane_is_raised() -> None:
    """It must end the worker."""
    kept = KeeperUnderTest(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        await kept.running
    assert not kept.told


async def test_a_partition_without_a_leader_is_told_while_the_lane_goes_on() -> None:
    """Its other partitions are read on. It is over when there is a leader, however little the lane has to read."""
    kept = KeeperUnderTest()
    kept.keeper.look([TP])
    kept.keeper.look([TP])
    assert [trouble.cause for trouble, _ in kept.told if trouble] == [Cause.NO_LEADER] and len(kept.lanes) == 1
    kept.keeper.look([])
    assert kept.keeper.trouble is None and len(kept.told) == 2
    kept.keeper.close()
    await asyncio.wait_for(kept.running, 10)


@pytest.mark.parametrize(
    ("error", "cause", "said"),
    [
        (Unreadable(TP, 7, "its checksum is wrong"), Cause.UNREADABLE, "failsoft offsets skip --topic in:3"),
        (partition_error(OFFSET_OUT_OF_RANGE, TP, 7), Cause.OUT_OF_RANGE, "failsoft offsets skip --topic in:3"),
        (partition_error(29, TP, 7), Cause.NOT_AUTHORIZED, "--operation Read --topic in"),
        (partition_error(UNKNOWN_TOPIC_OR_PARTITION, TP, 7), Cause.TOPIC_GONE, "failsoft topics apply"),
        (partition_error(35, TP, 7), Cause.REFUSED, "Kafka's error code 35"),
        (BROKEN, Cause.UNREADABLE, "in-3 at offset 7: a batch cannot be read; skip it"),
    ],
)
def test_an_error_of_a_partition_names_place_cause_and_mend(error: Exception, cause: Cause, said: str) -> None:
    """A person must be able to act on the line alone."""
    trouble = trouble_of(error)
    assert trouble is not None
    assert (trouble.cause, trouble.tp, trouble.offset) == (cause, TP, 7)
    assert said in str(trouble) and "in-3 at offset 7" in str(trouble)


@pytest.mark.parametrize("error", [KafkaError("no coordinator"), RuntimeError("a bug")])
def test_an_error_of_no_partition_is_no_trouble_of_a_lane(error: Exception) -> None:
    """It concerns the whole worker."""
    assert trouble_of(error) is None
