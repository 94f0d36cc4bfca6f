"""Why a record has no answer from the primary: the contract's table of failure kinds, and a failure as a value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """A failure kind; its value is what headers, answers, metrics and logs carry."""

    MALFORMED = "malformed"
    INVALID = "invalid"
    MODEL_ERROR = "model_error"
    TIMEOUT = "timeout"
    BAD_OUTPUT = "bad_output"
    CRASHED = "crashed"
    BREAKER_OPEN = "breaker_open"
    UNAVAILABLE = "unavailable"
    DEPENDENCY = "dependency"
    LOW_CONFIDENCE = "low_confidence"
    BAD_HEADER = "bad_header"
    POISON = "poison"

    @property
    def retried(self) -> bool:
        """A later attempt may succeed, so the record goes on the ladder."""
        return self in _RETRIED

    @property
    def trips_breaker(self) -> bool:
        """The model is to blame, so the call counts against its breaker."""
        return self in _TRIPS

    @property
    def dead_at_once(self) -> bool:
        """No attempt can help, so the record goes to the dead letters without one."""
        return self in _DEAD


_TRIPS = frozenset({Kind.MODEL_ERROR, Kind.TIMEOUT, Kind.BAD_OUTPUT, Kind.CRASHED})
_RETRIED = _TRIPS | {Kind.BREAKER_OPEN, Kind.UNAVAILABLE, Kind.DEPENDENCY}
_DEAD = frozenset({Kind.MALFORMED, Kind.INVALID, Kind.BAD_HEADER, Kind.POISON})


@dataclass(frozen=True, slots=True)
class Failure:
    """One row's failure. ``message`` is for people: it names what was wrong, never a secret or a whole payload."""

    kind: Kind
    message: str

    @property
    def retried(self) -> bool:
        return self.kind.retried

    @property
    def trips_breaker(self) -> bool:
        return self.kind.trips_breaker
