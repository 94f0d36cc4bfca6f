"""The back-off between restarts of a model's process."""

from __future__ import annotations

from itertools import pairwise

from failsoft.models.isolation.backoff import AT_ONCE, FIRST, HEALTHY, LONGEST, Restarts


def test_the_deaths_of_a_bisection_are_not_waited_after() -> None:
    """As many deaths as bisecting takes in four lanes at once are not waited after; later deaths are."""
    restarts = Restarts()
    assert [restarts.after(i / 10, 0.999) for i in range(AT_ONCE)] == [0.0] * AT_ONCE
    assert 2 ** (AT_ONCE // 4 - 1) >= 4000
    assert FIRST / 2 <= restarts.after(7.0, 0.0) <= FIRST


def test_an_answer_resets_the_deaths() -> None:
    """An answer between two deaths means that the model works for some batches, so the process is restarted at once."""
    restarts = Restarts(AT_ONCE + 5, 100.0)
    restarts.answered()
    assert restarts.after(101.0, 0.5) == 0.0


def test_waits_double_up_to_the_longest_and_are_spread() -> None:
    """A process that dies at every start is tried once in ten seconds; ``u`` spreads a wait over its upper half."""
    restarts = Restarts(AT_ONCE, 0.0)
    waits = [restarts.after(1.0, 0.0) for _ in range(1000)]
    assert all(a <= b for a, b in pairwise(waits)) and waits[:3] == [FIRST / 2, FIRST, 2 * FIRST]
    assert waits[-1] == LONGEST / 2 and restarts.after(1.0, 1.0) == LONGEST


def test_half_a_minute_without_a_death_resets_the_deaths() -> None:
    """After half a minute without a death, the next death counts as the first."""
    restarts = Restarts(AT_ONCE + 5, 100.0)
    assert restarts.after(100.0 + HEALTHY, 0.5) == 0.0
    assert restarts.deaths == 1
