"""Records are unpacked as aiokafka does, and also when a header's key is not UTF-8."""

from __future__ import annotations

import gzip
import struct
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from failsoft.workers.kafka.fetch_records import PartitionRecords, Records
from failsoft.workers.kafka.unreadable import Unreadable
from tests.record_batches import CODECS, batch, marker, sealed

TP = TopicPartition("events", 3)
PLACEHOLDER = b"QQQQ"
HEADERS: list[tuple[str, bytes | None]] = [("own", b"\xff"), ("none", None)]


def _batch(compression: int, base: int, *, odd: bool) -> bytes:
    """A batch of three records. With ``odd`` the second has a header whose key is not UTF-8."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=compression,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=100_000,
    )
    for i in range(3):
        extra = [(PLACEHOLDER.decode(), b"v")] if odd and i == 1 else []
        builder.append(i, 1000 + i, b"k%d" % i if i else None, b"v%d" % i, [*HEADERS, *extra])
    raw = bytearray(builder.build())
    body = bytes(raw[61:])
    if compression:
        body = gzip.compress(gzip.decompress(body).replace(PLACEHOLDER, b"\xff\xfeQQ"))
    else:
        body = body.replace(PLACEHOLDER, b"\xff\xfeQQ")
    raw[61:] = body
    raw[0:12] = struct.pack(">qi", base, len(raw) - 12)
    raw[17:21] = struct.pack(">I", calc_crc32c(bytes(raw[21:])))
    return bytes(raw)


def _all(records: Any) -> list[tuple[Any, ...]]:
    found = []
    while records.has_next():
        batch = records.next_batch()
        assert batch.validate_crc()
        found += [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in batch]
    return found


@pytest.mark.parametrize("compression", [0, 1], ids=["plain", "gzip"])
def test_valid_batches_are_unpacked_as_aiokafka_does(compression: int) -> None:
    """Offsets, timestamps, keys, values and headers are the same, batch after batch."""
    raw = _batch(compression, 0, odd=False) + _batch(compression, 3, odd=False)
    assert _all(Records(raw)) == _all(MemoryRecords(raw))
    assert Records(raw).size_in_bytes() == len(raw)


@pytest.mark.parametrize("compression", [0, 1], ids=["plain", "gzip"])
def test_a_header_key_that_is_not_utf8_is_decoded_with_replacement(compression: int) -> None:
    """aiokafka raises an error. Here the key has U+FFFD, and the rest of the record and its neighbours are the same."""
    raw = _batch(compression, 0, odd=False) + _batch(compression, 3, odd=True) + _batch(compression, 6, odd=False)
    with pytest.raises(UnicodeDecodeError):
        _all(MemoryRecords(raw))
    found = _all(Records(raw))
    assert [offset for offset, *_ in found] == list(range(9))
    assert found[4] == (4, 1001, b"k1", b"v1", [*HEADERS, ("\ufffd\ufffdQQ", b"v")])
    plain = _all(MemoryRecords(_batch(compression, 3, odd=False)))
    assert [found[3], found[5]] == [plain[0], plain[2]]


def test_an_incomplete_batch_at_the_end_is_not_read() -> None:
    """A fetch may cut its last batch. aiokafka does not read it either."""
    raw = _batch(0, 0, odd=True)
    assert len(_all(Records(raw + raw[:-1]))) == 3


def _consumed(raw: bytes, aborted: list[tuple[int, int]], read_committed: bool) -> list[Any]:
    return list(PartitionRecords(TP, Records(raw), aborted, 0, None, None, True, int(read_committed)))


@pytest.mark.parametrize("read_committed", [True, False])
@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())
def test_a_consumer_gets_what_aiokafka_gives(codec: int, read_committed: bool) -> None:
    """With aborted transactions and markers, and all fields of its records."""
    raw = (
        batch(0, [0, 1], producer=7, transactional=True, codec=codec)
        + marker(2, 7, commit=False)
        + batch(3, [3], producer=7, transactional=True, codec=codec)
        + marker(4, 7, commit=True)
    )
    original: Any = PartitionRecords.__base__  # another test of this process may have installed ours
    theirs = original(TP, MemoryRecords(raw), [(7, 0)], 0, None, None, True, int(read_committed))
    found = _consumed(raw, [(7, 0)], read_committed)
    assert found == list(theirs) and [r.offset for r in found] == ([3] if read_committed else [0, 1, 3])


def test_a_batch_that_cannot_be_read_is_named() -> None:
    """With its partition, its offsets and the reason. What is before it is given, and the position stays."""
    bad = bytearray(batch(2, [2, 3], codec=CODECS["zstd"]))
    bad[61:] = b"garbage"
    records = PartitionRecords(TP, Records(batch(0, [0, 1]) + sealed(bad, 2)), [], 0, None, None, True, 1)
    found: list[int] = []
    with pytest.raises(Unreadable, match="events-3 cannot be read at offset 2 to 3: its records are no valid zstd"):
        for record in records:
            found.append(record.offset)
    assert found == [0, 1] and records.next_fetch_offset == 2


def test_a_batch_with_a_wrong_checksum_ends_where_the_next_one_begins() -> None:
    """Its own header may be damaged too."""
    bad = bytearray(batch(2, [2, 3]))
    bad[-1] ^= 1
    with pytest.raises(Unreadable, match="at offset 2 to 5: its checksum is wrong") as refused:
        _consumed(batch(0, [0, 1]) + bytes(bad) + batch(6, [6]), [], True)
    assert refused.value.next_offset == 6


def test_bytes_without_a_batch_are_refused() -> None:
    """aiokafka would go on at the next offset."""
    with pytest.raises(Unreadable, match="11 bytes without a whole batch"):
        _consumed(bytes(11), [], True)
