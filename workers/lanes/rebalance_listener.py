"""Passes the group's assignments to the lanes, and makes their errors fatal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from aiokafka import ConsumerRebalanceListener, TopicPartition


class RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """What aiokafka calls in a rebalance. It only logs a listener's errors, so they are made fatal here.

    Args:
        revoked: gives up all partitions; the rebalance waits for it.
        assigned: takes over the partitions of the new generation.
        fatal: called with the error of either one.
    """

    def __init__(
        self,
        revoked: Callable[[], Awaitable[None]],
        assigned: Callable[[Iterable[TopicPartition]], None],
        fatal: Callable[[BaseException], None],
    ) -> None:
        self._revoked, self._assigned, self._fatal = revoked, assigned, fatal

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        try:
            await self._revoked()
        except Exception as e:
            self._fatal(e)
            raise

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        try:
            self._assigned(assigned)
        except Exception as e:
            self._fatal(e)
            raise
