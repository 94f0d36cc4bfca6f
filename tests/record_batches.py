"""Record batches as a broker stores them: of any codec, transactional, markers, and with the gaps of compaction."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

PLAIN, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODECS = {"plain": PLAIN, "gzip": GZIP, "snappy": SNAPPY, "lz4": LZ4, "zstd": ZSTD}

HEADERS: list[tuple[str, bytes | None]] = [("own", b"\xff"), ("none", None)]

PLACEHOLDER = "QQQQ"
"""A header key that ``not_utf8`` replaces."""

_HEADER = 61  # bytes before the records
_CONTROL = 0x20


def batch(
    base: int,
    offsets: Sequence[int],
    *,
    last: int | None = None,
    codec: int = PLAIN,
    producer: int = -1,
    transactional: bool = False,
    extra: Sequence[tuple[str, bytes | None]] = (),
) -> bytes:
    """A batch from offset ``base`` on, with records at ``offsets``.

    Args:
        base: its first offset, which compaction may have emptied.
        offsets: the offsets of its records.
        last: its last offset, if compaction has removed the last records.
        codec: one of CODECS.
        producer: the producer's id.
        transactional: whether it belongs to a transaction.
        extra: more headers of each record.
    """
    builder = DefaultRecordBatchBuilder(2, codec, int(transactional), producer, 0, 0, 10_000_000)
    for offset in offsets:
        key = b"k%d" % offset if offset % 2 else None
        value = b"v%d" % offset if offset % 3 else None
        builder.append(offset - base, 1000 + offset, key, value, [*HEADERS, *extra])
    raw = bytearray(builder.build())
    raw[23:27] = struct.pack(">i", (offsets[-1] if last is None else last) - base)
    return sealed(raw, base)


def marker(offset: int, producer: int, *, commit: bool) -> bytes:
    """The control batch that ends a transaction."""
    builder = DefaultRecordBatchBuilder(2, PLAIN, 1, producer, 0, -1, 1_000)
    builder.append(0, 1000 + offset, struct.pack(">hh", 0, int(commit)), b"\x00" * 6, [])
    raw = bytearray(builder.build())
    raw[22] |= _CONTROL
    return sealed(raw, offset)


def not_utf8(raw: bytes, codec: int = PLAIN) -> bytes:
    """``raw`` with bytes in the place of PLACEHOLDER that are not UTF-8. The codec is PLAIN or GZIP."""
    body = gzip.decompress(raw[_HEADER:]) if codec else raw[_HEADER:]
    body = body.replace(PLACEHOLDER.encode(), b"\xff\xfeQQ")
    return sealed(bytearray(raw[:_HEADER] + (gzip.compress(body) if codec else body)), int.from_bytes(raw[:8], "big"))


def sealed(raw: bytearray, base: int) -> bytes:
    """A batch at ``base``, with the length and the checksum that fit its bytes."""
    raw[0:12] = struct.pack(">qi", base, len(raw) - 12)
    raw[17:21] = struct.pack(">I", calc_crc32c(bytes(raw[21:])))
    return bytes(raw)
