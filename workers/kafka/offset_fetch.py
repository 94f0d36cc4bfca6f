"""Committed offsets, also while a group's coordinator moves: aiokafka takes "not here" for "there are none".

Since OffsetFetch v2 a broker that is no longer the group's coordinator, or that still reads its log, says so once for
the whole response, and lists no partitions. aiokafka 0.14 looks at the partitions only: it returns no offsets, without
an error, and a lane that is opened in that moment begins at the beginning and answers everything a second time. It was
seen in a rolling restart of three brokers (docs/decisions/0008-leaderless-markers.md).
"""

from __future__ import annotations

from typing import Any

from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import NoError, NotCoordinatorForGroupError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest

_send = GroupCoordinator._send_req


def install() -> None:
    """From now on this process's consumers, Faust's too, raise such an error; aiokafka then finds the coordinator and
    asks again, as it does for one that stands beside a partition. It is pinned below 0.15, and a test holds this.
    """
    GroupCoordinator._send_req = _checked


async def _checked(coordinator: GroupCoordinator, request: Any) -> Any:
    response = await _send(coordinator, request)
    if isinstance(request, OffsetFetchRequest):
        error = for_code(getattr(response, "error_code", 0))  # the oldest version has none
        if error is NotCoordinatorForGroupError:
            coordinator.coordinator_dead()
        if error is not NoError:
            raise error(coordinator.group_id)
    return response
