"""Group commit: the finished batches of all lanes of a worker join its next transaction.

While a transaction is committing, finished batches wait; the next transaction takes them all, and writes what they have
for a partition as one record batch. So the number of transactions a second is what the worker can end, whatever the
number of partitions, and in light traffic a batch waits for nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Protocol

from aiokafka import TopicPartition

from failsoft.topics.routing import OutgoingRecord
from failsoft.workers.client_timeouts import ClientTimeouts
from failsoft.workers.execution.batch_size import LARGEST
from failsoft.workers.kafka.member import GroupMember
from failsoft.workers.kafka.produce_batches import BATCH_BYTES, Batch, compressed_batch, new_batch, pack
from failsoft.workers.lanes import offset_note
from failsoft.workers.lanes.lane_positions import LanePositions
from failsoft.workers.lanes.start_offsets import OffsetAndMetadata

MOST_BYTES = 32 * 1_048_576
"""Bytes of outputs after which a transaction takes no further batch. They are written well within its timeout."""

MOST_RECORDS = 4 * LARGEST
"""Records after which a transaction takes no further batch: as many as four lanes have, however many lanes there are.
A larger transaction commits no more a second, and its records and answers stay in memory until it ends."""

Outputs = Sequence[tuple[TopicPartition, Sequence[Batch]]]
"""The record batches to write, by partition, in order."""

Rows = Sequence[tuple[str, list[OutgoingRecord]]]
"""The records to write, by topic, in order."""


class Commits(Protocol):
    """The part of failsoft.workers.kafka.transactional_producer.TransactionalProducer that the committer uses."""

    @property
    def trouble(self) -> str: ...
    async def commit(
        self, outputs: Outputs, offsets: Mapping[TopicPartition, OffsetAndMetadata], member: GroupMember
    ) -> None: ...


@dataclass(slots=True, eq=False)
class Unit:
    """One batch of a lane, on its way to the commit.

    Attributes:
        lane: the partition index that its rows are written to.
        rows: the records to write.
        offsets: the offsets that it commits, with their metadata.
        records: the number of records that it stands for.
        committed: called once when it is committed.
        elsewhere: the records to write to other partitions than ``lane``.
        size: bytes of the values that it writes.
        begun: completed when its transaction begins.
        done: completed after ``committed`` has returned.
    """

    lane: int
    rows: Rows
    offsets: Mapping[TopicPartition, OffsetAndMetadata]
    records: int
    committed: Callable[[], object]
    elsewhere: Mapping[TopicPartition, list[OutgoingRecord]] = field(default_factory=dict)
    size: int = field(init=False)
    begun: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def __post_init__(self) -> None:
        written = chain(self.elsewhere.values(), (rows for _, rows in self.rows))
        self.size = sum(len(value) for rows in written for _, value, _ in rows if value is not None)


class Committer:
    """Commits the units of all lanes, those of a lane in the order in which they were handed in.

    Args:
        producer: writes outputs and offsets, all or nothing.
        exactly_once: the outputs are written in a transaction.
        wall: the wall clock (epoch seconds).
        clock: the monotonic clock (seconds).
        observe: called with the duration of each transaction (seconds).
        timeout: the longest time of one commit (seconds).

    Attributes:
        member: who commits; set when partitions are assigned, None while there are none.
        positions: what the outputs say about how far each lane has come.
        topic_ids: the id of the topic of each partition that is read, which is written beside its offsets.
    """

    def __init__(
        self,
        producer: Commits,
        exactly_once: bool,
        wall: Callable[[], float],
        clock: Callable[[], float],
        observe: Callable[[float], None],
        timeout: float = ClientTimeouts().commit,
    ) -> None:
        self._producer, self._wall, self._clock, self._observe = producer, wall, clock, observe
        self._timeout = timeout
        self._make = partial(new_batch, exactly_once)
        self._squeeze = partial(compressed_batch, BATCH_BYTES, exactly_once)
        self._waiting: deque[Unit] = deque()
        self._bytes = self._records = 0  # of the units that wait
        self._room = asyncio.Event()
        self._room.set()
        self._wake = asyncio.Event()
        self.member: GroupMember | None = None
        self.positions = LanePositions(exactly_once)
        self.topic_ids: dict[TopicPartition, str] = {}

    def hand(self, unit: Unit) -> None:
        """Take ``unit`` into the next transaction."""
        self._waiting.append(unit)
        self._bytes += unit.size
        self._records += unit.records
        if self._bytes >= MOST_BYTES or self._records >= MOST_RECORDS:
            self._room.clear()
        self._wake.set()

    @property
    def has_room(self) -> bool:
        """Whether less waits for the next transaction than one may have. So a commit that hangs fills no memory."""
        return self._room.is_set()

    async def wait_for_room(self) -> None:
        """Wait until there is room. Look at ``has_room`` again then: others have waited too."""
        await self._room.wait()

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
        size = records = 0
        while self._waiting and (not units or (size < MOST_BYTES and records < MOST_RECORDS)):
            units.append(self._waiting.popleft())
            size += units[-1].size
            records += units[-1].records
        self._bytes -= size
        self._records -= records
        if self._bytes < MOST_BYTES and self._records < MOST_RECORDS:
            self._room.set()
        return units

    async def _commit(self, units: list[Unit]) -> None:
        if self.member is None:
            raise RuntimeError("a batch was handed in after its partitions were revoked")
        began = self._clock()
        for unit in units:
            _complete(unit.begun)
        offsets, moved = self._offsets(units)
        outputs = self._outputs(units, moved)
        try:
            await asyncio.wait_for(self._producer.commit(outputs, offsets, self.member), self._timeout)
        except TimeoutError:
            trouble = self._producer.trouble or "a broker has not answered"
            raise TimeoutError(f"a commit took over {self._timeout:g} s: {trouble}") from None
        self._observe(self._clock() - began)
        for lane, at in moved.items():
            self.positions.committed(lane, at)
        for unit in units:
            unit.committed()
            _complete(unit.done)

    def _offsets(
        self, units: list[Unit]
    ) -> tuple[dict[TopicPartition, OffsetAndMetadata], Mapping[int, Mapping[str, int]]]:
        """The offsets to commit, with their metadata; and the same offsets by lane and topic."""
        offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        moved: dict[int, dict[str, int]] = {}
        for unit in units:
            at = moved.setdefault(unit.lane, {})
            for tp, (offset, metadata) in unit.offsets.items():
                text = self.positions.metadata(unit.lane, tp.topic, offset, metadata)
                offsets[tp] = offset, offset_note.join(text, self.topic_ids.get(tp))
                at[tp.topic] = offset
        return offsets, moved

    def _outputs(self, units: list[Unit], moved: Mapping[int, Mapping[str, int]]) -> Outputs:
        """The rows of all units, as few record batches of each partition. Their timestamp is the time of writing."""
        rows: dict[TopicPartition, list[OutgoingRecord]] = {}
        for unit in units:
            read = {tp.topic for tp in unit.offsets}
            for topic, written in unit.rows:
                tp, found = TopicPartition(topic, unit.lane), self.positions.marked(unit.lane, written, read)
                rows[tp] = rows[tp] + found if tp in rows else found
        for tp, found in rows.items():
            rows[tp] = self.positions.stamped(tp.partition, found, moved[tp.partition])
        for unit in units:
            for tp, moving in unit.elsewhere.items():
                rows[tp] = rows[tp] + moving if tp in rows else moving
        now_ms = int(self._wall() * 1000)
        return [(tp, pack(self._make, found, now_ms, self._squeeze)) for tp, found in rows.items()]


def _complete(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
