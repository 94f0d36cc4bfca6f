"""How large record batches are: what is asked for, and how soon a large one is forgotten."""

from __future__ import annotations

from itertools import pairwise

from failsoft.workers.kafka.record_batch_sizes import RecordBatchSizes

KIB = 1024


def test_batches_that_fit_change_nothing() -> None:
    """The usual case: a producer's batches have some tens of kilobytes."""
    sizes = RecordBatchSizes(8 * KIB * KIB)
    assert not sizes.seen("t", 100 * KIB, 100 * KIB)
    assert sizes.limit("t", 100 * KIB) == 100 * KIB


def test_a_larger_batch_counts_for_its_topic() -> None:
    """Rounded up, so that the next one that is a little larger changes no request."""
    sizes = RecordBatchSizes(8 * KIB * KIB)
    assert sizes.seen("t", 270 * KIB, 80 * KIB)
    assert sizes.limit("t", 80 * KIB) == 512 * KIB and sizes.limit("u", 80 * KIB) == 80 * KIB
    assert not sizes.seen("t", 500 * KIB, 80 * KIB)
    assert sizes.limit("t", 600 * KIB) == 600 * KIB, "no partition gets less than it may have"


def test_no_partition_is_asked_for_more_than_an_answer_may_have() -> None:
    """A partition whose own limit is larger keeps it."""
    sizes = RecordBatchSizes(KIB * KIB)
    assert sizes.seen("t", 5 * KIB * KIB, 80 * KIB)
    assert sizes.limit("t", 80 * KIB) == KIB * KIB
    assert sizes.limit("t", 2 * KIB * KIB) == 2 * KIB * KIB


def test_one_large_batch_among_small_ones_is_forgotten() -> None:
    """Else each inbox of the topic could hold as much. Each smaller limit is told, as the larger one was."""
    sizes = RecordBatchSizes(8 * KIB * KIB)
    sizes.seen("t", 5 * KIB * KIB, 80 * KIB)
    limits, told = [sizes.limit("t", 80 * KIB)], 0
    for _ in range(80):
        told += sizes.seen("t", 16 * KIB, 80 * KIB)
        limits.append(sizes.limit("t", 80 * KIB))
    assert limits[0] == 8 * KIB * KIB and limits[-1] == 80 * KIB
    assert told == sum(a != b for a, b in pairwise(limits)) <= 7


def test_a_topic_whose_batches_differ_keeps_the_larger_size() -> None:
    """A small one between two large ones, as at the end of a burst, changes no request."""
    sizes = RecordBatchSizes(8 * KIB * KIB)
    sizes.seen("t", 400 * KIB, 80 * KIB)
    for _ in range(100):
        for size in (16, 400):
            assert not sizes.seen("t", size * KIB, 80 * KIB)
    assert sizes.limit("t", 80 * KIB) == 512 * KIB
