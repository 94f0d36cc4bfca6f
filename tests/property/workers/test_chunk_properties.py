"""On any partition log, a chunk gives what aiokafka gives, in whatever portions it is taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from failsoft.workers.kafka.chunk import Chunk, FetchedRecord
from failsoft.workers.kafka.fetch_records import PartitionRecords
from tests.record_batches import CODECS, batch, marker

TP = TopicPartition("t", 0)
PRODUCERS = (7, 8, 9)

THEIRS: Any = PartitionRecords.__base__  # aiokafka's own, also where another test has installed ours


@dataclass
class _Log:
    """A partition's bytes, the end of its first batch, and its aborted transactions as a broker reports them."""

    raw: bytes = b""
    first: int = 0
    end: int = 0
    open: dict[int, int] = field(default_factory=dict)
    aborted: list[tuple[int, int]] = field(default_factory=list)


@st.composite
def _logs(draw: st.DrawFn) -> _Log:
    log = _Log()
    for _ in range(draw(st.integers(1, 12))):
        producer = draw(st.sampled_from((-1, *PRODUCERS)))
        if producer in log.open and draw(st.booleans()):
            commit = draw(st.booleans())
            first = log.open.pop(producer)
            log.aborted += [] if commit else [(producer, first)]
            log.raw += marker(log.end, producer, commit=commit)
            log.end += 1
            continue
        count = draw(st.integers(1, 4))
        offsets = range(log.end, log.end + count)
        kept = draw(st.lists(st.sampled_from(offsets), min_size=1, unique=True).map(sorted))
        if producer >= 0:
            log.open.setdefault(producer, log.end)
        log.raw += batch(
            log.end,
            kept,
            last=offsets[-1],
            codec=draw(st.sampled_from(list(CODECS.values()))),
            producer=producer,
            transactional=producer >= 0,
        )
        log.end += count
        log.first = log.first or log.end
    return log


def _values(record: Any) -> tuple[Any, ...]:
    return (*(getattr(record, name) for name in FetchedRecord._fields[:-1]), list(record.headers))


@given(log=_logs(), skipped=st.integers(0, 3), limits=st.lists(st.integers(1, 5), min_size=1), cut=st.integers(0, 80))
def test_a_chunk_equals_aiokafkas_records(log: _Log, skipped: int, limits: list[int], cut: int) -> None:
    """Same records, and the same position at the end; the position is always behind what was taken, never beyond."""
    offset = min(skipped, log.first - 1)  # a broker begins with the batch that contains the offset
    raw = log.raw[: max(len(log.raw) - cut, 1)]
    theirs = THEIRS(TP, MemoryRecords(raw), log.aborted, offset, None, None, True, READ_COMMITTED)
    expected = list(theirs)
    chunk = Chunk(TP, offset, raw, log.aborted)
    if not MemoryRecords(raw).has_next():
        return  # no whole batch: test_chunk.py
    found: list[FetchedRecord] = []
    at = 0
    while not chunk.exhausted:
        taken = chunk.take(limits[at % len(limits)])
        assert len(taken) <= limits[at % len(limits)]
        found += taken
        at += 1
        later = [r.offset for r in expected[len(found) :]]
        assert chunk.position >= (found[-1].offset + 1 if found else offset)
        assert not later or chunk.position <= later[0]
    assert [_values(r) for r in found] == [_values(r) for r in expected]
    assert chunk.position == chunk.end == max(theirs.next_fetch_offset, offset)
