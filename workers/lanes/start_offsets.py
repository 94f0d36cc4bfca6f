"""Where each lane begins to read: the committed offsets of all lanes that open, checked against what was answered.

One request asks the group for the offsets of all of them, and a few more ask where their partitions stand
(failsoft.workers.lanes.survey). A lane whose partitions cannot be asked now, or are in trouble, holds up no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass

import structlog
from aiokafka import TopicPartition

from failsoft.workers.kafka.partition_errors import of_one_of
from failsoft.workers.lanes.standing import State
from failsoft.workers.lanes.survey import Committed, LaneStanding, Looked
from failsoft.workers.lanes.trouble import Cause, LaneTrouble

log = structlog.get_logger("failsoft.lanes")

OffsetAndMetadata = tuple[int, str]
"""An offset and its metadata. The metadata is "" or a crash marker (failsoft.workers.lanes.crash_marks)."""

AGAIN_AFTER = 0.05
"""Seconds until what is not known yet is asked for again. A dead worker's transaction ends within 18 s: it times out
after 8, and the broker looks every 10."""

SAID_AFTER = 200
"""Requests after which the log says that offsets are not final yet: ten seconds, more than any transaction lasts."""

NO_ANSWER_AFTER = 5.0
"""Seconds after which a lane stops because one of its partitions cannot be asked. An election takes less than one."""

Stable = tuple[Committed, Set[TopicPartition]]
"""The committed offsets that are stable, and the partitions whose offsets a transaction still may change."""

StartOffset = tuple[int, str | None]
"""Where to begin. The metadata is None where no offset is committed."""

Start = Mapping[TopicPartition, StartOffset]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One lane that waits: its partitions, and since when (monotonic seconds)."""

    partitions: frozenset[TopicPartition]
    since: float


class StartOffsets:
    """Answers all lanes of one assignment.

    Args:
        committed: asks the group's coordinator once, for all given partitions. Partitions without a committed offset
            are in neither part of its answer.
        look: where lanes stand, given these offsets (``Survey.look``).
        opened: told where a lane stands when it may begin.
    """

    def __init__(
        self,
        committed: Callable[[Set[TopicPartition]], Awaitable[Stable]],
        look: Callable[[Mapping[int, Collection[TopicPartition]], Committed], Awaitable[Looked]],
        opened: Callable[[int, LaneStanding], None],
    ) -> None:
        self._committed, self._look, self._opened = committed, look, opened
        self._asked: dict[asyncio.Future[Start], _Asked] = {}
        self._task: asyncio.Task[None] | None = None

    async def of(self, partitions: Iterable[TopicPartition]) -> Start:
        """Where to begin with each of ``partitions``, all of one lane, as soon as the committed offsets of all of them
        are stable. A partition of which nothing was answered and no offset is committed is read from its beginning.

        Raises LaneTrouble if reading on would answer events again, or skip some.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Start] = loop.create_future()
        self._asked[found] = _Asked(frozenset(partitions), loop.time())
        if self._task is None:
            self._task = loop.create_task(self._answer(), name="start-offsets")
        return await found

    async def _answer(self) -> None:
        """Ask until every lane has its answer. An error is the answer to all of them: the refusal of a topic is told to
        each lane as that of its own partition.
        """
        asked = 0
        try:
            while waiting := self._waiting():
                stable, unstable = await self._committed(frozenset().union(*(w.partitions for w in waiting.values())))
                ready = {found: lane for found, lane in waiting.items() if not lane.partitions & unstable}
                if ready:
                    lanes = {next(iter(lane.partitions)).partition: lane.partitions for lane in ready.values()}
                    looked = await self._look(lanes, stable)
                    for found, lane in ready.items():
                        if not found.done():
                            self._settle(found, lane, looked)
                if unstable:
                    asked += 1
                    if asked % SAID_AFTER == 0:
                        names = sorted(f"{tp.topic}-{tp.partition}" for tp in unstable)
                        log.warning(
                            "offsets are not final: a transaction is open", partitions=names[:10], of=len(names)
                        )
                if self._waiting():
                    await asyncio.sleep(AGAIN_AFTER)
        except BaseException as e:
            for found, lane in self._waiting().items():
                gone = RuntimeError("nobody reads the offsets any more")
                found.set_exception(of_one_of(e, lane.partitions) if isinstance(e, Exception) else gone)
            if not isinstance(e, Exception):
                raise
        finally:
            self._task = None

    def _settle(self, found: asyncio.Future[Start], lane: _Asked, looked: Looked) -> None:
        """Answer one lane, if all that concerns it is known."""
        index = next(iter(lane.partitions)).partition
        trouble = looked.refused.get(index)
        if (stands := looked.lanes.get(index)) is not None:
            trouble = stands.trouble()
        elif trouble is None and asyncio.get_running_loop().time() - lane.since > NO_ANSWER_AFTER:
            tp = looked.waits[index]
            why = "the partition has no leader, or it does not answer"
            trouble = LaneTrouble(Cause.NO_LEADER, tp, None, why, "it goes on when one of its brokers is back")
        if trouble is not None:
            found.set_exception(trouble)
        elif stands is not None:
            self._tell(stands)
            self._opened(index, stands)
            committed = {tp: None if each.committed is None else each.metadata for tp, each in stands.standings.items()}
            found.set_result({tp: (each.next, committed[tp]) for tp, each in stands.standings.items()})

    def _tell(self, stands: LaneStanding) -> None:
        """Log what is unusual, although the lane may begin."""
        for tp, each in stands.standings.items():
            if each.state is State.REWINDING and each.rewind is not None:
                log.warning(
                    "events are answered again: an operator has rewound the partition",
                    **{"topic": tp.topic, "partition": tp.partition, "from": each.next},
                    until=each.rewind.until,
                    rewind=each.rewind.id,
                )
            elif each.passed:
                log.warning(
                    "offsets were passed without an answer: skipped, ignored, or passed by a reset",
                    **{"topic": tp.topic, "partition": tp.partition, "from": each.answered, "to": each.next},
                )

    def _waiting(self) -> Mapping[asyncio.Future[Start], _Asked]:
        """The lanes that wait now. One that was closed meanwhile has cancelled its future.

        A copy: a lane that comes while a request is under way is not in that request. Its offsets would be missing in
        the answer.
        """
        self._asked = {found: lane for found, lane in self._asked.items() if not found.done()}
        return dict(self._asked)
