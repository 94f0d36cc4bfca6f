"""Failure kinds, and a failure as a value: why a record has no answer from the primary.

The page docs/reference/failure-kinds.md is made from this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """A failure kind. Headers, answers, metrics and logs carry its value."""

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
        """One sentence that describes the kind, for the reference page."""
        return _MEANINGS[self]

    @property
    def retried(self) -> bool:
        """True when a later attempt may succeed: the record goes to the retry ladder."""
        return self in _RETRIED

    @property
    def trips_breaker(self) -> bool:
        """True when the model caused the failure: the call counts against its breaker."""
        return self in _TRIPS

    @property
    def dead_at_once(self) -> bool:
        """True when no attempt can succeed: the record goes to the dead letters at once."""
        return self in _DEAD


_MEANINGS = {
    Kind.MALFORMED: "The event is not in the declared format, or exceeds the limit of size or depth.",
    Kind.INVALID: "A feature is missing or unusable, and the card does not impute it.",
    Kind.MODEL_ERROR: "The model raised an error.",
    Kind.TIMEOUT: "The model did not answer within its deadline.",
    Kind.BAD_OUTPUT: "The model returned NaN, infinity, a score out of range, or a wrong shape.",
    Kind.CRASHED: "The process that runs the model died.",
    Kind.BREAKER_OPEN: "The model's breaker is open, so the model was not called.",
    Kind.UNAVAILABLE: "The model could not be called: no version is loaded, or no thread or process was free.",
    Kind.DEPENDENCY: "The event's schema is unknown and the schema registry does not answer. Nothing of the event can "
    "be read, so it waits unanswered; while the registry's breaker is open, no retry is used up.",
    Kind.LOW_CONFIDENCE: "The model's confidence was below the card's `min_confidence`. The fallback answer is final.",
    Kind.BAD_HEADER: "A record on one of the pipeline's own topics has a missing or invalid control header.",
    Kind.POISON: "The event crashed its worker, or its model's process, again when it was attempted alone.",
}

_TRIPS = frozenset({Kind.MODEL_ERROR, Kind.TIMEOUT, Kind.BAD_OUTPUT, Kind.CRASHED})
_RETRIED = _TRIPS | {Kind.BREAKER_OPEN, Kind.UNAVAILABLE, Kind.DEPENDENCY}
_DEAD = frozenset({Kind.MALFORMED, Kind.INVALID, Kind.BAD_HEADER, Kind.POISON})


@dataclass(frozen=True, slots=True)
class Failure:
    """One row's failure.

    Attributes:
        kind: what failed.
        message: for people: it says what was wrong, without secrets or whole payloads.
        attempted: False: nothing was tried for this row, so an event that waits unanswered uses up no retry.
    """

    kind: Kind
    message: str
    attempted: bool = True

    @property
    def retried(self) -> bool:
        return self.kind.retried

    @property
    def trips_breaker(self) -> bool:
        return self.kind.trips_breaker
