"""Records are unpacked as aiokafka does it, also where a header's key is no UTF-8."""

from __future__ import annotations

import gzip
import struct
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from failsoft.workers.kafka.fetch_records import Records

PLACE = b"QQQQ"
HEADERS: list[tuple[str, bytes | None]] = [("own", b"\xff"), ("none", None)]


def _batch(compression: int, base: int, *, odd: bool) -> bytes:
    """Three records; with ``odd`` the second has a header whose key is no UTF-8."""
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
        extra = [(PLACE.decode(), b"v")] if odd and i == 1 else []
        builder.append(i, 1000 + i, b"k%d" % i if i else None, b"v%d" % i, [*HEADERS, *extra])
    raw = bytearray(builder.build())
    body = bytes(raw[61:])
    if compression:
        body = gzip.compress(gzip.decompress(body).replace(PLACE, b"\xff\xfeQQ"))
    else:
        body = body.replace(PLACE, b"\xff\xfeQQ")
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
def test_batches_of_text_are_unpacked_as_aiokafka_does_it(compression: int) -> None:
    """Offsets, times, keys, values and headers are the same, batch after batch."""
    raw = _batch(compression, 0, odd=False) + _batch(compression, 3, odd=False)
    assert _all(Records(raw)) == _all(MemoryRecords(raw))
    assert Records(raw).size_in_bytes() == len(raw)


@pytest.mark.parametrize("compression", [0, 1], ids=["plain", "gzip"])
def test_a_header_key_that_is_no_text_is_read_with_replacement(compression: int) -> None:
    """Where aiokafka raises, the key has U+FFFD, and all else of it and of its neighbours is as it was."""
    raw = _batch(compression, 0, odd=False) + _batch(compression, 3, odd=True) + _batch(compression, 6, odd=False)
    with pytest.raises(UnicodeDecodeError):
        _all(MemoryRecords(raw))
    found = _all(Records(raw))
    assert [offset for offset, *_ in found] == list(range(9))
    assert found[4] == (4, 1001, b"k1", b"v1", [*HEADERS, ("\ufffd\ufffdQQ", b"v")])
    plain = _all(MemoryRecords(_batch(compression, 3, odd=False)))
    assert [found[3], found[5]] == [plain[0], plain[2]]


def test_half_a_batch_at_the_end_waits_for_the_rest() -> None:
    """A fetch may cut its last batch: it is not read, as with aiokafka."""
    raw = _batch(0, 0, odd=True)
    assert len(_all(Records(raw + raw[:-1]))) == 3


def test_a_control_batch_gives_its_marker() -> None:
    """aiokafka asks a control batch itself for its first record."""
    raw = _batch(0, 0, odd=False)
    ours, theirs = Records(raw).next_batch(), MemoryRecords(raw).next_batch()
    assert ours is not None
    assert next(ours).value == next(theirs).value == b"v0"
