"""The group coordinator of a worker: notices when the assignment no longer fits the topics, and has it made anew.

aiokafka, as Kafka's own client, lets only the leader compare, and only with what it assigned itself. After a restart a
static member gets its assignment back without a rebalance and is not told that it leads, so then nobody compares: new
partitions were never read. And a static member that came back with another subscription kept the old assignment
(KAFKA-12759). Here each assignment says what it was computed from, and every member compares.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.coordinator.protocol import ConsumerProtocol, ConsumerProtocolMemberAssignment

from failsoft.schemas.backoff import doubled
from failsoft.workers.kafka.group_coordinator import StrictCoordinator
from failsoft.workers.kafka.lane_assignor import LaneAssignor

log = logging.getLogger(__name__)

AGAIN = (5.0, 60.0)
"""Seconds until a member asks for another rebalance, after one that did not help: first and longest wait. The leader
may have asked a broker that had not heard of the new partitions yet."""


class LaneCoordinator(StrictCoordinator):
    """Joins the group again when its assignment is stale, so that the coordinator rebalances whoever leads.

    Args:
        client: as of aiokafka's coordinator. It must read the metadata now and then.
        subscription: as of aiokafka's coordinator.
        clock: the monotonic clock (seconds).
        options: the others of aiokafka's coordinator.
    """

    def __init__(
        self,
        client: AIOKafkaClient,
        subscription: SubscriptionState,
        *,
        clock: Callable[[], float] = time.monotonic,
        **options: Any,
    ) -> None:
        self._clock = clock
        self._lanes = LaneAssignor()
        self._strange: set[str] = set()  # assigned topics that this member does not read
        self._has_joined = False
        self._asked, self._ask_after = 0, 0.0
        super().__init__(client, subscription, assignors=(self._lanes,), **options)

    def _handle_metadata_update(self, cluster: Any) -> None:
        """Called with each new metadata, in place of aiokafka's comparison."""
        if self._has_joined:
            self._compare()

    async def _perform_assignment(self, response: Any) -> Any:
        """As aiokafka, which waits for the update here: the leader's metadata may be older than a member's."""
        self._client.force_metadata_update()
        return await super()._perform_assignment(response)

    async def _on_join_complete(self, generation: int, member_id: str, protocol: str, assignment: bytes) -> None:
        """As aiokafka, without the topics that this member no longer reads: a static member that comes back with a
        smaller subscription gets its old assignment first, and aiokafka would end at that.
        """
        given = ConsumerProtocol.ASSIGNMENT.decode(assignment)
        read = self._subscription.subscription.topics
        self._strange = {topic for topic, _ in given.assignment} - read
        mine = [(topic, partitions) for topic, partitions in given.assignment if topic in read]
        fitting = ConsumerProtocolMemberAssignment(given.version, mine, given.user_data)
        await super()._on_join_complete(generation, member_id, protocol, fitting.encode())
        self._has_joined = True
        if self._is_stale():
            # Only new metadata can say so: the leader's was newer than what this member has. ``_compare`` follows.
            self._client.force_metadata_update()

    def _is_stale(self) -> bool:
        """Whether the assignment does not fit the topics, as far as this member knows."""
        return bool(self._strange) or self._lanes.is_stale(self._present())

    def _present(self) -> dict[str, int]:
        return {
            topic: len(self._cluster.partitions_for_topic(topic) or ())
            for topic in self._subscription.subscription.topics
        }

    def _compare(self) -> None:
        """Ask for a rebalance if the assignment does not fit the topics, at growing intervals."""
        if not self._is_stale():
            self._asked = 0
            return
        if self._asked and (self._lanes.counts is None or self._clock() < self._ask_after):
            return  # a leader of an earlier release says nothing: asking once is enough
        self._ask_after = self._clock() + doubled(*AGAIN, self._asked)
        self._asked += 1
        self._lanes.joins += 1
        log.info(
            "the topics are not those of the assignment, joining again: %s, %s", self._present(), self._lanes.counts
        )
        self.request_rejoin()
