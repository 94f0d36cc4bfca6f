"""Packs and unpacks compressed record batches, with a bound on what a batch may unpack to.

aiokafka's own functions have no bound: a batch of 1 MB that unpacks to gigabytes would end the process, and the next
owner of the partition would fetch it again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeAlias

import cramjam
import numpy as np
from aiokafka.codec import snappy_encode
from aiokafka.record.util import calc_crc32c

from failsoft.workers.kafka.unreadable import DamagedBatch

Bytes: TypeAlias = "bytes | bytearray | memoryview"

MOST_UNPACKED = 128 * 1_048_576
"""The most bytes that the records of one batch may unpack to: eight of the largest events that a pipeline may allow
(16 MB), and a hundred times a broker's default limit for a batch as it is written (1 MB). Events in JSON compress to a
fifth up to a thirtieth. An unpacked batch is in memory two or three times for a moment."""

FIRST_GUESS, MULTIPLE = 262_144, 32
"""The first buffer has 256 KiB or 32 times the compressed bytes. Each further one is 32 times larger. Memory
that is not written costs nothing."""

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
"""Kafka's numbers of codecs."""

NAMES = {NONE: "none", GZIP: "gzip", SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}
"""Kafka's names of codecs, as in ``compression.type``."""

NUMBERS = {name: number for number, name in NAMES.items()}

CODEC_MASK = 0x07
"""The bits of a batch's attributes that hold the codec."""

_XERIAL = b"\x82SNAPPY\x00"
"""How Java's snappy streams begin. Eight bytes of versions follow, then blocks, each after its length."""
_XERIAL_HEADER = len(_XERIAL) + 8
_LENGTH = struct.Struct(">i")
_CRC = struct.Struct(">I")

_ATTRIBUTES = struct.Struct(">h")
ATTRIBUTES_AT, RECORDS_AT = 21, 61
"""Where the attributes and the records are in a record batch of magic 2."""

_LENGTH_ENDS = 12
"""A batch's length is that of what follows it."""

PADDING = 128
"""Bytes behind a batch: aiokafka's C code reads up to seven numbers, of ten bytes at most, without a look at the
end."""


def plain(batch: memoryview) -> bytes:
    """A copy of a record batch of magic 2 without compression, whose checksum no longer fits, and PADDING zeros.

    Raises DamagedBatch.
    """
    (attributes,) = _ATTRIBUTES.unpack_from(batch, ATTRIBUTES_AT)
    codec = attributes & CODEC_MASK
    if codec == NONE:
        return b"".join((batch, bytes(PADDING)))
    clear = _ATTRIBUTES.pack(attributes & ~CODEC_MASK)
    head = (batch[:ATTRIBUTES_AT], clear, batch[ATTRIBUTES_AT + _ATTRIBUTES.size : RECORDS_AT])
    return b"".join((*head, unpack(codec, batch[RECORDS_AT:]), bytes(PADDING)))


def packed(batch: Bytes, codec: int) -> Bytes:
    """A record batch of magic 2 with its records compressed, or ``batch`` itself if that makes it no smaller.

    A batch that is compressed already is left alone.
    """
    view = memoryview(batch)
    (attributes,) = _ATTRIBUTES.unpack_from(view, ATTRIBUTES_AT)
    if codec == NONE or attributes & CODEC_MASK:
        return batch
    records = view[RECORDS_AT:]
    smaller = _PACKERS[codec](records)
    if len(smaller) >= len(records):
        return batch
    checked = b"".join((_ATTRIBUTES.pack(attributes | codec), view[ATTRIBUTES_AT + 2 : RECORDS_AT], smaller))
    length = _LENGTH.pack(len(checked) + ATTRIBUTES_AT - _LENGTH_ENDS)
    crc = _CRC.pack(calc_crc32c(checked))
    return b"".join((view[: _LENGTH_ENDS - _LENGTH.size], length, view[_LENGTH_ENDS : ATTRIBUTES_AT - 4], crc, checked))


