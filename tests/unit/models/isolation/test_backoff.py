"""The back-off between restarts of a model's process."""

from __future__ import annotations

from itertools import pairwise

from failsoft.models.isolation.backoff import DEATHS_WITHOUT_WAIT, FIRST_WAIT, HEALTHY, LONGEST_WAIT, Restarts


def test_the_deaths_of_a_bisection_are_not_waited_after() -> None:
    """As many deaths as bisecting takes in four lanes at once are not waited after; later deaths are."""
    restarts = Restarts()
    assert [restarts.after(i / 10, 0.999) for i in range(DEATHS_WITHOUT_WAIT)] == [0.0] * DEATHS_WITHOUT_WAIT
    assert 2 ** (DEATHS_WITHOUT_WAIT // 4 - 1) >= 4000
    assert FIRST_WAIT / 2 <= restarts.after(7.0, 0.0) <= FIRST_WAIT


def test_an_answer_resets_the_deaths() -> None:
    """An answer between two deaths means that the model works for some batches, so the process is restarted at once."""
    restarts = Restarts(DEATHS_WITHOUT_WAIT + 5, 100.0)
    restarts.answered()
    assert restarts.after(101.0, 0.5) == 0.0


def test_waits_double_up_to_the_longest_and_are_spread() -> None:
    """A process that dies at every start is tried once in ten seconds; ``u`` spreads a wait over its upper half."""
    restarts = Restarts(DEATHS_WITHOUT_WAIT, 0.0)
    waits = [restarts.after(1.0, 0.0) for _ in range(1000)]
    assert all(a <= b for a, b in pairwise(waits)) and waits[:3] == [FIRST_WAIT / 2, FIRST_WAIT, 2 * FIRST_WAIT]
    assert waits[-1] == LONGEST_WAIT / 2 and restarts.after(1.0, 1.0) == LONGEST_WAIT


def test_half_a_minute_without_a_death_resets_the_deaths() -> None:
    """After half a minute without a death, the next death counts as the first."""
    restarts = Restarts(DEATHS_WITHOUT_WAIT + 5, 100.0)
    assert restarts.after(100.0 + HEALTHY, 0.5) == 0.0
    assert restarts.deaths == 1
