"""The patched classes return fetched records as aiokafka's own classes do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from failsoft.workers.kafka.fetch_records import Fetched, Records, Unpacked

TP = TopicPartition("events", 3)
ORIGINAL: tuple[Any, ...] = (fetcher.PartitionRecords, fetcher.FetchResult, MemoryRecords)
PATCHED: tuple[Any, ...] = (Unpacked, Fetched, Records)


def _raw(n: int, base: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1_000_000)
    for i in range(n):
        value = None if i % 3 == 2 else b"v%d" % i
        builder.append(i, 1000 + i, b"k%d" % i if i % 2 else None, value, [("h", b"x")] if i % 2 else [])
    raw = bytearray(builder.build())
    raw[0:8] = base.to_bytes(8, "big")
    return bytes(raw)


class State:
    """A partition's position, as aiokafka's subscription keeps it."""

    def __init__(self, position: int) -> None:
        self.position, self.paused = position, False

    def consumed_to(self, position: int) -> None:
        self.position = position


def _fetched(kinds: tuple[Any, ...], raw: bytes, start: int = 0, upper: Any = None) -> tuple[Any, State]:
    records, result, memory = kinds
    state = State(start)
    assignment = SimpleNamespace(active=True, state_value=lambda tp: state)
    held = records(TP, memory(raw), None, start, upper, upper, True, fetcher.READ_UNCOMMITTED)
    return result(TP, assignment=assignment, partition_records=held, backoff=0.0), state


def _calls(kinds: tuple[Any, ...], most: int | None, start: int, upper: Any = None) -> list[Any]:
    """For each call of ``getall``: the records, the position after it, and whether there is more."""
    result, state = _fetched(kinds, _raw(5) + _raw(4, base=7), start, upper)
    seen = []
    while result.has_more():
        seen.append((result.getall(most), state.position, result.has_more()))
        assert len(seen) < 50
    return seen


@pytest.mark.parametrize("start", [0, 2, 5, 8])
@pytest.mark.parametrize("most", [None, 1, 2, 4, 5, 9, 100])
def test_the_same_records_positions_and_ends(most: int | None, start: int) -> None:
    """That holds for every batch size, from the middle of a produce batch, and across a gap that compaction leaves."""
    assert _calls(PATCHED, most, start) == _calls(ORIGINAL, most, start)


def test_a_deserializer_is_still_used() -> None:
    """Other consumers of the process may have one."""
    assert _calls(PATCHED, None, 0, repr) == _calls(ORIGINAL, None, 0, repr)


def test_no_records_are_taken_after_a_seek_or_a_pause() -> None:
    """After a seek back or a pause the fetched records are dropped, as aiokafka does."""
    for change in ({"position": 3}, {"paused": True}):
        result, state = _fetched(PATCHED, _raw(5))
        vars(state).update(change)
        assert result.getall(2) == [] and not result.has_more()


def test_a_damaged_batch_is_refused() -> None:
    """The checksum is verified as before, and the position stays before the batch."""
    raw = bytearray(_raw(5))
    raw[-1] ^= 1
    result, state = _fetched(PATCHED, bytes(raw))
    with pytest.raises(fetcher.Errors.CorruptRecordException):
        result.getall(10)
    assert state.position == 0
