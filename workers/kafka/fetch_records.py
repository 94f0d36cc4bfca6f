"""Fetched bytes -> records: in fewer steps than aiokafka takes, and also where a header's key is no UTF-8, where it
raises, for ever and for the lane.

Kafka's protocol calls a header's key a string and the broker does not check, so one producer's mistake would be a
record that no worker can get past. Java clients read such a key with U+FFFD in it; so do we. Values are bytes anyway.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

_LENGTH = struct.Struct(">i")
_LENGTH_AT = 8  # behind the base offset; it counts what follows it
_BEFORE = _LENGTH_AT + _LENGTH.size


def install() -> None:
    """From now on this process's consumers read such records. aiokafka is pinned below 0.15, and a test holds this."""
    fetcher.MemoryRecords = Records
    fetcher.PartitionRecords = Unpacked
    fetcher.FetchResult = Fetched


class Unpacked(fetcher.PartitionRecords):  # type: ignore[misc]
    """aiokafka's records of a partition, with half the steps an event where nothing is deserialized."""

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
    """aiokafka's fetched partition, whose records are taken by one call for a batch."""

    def getall(self, max_records: int | None = None) -> list[Any]:
        if not self.check_assignment(self._topic_partition) or not self.has_more():
            return []
        records: Any = self._partition_records  # type: ignore[has-type]
        found = list(islice(records._records_iterator, max_records))
        self._update_position()
        if max_records is None or len(found) < max_records:
            self._partition_records = records._records_iterator = None  # the cycle between them broken
        return found


class Records:
    """aiokafka's MemoryRecords, batch by batch the same but for what this module is about."""

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
    """A batch that is unpacked at C speed, and a second time in Python if that cannot be done."""

    __slots__ = ("_batch", "_raw")

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch, self._raw = batch, raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except UnicodeDecodeError:
            return iter(list(_Lenient(self._raw)))

    def __next__(self) -> Any:
        """The next record of a control batch, which is how aiokafka looks for a transaction's abort."""
        return next(self._batch)


class _Lenient(_DefaultRecordBatchPy):  # type: ignore[misc]
    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        buffer: Any = self._buffer  # type: ignore[has-type]
        self._buffer = buffer if isinstance(buffer, _Text) else _Text(buffer)


class _Text(bytearray):
    """Bytes whose slices decode whatever they hold."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _Text(found) if isinstance(at, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, errors)
