"""Unpacks fetched bytes into records, faster than aiokafka does, and also when a header's key is not UTF-8.

lenient_batch.py says why such keys must be read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords

from failsoft.workers.kafka.lenient_batch import LenientBatch

_LENGTH = struct.Struct(">i")
_LENGTH_AT = 8  # the length follows the base offset, and counts the bytes after itself
_BEFORE = _LENGTH_AT + _LENGTH.size


def install() -> None:
    """Patch aiokafka: from now on all consumers of this process use the classes below.

    aiokafka is pinned below 0.15, and a test checks that the patched names exist.
    """
    fetcher.MemoryRecords = Records
    fetcher.PartitionRecords = Unpacked
    fetcher.FetchResult = Fetched


class Unpacked(fetcher.PartitionRecords):  # type: ignore[misc]
    """aiokafka's records of a partition, with half the steps for each record when there is no deserializer."""

    def _consumer_record(self, tp: TopicPartition, record: Any) -> ConsumerRecord[Any, Any]:
        if self._key_deserializer or self._value_deserializer:
            return super()._consumer_record(tp, record)
        key, value = record.key, record.value
        return ConsumerRecord(
            tp.topic,
            tp.partition,
            record.offset,
            record.timestamp,
            record.timestamp_type,
            key,
            value,
            record.checksum,
            -1 if key is None else len(key),
            -1 if value is None else len(value),
            tuple(record.headers),
        )


class Fetched(fetcher.FetchResult):  # type: ignore[misc]
    """aiokafka's fetched partition, from which one call takes all records of a batch."""

    def getall(self, max_records: int | None = None) -> list[Any]:
        if not self.check_assignment(self._topic_partition) or not self.has_more():
            return []
        records: Any = self._partition_records  # type: ignore[has-type]
        found = list(islice(records._records_iterator, max_records))
        self._update_position()
        if max_records is None or len(found) < max_records:
            self._partition_records = records._records_iterator = None  # breaks their reference cycle
        return found


class Records:
    """aiokafka's MemoryRecords, except that its batches accept any bytes as a header's key."""

    def __init__(self, raw: bytes) -> None:
        self._records = MemoryRecords(raw)
        self._raw = memoryview(raw)
        self._at = 0

    def size_in_bytes(self) -> int:
        return int(self._records.size_in_bytes())

    def has_next(self) -> bool:
        return bool(self._records.has_next())

    def next_batch(self) -> _RecordBatch | None:
        batch = self._records.next_batch()
        if batch is None:
            return None
        begin = self._at
        self._at += _BEFORE + _LENGTH.unpack_from(self._raw, begin + _LENGTH_AT)[0]
        return _RecordBatch(batch, self._raw[begin : self._at])


class _RecordBatch:
    """A record batch. It is unpacked by aiokafka's C code; only if a header's key is not UTF-8, again in Python."""

    __slots__ = ("_batch", "_raw")

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch, self._raw = batch, raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except UnicodeDecodeError:
            return iter(list(LenientBatch(self._raw)))

    def __next__(self) -> Any:
        """The next record of a control batch. aiokafka calls this to see whether a transaction was aborted."""
        return next(self._batch)
