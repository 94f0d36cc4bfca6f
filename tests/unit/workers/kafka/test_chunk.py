"""A chunk gives the committed records that aiokafka gives, and says where it stands after each call."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition, codec
from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords

from failsoft.schemas.record import Record
from failsoft.workers.kafka.chunk import Chunk, FetchedRecord, Unreadable
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


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_a_batch_that_does_not_decompress_is_refused(codec: str) -> None:
    """Its checksum may be right: a producer compressed garbage."""
    raw = bytearray(batch(0, range(20), codec=CODECS[codec]))
    raw[61:] = b"garbage" * 5
    error = _refused(Chunk(TP, 0, sealed(raw, 0)))
    assert error.offset == 0 and error.why


def test_a_codec_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker without aiokafka's extra cannot read zstd, and says so."""
    raw = batch(0, [0], codec=CODECS["zstd"])
    monkeypatch.setattr(codec, "has_zstd", bool)
    error = _refused(Chunk(TP, 0, raw))
    assert "zstd" in error.why


def test_a_damaged_record_is_not_skipped() -> None:
    """A batch that fails in its middle is not continued from there: the checksum is right, but a record is not."""
    raw = bytearray(batch(0, range(5)))
    at = raw.index(b"v2")
    raw[at - 1] = 0x7E  # the length of the value: it is longer than its record
    error = _refused(Chunk(TP, 0, sealed(raw, 0)))
    assert error.offset == 0 and "CorruptRecordException" in error.why


@pytest.mark.parametrize("raw", [b"x", b"\x00" * 11, batch(0, [0])[:-1], b"\x00" * 8 + b"\x00\x00\x00\x01" + b"x" * 99])
def test_bytes_without_a_whole_batch_are_refused(raw: bytes) -> None:
    """Asking again would give the same bytes, for ever."""
    chunk = Chunk(TP, 7, raw)
    assert chunk.end == 7
    assert _refused(chunk).offset == 7


def test_too_little_memory_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """MemoryError is the process's own trouble, so it is not turned into Unreadable."""

    def full(*_: object) -> list[FetchedRecord]:
        raise MemoryError

    monkeypatch.setattr("failsoft.workers.kafka.chunk._rows", full)
    with pytest.raises(MemoryError):
        Chunk(TP, 0, batch(0, [0])).take()
