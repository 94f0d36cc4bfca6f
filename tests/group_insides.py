"""The private names of aiokafka's group membership that failsoft uses, each with a check of its meaning."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState


def _takes(function: Any, *names: str) -> bool:
    """Whether ``function`` has these parameters, besides others."""
    return set(names) <= set(inspect.signature(function).parameters)


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
    "aiokafka.client:AIOKafkaClient._wait_on_metadata": lambda: (
        _takes(AIOKafkaClient._wait_on_metadata, "topic")
        and inspect.iscoroutinefunction(AIOKafkaClient._wait_on_metadata)
    ),
}
