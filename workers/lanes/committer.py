"""Group commit: the finished batches of all lanes of a worker join its next transaction.

While a transaction is committing, finished batches wait; the next transaction takes them all. So the number of
transactions a second is what the worker can end, whatever the number of partitions, and in light traffic a batch waits
for nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aiokafka import TopicPartition

from failsoft.workers.kafka.member import GroupMember
from failsoft.workers.kafka.produce_batches import Batch
from failsoft.workers.lanes.start_offsets import OffsetAndMetadata

COMMIT_TIMEOUT = 12.0
"""The longest time of one commit, in seconds. The broker aborts the transaction after 8 s, so waiting much longer is
useless. Without a bound a commit can hang for ever when a coordinator leaves (aiokafka #1145)."""

MOST_BYTES = 32 * 1_048_576
"""Bytes of outputs after which a transaction takes no further batch. They are written well within its timeout."""

Outputs = Sequence[tuple[TopicPartition, Sequence[Batch]]]
"""The record batches to write, by partition, in order."""


class Commits(Protocol):
    """The part of failsoft.workers.kafka.transactional_producer.TransactionalProducer that the committer uses."""

    async def commit(
        self, outputs: Outputs, offsets: Mapping[TopicPartition, OffsetAndMetadata], member: GroupMember
    ) -> None: ...


@dataclass(slots=True, eq=False)
class Unit:
    """What one lane commits at once.

    Attributes:
        outputs: the record batches that it writes.
        offsets: the offsets that it commits, with their metadata.
        committed: called once when it is committed.
        size: the bytes of its outputs.
        done: completed after ``committed`` has returned.
    """

    outputs: Outputs
    offsets: Mapping[TopicPartition, OffsetAndMetadata]
    committed: Callable[[], None]
    size: int = 0
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Committer:
    """Commits the units of all lanes, in the order in which they were handed in.

    Args:
        producer: writes outputs and offsets, all or nothing.
        clock: the monotonic clock (seconds).
        observe: called with the duration of each transaction (seconds).

    Attributes:
        member: who commits; set when partitions are assigned, None while there are none.
        began: when the transaction that is committing now began (monotonic seconds), or None.
    """

    def __init__(self, producer: Commits, clock: Callable[[], float], observe: Callable[[float], None]) -> None:
        self._producer, self._clock, self._observe = producer, clock, observe
        self._waiting: deque[Unit] = deque()
        self._wake = asyncio.Event()
        self.member: GroupMember | None = None
        self.began: float | None = None

    def hand(self, unit: Unit) -> None:
        """Take ``unit`` into the next transaction."""
        self._waiting.append(unit)
        self._wake.set()

    async def run(self) -> None:
        """Commit until cancelled. Raises the error of a commit that failed: what became of its units is not known, so
        the worker must end.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            while units := self._next():
                await self._commit(units)

    def _next(self) -> list[Unit]:
        """The units of the next transaction."""
        units: list[Unit] = []
        size = 0
        while self._waiting and (not units or size < MOST_BYTES):
            units.append(self._waiting.popleft())
            size += units[-1].size
        return units

    async def _commit(self, units: list[Unit]) -> None:
        if self.member is None:
            raise RuntimeError("a batch was handed in after its partitions were revoked")
        began = self.began = self._clock()
        outputs = [output for unit in units for output in unit.outputs]
        offsets = {tp: offset for unit in units for tp, offset in unit.offsets.items()}
        await asyncio.wait_for(self._producer.commit(outputs, offsets, self.member), COMMIT_TIMEOUT)
        self.began = None
        self._observe(self._clock() - began)
        for unit in units:
            unit.committed()
            if not unit.done.done():
                unit.done.set_result(None)
