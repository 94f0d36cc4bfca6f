"""Finds out where the partitions of lanes stand: bounds of their logs, and what was answered.

A few requests to each broker for all lanes that open together, and one read of the end of each output partition. A
partition that cannot be asked now, or that fails, concerns its lane alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiokafka import TopicPartition

from failsoft.schemas import positions
from failsoft.schemas.record import Record
from failsoft.topics.names import Names
from failsoft.workers.kafka.log_tail import Answered, Bounds
from failsoft.workers.kafka.log_view import LogView
from failsoft.workers.kafka.unreadable import Unreadable
from failsoft.workers.lanes.standing import Memory, PartitionStanding, Tail
from failsoft.workers.lanes.trouble import Cause, LaneTrouble, trouble_of

log = structlog.get_logger("failsoft.lanes")

Committed = Mapping[TopicPartition, tuple[int, str]]
"""Committed offsets and their metadata. Partitions without one are left out."""


@dataclass(frozen=True, slots=True)
class LaneStanding:
    """One lane.

    Attributes:
        standings: its partitions.
        memory: what its outputs remember.
        keys: of its topics, by topic (``positions.key``).
    """

    standings: Mapping[TopicPartition, PartitionStanding]
    memory: Memory
    keys: Mapping[str, str]

    def trouble(self) -> LaneTrouble | None:
        """Why the lane may not read on, or None. It names one partition, and how many others are wrong too."""
        wrong = [(tp, each) for tp, each in self.standings.items() if each.state.is_wrong]
        if not wrong:
            return None
        tp, first = wrong[0]
        more = f" (and {len(wrong) - 1} more of its partitions: see failsoft offsets show)" if len(wrong) > 1 else ""
        return LaneTrouble(
            _CAUSES.get(first.state, Cause.OUT_OF_RANGE), tp, first.committed, first.why + more, first.mend
        )


_CAUSES = {"missing": Cause.OFFSETS_MISSING, "behind": Cause.OFFSETS_BEHIND}


@dataclass(slots=True)
class Looked:
    """The lanes that could be looked at.

    Attributes:
        lanes: where they stand, by partition index.
        refused: why others cannot be told, by partition index.
        waits: partitions that cannot be asked now: they have no leader, or it does not answer.
    """

    lanes: dict[int, LaneStanding] = field(default_factory=dict)
    refused: dict[int, LaneTrouble] = field(default_factory=dict)
    waits: dict[int, TopicPartition] = field(default_factory=dict)


class Survey:
    """Looks at lanes.

    Args:
        logs: asks the brokers.
        names: the pipeline's topics.
        rungs: its retry topics.
        exactly_once: outputs and offsets commit together.
    """

    def __init__(self, logs: LogView, names: Names, rungs: Iterable[str], exactly_once: bool) -> None:
        self._logs, self._exactly_once = logs, exactly_once
        # Not the replay topic: its records have no positions, and origins without the id of their topic.
        self._outputs = (names.scored, names.dead, *rungs)

    async def look(
        self, lanes: Mapping[int, Collection[TopicPartition]], committed: Committed, ids: Mapping[str, str | None]
    ) -> Looked:
        """Where ``lanes`` stand, each with the partitions that it reads, given the group's committed offsets and the
        ids of the topics that these are of.

        The offsets must have been read before, and be final: then no answer can be written after them but by their
        owner.
        """
        looked = Looked()
        read = [tp for tps in lanes.values() for tp in tps]
        written = [TopicPartition(topic, lane) for lane in lanes for topic in self._outputs]
        bounds = await self._logs.bounds(read, read_committed=False)
        ends = await self._logs.bounds(written, read_committed=True)
        tails = await self._logs.last_records(ends.found, _tail)
        for tp, why in tails.refused.items():
            if isinstance(why, Unreadable):  # of an output: no command skips it, and a lane with an offset needs none
                log.warning("the last answers cannot be read, and are not remembered", why=str(why))
                tails.found[tp] = Tail(emptied=True)
        for lane, tps in lanes.items():
            outputs = [tp for tp in written if tp.partition == lane]
            if (waits := _unanswered(bounds, tps) or _unanswered(ends, outputs) or _unanswered(tails, outputs)) is None:
                looked.lanes[lane] = self._standing(lane, tps, ids, committed, bounds.found, ends.found, tails.found)
            elif isinstance(waits, LaneTrouble):
                looked.refused[lane] = waits
            else:
                looked.waits[lane] = waits
        return looked

    def _standing(
        self,
        lane: int,
        tps: Collection[TopicPartition],
        ids: Mapping[str, str | None],
        committed: Committed,
        bounds: Mapping[TopicPartition, Bounds],
        ends: Mapping[TopicPartition, Bounds],
        tails: Mapping[TopicPartition, Tail],
    ) -> LaneStanding:
        found = []
        for topic in self._outputs:
            tp = TopicPartition(topic, lane)
            tail = tails[tp]
            emptied = ends[tp][0] > 0 and tail.positions is None and not tail.origins
            found.append(Tail(tail.positions, tail.origins, emptied or tail.emptied))
        memory = Memory.of(found[0], found[1:], self._exactly_once)
        standings = {
            tp: PartitionStanding.of(tp, ids.get(tp.topic), committed.get(tp), memory, bounds[tp]) for tp in tps
        }
        keys = {tp.topic: positions.key(tp.topic, ids.get(tp.topic)) for tp in tps}
        return LaneStanding(standings, memory, keys)


def _tail(records: Sequence[Record]) -> Tail:
    return Tail.of(records)


def _unanswered(answered: Answered[Any], tps: Collection[TopicPartition]) -> LaneTrouble | TopicPartition | None:
    """The first of ``tps`` that was not answered, as a trouble if it never will be."""
    for tp in tps:
        if tp not in answered.found and (error := answered.refused.get(tp)) is not None:
            trouble = trouble_of(error)
            if trouble is None:
                raise error
            return trouble
    return next((tp for tp in tps if tp not in answered.found), None)
