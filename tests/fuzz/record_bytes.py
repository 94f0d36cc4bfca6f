"""The target for the bytes of a fetch: record batches of every format and codec, whatever is wrong with them."""

from __future__ import annotations

import itertools
import struct
import zlib

from aiokafka import TopicPartition
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder

from failsoft.workers.kafka.chunk import Chunk
from failsoft.workers.kafka.fetch_records import PartitionRecords, Records
from failsoft.workers.kafka.record_batch import spans
from failsoft.workers.kafka.unreadable import Unreadable
from tests.fuzz.target import Target
from tests.record_batches import CODECS, batch, marker, sealed

TP = TopicPartition("loans.events", 0)


def _resealed(data: bytes) -> bytes:
    """``data`` with checksums that fit: a broker accepts them of a client with a bug, and keeps them."""
    found, end = b"", 0
    for begin, end in spans(data):
        raw = data[begin:end]
        if raw[16] == 2 and len(raw) >= 61:
            found += sealed(bytearray(raw), int.from_bytes(raw[:8], "big", signed=True))
        elif raw[16] < 2 and len(raw) >= 18:
            found += raw[:12] + struct.pack(">I", zlib.crc32(raw[16:])) + raw[16:]
        else:
            found += raw
    return found + data[end:]


def record_bytes(data: bytes) -> bool:
    """Any bytes give records, in order and each once, or Unreadable at the first offset that was not given.

    aiokafka's consumers, as they are patched, give the same. A first byte that is odd makes the checksums fit.
    """
    raw = _resealed(data[1:]) if data[:1] and data[0] % 2 else data[1:]
    if not raw:
        return False
    chunk, offsets, error = Chunk(TP, 0, raw), list[int](), None
    while error is None and not chunk.exhausted:
        before = chunk.position
        try:
            offsets += [record.offset for record in chunk.take(3)]
        except Unreadable as unreadable:
            error = unreadable
        else:
            assert chunk.position > before
    assert all(a < b for a, b in itertools.pairwise(offsets)), offsets
    assert not offsets or offsets[0] >= 0
    assert chunk.position >= (offsets[-1] + 1 if offsets else 0)
    if error is None:
        assert chunk.end == chunk.position and not chunk.broken
    else:
        assert error.why and error.offset == chunk.position
        assert error.next_offset is None or error.next_offset > error.offset
    _consumed(raw, offsets, error)
    return error is None and bool(offsets)


def _consumed(raw: bytes, offsets: list[int], error: Unreadable | None) -> None:
    """Asserts that a consumer gives the same records. It checks less between batches, so it may give more."""
    found: list[int] = []
    try:
        for record in PartitionRecords(TP, Records(raw), [], 0, None, None, True, 1):
            found.append(record.offset)
    except Unreadable as unreadable:
        assert error is not None, unreadable
    assert found[: len(offsets)] == offsets


def _legacy(magic: int, codec: int) -> bytes:
    builder = LegacyRecordBatchBuilder(magic, codec, 100_000)
    for i in range(3):
        builder.append(i, 1000 + i, b"k", b"v%d" % i)
    raw = bytearray(builder.build())
    if codec:
        raw[:8] = struct.pack(">q", 2)
    return bytes(raw)


_SEEDS = (
    *(batch(0, range(3), codec=codec) + batch(3, range(3, 6), codec=codec) for codec in CODECS.values()),
    batch(0, [0, 1], producer=7, transactional=True) + marker(2, 7, commit=True) + batch(3, [3]),
    *(_legacy(magic, codec) for magic in (0, 1) for codec in range(4) if (magic, codec) != (0, 3)),
    _legacy(1, 0) + batch(3, [3], codec=CODECS["zstd"]),
)

TARGETS = (
    Target(
        "record_bytes",
        record_bytes,
        tuple(bytes([first]) + seed for seed in _SEEDS for first in (0, 1)),
        (
            b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # lengths at the ends of 64 and 32 bits
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\xfe\xff\xff\xff\x0f",
            b"\x7f\xff\xff\xff",
            b"\xff\xff\xff\xf4",
            b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01",
            b"\xff\xff\xff\xff\x0f",
        ),
    ),
)