def unpack(codec: int, data: Bytes) -> Bytes:
    """What ``data``, compressed with one of Kafka's codecs, unpacks to: at most MOST_UNPACKED bytes.

    Reads what every client writes: several frames or members in a row, frames with and without the size of their
    content, and snappy with and without the framing of Java's client. Raises DamagedBatch.
    """
    unpacker = _UNPACKERS.get(codec)
    if unpacker is None:
        raise DamagedBatch(f"its codec has the number {codec}, which Kafka does not define")
    try:
        return unpacker(data)
    except cramjam.DecompressionError as error:
        raise DamagedBatch(f"its records are no valid {NAMES[codec]}: {error}") from None


def _lz4(data: Bytes) -> Bytes:
    """Blocks that do not refer to each other, and no content size: Java's reader refuses the first (KIP-57)."""
    compressor = cramjam.lz4.Compressor(level=1, content_checksum=False, block_linked=False)
    compressor.compress(bytes(data))  # it takes no view
    return memoryview(compressor.finish())


_PACKERS: dict[int, Callable[[Bytes], Bytes]] = {
    GZIP: lambda data: memoryview(cramjam.gzip.compress(data, level=1)),
    SNAPPY: snappy_encode,
    LZ4: _lz4,
    ZSTD: lambda data: memoryview(cramjam.zstd.compress(data, level=1)),
}
"""At their quickest levels. Of 1,000 answers (489 kB) aiokafka's level for lz4 makes 78 kB in 3.2 ms and this one 85 kB
in 0.4 ms; level 1 of zstd makes less than aiokafka's 3."""


def _stream(into: Callable[[Any, Any], int]) -> Callable[[Bytes], Bytes]:
    def unpacked(data: Bytes) -> Bytes:
        size = min(MOST_UNPACKED, max(FIRST_GUESS, MULTIPLE * len(data)))
        while True:
            buffer: Any = np.empty(size, np.uint8)  # unlike a bytearray, not filled with zeros first
            try:
                return memoryview(buffer)[: into(data, buffer)]
            except cramjam.DecompressionError as error:
                if str(error) != _FULL:
                    raise
            if size == MOST_UNPACKED:
                raise _too_large()
            size = min(MOST_UNPACKED, MULTIPLE * size)

    return unpacked


_FULL = "failed to write whole buffer"
"""cramjam's message when the records do not fit into the buffer. A test holds it."""


def _snappy(data: Bytes) -> Bytes:
    view = memoryview(data)
    if bytes(view[: len(_XERIAL)]) != _XERIAL:
        return _snappy_block(view, MOST_UNPACKED)
    found: list[Bytes] = []
    left, at = MOST_UNPACKED, _XERIAL_HEADER
    while at < len(view):
        if at + _LENGTH.size > len(view):
            raise DamagedBatch("its records are no valid snappy: a block is cut")
        begin = at + _LENGTH.size
        at = begin + _LENGTH.unpack_from(view, at)[0]
        if not begin < at <= len(view):
            raise DamagedBatch(f"its records are no valid snappy: a block of {at - begin} bytes")
        found.append(_snappy_block(view[begin:at], left))
        left -= len(found[-1])
    return b"".join(found)


def _snappy_block(data: memoryview, most: int) -> Bytes:
    if cramjam.snappy.decompress_raw_len(data) > most:  # it allocates what the block says, before it looks further
        raise _too_large()
    return memoryview(cramjam.snappy.decompress_raw(data))


def _too_large() -> DamagedBatch:
    return DamagedBatch(f"its records unpack to more than {MOST_UNPACKED // 1_048_576} MiB")


_UNPACKERS: dict[int, Callable[[Bytes], Bytes]] = {
    GZIP: _stream(cramjam.gzip.decompress_into),
    SNAPPY: _snappy,
    LZ4: _stream(cramjam.lz4.decompress_into),
    ZSTD: _stream(cramjam.zstd.decompress_into),
}
