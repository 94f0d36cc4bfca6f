"""Lets aiokafka's consumers read what lanes read, and say the same where they cannot.

For the consumers of commands, of Faust and of ``last_known``: lanes have a fetcher of their own (fetcher.py, chunk.py).
aiokafka itself refuses header keys that are not UTF-8 (lenient_batch.py), unpacks without a bound (codecs.py), and
names neither the partition nor the offset of a batch that it cannot read.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from aiokafka.consumer import fetcher

from failsoft.workers.kafka.record_batch import RecordBatch, after, spans
from failsoft.workers.kafka.unreadable import DamagedBatch, Unreadable

_OFFSET = attrgetter("offset")


def install() -> None:
    """Patch aiokafka: from now on all consumers of this process use the classes below.

    aiokafka is pinned below 0.15, and a test checks that the patched names exist.
    """
    fetcher.MemoryRecords = Records
    fetcher.PartitionRecords = PartitionRecords


class PartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """aiokafka's class, which raises Unreadable for a batch that cannot be read. The position stays before it."""

    def _unpack_records(self) -> Iterator[Any]:
        try:
            yield from super()._unpack_records()
        except DamagedBatch as error:
            raise Unreadable(self._tp, self.next_fetch_offset, str(error), self._records.after(error)) from error

    def _contains_abort_marker(self, next_batch: Batch) -> bool:
        """aiokafka's own raises an error for a control batch that compaction has emptied."""
        return next_batch.aborts()


class Records:
    """The batches of a fetch, with the methods of aiokafka's MemoryRecords."""

    def __init__(self, raw: bytes) -> None:
        self._raw = bytes(raw)
        self._spans = spans(raw)
        self._next = 0

    def size_in_bytes(self) -> int:
        return len(self._raw)

    def has_next(self) -> bool:
        return self._next < len(self._spans) or (not self._spans and bool(self._raw))

    def next_batch(self) -> Batch | None:
        """Raises DamagedBatch for bytes without a whole batch."""
        if not self.has_next():
            return None
        if not self._spans:
            raise DamagedBatch(f"{len(self._raw)} bytes without a whole batch", trusted=False)
        self._next += 1
        return Batch(self._raw, *self._spans[self._next - 1])

    def after(self, error: DamagedBatch) -> int | None:
        """The offset after the batch that ``next_batch`` gave last, which cannot be read because of ``error``."""
        return after(self._raw, self._spans, self._next - 1, error) if self._next else None


class Batch(RecordBatch):
    """A record batch with the names that aiokafka's consumer uses."""

    __slots__ = ()

    @property
    def is_control_batch(self) -> bool:
        return bool(self.control)

    @property
    def is_transactional(self) -> bool:
        return bool(self.transactional)

    def validate_crc(self) -> bool:
        """True. Raises DamagedBatch, which says more than aiokafka does."""
        self.verify()
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(self.records(list, _OFFSET))
