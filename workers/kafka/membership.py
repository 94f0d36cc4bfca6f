"""A worker's membership in the consumer group: aiokafka's group coordinator, without its consumer and fetcher.

The worker fetches with its own Fetcher and commits in its own transactions. Of aiokafka's consumer it needs only the
group: join, heartbeat, rebalance, and the generation that fences a worker which lost its partitions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import ConsumerRebalanceListener
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import KafkaError

from failsoft.workers.kafka.lane_coordinator import LaneCoordinator
from failsoft.workers.kafka.member import GroupMember
from failsoft.workers.kafka.request_loop import RequestLoop


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """How a worker takes part in its group.

    Attributes:
        group: the consumer group.
        instance_id: the static member id.
        session_timeout_ms: the coordinator removes a member that is silent for this long.
        heartbeat_interval_ms: between two heartbeats.
        rebalance_timeout_ms: how long a rebalance waits for a member to give up its partitions.
    """

    group: str
    instance_id: str
    session_timeout_ms: int = 6_000
    heartbeat_interval_ms: int = 1_000
    rebalance_timeout_ms: int = 30_000


class Membership:
    """One member of a consumer group, on ``client``, which it starts and stops."""

    def __init__(self, client: AIOKafkaClient, settings: GroupSettings) -> None:
        self.client = client
        self._settings = settings
        self._coordinator: LaneCoordinator | None = None

    async def join(self, topics: Sequence[str], listener: ConsumerRebalanceListener) -> None:
        """Join the group, subscribed to ``topics``. Returns after the first assignment, which may be empty.

        aiokafka's errors are raised, as when no broker answers or the group may not be read; RequestRefused for a topic
        that may not be seen; MemberRemoved as in ``check``.
        """
        await self.client.bootstrap()
        self.client.set_topics(topics)
        await RequestLoop(self.client).know(topics)
        subscription = SubscriptionState()
        subscription.subscribe(topics=set(topics), listener=listener)
        subscription.register_fetch_waiters(set())  # aiokafka's fetcher does this, and the coordinator relies on it
        assigned = subscription.wait_for_assignment()
        s = self._settings
        self._coordinator = LaneCoordinator(
            self.client,
            subscription,
            group_id=s.group,
            group_instance_id=s.instance_id,
            session_timeout_ms=s.session_timeout_ms,
            heartbeat_interval_ms=s.heartbeat_interval_ms,
            rebalance_timeout_ms=s.rebalance_timeout_ms,
            enable_auto_commit=False,
            # Never: this worker does not fetch with aiokafka, which would take it for idle and leave for good.
            max_poll_interval_ms=math.inf,
        )
        try:
            await assigned
        except KafkaError:
            self.check()
            raise

    def member(self) -> GroupMember:
        """Who this worker is in the present generation. To be read when partitions are assigned, and kept until they
        are revoked: commits of these partitions are valid in that generation only.
        """
        c = self._coordinator
        assert c is not None
        return GroupMember(self._settings.group, c.generation, c.member_id, self._settings.instance_id)

    def check(self) -> None:
        """Raise the group's error, if it refused this member or its coordination has ended. MemberRemoved: the group
        has this member no longer, and the process must end. Refused: the broker does not take its session timeout.

        aiokafka reports these errors only to a pending fetch of its consumer, so a worker must poll for them.
        """
        if self._coordinator is None:
            return
        try:
            self._coordinator.check_errors()
        except Exception:
            if self._coordinator.removed is None:
                raise
        if self._coordinator.removed is not None:
            raise self._coordinator.removed

    async def stop(self) -> None:
        """Stop the heartbeat and close the connections. A static member does not leave its group: it may come back
        within the session and keeps its partitions.
        """
        if self._coordinator is not None:
            await self._coordinator.close()
        await self.client.close()
