"""Sequence numbers, and which batches go into which request."""

from __future__ import annotations

from collections import deque

import pytest
from aiokafka import TopicPartition
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from failsoft.workers.kafka.sealed_batches import (
    REQUEST_BYTES,
    Queues,
    Sequences,
    acknowledge,
    next_requests,
    partitions_of,
    seal,
)

A, B, C = (TopicPartition("t", number) for number in range(3))


def _batch(count: int, transactional: int = 1) -> BatchBuilder:
    batch = BatchBuilder(100_000, 0, is_transactional=transactional)
    for _ in range(count):
        batch.append(timestamp=1, key=None, value=b"v")
    batch.close()
    return batch


def test_sequences_count_records_by_partition() -> None:
    """Each batch begins where the partition's last one ended, and a new epoch begins at 0."""
    sequences = Sequences()
    assert [sequences.take(A, 3), sequences.take(A, 2), sequences.take(B, 1), sequences.take(A, 1)] == [0, 3, 0, 5]
    sequences.clear()
    assert sequences.take(A, 1) == 0


@pytest.mark.parametrize(("first", "next_"), [(2**31 - 1, 0), (2**31 - 2, 1), (2**31 - 3, 2**31 - 1)])
def test_sequences_wrap_after_the_largest_number(first: int, next_: int) -> None:
    """2^31 - 1 is followed by 0, also in the middle of a batch; here of one record, two records and two."""
    sequences = Sequences()
    sequences.take(A, first)
    assert sequences.take(A, 1 if first == 2**31 - 1 else 3 if first == 2**31 - 2 else 2) == first
    assert sequences.take(A, 1) == next_


def test_a_sealed_batch_names_its_producer_and_its_place() -> None:
    """The producer's id and epoch and the first sequence number are in the bytes; the checksum covers them."""
    queues = seal([(A, [_batch(2), _batch(3)]), (B, [_batch(1)]), (A, [_batch(1)])], (7, 3), Sequences(), True)
    read = {p: [MemoryRecords(bytes(b)).next_batch() for b in batches] for p, batches in queues.items()}
    assert [b.base_sequence for b in read[A]] == [0, 2, 5] and [b.base_sequence for b in read[B]] == [0]
    assert all((b.producer_id, b.producer_epoch) == (7, 3) and b.validate_crc() for b in (*read[A], *read[B]))


def test_a_batch_without_records_is_left_out() -> None:
    """A broker refuses an empty batch."""
    outputs = [(A, [_batch(0), _batch(1)]), (B, [_batch(0)]), (C, [])]
    assert {p: len(batches) for p, batches in seal(outputs, (7, 3), Sequences(), True).items()} == {A: 1}
    assert partitions_of(outputs) == [A]


@pytest.mark.parametrize("transactional", [False, True])
def test_a_batch_of_the_other_kind_is_refused(transactional: bool) -> None:
    """A broker takes such a batch, and readers see it even if its transaction is aborted."""
    with pytest.raises(ValueError, match="of the other kind"):
        seal([(A, [_batch(1, transactional=not transactional)])], (7, 3), Sequences(), transactional)


def _queues(**sizes: int) -> Queues:
    names = {"a": A, "b": B, "c": C}
    return {names[name]: deque([bytes(size), b"next"]) for name, size in sizes.items()}


def test_a_request_has_the_first_batch_of_each_partition_of_a_leader() -> None:
    """One batch a partition, so that no batch can overtake a refused one; a partition without a leader waits."""
    queues = _queues(a=10, b=20, c=30)
    requests, leaderless = next_requests(queues, {A: 1, B: 2, C: 1}.get)
    assert [(node, {p: len(data) for p, data in batches.items()}) for node, batches in requests] == [
        (1, {A: 10, C: 30}),
        (2, {B: 20}),
    ]
    assert leaderless == []
    for unknown in (None, -1):
        requests, leaderless = next_requests(queues, {A: 1, B: unknown, C: unknown}.get)
        assert [node for node, _ in requests] == [1] and leaderless == [B, C]


def test_a_request_is_bounded_in_bytes() -> None:
    """What does not fit goes into another request; a batch over the bound has one of its own."""
    requests, _ = next_requests(_queues(a=REQUEST_BYTES - 1, b=1, c=1), lambda _: 1)
    assert [list(batches) for _, batches in requests] == [[A, B], [C]]
    requests, _ = next_requests(_queues(a=1, b=REQUEST_BYTES + 1, c=1), lambda _: 1)
    assert [list(batches) for _, batches in requests] == [[A], [B], [C]]


def test_an_acknowledged_batch_makes_room_for_the_next() -> None:
    """When its last batch is in the log, a partition is done."""
    queues = _queues(a=1, b=1)
    acknowledge(queues, [A])
    assert queues[A] == deque([b"next"]) and len(queues[B]) == 2
    acknowledge(queues, [A, B])
    assert list(queues) == [B]
