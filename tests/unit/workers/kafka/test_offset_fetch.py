"""A coordinator that returns an error is asked again, and the error is never taken for a group without offsets."""

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
COMMITTED = [("in", [(0, 500, "", 0)])]
NONE_YET = [("in", [(0, -1, "", 0)])]


class Client:
    """Returns one response after the other, as brokers would."""

    def __init__(self, *responses: Any) -> None:
        self.responses = list(responses)

    async def send(self, node: int, request: Any, group: Any) -> Any:
        return self.responses.pop(0)


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    """Patch aiokafka as a worker does; other tests get it unpatched."""
    before = GroupCoordinator._send_req
    offset_fetch.install()
    yield
    GroupCoordinator._send_req = before


def _coordinator(*responses: Any) -> Any:
    """aiokafka's coordinator without a cluster, with only the parts that fetch offsets. ``lookups`` counts how often it
    looked for the coordinator.
    """
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
    """The response has one error for all and lists no partition, so the offset comes from the next response."""
    coordinator = _coordinator(OffsetFetchResponse_v3(0, [], error.errno), OffsetFetchResponse_v3(0, COMMITTED, 0))
    found = await coordinator.fetch_committed_offsets([TP])
    assert found[TP].offset == 500
    assert coordinator.lookups == lookups


async def test_an_error_that_no_retry_can_fix_is_raised() -> None:
    """A group that may not be read is not a group without offsets."""
    coordinator = _coordinator(OffsetFetchResponse_v3(0, [], GroupAuthorizationFailedError.errno))
    with pytest.raises(GroupAuthorizationFailedError):
        await coordinator.fetch_committed_offsets([TP])


@pytest.mark.parametrize("response", [OffsetFetchResponse_v3(0, NONE_YET, 0), OffsetFetchResponse_v1(NONE_YET)])
async def test_a_partition_without_an_offset_is_left_out(response: Any) -> None:
    """A group that never committed starts at the beginning, whatever protocol version the broker has."""
    assert await _coordinator(response).fetch_committed_offsets([TP]) == {}


async def test_unpatched_aiokafka_returns_no_offsets() -> None:
    """When this test fails, ``failsoft.workers.kafka.offset_fetch`` is no longer needed."""
    GroupCoordinator._send_req = offset_fetch._send
    moved = OffsetFetchResponse_v3(0, [], NotCoordinatorForGroupError.errno)
    assert await _coordinator(moved).fetch_committed_offsets([TP]) == {}
