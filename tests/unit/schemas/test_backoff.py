"""Waits before the next try."""

from __future__ import annotations

import numpy as np
import pytest

from failsoft.schemas.backoff import doubled, jittered, upper_half


@pytest.mark.parametrize(("times", "wait"), [(0, 0.5), (1, 1.0), (2, 2.0), (6, 30.0), (10_000, 30.0)])
def test_waits_double_up_to_the_longest(times: int, wait: float) -> None:
    """After any number of tries too: the float does not overflow."""
    assert doubled(0.5, 30.0, times) == wait


def test_a_first_wait_beyond_the_longest_is_the_longest() -> None:
    """The longest is a promise."""
    assert doubled(60.0, 30.0, 0) == 30.0


@pytest.mark.parametrize(("u", "wait"), [(0.0, 9.0), (0.5, 10.0), (0.75, 10.5), (1.0, 11.0)])
def test_jitter_is_a_share_on_either_side(u: float, wait: float) -> None:
    """The middle of the draw changes nothing."""
    assert jittered(10.0, 0.1, u) == wait


def test_jitter_takes_many_draws_at_once() -> None:
    """A batch's waits are those of its rows."""
    draws = np.array([0.0, 0.3, 0.999])
    assert jittered(10.0, 0.1, draws).tolist() == [jittered(10.0, 0.1, float(u)) for u in draws]


@pytest.mark.parametrize(("u", "wait"), [(0.0, 5.0), (0.5, 7.5), (1.0, 10.0)])
def test_a_restart_waits_half_to_all(u: float, wait: float) -> None:
    """Never at once, and never past the limit."""
    assert upper_half(10.0, u) == wait
