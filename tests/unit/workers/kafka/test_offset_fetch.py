"""A coordinator that does not answer for a group is asked again, and never taken for one that has no offsets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)
from aiokafka.protocol.commit import OffsetFetchResponse_v1, OffsetFetchResponse_v3

from failsoft.workers.kafka import offset_fetch

TP = TopicPartition("in", 0)
THERE = [("in", [(0, 500, "", 0)])]
NONE_YET = [("in", [(0, -1, "", 0)])]


class Client:
    """Gives one response after the other, as brokers would."""

    def __init__(self, *responses: Any) -> None:
        self.responses = list(responses)

    async def send(self, node: int, request: Any, group: Any) -> Any:
        return self.responses.pop(0)


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    """As in a worker; other tests get aiokafka as it is."""
    before = GroupCoordinator._send_req
    offset_fetch.install()
    yield
    GroupCoordinator._send_req = before


def _coordinator(*responses: Any) -> Any:
    """aiokafka's own, without a cluster: only what asks for offsets is there. ``lookups`` is how often it had to find
    the coordinator."""
    coordinator = GroupCoordinator.__new__(GroupCoordinator)
    coordinator._client = Client(*responses)
    coordinator.group_id = "g"
    coordinator.coordinator_id = 1
    coordinator._retry_backoff_ms = 1
    coordinator.lookups = 0

    async def ensure_coordinator_known() -> None:
        if coordinator.coordinator_id is None:
            coordinator.coordinator_id = 2
            coordinator.lookups += 1

    def coordinator_dead() -> None:
        coordinator.coordinator_id = None

    coordinator.ensure_coordinator_known = ensure_coordinator_known
    coordinator.coordinator_dead = coordinator_dead
    return coordinator


@pytest.mark.parametrize(
    ("error", "lookups"),
    [(NotCoordinatorForGroupError, 1), (GroupLoadInProgressError, 0), (GroupCoordinatorNotAvailableError, 0)],
)
async def test_a_coordinator_that_moves_is_asked_again(error: Any, lookups: int) -> None:
    """The whole response says the error once, and lists no partition: the offset comes from the next answer."""
    coordinator = _coordinator(OffsetFetchResponse_v3(0, [], error.errno), OffsetFetchResponse_v3(0, THERE, 0))
    found = await coordinator.fetch_committed_offsets([TP])
    assert found[TP].offset == 500
    assert coordinator.lookups == lookups


async def test_what_no_retry_mends_is_raised() -> None:
    """A group that may not be read is no group without offsets."""
    coordinator = _coordinator(OffsetFetchResponse_v3(0, [], GroupAuthorizationFailedError.errno))
    with pytest.raises(GroupAuthorizationFailedError):
        await coordinator.fetch_committed_offsets([TP])


@pytest.mark.parametrize("response", [OffsetFetchResponse_v3(0, NONE_YET, 0), OffsetFetchResponse_v1(NONE_YET)])
async def test_a_partition_without_an_offset_is_still_one(response: Any) -> None:
    """A group that never committed begins at the beginning, whatever version the broker speaks."""
    assert await _coordinator(response).fetch_committed_offsets([TP]) == {}


async def test_aiokafka_by_itself_takes_it_for_none() -> None:
    """The day that this fails, ``failsoft.workers.kafka.offset_fetch`` can go."""
    GroupCoordinator._send_req = offset_fetch._send
    moved = OffsetFetchResponse_v3(0, [], NotCoordinatorForGroupError.errno)
    assert await _coordinator(moved).fetch_committed_offsets([TP]) == {}
