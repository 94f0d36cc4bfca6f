"""The health of a version: what its window holds, and when counts expire."""

from __future__ import annotations

import numpy as np
import pytest

from failsoft.models.rollout.health import BUCKETS, SPAN, Recent
from failsoft.schemas.fleet.rollout import Health


def test_runs_are_summed_and_leave_with_their_bucket() -> None:
    """A run stays in the totals for at least the span less one bucket, and at most for the span."""
    recent = Recent()
    recent.add(100, 3, 0.5, np.array([0.5, 1.0], np.float32), 0.0)
    recent.add(10, 0, 0.25, None, 1.0)
    assert recent.totals(2.0) == Health(110, 3, 2, 0.75, 2, 1.5)
    assert recent.totals(SPAN - SPAN / BUCKETS - 0.01).calls == 110
    assert recent.totals(SPAN).calls == 0


def test_a_run_that_lanes_shared_counts_once() -> None:
    """The rows of all lanes count; the run and its time count with one of them."""
    recent = Recent()
    recent.add(3, 1, 0.5, None, 0.0)
    recent.add(2, 0, 0.5, None, 0.0, runs=0)
    assert recent.totals(0.0) == Health(5, 1, 1, 0.5, 0, 0.0)


def test_confidences_with_nan_are_ignored() -> None:
    """Placeholders of failed rows may be NaN, which would make the mean NaN for five minutes."""
    recent = Recent()
    recent.add(2, 1, 0.1, np.array([np.nan, 0.9]), 0.0)
    assert recent.totals(0.0) == Health(2, 1, 1, 0.1, 0, 0.0)


@pytest.mark.parametrize("now", [5.0, 4.0])
def test_a_clock_that_stands_or_goes_back_loses_nothing(now: float) -> None:
    """A run with an earlier time goes into the newest bucket."""
    recent = Recent(span=30.0)
    recent.add(1, 0, 0.1, None, 5.0)
    recent.add(1, 0, 0.1, None, now)
    assert recent.totals(5.0).calls == 2
