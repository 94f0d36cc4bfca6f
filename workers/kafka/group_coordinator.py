"""aiokafka's group coordinator, which ends when the group has removed its member."""

from __future__ import annotations

from typing import Any

from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest

from failsoft.schemas.config.refusal import Refused
from failsoft.workers.kafka.broker_bounds import session_refused
from failsoft.workers.kafka.request_errors import Code

REMOVED: dict[type, frozenset[int]] = {
    HeartbeatRequest: frozenset({Code.UNKNOWN_MEMBER_ID, Code.ILLEGAL_GENERATION, Code.FENCED_INSTANCE_ID}),
    JoinGroupRequest: frozenset({Code.UNKNOWN_MEMBER_ID, Code.FENCED_INSTANCE_ID}),
    # A coordinator that moved in the middle of a rebalance may not know the new generation, or a new member. A member
    # has no partitions then, and joins once more. Only a newer process with the same id is a reason to end.
    SyncGroupRequest: frozenset({Code.FENCED_INSTANCE_ID}),
}
"""The error codes of a member that the group has removed, by request."""


class MemberRemoved(RuntimeError):
    """The group has removed this member: another process has its id, or it was silent for too long. Exit code 1."""


class StrictCoordinator(GroupCoordinator):  # type: ignore[misc]
    """Ends when the group has removed the member, where aiokafka joins again.

    Two live processes with one static id would remove each other for ever. And a removed member's partitions belong to
    another one by now, so its process has nothing that is worth keeping.

    Attributes:
        removed: the error, once the group has removed the member, or has refused its session timeout.
    """

    removed: MemberRemoved | Refused | None = None
    _is_member = False

    async def _send_req(self, request: Any) -> Any:
        """Send as aiokafka does. Raises MemberRemoved or Refused, no KafkaErrors, as aiokafka would go on after one."""
        codes = REMOVED.get(type(request))
        if codes is None:
            return await super()._send_req(request)
        if self.removed is not None:
            raise self.removed
        response = await super()._send_req(request)
        code = response.error_code
        if isinstance(request, SyncGroupRequest) and code == Code.NONE:
            self._is_member = True
        if code == Code.INVALID_SESSION_TIMEOUT:  # aiokafka would end with an error that names no setting
            self.removed = await session_refused(self._client, self.coordinator_id, self._session_timeout_ms)
            raise self.removed
        # A coordinator that moved may not know a member whose first join is not complete: it begins anew.
        if code in codes and (self._is_member or code == Code.FENCED_INSTANCE_ID):
            self.removed = MemberRemoved(self._describe(type(request).__name__, code))
            raise self.removed
        return response

    def _describe(self, request: str, code: int) -> str:
        session = self._session_timeout_ms / 1000
        return (
            f"the group {self.group_id} has removed this member ({request}: {Code(code).name}): another process has "
            f"the id {self._group_instance_id or self.member_id}, or this one was silent for longer than its session "
            f"of {session:g} s"
        )
