"""Lets aiokafka's consumers read records whose header keys are not UTF-8; lenient_batch.py says why they must.

For the consumers of commands, of Faust and of ``last_known``: lanes have a fetcher of their own (fetcher.py, chunk.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords

from failsoft.workers.kafka.lenient_batch import LenientBatch

_LENGTH = struct.Struct(">i")
_LENGTH_AT = 8  # the length follows the base offset, and counts the bytes after itself
_BEFORE = _LENGTH_AT + _LENGTH.size


def install() -> None:
    """Patch aiokafka: from now on all consumers of this process use the class below.

    aiokafka is pinned below 0.15, and a test checks that the patched names exist.
    """
    fetcher.MemoryRecords = Records


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
