"""Back-off: waits before the next try."""

from __future__ import annotations

import numpy as np
import pytest

from failsoft.schemas.backoff import doubled, jittered, upper_half


@pytest.mark.parametrize(("times", "wait"), [(0, 0.5), (1, 1.0), (2, 2.0), (6, 30.0), (10_000, 30.0)])
def test_waits_double_up_to_the_longest(times: int, wait: float) -> None:
    """A wait doubles with each try and stays at the longest wait; the float does not overflow after many tries."""
    assert doubled(0.5, 30.0, times) == wait


def test_a_first_wait_beyond_the_longest_is_the_longest() -> None:
    """No wait exceeds the longest one, not even the first."""
    assert doubled(60.0, 30.0, 0) == 30.0


@pytest.mark.parametrize(("u", "wait"), [(0.0, 9.0), (0.5, 10.0), (0.75, 10.5), (1.0, 11.0)])
def test_jitter_is_a_share_on_either_side(u: float, wait: float) -> None:
    """A wait varies by the share in both directions; a draw of 0.5 leaves it unchanged."""
    assert jittered(10.0, 0.1, u) == wait


def test_jitter_takes_many_draws_at_once() -> None:
    """An array of draws gives the same waits as the single draws."""
    draws = np.array([0.0, 0.3, 0.999])
    assert jittered(10.0, 0.1, draws).tolist() == [jittered(10.0, 0.1, float(u)) for u in draws]


@pytest.mark.parametrize(("u", "wait"), [(0.0, 5.0), (0.5, 7.5), (1.0, 10.0)])
def test_a_restart_waits_between_half_and_all(u: float, wait: float) -> None:
    """A restart waits at least half of the limit and at most the limit."""
    assert upper_half(10.0, u) == wait
