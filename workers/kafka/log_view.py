"""What can be asked about the logs of partitions and a group's offsets in them, on one client."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from typing import TypeVar

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient

from failsoft.workers.kafka.chunk import FetchedRecord
from failsoft.workers.kafka.fetch_protocol import PartitionAnswer
from failsoft.workers.kafka.list_offsets import Which, list_offsets
from failsoft.workers.kafka.log_tail import Answered, Bounds, batch_at, last_records, log_bounds
from failsoft.workers.kafka.requests import Offset
from failsoft.workers.kafka.stable_offsets import stable_offsets
from failsoft.workers.kafka.topic_ids import topic_ids

T = TypeVar("T")


class LogView:
    """Asks on ``client``, which is connected to the cluster. The functions that are called have the documentation."""

    def __init__(self, client: AIOKafkaClient) -> None:
        self._client = client

    async def ids(self, topics: Collection[str]) -> Mapping[str, str | None]:
        """The ids of topics."""
        return await topic_ids(self._client, topics)

    async def bounds(self, partitions: Collection[TopicPartition], *, read_committed: bool) -> Answered[Bounds]:
        """The first and end offsets, of those partitions that answer now."""
        return await log_bounds(self._client, partitions, read_committed=read_committed)

    async def last_records(
        self, bounds: Mapping[TopicPartition, Bounds], digest: Callable[[Sequence[FetchedRecord]], T]
    ) -> Answered[T]:
        """What ``digest`` makes of the last committed records of each partition."""
        return await last_records(self._client, bounds, digest)

    async def batch_at(self, tp: TopicPartition, offset: int) -> PartitionAnswer | None:
        """The record batches from ``offset`` on."""
        return await batch_at(self._client, tp, offset)

    async def offsets(self, partitions: Collection[TopicPartition], which: Which) -> dict[TopicPartition, int]:
        """The first or end offsets, or those of a time; asks until all are known."""
        return await list_offsets(self._client, partitions, which, read_committed=False)

    async def committed(
        self, group: str, partitions: Collection[TopicPartition], *, require_stable: bool = True
    ) -> tuple[Mapping[TopicPartition, Offset], Set[TopicPartition]]:
        """The group's committed offsets that are final, and the partitions whose offsets are not."""
        return await stable_offsets(self._client, group, partitions, require_stable=require_stable)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
