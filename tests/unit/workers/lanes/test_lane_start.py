"""A lane begins where its offsets say, if its topics are what they were, and not where a topic lacks its partition."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Set
from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from failsoft.workers.kafka.topic_states import TopicState
from failsoft.workers.lanes import lane_start as module
from failsoft.workers.lanes.lane_start import LaneStart
from failsoft.workers.lanes.offset_note import join
from failsoft.workers.lanes.trouble import Cause, LaneTrouble

LIVE, RUNG = TopicPartition("in", 3), TopicPartition("retry", 3)
OLD, NEW = "o" * 22, "n" * 22


class Topics:
    """The cluster: its topics, the committed offsets, and what it was asked.

    Attributes:
        states: the topics as they are now.
        committed: the committed offsets with their metadata.
        asked: how often the topics were asked for.
        identified: the ids that were told.
    """

    def __init__(self, **states: TopicState) -> None:
        self.states = {"in": TopicState(4, NEW), "retry": TopicState(4, NEW), "scored": TopicState(4, NEW)} | states
        self.committed: dict[TopicPartition, tuple[int, str]] = {}
        self.asked = 0
        self.identified: dict[TopicPartition, str] = {}
        self.start = LaneStart(self._look, self._offsets, ["scored", "retry"], self._identify)
        self.start.offsets = cast(Any, self)

    async def _look(self, topics: Collection[str]) -> Mapping[str, TopicState]:
        self.asked += 1
        await asyncio.sleep(0)
        return {topic: state for topic, state in self.states.items() if topic in topics and state.partitions}

    async def _offsets(self, tps: Set[TopicPartition]) -> tuple[Mapping[TopicPartition, tuple[int, str]], Set[Any]]:
        return {tp: at for tp, at in self.committed.items() if tp in tps}, set()

    async def of(self, tps: Collection[TopicPartition]) -> Mapping[TopicPartition, tuple[int, str]]:
        """As StartOffsets: the present offsets, or the first ones where there is none."""
        stable, _ = await self.start.committed(set(tps))
        return {tp: stable.get(tp, (2, "")) for tp in tps}

    def _identify(self, ids: Mapping[TopicPartition, str]) -> None:
        self.identified.update(ids)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN_AFTER", (0.0, 3))
    monkeypatch.setattr(module, "SHARED_FOR", -1.0)


async def _trouble(topics: Topics) -> LaneTrouble:
    with pytest.raises(LaneTrouble) as found:
        await topics.start.begin(3, [LIVE, RUNG])
    return found.value


async def test_a_lane_begins_at_its_offsets() -> None:
    """With the crash markers, and the ids are told before anything is read."""
    topics = Topics()
    topics.committed = {LIVE: (7, join("a mark", NEW)), RUNG: (8, "")}
    assert await topics.start.begin(3, [LIVE, RUNG]) == {LIVE: (7, "a mark"), RUNG: (8, "")}
    assert topics.identified == {LIVE: NEW, RUNG: NEW} and topics.asked == 1
    assert topics.start.ids() == {"in": NEW, "retry": NEW}


async def test_a_topic_that_was_made_anew_is_read_from_its_beginning() -> None:
    """Its offset, and the marker there, are of the former topic. The lane's other partitions go on."""
    topics = Topics()
    topics.committed = {LIVE: (7, join("a mark", OLD)), RUNG: (8, join("", NEW))}
    assert await topics.start.begin(3, [LIVE, RUNG]) == {LIVE: (2, ""), RUNG: (8, "")}


async def test_without_ids_an_offset_is_taken_as_it_is() -> None:
    """Brokers before Kafka 2.8 have none."""
    topics = Topics(**{"in": TopicState(4, None), "retry": TopicState(4, None)})
    topics.committed = {LIVE: (7, join("", OLD)), RUNG: (8, "")}
    assert await topics.start.begin(3, [LIVE, RUNG]) == {LIVE: (7, ""), RUNG: (8, "")}
    assert not topics.identified


async def test_a_lane_whose_output_lacks_the_partition_stops() -> None:
    """It would find no leader to write to. The mend has the number that all topics need."""
    trouble = await _trouble(Topics(**{"in": TopicState(6, NEW), "scored": TopicState(3, NEW)}))
    assert (trouble.cause, trouble.tp) == (Cause.PARTITIONS_MISSING, TopicPartition("scored", 3))
    assert "has 3 partitions and another one of the pipeline 6" in str(trouble)
    assert "failsoft topics apply --grow 6" in trouble.mend


@pytest.mark.parametrize(("gone", "mend"), [("in", "your own tools"), ("scored", "failsoft topics apply")])
async def test_a_lane_whose_topic_is_gone_stops(gone: str, mend: str) -> None:
    """After some looks: a broker may not have heard of it yet."""
    topics = Topics(**{gone: TopicState(0, None)})
    trouble = await _trouble(topics)
    assert (trouble.cause, trouble.tp.topic) == (Cause.TOPIC_GONE, gone) and mend in trouble.mend
    assert topics.asked == 4


async def test_a_topic_that_may_not_be_seen_is_named() -> None:
    """A missing right reads otherwise than a missing topic."""
    trouble = await _trouble(Topics(**{"in": TopicState(0, None)}))
    assert trouble.cause is Cause.TOPIC_GONE
    topics = Topics()

    async def look(asked: Collection[str]) -> Mapping[str, TopicState]:
        return topics.states | {"in": TopicState(0, None, 29)}

    topics.start._states = look
    refused = await _trouble(topics)
    assert refused.cause is Cause.NOT_AUTHORIZED and "--operation Describe --topic in" in refused.mend


async def test_partitions_that_a_broker_hears_of_late_are_waited_for() -> None:
    """The group's leader has seen them at another broker."""
    topics = Topics(scored=TopicState(3, NEW))

    async def look(asked: Collection[str]) -> Mapping[str, TopicState]:
        topics.asked += 1
        if topics.asked == 3:
            topics.states["scored"] = TopicState(4, NEW)
        return topics.states

    topics.start._states = look
    assert (await topics.start.begin(3, [LIVE, RUNG]))[LIVE] == (2, "")


async def test_lanes_that_open_together_share_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request, not one a lane."""
    monkeypatch.setattr(module, "SHARED_FOR", 60.0)
    topics = Topics()
    found = await asyncio.gather(*(topics.start.begin(i, [TopicPartition("in", i)]) for i in range(4)))
    assert topics.asked == 1 and [list(each) for each in found] == [[TopicPartition("in", i)] for i in range(4)]
