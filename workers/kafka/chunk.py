"""The records of one partition in one fetch answer, unpacked when they are taken."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords

from failsoft.schemas.record import Header
from failsoft.workers.kafka.lenient_batch import LenientBatch

_LENGTH = struct.Struct(">i")
_LENGTH_AT = 8  # a batch's length follows its base offset, and counts the bytes after itself
_ABORT = b"\x00\x00\x00\x00"  # the key of a control record: version 0, type 0. Type 1 is a commit.


class FetchedRecord(NamedTuple):
    """A consumed record, as ``schemas.record.Record`` describes it. ``timestamp`` is in epoch milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]


class Unreadable(Exception):
    """A batch that cannot be unpacked: damaged, or compressed with a codec that is missing here.

    Attributes:
        tp: its partition.
        offset: the first offset that cannot be read.
        why: the reason.
    """

    def __init__(self, tp: TopicPartition, offset: int, why: str) -> None:
        super().__init__(f"{tp.topic}-{tp.partition} cannot be read at offset {offset}: {why}")
        self.tp, self.offset, self.why = tp, offset, why


class Chunk:
    """Committed records of one partition, in order.

    Records of aborted transactions and transaction markers are left out, by the rules of aiokafka's PartitionRecords,
    to which a test compares it. Checksums are verified batch by batch, when the records are about to be taken.

    Attributes:
        tp: the partition.
        size: the bytes as fetched.
        first_batch: the bytes of its first batch; 0 if there is none.
        position: the next offset to read after what was taken. After the last record it is ``end``, behind markers and
            behind records that were aborted or compacted away.
        end: the offset at which the next fetch begins.
        exhausted: True when nothing is left to take.
    """

    __slots__ = (
        "_aborted",
        "_aborting",
        "_after",
        "_batches",
        "_next",
        "_raw",
        "_rows",
        "_taken",
        "_why",
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
        self.first_batch = 0
        self._aborted = sorted(aborted, key=lambda each: each[1], reverse=True)  # the next one is the last
        self._aborting: set[int] = set()  # producers whose records belong to an aborted transaction
        self._batches = _batches(raw)
        self._next = 0  # the index of the next batch
        self._rows: list[FetchedRecord] | None = None  # its records, of which the first _taken were taken
        self._taken = 0
        self._after = offset  # the offset after it
        self._why = "" if self._batches else f"{len(raw)} bytes without a whole batch"  # the next one is unreadable
        self.end = max(offset, self._batches[-1].next_offset) if self._batches else offset
        if self._batches:
            self.first_batch = len(_batch_bytes(raw, 0))
            self._skip_hidden()

    def take(self, limit: int | None = None) -> list[FetchedRecord]:
        """The next records, at most ``limit``; none only if nothing is left.

        Raises:
            Unreadable: if the next batch cannot be unpacked. ``position`` is then the first offset that cannot be read,
                and every later call raises it again. Records before it were returned by an earlier call.
        """
        found: list[FetchedRecord] = []
        while not self.exhausted and (limit is None or len(found) < limit):
            try:
                rows = self._unpacked()
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
                self.position = max(self.position, self._after)
                self._rows = None
                self._next += 1
                self._skip_hidden()
        return found

    def _unpacked(self) -> list[FetchedRecord]:
        """The records of the next batch. A batch that failed is not tried again: it would go on in its middle."""
        if self._why:
            raise Unreadable(self.tp, self.position, self._why)
        if self._rows is None:
            batch = self._batches[self._next]
            self._after = batch.next_offset
            try:
                rows = _rows(self.tp, batch)
            except UnicodeDecodeError:
                rows = _rows(self.tp, LenientBatch(_batch_bytes(self._raw, self._next)))
            except MemoryError:
                raise
            except Exception as error:  # each codec has errors of its own
                self._why = f"{type(error).__name__}: {error}"
                raise Unreadable(self.tp, self.position, self._why) from error
            self._batches[self._next] = None  # it holds what it decompressed
            if rows and rows[0].offset < self.position:
                rows = [row for row in rows if row.offset >= self.position]
            self._rows, self._taken = rows, 0
        return self._rows

    def _skip_hidden(self) -> None:
        """Move past markers and aborted batches, to a batch with records, to an unreadable one, or to the end."""
        while self._next < len(self._batches):
            batch = self._batches[self._next]
            if not batch.validate_crc():
                self._why = "its checksum is wrong"
                return
            if not self._is_hidden(batch):
                return
            self.position = max(self.position, batch.next_offset)
            self._next += 1
        self.exhausted = True

    def _is_hidden(self, batch: Any) -> bool:
        producer = batch.producer_id
        if producer is None:  # a batch in a format older than transactions
            return False
        while self._aborted and self._aborted[-1][1] <= batch.base_offset:
            self._aborting.add(self._aborted.pop()[0])
        if batch.is_control_batch:
            marker = next(batch, None)  # None: compaction has removed it
            if marker is not None and marker.key[:4] == _ABORT:
                self._aborting.discard(producer)
            return True
        return bool(batch.is_transactional) and producer in self._aborting


def _batches(raw: bytes) -> list[Any]:
    """The whole batches of ``raw``. What follows a batch of an impossible length is left to the next fetch."""
    found: list[Any] = []
    records = MemoryRecords(raw)
    try:
        while (batch := records.next_batch()) is not None:
            found.append(batch)
    except CorruptRecordException:
        return found
    return found


def _rows(tp: TopicPartition, batch: Any) -> list[FetchedRecord]:
    """The records of a batch. FetchedRecord's own ``__new__`` takes a quarter longer than ``tuple.__new__``."""
    topic, partition = tp
    new, kind = tuple.__new__, FetchedRecord
    return [new(kind, (topic, partition, r.offset, r.timestamp, r.key, r.value, r.headers)) for r in batch]


def _batch_bytes(raw: bytes, index: int) -> memoryview:
    """The bytes of the batch at ``index``."""
    begin = end = 0
    for _ in range(index + 1):
        begin, end = end, end + _LENGTH_AT + _LENGTH.size + _LENGTH.unpack_from(raw, end + _LENGTH_AT)[0]
    return memoryview(raw)[begin:end]
