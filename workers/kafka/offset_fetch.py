"""Fixes how aiokafka reads committed offsets while a group's coordinator moves to another broker.

Since OffsetFetch v2, a broker that is no longer the group's coordinator, or that is still loading, returns one error
code for the whole response and lists no partitions. aiokafka 0.14 checks the error codes of the partitions only. It
returns no offsets and no error, so a consumer starts at the beginning. In a rolling restart of three brokers a lane
answered every event a second time (docs/decisions/0008-leaderless-markers.md). Lanes now read their offsets with
``stable_offsets.py``; this is for Faust's consumer.
"""

from __future__ import annotations

from typing import Any

from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import NoError, NotCoordinatorForGroupError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest

_send = GroupCoordinator._send_req


def install() -> None:
    """Patch aiokafka: from now on all consumers of this process, also Faust's, raise the error of the whole response.

    aiokafka then finds the coordinator and retries, as it does for the error of a partition. It is pinned below 0.15,
    and a test checks that the patched name exists.
    """
    GroupCoordinator._send_req = _checked


async def _checked(coordinator: GroupCoordinator, request: Any) -> Any:
    response = await _send(coordinator, request)
    if isinstance(request, OffsetFetchRequest):
        error = for_code(getattr(response, "error_code", 0))  # OffsetFetch before v2 has no such field
        if error is NotCoordinatorForGroupError:
            coordinator.coordinator_dead()
        if error is not NoError:
            raise error(coordinator.group_id)
    return response
