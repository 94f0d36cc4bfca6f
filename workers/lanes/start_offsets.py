"""Where each lane begins to read: the committed offsets of all lanes that open, with one request for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set

import structlog
from aiokafka import TopicPartition

from failsoft.workers.kafka.partition_errors import of_one_of

log = structlog.get_logger("failsoft.lanes")

OffsetAndMetadata = tuple[int, str]
"""An offset and its metadata. The metadata is "" or a crash marker (failsoft.workers.lanes.crash_marks)."""

StartOffset = tuple[int, str | None]
"""Where to begin. The metadata is None where no offset is committed."""

AGAIN_AFTER = 0.05
"""Seconds until unstable offsets are asked for again. A dead worker's transaction ends within 18 s: it times out
after 8, and the broker looks every 10."""

SAID_AFTER = 200
"""Requests after which the log says that offsets are not final yet: ten seconds, more than any transaction lasts."""

Stable = tuple[Mapping[TopicPartition, OffsetAndMetadata], Set[TopicPartition]]
"""The committed offsets that are stable, and the partitions whose offsets a transaction still may change."""


class StartOffsets:
    """Answers all lanes of one assignment.

    Args:
        committed: asks the group's coordinator once, for all given partitions. Partitions without a committed offset
            are in neither part of its answer.
        earliest: the first offsets of partitions.
    """

    def __init__(
        self,
        committed: Callable[[Set[TopicPartition]], Awaitable[Stable]],
        earliest: Callable[[Set[TopicPartition]], Awaitable[Mapping[TopicPartition, int]]],
    ) -> None:
        self._committed = committed
        self._earliest = earliest
        self._asked: dict[asyncio.Future[Mapping[TopicPartition, StartOffset]], frozenset[TopicPartition]] = {}
        self._task: asyncio.Task[None] | None = None

    async def of(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, StartOffset]:
        """Where to begin with each of ``partitions``, as soon as the committed offsets of all of them are stable.

        A partition without a committed offset is read from its beginning, so that no event is skipped. Its metadata is
        None.
        """
        found: asyncio.Future[Mapping[TopicPartition, StartOffset]] = asyncio.get_running_loop().create_future()
        self._asked[found] = frozenset(partitions)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._answer(), name="start-offsets")
        return await found

    async def _answer(self) -> None:
        """Ask until every lane has its answer. An error is the answer to all of them: the refusal of a topic is told to
        each lane as that of its own partition.
        """
        asked = 0
        try:
            while waiting := self._waiting():
                stable, unstable = await self._committed(frozenset().union(*waiting.values()))
                ready = {found: tps for found, tps in waiting.items() if not tps & unstable}
                missing = {tp for tps in ready.values() for tp in tps if tp not in stable}
                first = await self._earliest(missing) if missing else {}
                for found, tps in ready.items():
                    if not found.done():
                        found.set_result({tp: stable[tp] if tp in stable else (first[tp], None) for tp in tps})
                if unstable:
                    asked += 1
                    if asked % SAID_AFTER == 0:
                        names = sorted(f"{tp.topic}-{tp.partition}" for tp in unstable)
                        log.warning(
                            "offsets are not final: a transaction is open", partitions=names[:10], of=len(names)
                        )
                    await asyncio.sleep(AGAIN_AFTER)
        except BaseException as e:
            for found, tps in self._waiting().items():
                found.set_exception(
                    of_one_of(e, tps) if isinstance(e, Exception) else RuntimeError("nobody reads the offsets any more")
                )
            if not isinstance(e, Exception):
                raise
        finally:
            self._task = None

    def _waiting(
        self,
    ) -> Mapping[asyncio.Future[Mapping[TopicPartition, StartOffset]], frozenset[TopicPartition]]:
        """The lanes that wait now. One that was closed meanwhile has cancelled its future.

        A copy: a lane that comes while a request is under way is not in that request. Its offsets would be missing in
        the answer, and it would begin at the start of its partitions and answer all their events a second time.
        """
        self._asked = {found: tps for found, tps in self._asked.items() if not found.done()}
        return dict(self._asked)
