"""Produce batches: every record is in one, in order, with the same bytes as aiokafka's own ``append`` gives."""

from __future__ import annotations

import random

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from failsoft.topics.routing import OutgoingRecord
from failsoft.workers.kafka.produce_batches import BATCH_BYTES, compressed_batch, pack

ROWS: list[OutgoingRecord] = [
    (b"k%d" % i if i % 3 else None, b"v" * (i * 7 % 90) if i % 5 else None, [("h", b"%d" % i)] if i % 2 else [])
    for i in range(500)
]


def _make(size: int) -> BatchBuilder:
    return BatchBuilder(size, 0, is_transactional=1)


def _none() -> BatchBuilder:
    raise AssertionError("nothing here is large")


def _read(batch: BatchBuilder) -> list[tuple[object, ...]]:
    (records,) = [list(b) for b in iter(MemoryRecords(bytes(batch._build())).next_batch, None)]
    return [(r.key, r.value, list(r.headers), r.timestamp, r.offset) for r in records]


def test_every_record_is_in_one_batch_in_order() -> None:
    """A full batch is closed, and the record that did not fit is the first of the next batch."""
    batches = pack(lambda: _make(2_000), ROWS, 1_795_550_568_368, _none)
    assert len(batches) > 5 and all(b.closed() for b in batches)
    assert sum(b.record_count() for b in batches) == len(ROWS)
    read = [_read(b) for b in batches]
    assert [r[:3] for records in read for r in records] == [(k, v, h) for k, v, h in ROWS]
    assert all([r[4] for r in records] == list(range(len(records))) for records in read)


def test_the_bytes_are_those_of_aiokafkas_own_append() -> None:
    """Only Python code around aiokafka's inner builder is bypassed."""
    own_way = _make(1_000_000)
    for key, value, headers in ROWS:
        assert own_way.append(timestamp=5, key=key, value=value, headers=headers) is not None
    (packed,) = pack(lambda: _make(1_000_000), ROWS, 5, _none)
    assert bytes(packed._build()) == bytes(own_way._build())
    assert packed.record_count() == own_way.record_count()


def test_nothing_to_write_is_no_batch() -> None:
    """An empty batch would be an invalid request."""
    assert pack(lambda: _make(100), [], 5, _none) == []


def test_a_record_larger_than_a_batch_has_a_batch_of_its_own() -> None:
    """The builder accepts any first record; the topic's limit decides."""
    big: OutgoingRecord = (b"k", b"v" * 5_000, [])
    assert [b.record_count() for b in pack(lambda: _make(1_000), [big, big], 5, _none)] == [1, 1]


def test_a_record_over_the_limit_is_compressed_and_its_neighbours_are_not() -> None:
    """An event that arrived compressed may be larger than its topic's limit. Uncompressed, the broker would always
    refuse it.
    """
    big: OutgoingRecord = (b"k", b" " * (3 * BATCH_BYTES), [("h", b"1"), ("h", None)])
    small: OutgoingRecord = (b"k", b"v", [])
    batches = pack(lambda: _make(BATCH_BYTES), [small, big, small], 5, lambda: compressed_batch(BATCH_BYTES, True))
    read = [_read(b) for b in batches]
    assert [r[:3] for records in read for r in records] == [
        (b"k", b"v", []),
        (b"k", big[1], [("h", b"1"), ("h", None)]),
        (b"k", b"v", []),
    ]
    header = MemoryRecords(bytes(batches[1]._build())).next_batch()
    assert header.is_transactional and header.compression_type == 4
    assert [b.record_count() for b in batches] == [1, 1, 1]
    assert max(len(b._build()) for b in batches) < BATCH_BYTES / 10


def test_a_record_that_does_not_fit_into_any_batch_is_an_error() -> None:
    """It must not be skipped silently."""

    class Full:
        class _builder:
            append = staticmethod(lambda *_: None)

    with pytest.raises(RuntimeError, match="3 bytes does not fit"):
        pack(Full, [(b"k", b"abc", [])], 5, _none)  # type: ignore[arg-type]


def test_what_zstd_made_small_is_small_again() -> None:
    """Its repetitions are further apart than gzip looks. It arrived in a batch under the topic's limit, and it must fit
    into the pipeline's own topics, or its lane would stop at it for ever.
    """
    pages = [random.Random(i).randbytes(50_000) for i in range(8)]
    value = b"".join(pages * 10)
    (batch,) = pack(lambda: _make(BATCH_BYTES), [(b"k", value, [])], 5, lambda: compressed_batch(BATCH_BYTES, True))
    assert len(value) == 4_000_000 and len(batch._build()) < BATCH_BYTES
