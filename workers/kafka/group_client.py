"""The client of a group member: quick for heartbeats, patient for joins."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.errors import NodeNotReadyError
from aiokafka.protocol.group import JoinGroupRequest, SyncGroupRequest

PATIENT = (JoinGroupRequest, SyncGroupRequest)
"""The requests that are answered when all members have sent theirs."""


class GroupClient(AIOKafkaClient):  # type: ignore[misc]
    """aiokafka's client, with one timeout for the requests of a rebalance and another one for all others.

    aiokafka has one timeout for a client. With a short one, members that wait for a slow member give up and join anew.
    With a long one, a member whose coordinator vanished waits for the answer to a heartbeat until its session is over.

    Args:
        joins: sends the requests of a rebalance. It is not to be bootstrapped: it uses the metadata of this client,
            which closes it.
        request_timeout_ms: milliseconds for the answer to any other request, and for each connection.
        options: those of aiokafka's client.
    """

    def __init__(self, joins: AIOKafkaClient, *, request_timeout_ms: int, **options: Any) -> None:
        super().__init__(request_timeout_ms=request_timeout_ms, **options)
        self._joins = joins
        self._connected_within = request_timeout_ms / 1000
        joins.cluster = self.cluster

    async def send(self, node_id: int, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        """Send to a broker, as aiokafka's client does, with its errors."""
        if not isinstance(request, PATIENT):
            return await super().send(node_id, request, group=group)
        try:
            async with asyncio.timeout(self._connected_within):
                await self._joins.ready(node_id, group=group)
        except TimeoutError:
            raise NodeNotReadyError(f"node {node_id} takes no connection") from None
        return await self._joins.send(node_id, request, group=group)

    async def close(self) -> None:
        """Close the connections of both clients."""
        await self._joins.close()
        await super().close()
