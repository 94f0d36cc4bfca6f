"""Keeps the lane of one partition index running: opens it again after a trouble of its partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress

from aiokafka import TopicPartition

from failsoft.schemas.backoff import doubled
from failsoft.workers.lanes.lane import Lane
from failsoft.workers.lanes.stage import Stage
from failsoft.workers.lanes.trouble import OF_ITS_START, OF_THE_CLUSTER, Cause, LaneTrouble

BACKOFF = (0.5, 15.0)
"""Seconds until a stopped lane opens again: first and longest wait. A mend is noticed within the longest one."""


Changed = Callable[[LaneTrouble | None, LaneTrouble | None], None]
"""Told the trouble of a lane, and the one before."""


class Keeper:
    """Runs a lane, and a new one in its place when it has ended with a LaneTrouble.

    The lane that ended has committed what it had handed in. The new one begins at the committed offsets, as after a
    rebalance, so that nothing is lost and nothing twice.

    Args:
        make: makes the lane; its partitions must not be read by another one.
        changed: called with the trouble when the lane stops, and with None when it is past it; and with the one before.
            The same trouble again after a back-off is not told again.
        clock: the monotonic clock (seconds).

    Attributes:
        lane: the present lane. It has ended while the keeper waits.
        trouble: why the lane is stopped; None while it runs.
        since: when the lane stopped (monotonic seconds), without the time for which the cluster was to mend it.
    """

    def __init__(
        self,
        make: Callable[[], Lane],
        changed: Callable[[LaneTrouble | None, LaneTrouble | None], None],
        clock: Callable[[], float],
    ) -> None:
        self._make, self._changed, self._clock = make, changed, clock
        self.lane = make()
        self.trouble: LaneTrouble | None = None
        self.since = 0.0
        self._stops = 0  # since the lane was last past its trouble
        self._closing = asyncio.Event()

    async def run(self) -> None:
        """Run until ``close`` is called. Any error but a LaneTrouble is raised, and must end the worker."""
        while True:
            try:
                await self.lane.run()
                return
            except LaneTrouble as trouble:
                self._stops += 1
                self._note(trouble)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), doubled(*BACKOFF, self._stops - 1))
            if self._closing.is_set():
                return
            self.lane = self._make()

    def close(self) -> None:
        """Let the lane finish its batch, or end the wait for the next try."""
        self._closing.set()
        self.lane.close()

    def look(self, without_leader: Collection[TopicPartition]) -> None:
        """Notice partitions that have no leader, and that the lane is past its trouble. To be called now and then.

        A lane with such a partition goes on with its other ones.
        """
        if self.trouble is None:
            for tp in without_leader:
                why = "the partition has no leader: the brokers with its replicas are away"
                self._note(LaneTrouble(Cause.NO_LEADER, tp, None, why, "it goes on when one of them is back"))
                return
        elif self.trouble.tp not in without_leader and self._is_past(self.trouble):
            self._note(None)

    def _is_past(self, trouble: LaneTrouble) -> bool:
        """Whether the present lane has come past ``trouble``. One without an offset, or of a topic that the lane only
        writes to, kept the lane from opening, or is of a partition without a leader.
        """
        if trouble.offset is None or trouble.tp not in self.lane.committed:
            return self.lane.stage not in (Stage.OPENING, Stage.STOPPED)
        return self.lane.has_passed(trouble.tp, None if trouble.cause in OF_ITS_START else trouble.offset)

    def _note(self, trouble: LaneTrouble | None) -> None:
        """Remember the trouble, and tell of it unless it is the same as before."""
        before, self.trouble = self.trouble, trouble
        if trouble is None:
            self._stops = 0
        elif before is None or (before.cause in OF_THE_CLUSTER and trouble.cause not in OF_THE_CLUSTER):
            self.since = self._clock()
        if trouble is None or before is None or before.key != trouble.key:
            self._changed(trouble, before)
