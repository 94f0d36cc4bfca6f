"""The records of one partition in one fetch answer, unpacked when they are taken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from aiokafka import TopicPartition

from failsoft.schemas.record import Header
from failsoft.workers.kafka.record_batch import RecordBatch, after, spans
from failsoft.workers.kafka.unreadable import DamagedBatch, Unreadable

_OFFSET = itemgetter(2)  # of a FetchedRecord; a third faster than its name


class FetchedRecord(NamedTuple):
    """A consumed record, as ``schemas.record.Record`` describes it. ``timestamp`` is in epoch milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]


class Chunk:
    """Committed records of one partition, in order.

    Records of aborted transactions and transaction markers are left out, by the rules of aiokafka's PartitionRecords,
    to which a test compares it. Checksums are verified batch by batch, when the records are about to be taken; only
    that of the last batch at once, since its header says where the next fetch begins.

    Attributes:
        tp: the partition.
        size: the bytes as fetched.
        first_batch: the bytes of its first batch; 0 if there is none.
        position: the next offset to read after what was taken. After the last record it is ``end``, behind markers and
            behind records that were aborted or compacted away.
        end: the offset at which the next fetch begins.
        broken: whether ``take`` ends with Unreadable and ``end`` means nothing: the partition is not to be fetched on.
        exhausted: True when nothing is left to take.
    """

    __slots__ = (
        "_aborted",
        "_aborting",
        "_batch",
        "_failure",
        "_next",
        "_raw",
        "_rows",
        "_spans",
        "_taken",
        "broken",
        "end",
        "exhausted",
        "first_batch",
        "position",
        "size",
        "tp",
    )

    def __init__(self, tp: TopicPartition, offset: int, raw: bytes, aborted: Sequence[tuple[int, int]] = ()) -> None:
        """Find the batches in ``raw``, without unpacking them.

        Args:
            tp: the partition.
            offset: the offset that was asked for. The first batch may begin before it.
            raw: the record batches, at least one byte. The last batch may be cut; the next fetch gives it whole.
            aborted: the aborted transactions among them, as (producer id, first offset).
        """
        self.tp, self.size, self.position, self.exhausted = tp, len(raw), offset, False
        self._raw = raw
        self._aborted = sorted(aborted, key=lambda each: each[1], reverse=True)  # the next one is the last
        self._aborting: set[int] = set()  # producers whose records belong to an aborted transaction
        self._spans = spans(raw)
        self._next = 0  # the index of the batch in _batch
        self._batch: RecordBatch | None = None  # the next batch, if it can be read
        self._rows: list[FetchedRecord] | None = None  # its records, of which the first _taken were taken
        self._taken = 0
        self._failure: Unreadable | None = None  # why the next batch cannot be read
        self.first_batch = self._spans[0][1] if self._spans else 0
        self.end, self.broken = offset, True
        if not self._spans:
            self._failure = Unreadable(tp, offset, f"{len(raw)} bytes without a whole batch")
            return
        last = self._at(len(self._spans) - 1)
        with contextlib.suppress(DamagedBatch):  # raised again where it is read
            last.verify()
            if last.next_offset > offset:  # else the same batches would be fetched for ever
                self.end, self.broken = last.next_offset, False
        self._find(None)

    def take(self, limit: int | None = None) -> list[FetchedRecord]:
        """The next records, at most ``limit``; none only if nothing is left.

        Raises:
            Unreadable: if the next batch cannot be read. ``position`` is then the first offset that cannot be read,
                and every later call raises it again. Records before it were returned by an earlier call.
        """
        found: list[FetchedRecord] = []
        while not self.exhausted and (limit is None or len(found) < limit):
            try:
                rows, end = self._unpacked()
            except Unreadable:
                if found:
                    break  # the next call raises it
                raise
            stop = len(rows) if limit is None else min(len(rows), self._taken + limit - len(found))
            found += rows[self._taken : stop]
            self._taken = stop
            if stop < len(rows):
                self.position = rows[stop - 1].offset + 1
            else:
                self.position = max(self.position, end)
                self._rows = None
                self._next += 1
                self._find(end)
        return found

    def _unpacked(self) -> tuple[list[FetchedRecord], int]:
        """The records of the next batch, and the offset after it."""
        if self._failure is not None:
            raise self._failure
        batch = self._batch
        assert batch is not None
        if self._rows is None:
            try:
                rows = _rows(self.tp, batch)
            except DamagedBatch as error:
                self._failure = self._unreadable(error)
                raise self._failure from error
            if rows and rows[0].offset < self.position:
                rows = [row for row in rows if row.offset >= self.position]
            self._rows, self._taken = rows, 0
        return self._rows, batch.next_offset

    def _find(self, before: int | None) -> None:
        """Move past markers and aborted batches, to a batch with records, to an unreadable one, or to the end.

        ``before``: the offset after the batch before; None for the first one.
        """
        self._batch = None
        while self._next < len(self._spans):
            batch = self._at(self._next)
            try:
                if self.broken or self._next < len(self._spans) - 1:
                    batch.verify()
                if before is not None and batch.base_offset < before:
                    raise DamagedBatch(
                        f"it begins at {batch.base_offset}, and the batch before it ends at {before - 1}"
                    )
                if self._next == len(self._spans) - 1 and batch.next_offset <= self.position:
                    last = batch.next_offset - 1
                    raise DamagedBatch(f"its last offset is {last}, before the one that was asked for")
                hidden = self._is_hidden(batch)
            except DamagedBatch as error:
                self._failure = self._unreadable(error)
                return
            if not hidden:
                self._batch = batch
                return
            before = batch.next_offset
            self.position = max(self.position, before)
            self._next += 1
        self.exhausted = True

    def _is_hidden(self, batch: RecordBatch) -> bool:
        """Raises DamagedBatch for a marker that cannot be read."""
        producer = batch.producer_id
        if producer is None:  # a batch in a format older than transactions
            return False
        while self._aborted and self._aborted[-1][1] <= batch.base_offset:
            self._aborting.add(self._aborted.pop()[0])
        if batch.control:
            if batch.aborts():
                self._aborting.discard(producer)
            return True
        return batch.transactional and producer in self._aborting

    def _at(self, index: int) -> RecordBatch:
        return RecordBatch(self._raw, *self._spans[index])

    def _unreadable(self, error: DamagedBatch) -> Unreadable:
        """The error for the next batch."""
        end = after(self._raw, self._spans, self._next, error)
        return Unreadable(self.tp, self.position, str(error), end if end and end > self.position else None)


def _rows(tp: TopicPartition, batch: RecordBatch) -> list[FetchedRecord]:
    """The records of a batch. FetchedRecord's own ``__new__`` takes a quarter longer than ``tuple.__new__``.

    Raises DamagedBatch.
    """
    topic, partition = tp
    new, kind = tuple.__new__, FetchedRecord

    def made(records: Iterable[Any]) -> list[FetchedRecord]:
        return [new(kind, (topic, partition, r.offset, r.timestamp, r.key, r.value, r.headers)) for r in records]

    return batch.records(made, _OFFSET)
