"""Puts together what lanes need to begin: the group's offsets, the survey of their partitions, and their positions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Set
from functools import partial

from aiokafka import TopicPartition

from failsoft.schemas import positions
from failsoft.workers.kafka.log_view import LogView
from failsoft.workers.lanes.deps import Deps
from failsoft.workers.lanes.lane_positions import LanePositions
from failsoft.workers.lanes.start_offsets import Stable, StartOffsets
from failsoft.workers.lanes.survey import Committed, LaneStanding, Looked, Survey


def start_offsets(
    logs: LogView,
    committed: Callable[[Set[TopicPartition]], Awaitable[Stable]],
    ids: Callable[[], Mapping[str, str]],
    deps: Deps,
    lanes: LanePositions,
) -> StartOffsets:
    """The start offsets of all lanes of one assignment.

    Args:
        logs: asks the brokers; its client knows the topics.
        committed: asks for the group's committed offsets (``LaneStart.committed``).
        ids: the ids of the topics that these are of (``LaneStart.ids``).
        deps: what the lanes share.
        lanes: told where each lane begins.
    """
    survey = Survey(logs, deps.names, deps.plan.rungs, deps.exactly_once)
    ladder = (*deps.plan.rungs, deps.plan.replay)

    async def look(opening: Mapping[int, Collection[TopicPartition]], offsets: Committed) -> Looked:
        return await survey.look(opening, offsets, ids())

    return StartOffsets(committed, look, partial(_opened, lanes, ladder))


def _opened(lanes: LanePositions, ladder: Collection[str], index: int, stands: LaneStanding) -> None:
    """Keep the positions of the topics that the lane does not read, and of the others those of the present topics."""
    known = stands.memory.committed
    kept = {key: at for key, at in known.items() if positions.topic_of(key) not in stands.keys}
    begin = {stands.keys[tp.topic]: max(each.next, each.before or 0) for tp, each in stands.standings.items()}
    rewinds = {tp.topic: each.rewind for tp, each in stands.standings.items() if each.rewind is not None}
    lanes.opened(index, kept | begin, stands.keys, rewinds, ladder)
