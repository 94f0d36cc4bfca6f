"""A chunk gives the committed records that aiokafka gives, and says where it stands after each call."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import encode_varint

from failsoft.schemas.record import Record
from failsoft.workers.kafka.chunk import Chunk, FetchedRecord
from failsoft.workers.kafka.unreadable import Unreadable
from tests.record_batches import CODECS, GZIP, HEADERS, PLACEHOLDER, PLAIN, batch, marker, not_utf8, sealed

TP = TopicPartition("events", 3)
FIELDS = FetchedRecord._fields


def _values(record: Any) -> tuple[Any, ...]:
    return (*(getattr(record, name) for name in FIELDS[:-1]), list(record.headers))


def _offsets(records: list[FetchedRecord]) -> list[int]:
    return [record.offset for record in records]


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())
def test_records_are_those_that_aiokafka_unpacks(codec: int) -> None:
    """All seven fields are the same, for every codec; headers may be any sequence."""
    raw = batch(0, range(3), codec=codec) + batch(3, range(3, 9), codec=codec)
    expected = list(fetcher.PartitionRecords(TP, MemoryRecords(raw), None, 0, None, None, True, 1))
    records = Chunk(TP, 0, raw).take()
    assert [_values(r) for r in records] == [_values(r) for r in expected]
    assert records[1] == ("events", 3, 1, 1001, b"k1", b"v1", HEADERS)


def test_a_record_is_what_the_pure_core_reads() -> None:
    """FetchedRecord satisfies the Record protocol. mypy checks that too."""
    record: Record = Chunk(TP, 0, batch(0, [0])).take()[0]
    assert (record.topic, record.partition, record.offset, record.key) == ("events", 3, 0, None)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 100])
def test_a_limit_is_kept_across_batches(limit: int) -> None:
    """No call gives more than the limit, nothing is skipped, and the position follows the last record taken."""
    chunk = Chunk(TP, 0, batch(0, range(3)) + batch(3, range(3, 7)))
    seen: list[int] = []
    while not chunk.exhausted:
        taken = _offsets(chunk.take(limit))
        assert 0 < len(taken) <= limit
        seen += taken
        assert chunk.position == seen[-1] + 1
    assert seen == list(range(7)) and chunk.position == chunk.end == 7
    assert chunk.take(limit) == []


def test_nothing_taken_moves_nothing() -> None:
    """A limit of 0 gives nothing, and the chunk knows its end and its size before anything is unpacked."""
    raw = batch(5, range(5, 8))
    chunk = Chunk(TP, 5, raw)
    assert chunk.take(0) == []
    assert (chunk.position, chunk.end, chunk.size, chunk.exhausted) == (5, 8, len(raw), False)


def test_records_before_the_offset_asked_for_are_left_out() -> None:
    """A broker answers with whole batches, so the first may begin before the offset."""
    assert _offsets(Chunk(TP, 2, batch(0, range(5))).take()) == [2, 3, 4]


def test_a_batch_cut_at_the_end_is_left_to_the_next_fetch() -> None:
    """The chunk ends before it."""
    whole = batch(0, range(3))
    chunk = Chunk(TP, 0, whole + batch(3, range(3, 6))[:-1])
    assert _offsets(chunk.take()) == [0, 1, 2]
    assert chunk.exhausted and chunk.end == chunk.position == 3


def test_aborted_records_are_left_out() -> None:
    """Of two producers at once, those of the aborted transaction are left out, up to its marker and no further."""
    raw = b"".join(
        (
            batch(0, [0, 1], producer=7, transactional=True),
            batch(2, [2], producer=8, transactional=True),
            batch(3, [3], producer=7),  # not of a transaction
            batch(4, [4], producer=7, transactional=True),
            marker(5, 7, commit=False),
            batch(6, [6], producer=7, transactional=True),
            marker(7, 8, commit=True),
            marker(8, 7, commit=True),
        )
    )
    chunk = Chunk(TP, 0, raw, [(7, 0)])
    assert _offsets(chunk.take()) == [2, 3, 6]
    assert chunk.exhausted and chunk.position == chunk.end == 9


def test_a_second_aborted_transaction_of_a_producer_begins_at_its_offset() -> None:
    """What the producer committed between the two is read."""
    raw = b"".join(
        (
            batch(0, [0], producer=7, transactional=True),
            marker(1, 7, commit=False),
            batch(2, [2], producer=7, transactional=True),
            marker(3, 7, commit=True),
            batch(4, [4], producer=7, transactional=True),
            marker(5, 7, commit=False),
        )
    )
    assert _offsets(Chunk(TP, 0, raw, [(7, 4), (7, 0)]).take()) == [2]


def test_the_position_is_behind_a_marker_as_soon_as_the_last_record_is_taken() -> None:
    """Otherwise the offset that is committed would show a lag of one for ever."""
    raw = batch(0, [0, 1], producer=7, transactional=True) + marker(2, 7, commit=True)
    chunk = Chunk(TP, 0, raw)
    chunk.take(1)
    assert chunk.position == 1 and not chunk.exhausted
    chunk.take(1)
    assert chunk.position == 3 and chunk.exhausted


def test_a_chunk_of_markers_is_exhausted_at_once() -> None:
    """There is nothing to take, and the position is behind them."""
    chunk = Chunk(TP, 4, marker(4, 7, commit=True) + marker(5, 8, commit=True))
    assert chunk.exhausted and chunk.position == 6 and chunk.take() == []


def test_the_position_is_behind_records_that_compaction_removed() -> None:
    """A batch keeps its last offset; else the same batch would be fetched for ever."""
    chunk = Chunk(TP, 0, batch(0, [1, 4], last=9) + batch(12, [13], last=15))
    assert _offsets(chunk.take(2)) == [1, 4] and chunk.position == 10
    assert _offsets(chunk.take()) == [13] and chunk.position == chunk.end == 16


def test_a_batch_of_which_nothing_is_left_is_passed() -> None:
    """The offset asked for may be behind the last record of a compacted batch."""
    chunk = Chunk(TP, 5, batch(0, [1, 4], last=9) + batch(10, [10]))
    assert _offsets(chunk.take(1)) == [10] and chunk.exhausted
    chunk = Chunk(TP, 5, batch(0, [1, 4], last=9))
    assert chunk.take() == [] and chunk.exhausted and chunk.position == 10


@pytest.mark.parametrize("codec", [PLAIN, GZIP], ids=["plain", "gzip"])
@pytest.mark.parametrize("limit", [1, None])
def test_a_header_key_that_is_not_utf8_is_decoded_with_replacement(codec: int, limit: int | None) -> None:
    """aiokafka raises an error. Here the key has U+FFFD; the neighbours are the same."""
    odd = not_utf8(batch(3, range(3, 6), codec=codec, extra=[(PLACEHOLDER, b"v")]), codec)
    chunk = Chunk(TP, 0, batch(0, range(3)) + odd + batch(6, range(6, 9)))
    records: list[FetchedRecord] = []
    while not chunk.exhausted:
        records += chunk.take(limit)
    assert _offsets(records) == list(range(9))
    assert [list(r.headers) for r in records[2:7]] == [
        HEADERS,
        *[[*HEADERS, ("\ufffd\ufffdQQ", b"v")]] * 3,
        HEADERS,
    ]
    assert records[4] == records[4]._replace(offset=4, timestamp=1004, key=None, value=b"v4")


# --- what cannot be read ----------------------------------------------------------------------------------------------


def _refused(chunk: Chunk) -> Unreadable:
    with pytest.raises(Unreadable) as first:
        chunk.take()
    with pytest.raises(Unreadable) as second:
        chunk.take(1)
    assert str(first.value) == str(second.value) and not chunk.exhausted
    return first.value


def test_a_damaged_batch_is_refused_where_it_begins() -> None:
    """What precedes it is returned first. Then each call raises, with the position at the batch."""
    bad = bytearray(batch(3, range(3, 6)))
    bad[-1] ^= 1
    chunk = Chunk(TP, 0, batch(0, range(3)) + bytes(bad) + batch(6, [6]))
    assert _offsets(chunk.take()) == [0, 1, 2]
    error = _refused(chunk)
    assert (error.tp, error.offset, chunk.position, error.why) == (TP, 3, 3, "its checksum is wrong")
    assert error.next_offset == 6 and not chunk.broken and chunk.end == 7
    assert str(error) == "events-3 cannot be read at offset 3 to 5: its checksum is wrong"


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_a_batch_that_does_not_decompress_is_refused(codec: str) -> None:
    """Its checksum may be right: a producer compressed garbage."""
    raw = bytearray(batch(0, range(20), codec=CODECS[codec]))
    raw[61:] = b"garbage" * 5
    error = _refused(Chunk(TP, 0, sealed(raw, 0)))
    assert error.offset == 0 and error.why


def test_a_damaged_record_is_not_skipped() -> None:
    """A batch that fails in its middle is not continued from there: the checksum is right, but a record is not."""
    raw = bytearray(batch(0, range(5)))
    at = raw.index(b"v2")
    raw[at - 1] = 0x7E  # the length of the value: it is longer than its record
    error = _refused(Chunk(TP, 0, sealed(raw, 0)))
    assert error.offset == 0 and "CorruptRecordException" in error.why and error.next_offset == 5


@pytest.mark.parametrize("raw", [b"x", b"\x00" * 11, batch(0, [0])[:-1], b"\x00" * 8 + b"\x00\x00\x00\x01" + b"x" * 99])
def test_bytes_without_a_whole_batch_are_refused(raw: bytes) -> None:
    """Asking again would give the same bytes, for ever."""
    chunk = Chunk(TP, 7, raw)
    assert chunk.end == 7
    error = _refused(chunk)
    assert (error.offset, error.next_offset, chunk.broken) == (7, None, True)


def _header(raw: bytes, at: int, form: str, value: int) -> bytes:
    """``raw`` with another value in its header, and a checksum that fits."""
    bad = bytearray(raw)
    struct.pack_into(form, bad, at, value)
    return sealed(bad, int.from_bytes(bad[:8], "big", signed=True))


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())
@pytest.mark.parametrize(
    ("at", "form", "value", "why", "after"),
    [
        (16, ">b", 3, "its format is unknown (magic 3; this version reads 0 to 2)", 8),
        (16, ">b", -1, "its format is unknown (magic -1; this version reads 0 to 2)", 8),
        (22, ">B", 5, "its codec has the number 5, which Kafka does not define", 8),
        (23, ">i", -1, "its header claims 5 records of the offsets 3 to 2", 8),
        (23, ">i", 2, "its records have the offsets 3 to 7, and its header claims 3 to 5", 6),
        (57, ">i", -1, "its header claims -1 records of the offsets 3 to 7", 8),
        (57, ">i", 4, "its records are not as their format demands", 8),
        (57, ">i", 6, "its records are not as their format demands", 8),
        (57, ">i", 2**31 - 1, "its records are not as their format demands", 8),
    ],
)
def test_a_header_that_lies_is_refused(codec: int, at: int, form: str, value: int, why: str, after: int) -> None:
    """The checksum fits, as of a client with a bug. The records before the batch are given, and where it ends."""
    bad = _header(batch(3, range(3, 8), codec=codec), at, form, value)
    chunk = Chunk(TP, 0, batch(0, range(3)) + bad + batch(8, [8]))
    assert _offsets(chunk.take()) == [0, 1, 2]
    error = _refused(chunk)
    assert why in error.why and (error.offset, error.next_offset) == (3, after)


def test_offsets_that_go_back_are_refused() -> None:
    """The same offsets twice would be answered twice, or left out in silence."""
    chunk = Chunk(TP, 0, batch(0, range(5)) + batch(3, range(3, 8)))
    assert _offsets(chunk.take()) == list(range(5))
    assert "it begins at 3, and the batch before it ends at 4" in _refused(chunk).why


def test_a_batch_before_the_offset_is_refused() -> None:
    """Otherwise the same bytes would be fetched for ever."""
    chunk = Chunk(TP, 9, batch(0, range(5)))
    assert chunk.broken and "before the one that was asked for" in _refused(chunk).why


def test_a_last_batch_that_is_damaged_says_nothing_of_the_next_fetch() -> None:
    """Its header may be wrong: a fetch at the offset that it claims would be out of range."""
    bad = bytearray(batch(3, range(3, 6)))
    bad[23] = 0x7F
    chunk = Chunk(TP, 0, batch(0, range(3)) + bytes(bad))
    assert chunk.broken and _offsets(chunk.take()) == [0, 1, 2]
    error = _refused(chunk)
    assert (error.offset, error.next_offset, error.why) == (3, None, "its checksum is wrong")


@pytest.mark.parametrize("at", [61, 65, 70])  # the lengths of the record, its key and its value
def test_a_marker_that_is_damaged_is_refused(at: int) -> None:
    """It says whether the records before it count."""
    bad = bytearray(marker(2, 7, commit=True))
    bad[at] = 0x7D
    chunk = Chunk(TP, 0, batch(0, [0, 1], producer=7, transactional=True) + sealed(bad, 2) + batch(3, [3]))
    found: list[int] = []
    with pytest.raises(Unreadable) as refused:
        while not chunk.exhausted:
            found += _offsets(chunk.take())
    assert found == [0, 1] and (refused.value.offset, refused.value.next_offset) == (2, 3)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())
def test_a_batch_that_compaction_has_emptied_is_passed(codec: int) -> None:
    """A broker keeps the header, for the producer's sequence; its codec may be left in it."""
    empty = bytearray(batch(3, [3], codec=codec)[:61])
    empty[57:61] = bytes(4)
    chunk = Chunk(TP, 0, batch(0, range(3)) + sealed(empty, 3) + batch(4, [4]))
    assert _offsets(chunk.take()) == [0, 1, 2, 4] and chunk.exhausted


@pytest.mark.parametrize("length", [2**62, 2**63 - 1, -(2**63), 2**31])
def test_a_length_that_no_memory_holds_is_damage(length: int) -> None:
    """aiokafka's C code asks for that memory: MemoryError would look like the process's own trouble."""
    raw = bytearray(batch(0, range(5)))
    at = raw.index(b"v2")
    raw[at - 1 : at] = encoded(length)
    assert _refused(Chunk(TP, 0, sealed(raw, 0))).offset == 0


def encoded(value: int) -> bytes:
    """A number as a record has it: zigzag, seven bits a byte."""
    found = bytearray()
    encode_varint(value, found.append)
    return bytes(found)


def test_too_little_memory_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """MemoryError is the process's own trouble, so it is not turned into Unreadable."""

    def full(*_: object) -> list[FetchedRecord]:
        raise MemoryError

    monkeypatch.setattr("failsoft.workers.kafka.record_batch.LenientBatch", full)
    monkeypatch.setattr("failsoft.workers.kafka.record_batch.DefaultRecordBatch", full)
    with pytest.raises(MemoryError):
        Chunk(TP, 0, batch(0, [0])).take()
