"""Failure kinds against the contract's table."""

from __future__ import annotations

import pytest

from failsoft.schemas.failure import Failure, Kind

# kind: retried, counts against the breaker, dead at once
CONTRACT = {
    "malformed": (False, False, True),
    "invalid": (False, False, True),
    "model_error": (True, True, False),
    "timeout": (True, True, False),
    "bad_output": (True, True, False),
    "crashed": (True, True, False),
    "breaker_open": (True, False, False),
    "unavailable": (True, False, False),
    "dependency": (True, False, False),
    "low_confidence": (False, False, False),
    "bad_header": (False, False, True),
    "poison": (False, False, True),
}


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_is_what_the_contract_says(kind: Kind) -> None:
    """Retried, counted and dead at once, as the table of failure kinds has it; a failure is as its kind."""
    assert (kind.retried, kind.trips_breaker, kind.dead_at_once) == CONTRACT[kind]
    failure = Failure(kind, "why")
    assert (failure.retried, failure.trips_breaker) == CONTRACT[kind][:2]


def test_the_table_is_whole() -> None:
    """No kind is missing in the contract, and none there is unknown here."""
    assert set(CONTRACT) == set(Kind)
