"""The limit of a lane's batches."""

from __future__ import annotations

from failsoft.workers.execution.batch_size import FIRST_LIMIT, LARGEST, LONGEST_BATCH, SMALLEST, BatchSize


def test_a_backlog_doubles_the_batch_up_to_the_largest() -> None:
    """A full batch that was quick doubles the limit, up to LARGEST."""
    size = BatchSize()
    seen = []
    for _ in range(5):
        size.adapt(size.limit, 0.001, 0.05, 0.1)
        seen.append(size.limit)
    assert seen == [2 * FIRST_LIMIT, 4 * FIRST_LIMIT, LARGEST, LARGEST, LARGEST]


def test_light_traffic_changes_nothing() -> None:
    """A batch that was not full does not change the limit: it does not show how long a full batch takes."""
    size = BatchSize()
    size.adapt(FIRST_LIMIT - 1, 0.001, 0.05, 0.1)
    assert size.limit == FIRST_LIMIT


def test_a_slow_model_halves_the_batch_down_to_the_smallest() -> None:
    """A call over half of ``slow_call`` sets the limit to half of the batch's records or of the limit, whichever is
    less, down to SMALLEST.
    """
    size = BatchSize()
    size.adapt(200, 0.06, 0.1, 0.1)
    assert size.limit == 100
    for _ in range(10):
        size.adapt(100, 0.06, 0.1, 0.1)
    assert size.limit == SMALLEST


def test_a_call_near_slow_call_does_not_raise_the_limit() -> None:
    """A call must stay well below ``slow_call``."""
    size = BatchSize()
    size.adapt(FIRST_LIMIT, 0.025, 0.05, 0.1)
    assert size.limit == FIRST_LIMIT


def test_a_batch_that_takes_long_although_each_call_is_quick_halves_the_limit() -> None:
    """Many rows raise, and each piece is quick. Lanes with such batches would leave the others no records to score."""
    size = BatchSize()
    size.adapt(400, 0.001, 1.1 * LONGEST_BATCH, 0.1)
    assert size.limit == 200
