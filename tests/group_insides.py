"""The private names of aiokafka's group membership that failsoft uses, each with a check of its meaning."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer.group_coordinator import BaseCoordinator, CoordinatorGroupRebalance, GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.coordinator.protocol import (
    ConsumerProtocol,
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)


def _takes(function: Any, *names: str) -> bool:
    """Whether ``function`` has these parameters, besides others."""
    return set(names) <= set(inspect.signature(function).parameters)


def _sends(function: Any, request: str, by: str = "_send_req") -> bool:
    """Whether ``function`` sends a request of this class by the method that failsoft overrides."""
    return {request, by} <= set(function.__code__.co_names)


def _tells_errors() -> bool:
    """check_errors raises the error that ended the group's task, and the one that is pending."""
    broken = SimpleNamespace(done=lambda: True, result=lambda: 1 / 0)
    running = SimpleNamespace(done=lambda: False)
    for task, pending in ((broken, None), (running, ZeroDivisionError())):
        coordinator = GroupCoordinator.__new__(GroupCoordinator)
        coordinator._coordination_task, coordinator._pending_exception = task, pending
        coordinator._error_consumed_fut = None
        try:
            coordinator.check_errors()
        except ZeroDivisionError:
            continue
        return False
    return True


def _waits_for_an_assignment() -> bool:
    """A subscription waits for the assignment that the coordinator makes."""

    async def assigned() -> bool:
        subscription = SubscriptionState()
        subscription.subscribe(topics={"t"}, listener=None)
        waiting = subscription.wait_for_assignment()
        subscription.assign_from_subscribed([])
        await asyncio.wait_for(waiting, 10)
        return True

    return asyncio.run(assigned())


GROUP: dict[str, Callable[[], object]] = {
    "aiokafka.consumer.group_coordinator:GroupCoordinator.check_errors": _tells_errors,
    "aiokafka.consumer.group_coordinator:GroupCoordinator.generation": lambda: (
        "self.generation = " in inspect.getsource(GroupCoordinator.__init__)
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator.member_id": lambda: (
        "self.member_id = " in inspect.getsource(GroupCoordinator.__init__)
    ),
    "aiokafka.consumer.subscription_state:SubscriptionState": _waits_for_an_assignment,
    "aiokafka.consumer.group_coordinator:GroupCoordinator._group_instance_id": lambda: (
        "self._group_instance_id = group_instance_id" in inspect.getsource(GroupCoordinator.__init__)
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._session_timeout_ms": lambda: (
        "self._session_timeout_ms = session_timeout_ms" in inspect.getsource(GroupCoordinator.__init__)
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._subscription": lambda: (
        "self._subscription = subscription" in inspect.getsource(BaseCoordinator.__init__)
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._cluster": lambda: (
        "self._cluster = client.cluster" in inspect.getsource(BaseCoordinator.__init__)
        and "add_listener(self._handle_metadata_update)" in inspect.getsource(BaseCoordinator.__init__)
        and list(inspect.signature(BaseCoordinator._handle_metadata_update).parameters) == ["self", "cluster"]
    ),
    "aiokafka.coordinator.protocol:ConsumerProtocol": lambda: (
        ConsumerProtocol.ASSIGNMENT is ConsumerProtocolMemberAssignment
        and {"ConsumerProtocol", "decode", "assign_from_subscribed", "on_assignment"}
        <= set(GroupCoordinator._on_join_complete.__code__.co_names)
        and list(inspect.signature(GroupCoordinator._on_join_complete).parameters)
        == ["self", "generation", "member_id", "protocol", "member_assignment_bytes"]
        # The leader waits for a metadata update that is under way, and only then assigns.
        and {"_maybe_wait_metadata", "assign"} <= set(GroupCoordinator._perform_assignment.__code__.co_names)
    ),
    "aiokafka.coordinator.protocol:ConsumerProtocolMemberMetadata": lambda: (
        ConsumerProtocol.METADATA is ConsumerProtocolMemberMetadata
        and ConsumerProtocolMemberMetadata(0, ["t"], b"x").encode() == b"\0\0\0\0\0\1\0\1t\0\0\0\1x"
    ),
    "aiokafka.cluster:ClusterMetadata": lambda: _takes(ClusterMetadata.partitions_for_topic, "self", "topic"),
    "aiokafka.client:ConnectionGroup": lambda: (
        inspect.signature(AIOKafkaClient.send).parameters["group"].default is ConnectionGroup.DEFAULT
        and inspect.signature(AIOKafkaClient.ready).parameters["group"].default is ConnectionGroup.DEFAULT
    ),
    "aiokafka.protocol.group:JoinGroupRequest": lambda: _sends(
        CoordinatorGroupRebalance.perform_group_join, "JoinGroupRequest"
    ),
    "aiokafka.protocol.group:SyncGroupRequest": lambda: (
        _sends(CoordinatorGroupRebalance._on_join_follower, "SyncGroupRequest", "_send_sync_group_request")
        and _sends(CoordinatorGroupRebalance._on_join_leader, "SyncGroupRequest", "_send_sync_group_request")
        and "_send_req" in CoordinatorGroupRebalance._send_sync_group_request.__code__.co_names
    ),
    "aiokafka.protocol.group:HeartbeatRequest": lambda: _sends(GroupCoordinator._do_heartbeat, "HeartbeatRequest"),
    "aiokafka:AIOKafkaConsumer._client": lambda: (
        "self._client = AIOKafkaClient(" in inspect.getsource(AIOKafkaConsumer.__init__)
    ),
}
