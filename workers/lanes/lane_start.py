"""Where a lane begins, and whether it may begin: what its topics are now, against what its offsets are of."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Set

import structlog
from aiokafka import TopicPartition

from failsoft.workers.kafka.partition_errors import TOPIC_AUTHORIZATION_FAILED
from failsoft.workers.kafka.topic_states import TopicState
from failsoft.workers.lanes import offset_note
from failsoft.workers.lanes.start_offsets import Stable, Start, StartOffsets
from failsoft.workers.lanes.trouble import Cause, LaneTrouble

log = structlog.get_logger("failsoft.lanes")

KNOWN_AFTER = (0.1, 10)
"""Seconds between two looks, and how often a lane looks, before what is missing is its trouble: a broker may not have
heard of it yet. The group's leader has seen the partitions."""

SHARED_FOR = 0.05
"""Seconds for which an answer is good for other lanes too. All lanes of a worker open together."""

GROW = "grow the pipeline's own topics with: failsoft topics apply --grow {partitions}"


class LaneStart:
    """Answers the lanes of one assignment. Lanes that open at once share a request.

    Args:
        states: asks for the present state of topics.
        committed: asks for the group's committed offsets, as for StartOffsets.
        own: the pipeline's own topics: a lane runs only where each of them has its partition.
        identify: told the id of each partition's topic, before the partition is read.

    Attributes:
        offsets: where lanes begin, given what ``committed`` returns. To be set before ``begin``.
    """

    def __init__(
        self,
        states: Callable[[Collection[str]], Awaitable[Mapping[str, TopicState]]],
        committed: Callable[[Set[TopicPartition]], Awaitable[Stable]],
        own: Collection[str],
        identify: Callable[[Mapping[TopicPartition, str]], None],
    ) -> None:
        self._states, self._committed, self._own = states, committed, frozenset(own)
        self.offsets: StartOffsets | None = None
        self._ids: dict[TopicPartition, str] = {}
        self._told: set[TopicPartition] = set()  # partitions of topics that were made anew, as the log says
        self._identify = identify
        self._asking = asyncio.Lock()
        self._states_now: Mapping[str, TopicState] = {}
        self._asked, self._asked_of = -math.inf, frozenset[str]()

    async def begin(self, index: int, partitions: Iterable[TopicPartition]) -> Start:
        """Where lane ``index`` begins with each of ``partitions``, with the crash marker there.

        A partition whose offset is of a topic with another id is read from its beginning: nothing of the present topic
        was answered, since each commit has the id that was read. Raises LaneTrouble if a topic is gone, may not be
        seen, or lacks the partition.
        """
        tps = list(partitions)
        topics = frozenset(tp.topic for tp in tps) | self._own
        states = await self._look(topics)
        for _ in range(KNOWN_AFTER[1]):
            if (trouble := self._trouble(index, topics, states)) is None:
                break
            await asyncio.sleep(KNOWN_AFTER[0])
            states = await self._look(topics)
        if trouble is not None:
            raise trouble
        ids = {tp: found for tp in tps if (found := states[tp.topic].id) is not None}
        self._ids |= ids
        assert self.offsets is not None
        start = await self.offsets.of(tps)
        self._identify(ids)
        return start

    async def committed(self, tps: Set[TopicPartition]) -> Stable:
        """The committed offsets that are of the present topics."""
        stable, unstable = await self._committed(tps)
        present, former = offset_note.of_present_topics(stable, self._ids)
        for tp in former.keys() - self._told:
            offset = former[tp]
            self._told.add(tp)
            log.warning(
                "the topic was deleted and made anew: it is read from its beginning",
                **{"topic": tp.topic, "partition": tp.partition, "committed offset of the former one": offset},
            )
        return present, unstable

    def ids(self) -> dict[str, str]:
        """The ids of the topics that are read, where they have some. Offsets of former topics do not count."""
        return {tp.topic: found for tp, found in self._ids.items()}

    def _trouble(self, index: int, topics: Collection[str], states: Mapping[str, TopicState]) -> LaneTrouble | None:
        """Why lane ``index`` may not begin."""
        for topic in sorted(topics):
            state, tp = states.get(topic), TopicPartition(topic, index)
            if state is None:
                who = "failsoft topics apply" if topic in self._own else "your own tools; it is read from its beginning"
                return LaneTrouble(Cause.TOPIC_GONE, tp, None, "the topic does not exist", f"create it with {who}")
            if state.refused and state.refused != TOPIC_AUTHORIZATION_FAILED:
                why = f"the topic's state is not known: Kafka's error code {state.refused}"
                return LaneTrouble(Cause.REFUSED, tp, None, why, "it is tried again")
            if state.refused:
                why = "the topic may not be seen"
                mend = (
                    f"grant it: kafka-acls.sh --add --allow-principal User:<user> --operation Describe --topic {topic}"
                )
                return LaneTrouble(Cause.NOT_AUTHORIZED, tp, None, why, mend)
            if state.partitions <= index:
                most = max(each.partitions for each in states.values())
                why = f"the topic has {state.partitions} partitions and another one of the pipeline {most}"
                return LaneTrouble(Cause.PARTITIONS_MISSING, tp, None, why, GROW.format(partitions=most))
        return None

    async def _look(self, topics: Set[str]) -> Mapping[str, TopicState]:
        """The states of ``topics``, with one request for all lanes that ask within a moment."""
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if now - self._asked > SHARED_FOR or not topics <= self._asked_of:
                self._states_now = await self._states(topics)
                self._asked, self._asked_of = asyncio.get_running_loop().time(), frozenset(topics)
            return self._states_now
