"""Records in the formats of before Kafka 0.11 are read as aiokafka reads them, and damage is refused."""

from __future__ import annotations

import struct
import zlib
from typing import Any, Literal

import pytest
from aiokafka import TopicPartition
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from failsoft.workers.kafka.chunk import Chunk
from failsoft.workers.kafka.unreadable import Unreadable
from tests.record_batches import CODECS, batch

TP = TopicPartition("old", 0)
ROWS = [(b"k1", b"v1"), (None, b"v" * 300), (b"k3", None), (b"", b"")]


def _set(magic: Literal[0, 1], codec: int, base: int = 0) -> bytes:
    """ROWS as a broker keeps them from offset ``base`` on."""
    builder = LegacyRecordBatchBuilder(magic, codec, 100_000)
    for i, (key, value) in enumerate(ROWS):
        builder.append(i if codec and magic else base + i, 1000 + i, key, value)
    raw = bytearray(builder.build())
    if codec:
        raw[:8] = struct.pack(">q", base + len(ROWS) - 1)
    return bytes(raw)


def _sealed(raw: bytes) -> bytes:
    """A message with the length and the checksum that fit its bytes."""
    return raw[:8] + struct.pack(">iI", len(raw) - 12, zlib.crc32(raw[16:])) + raw[16:]


def _wrapped(magic: int, codec: int, value: bytes | None, offset: int = 3) -> bytes:
    head = struct.pack(">qiIbb", offset, 0, 0, magic, codec) + (struct.pack(">q", 7) if magic else b"")
    body = struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value
    return _sealed(head + struct.pack(">i", -1) + body)


@pytest.mark.parametrize("codec", ["plain", "gzip", "snappy", "lz4"])
@pytest.mark.parametrize("magic", [0, 1])
def test_records_are_those_that_aiokafka_reads(magic: Literal[0, 1], codec: str) -> None:
    """All fields; magic 0 has no timestamp, and Kafka's number for that is -1."""
    if (magic, codec) == (0, "lz4"):
        return  # the next test
    raw = _set(magic, CODECS[codec]) + _set(magic, CODECS[codec], 4)
    theirs: Any = [r for b in iter(MemoryRecords(raw).next_batch, None) for r in b]
    if magic == 0 and codec != "plain":  # offsets in a set of magic 0 are absolute; the builder's are not
        raw = _set(magic, CODECS[codec])
        theirs = theirs[:4]
    found = Chunk(TP, 0, raw).take()
    assert [(r.key, r.value) for r in found] == ROWS * (len(found) // 4)
    assert [(r.offset, r.timestamp, r.key, r.value) for r in found] == [
        (r.offset, -1 if r.timestamp is None else r.timestamp, r.key, r.value) for r in theirs
    ]
    assert all(list(r.headers) == [] for r in found)


def test_lz4_of_magic_0_is_refused() -> None:
    """Its frames have a wrong checksum by design (KAFKA-3160), and no library reads them."""
    assert "lz4 is not read in a message of magic 0" in str(_refused(_wrapped(0, CODECS["lz4"], b"x")))


def test_reading_begins_within_a_set() -> None:
    """A broker answers with the whole set."""
    assert [r.offset for r in Chunk(TP, 2, _set(1, CODECS["gzip"])).take()] == [2, 3]


def test_all_formats_follow_each_other() -> None:
    """A topic that is older than its brokers has them in this order."""
    raw = _set(0, 0) + _set(1, CODECS["snappy"], 4) + batch(8, range(8, 10), codec=CODECS["zstd"])
    chunk = Chunk(TP, 0, raw)
    assert [r.offset for r in chunk.take()] == list(range(10)) and chunk.exhausted and chunk.position == 10


def _refused(raw: bytes) -> Unreadable:
    with pytest.raises(Unreadable) as refused:
        Chunk(TP, 0, raw).take()
    return refused.value


@pytest.mark.parametrize("length", [-12, -(2**31), 0, 13, 2**31 - 1])
def test_a_wrong_length_within_a_set_is_refused(length: int) -> None:
    """aiokafka never ends with the first of them."""
    inner = bytearray(_set(1, 0))
    inner[8:12] = struct.pack(">i", length)
    for codec in ("gzip", "snappy"):
        packed = batch_bytes(bytes(inner), codec)
        error = _refused(_wrapped(1, CODECS[codec], packed))
        assert ("bytes" in error.why or "checksum of a message" in error.why) and (error.offset, error.next_offset) == (
            0,
            4,
        )


def batch_bytes(data: bytes, codec: str) -> bytes:
    from aiokafka import codec as codecs

    return bytes(getattr(codecs, f"{codec}_encode")(data))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (_wrapped(1, 1, None), "without a value"),
        (_wrapped(1, 1, batch_bytes(b"", "gzip")), "without messages"),
        (_wrapped(1, 1, batch_bytes(_set(1, 0)[:-1], "gzip")), "bytes"),
        (_wrapped(1, 1, batch_bytes(_set(1, 0) + b"x", "gzip")), "its last message is cut"),
        (_wrapped(1, 1, batch_bytes(_set(0, 0), "gzip")), "another format"),
        (_wrapped(1, 1, batch_bytes(_wrapped(1, 1, b"x"), "gzip")), "compressed once more"),
        (_wrapped(1, 1, batch_bytes(_set(1, 0) * 2, "gzip")), "the offsets"),
        (_wrapped(0, 1, batch_bytes(_set(0, 0), "gzip"), offset=9), "the offsets"),
        (_wrapped(1, 4, b"x"), "zstd is not read in a message of magic 1"),
        (_wrapped(1, 5, b"x"), "its codec has the number 5"),
        (_wrapped(1, 1, b"garbage"), "no valid gzip"),
        (_wrapped(0, 0, b"x")[:-1] + b"y", "its checksum is wrong"),
        (_sealed(_set(0, 0)[:18] + struct.pack(">i", 99) + bytes(9)), "a key or value of 99 bytes"),
        (_sealed(_set(0, 0)[:18] + struct.pack(">i", -2) + bytes(9)), "a key or value of -2 bytes"),
        (_sealed(_set(1, 0)[:18] + bytes(4)), "shorter than its lengths say"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # the bytes that gzip gives have the time in them
)
def test_damage_is_refused(raw: bytes, why: str) -> None:
    """With the reason, whatever the checksum says."""
    error = _refused(raw)
    assert why in error.why and error.offset == 0
