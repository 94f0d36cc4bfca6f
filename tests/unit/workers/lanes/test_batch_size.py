"""Pace: how many records a batch may hold."""

from __future__ import annotations

from failsoft.workers.lanes.batch_size import FIRST, LARGEST, LONGEST, SMALLEST, Pace


def test_a_backlog_doubles_the_batch_up_to_the_largest() -> None:
    """Full batches that were quick let the next be twice as large."""
    pace = Pace()
    seen = []
    for _ in range(5):
        pace.saw(pace.limit, 0.001, 0.05, 0.1)
        seen.append(pace.limit)
    assert seen == [2 * FIRST, 4 * FIRST, LARGEST, LARGEST, LARGEST]


def test_light_traffic_changes_nothing() -> None:
    """A batch that was not full says nothing of what a full one would take."""
    pace = Pace()
    pace.saw(FIRST - 1, 0.001, 0.05, 0.1)
    assert pace.limit == FIRST


def test_a_slow_model_halves_the_batch_down_to_the_smallest() -> None:
    """A call over half of slow_call: half of what it held, or of the limit, whichever is less."""
    pace = Pace()
    pace.saw(200, 0.06, 0.1, 0.1)
    assert pace.limit == 100
    for _ in range(10):
        pace.saw(100, 0.06, 0.1, 0.1)
    assert pace.limit == SMALLEST


def test_a_long_batch_or_a_model_near_its_limit_does_not_grow() -> None:
    """Other lanes and a rebalance wait for a batch; a call may not come near slow_call."""
    pace = Pace()
    pace.saw(FIRST, 0.001, LONGEST, 0.1)
    pace.saw(FIRST, 0.025, 0.05, 0.1)
    assert pace.limit == FIRST
