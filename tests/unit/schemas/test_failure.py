"""Failure kinds, compared with the contract's table."""

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
def test_each_kind_has_the_contracts_properties(kind: Kind) -> None:
    """Each kind is retried, counted and dead at once as in the contract's table; so is a failure of that kind."""
    assert (kind.retried, kind.trips_breaker, kind.dead_at_once) == CONTRACT[kind]
    failure = Failure(kind, "why")
    assert (failure.retried, failure.trips_breaker) == CONTRACT[kind][:2]


def test_the_kinds_are_those_of_the_contract() -> None:
    """The code and the contract's table have the same kinds."""
    assert set(CONTRACT) == set(Kind)
