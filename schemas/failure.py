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
    def meaning(self) -> str:
        """A sentence for the reference page."""
        return _MEANINGS[self]

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


_MEANINGS = {
    Kind.MALFORMED: "The event is not the declared format, or over the limit of size or depth.",
    Kind.INVALID: "A feature is missing or unusable, and the card does not impute it.",
    Kind.MODEL_ERROR: "The model raised an error.",
    Kind.TIMEOUT: "The model did not answer within its deadline.",
    Kind.BAD_OUTPUT: "The model answered NaN, infinity, a score out of range, or a wrong shape.",
    Kind.CRASHED: "The process that the model runs in died.",
    Kind.BREAKER_OPEN: "The model's breaker is open, so it was not asked.",
    Kind.UNAVAILABLE: "Nobody could ask the model: no version is loaded, or no thread or process was free.",
    Kind.DEPENDENCY: "Reserved for a source that the event needs and that is down; nothing in this version gives it.",
    Kind.LOW_CONFIDENCE: "The model was less sure than the card's `min_confidence`; the fallback's answer is final.",
    Kind.BAD_HEADER: "A record on one of the pipeline's own topics has a control header that is missing or wrong.",
    Kind.POISON: "The event crashed its worker, or its model's process, again when it was tried alone.",
}

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
