"""One record batch as it was fetched: its header, its checksum and its records, in any of Kafka's formats.

Everything is checked before aiokafka's C code sees the bytes: that code trusts the lengths in a header.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import calc_crc32c

from failsoft.workers.kafka import codecs, message_set
from failsoft.workers.kafka.lenient_batch import LenientBatch
from failsoft.workers.kafka.unreadable import DamagedBatch

LENGTH = struct.Struct(">i")
LENGTH_AT = 8  # a batch's length follows its base offset, and counts the bytes after itself
OVERHEAD = LENGTH_AT + LENGTH.size
MAGIC_AT = 16
CODEC_AT = codecs.ATTRIBUTES_AT + 1  # the low byte of the attributes
RECORDS_AT = codecs.RECORDS_AT
SHORTEST = MAGIC_AT + 1

Row = TypeVar("Row")

_HEADER = struct.Struct(">qiibIhiqqqhii")
_CRC_FROM = 21  # the checksum is of everything behind it
_TRANSACTIONAL, _CONTROL = 0x10, 0x20

_ABORT = b"\x00\x00\x00\x00"
"""The key of a control record: version 0, type 0. Type 1 is a commit."""

_NEARLY_ENDLESS = b"\xff\xff\xff\xff\x01"
"""The end of a length near 2^63, the only ones with which the C code's arithmetic overflows and it reads any memory.
In other places these bytes are rare, so the slower reader takes such batches."""


def spans(raw: bytes) -> list[tuple[int, int]]:
    """Where the whole batches of ``raw`` begin and end. What follows an impossible length is left out."""
    found: list[tuple[int, int]] = []
    begin, size = 0, len(raw)
    while begin + SHORTEST <= size:
        end = begin + OVERHEAD + LENGTH.unpack_from(raw, begin + LENGTH_AT)[0]
        if not begin + SHORTEST <= end <= size:
            break
        found.append((begin, end))
        begin = end
    return found


def after(raw: bytes, found: Sequence[tuple[int, int]], index: int, error: DamagedBatch) -> int | None:
    """The offset after the batch ``index`` of ``found`` (``spans``), which cannot be read because of ``error``.

    If its header means nothing, the batch behind it says where that begins. None if neither does.
    """
    if error.trusted:
        return int(RecordBatch(raw, *found[index]).next_offset)
    if index + 1 < len(found):
        behind = RecordBatch(raw, *found[index + 1])
        with contextlib.suppress(DamagedBatch):
            behind.verify()
            return None if behind.producer_id is None else int(behind.base_offset)
    return None


class RecordBatch:
    """A batch of which the header was read, and nothing was verified yet.

    Attributes:
        base_offset: its first offset. Of a message set in a format before magic 2: the last one's.
        next_offset: the offset after it.
        producer_id: the producer of a batch of magic 2; None for older formats, which know no transactions.
        transactional: whether it belongs to a transaction.
        control: whether it holds a transaction's marker and no records.
    """

    __slots__ = ("_begin", "_count", "_crc", "_end", "_magic", "_raw", "base_offset", "control", "next_offset",
                 "producer_id", "transactional")  # fmt: skip

    def __init__(self, raw: bytes, begin: int, end: int) -> None:
        """Read the header of the batch in ``raw[begin:end]`` (``spans``). Raises nothing: ``verify`` does."""
        self._raw, self._begin, self._end = raw, begin, end
        self._magic = raw[begin + MAGIC_AT]
        self.producer_id: int | None = None
        if self._magic == 2 and end - begin >= RECORDS_AT:
            base, _, _, _, self._crc, attributes, last, _, _, self.producer_id, _, _, self._count = _HEADER.unpack_from(
                raw, begin
            )
            self.base_offset, self.next_offset = base, base + last + 1
            self.transactional, self.control = attributes & _TRANSACTIONAL != 0, attributes & _CONTROL != 0
        else:
            self.transactional = self.control = False
            (self.base_offset,) = struct.unpack_from(">q", raw, begin)
            self.next_offset, self._crc, self._count = self.base_offset + 1, 0, 0

    def verify(self) -> None:
        """Raises DamagedBatch for an unknown format, a wrong checksum, or a header that contradicts itself."""
        if self._magic in message_set.MAGICS:
            message_set.verify(self._view())
            return
        if self._magic != 2:
            magic = self._magic - 256 if self._magic > 127 else self._magic
            raise DamagedBatch(f"its format is unknown (magic {magic}; this version reads 0 to 2)", trusted=False)
        if self._end - self._begin < RECORDS_AT:
            raise DamagedBatch(f"it is cut: {self._end - self._begin} bytes", trusted=False)
        if self._crc != calc_crc32c(memoryview(self._raw)[self._begin + _CRC_FROM : self._end]):
            raise DamagedBatch("its checksum is wrong", trusted=False)
        if self.base_offset < 0 or self.next_offset <= self.base_offset or self._count < 0:
            last = self.next_offset - 1
            raise DamagedBatch(
                f"its header claims {self._count} records of the offsets {self.base_offset} to {last}", trusted=False
            )

    def aborts(self) -> bool:
        """Whether a control batch aborts a transaction. Raises DamagedBatch.

        One that compaction has emptied does not: the records before it were removed first.
        """
        for record in self._unpacked(list):
            if record.key is None or len(record.key) < len(_ABORT):
                raise DamagedBatch("it is a transaction's marker without its type")
            return bytes(record.key[: len(_ABORT)]) == _ABORT
        return False

    def records(self, made: Callable[[Iterable[Any]], list[Row]], offset: Callable[[Row], int]) -> list[Row]:
        """What ``made`` makes of its records, and ``offset`` gives the offset of what it makes.

        ``made`` gets records as aiokafka has them: ``offset``, ``timestamp``, ``key``, ``value``, ``headers``. They are
        not kept, which is a tenth faster. It may be called twice.

        Raises DamagedBatch if any record cannot be read. MemoryError is the process's own trouble.
        """
        if self._magic in message_set.MAGICS:
            return made(message_set.records(self._view()))
        rows = self._unpacked(made)
        offsets = [*map(offset, rows)]
        # The first comparison is fast, and fails only after a compaction.
        if offsets and offsets != [*range(self.base_offset, self.next_offset)]:
            if not (self.base_offset <= offsets[0] and offsets[-1] < self.next_offset):
                raise DamagedBatch(
                    f"its records have the offsets {offsets[0]} to {offsets[-1]}, and its header claims "
                    f"{self.base_offset} to {self.next_offset - 1}"
                )
            if any(b <= a for a, b in pairwise(offsets)):
                raise DamagedBatch("the offsets of its records do not rise")
        return rows

    def _view(self) -> memoryview:
        return memoryview(self._raw)[self._begin : self._end]

    def _unpacked(self, made: Callable[[Iterable[Any]], list[Row]]) -> list[Row]:
        raw, begin, end = self._raw, self._begin, self._end
        if not self._count and end - begin == RECORDS_AT:
            return []  # compaction has removed all records; a codec in the header is left over
        if raw[begin + CODEC_AT] & codecs.CODEC_MASK or end + codecs.PADDING > len(raw):
            raw = codecs.plain(self._view())
            begin, end = 0, len(raw) - codecs.PADDING
        plain = memoryview(raw)[begin:end]
        doubt: Exception | None = None
        # The first search is fast, and in text the only one.
        if raw.find(b"\xff", begin + RECORDS_AT, end) < 0 or raw.find(_NEARLY_ENDLESS, begin + RECORDS_AT, end) < 0:
            try:
                return made(DefaultRecordBatch(plain))
            except Exception as error:  # noqa: BLE001
                # It may be no damage: a header's key that is not UTF-8. Or it is, also as MemoryError: it asks for as
                # many bytes as a damaged length says. Then the next reader raises it once more.
                doubt = error
        try:
            return made(LenientBatch(plain))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001
            text = f"{type(error).__name__}: {error}"
            raise DamagedBatch(f"its records are not as their format demands: {text}") from (doubt or error)
