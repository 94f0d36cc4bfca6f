"""The ladder: the next rung of a failed record, and its due time."""

from __future__ import annotations

import pytest

from failsoft.schemas.failure import Failure, Kind
from failsoft.topics.ladder import MOST_ON_THE_SAME, Rung, next_rung, same_rung

DELAYS = [("5s", 5.0), ("1m", 60.0)]
NOW = 1_800_000_000_000
FAILED = Failure(Kind.TIMEOUT, "late")


def test_each_retry_takes_the_next_rung_until_none_is_left() -> None:
    """A record is retried once per rung and then goes to the dead letters; without rungs it is not retried."""
    assert [next_rung(n, FAILED, NOW, 0.5, DELAYS, 0.1) for n in range(4)] == [
        Rung("5s", NOW + 5_000),
        Rung("1m", NOW + 60_000),
        None,
        None,
    ]
    assert next_rung(0, FAILED, NOW, 0.5, [], 0.1) is None


@pytest.mark.parametrize("kind", Kind)
def test_only_retried_kinds_get_a_rung(kind: Kind) -> None:
    """The failure kind alone decides whether a record is retried."""
    assert (next_rung(0, Failure(kind, ""), NOW, 0.5, DELAYS, 0.1) is not None) is kind.retried


@pytest.mark.parametrize(("u", "jitter", "wait"), [(0, 0.1, 4500), (0.5, 0.1, 5000), (0.75, 0.1, 5250), (0.9, 0, 5000)])
def test_the_draw_spreads_the_wait(u: float, jitter: float, wait: int) -> None:
    """The wait varies evenly with the draw, within the jitter on both sides of the delay."""
    assert next_rung(0, FAILED, NOW, u, DELAYS, jitter) == Rung("5s", NOW + wait)


@pytest.mark.parametrize(
    ("index", "together", "name", "wait"),
    [
        (0, 1, "5s", 5_000),
        (0, MOST_ON_THE_SAME, "5s", 5_000),
        (0, MOST_ON_THE_SAME + 1, "1m", 60_000),
        (1, MOST_ON_THE_SAME + 1, "1m", 60_000),
    ],
)
def test_a_record_that_waits_stays_on_its_rung_unless_many_do(index: int, together: int, name: str, wait: int) -> None:
    """Rewriting is bounded: more than a thousand of a batch go to the next rung, if there is one."""
    assert same_rung(index, together, NOW, 0.5, DELAYS, 0.1) == Rung(name, NOW + wait)
