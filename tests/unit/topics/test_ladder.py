"""The ladder: which rung is next, and when it is due."""

from __future__ import annotations

import pytest

from failsoft.schemas.failure import Failure, Kind
from failsoft.topics.ladder import Rung, next_rung

DELAYS = [("5s", 5.0), ("1m", 60.0)]
NOW = 1_800_000_000_000
FAILED = Failure(Kind.TIMEOUT, "late")


def test_each_attempt_climbs_one_rung_and_then_it_is_dead() -> None:
    """As many retries as there are rungs; with no rungs, none."""
    assert [next_rung(n, FAILED, NOW, 0.5, DELAYS, 0.1) for n in range(4)] == [
        Rung("5s", NOW + 5_000),
        Rung("1m", NOW + 60_000),
        None,
        None,
    ]
    assert next_rung(0, FAILED, NOW, 0.5, [], 0.1) is None


@pytest.mark.parametrize("kind", Kind)
def test_only_what_may_succeed_later_climbs(kind: Kind) -> None:
    """The kind decides; its message does not."""
    assert (next_rung(0, Failure(kind, ""), NOW, 0.5, DELAYS, 0.1) is not None) is kind.retried


@pytest.mark.parametrize(("u", "jitter", "wait"), [(0, 0.1, 4500), (0.5, 0.1, 5000), (0.75, 0.1, 5250), (0.9, 0, 5000)])
def test_the_draw_spreads_the_wait(u: float, jitter: float, wait: int) -> None:
    """From a tenth under the delay to a tenth over it, evenly."""
    assert next_rung(0, FAILED, NOW, u, DELAYS, jitter) == Rung("5s", NOW + wait)
