"""When a model's process is started again."""

from __future__ import annotations

from itertools import pairwise

from failsoft.models.isolation.backoff import AT_ONCE, FIRST, HEALTHY, LONGEST, Restarts


def test_bad_rows_are_found_without_waiting() -> None:
    """As many deaths as halving the largest batch takes, in four lanes at once, are not waited after; more are."""
    restarts = Restarts()
    assert [restarts.after(i / 10, 0.999) for i in range(AT_ONCE)] == [0.0] * AT_ONCE
    assert 2 ** (AT_ONCE // 4 - 1) >= 4000
    assert FIRST / 2 <= restarts.after(7.0, 0.0) <= FIRST


def test_an_answer_forgets_the_deaths_before() -> None:
    """A process that answers between two deaths is needed at once: it is not the model that is beyond help."""
    restarts = Restarts(AT_ONCE + 5, 100.0)
    restarts.answered()
    assert restarts.after(101.0, 0.5) == 0.0


def test_waits_double_up_to_the_longest_and_are_spread() -> None:
    """A process that does nothing but die costs a try in ten seconds; ``u`` spreads a wait over its upper half."""
    restarts = Restarts(AT_ONCE, 0.0)
    waits = [restarts.after(1.0, 0.0) for _ in range(1000)]
    assert all(a <= b for a, b in pairwise(waits)) and waits[:3] == [FIRST / 2, FIRST, 2 * FIRST]
    assert waits[-1] == LONGEST / 2 and restarts.after(1.0, 1.0) == LONGEST


def test_health_forgets_the_deaths_before() -> None:
    """Half a minute without a death, and the next counts as the first."""
    restarts = Restarts(AT_ONCE + 5, 100.0)
    assert restarts.after(100.0 + HEALTHY, 0.5) == 0.0
    assert restarts.deaths == 1
