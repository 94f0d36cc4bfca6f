"""Messages about versions: what each worker serves, orders to move, and the fleet's row of one model.

Who reads one did not write it: ``parse`` and ``from_dict`` give a value within its limits, or raise Malformed. Fields
that a reader does not know are ignored, so that workers of two versions can run side by side.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from failsoft.schemas import wire
from failsoft.schemas.fleet.breaker import MAX_MESSAGE, MAX_ROW
from failsoft.schemas.fleet.fields import Count, Epoch, Target, Text, Who, Why, Worker, checked

_Name = Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$", max_length=280)]
VERSIONS = range(1, 10**9)
"""Which numbers name a version: the folders that failsoft.models.catalog.repository takes for one."""

_Version = Annotated[int, Field(strict=True, ge=VERSIONS.start, lt=VERSIONS.stop)]
_NUMBER = re.compile("[0-9]{1,9}")  # no more: int() raises for thousands of digits
_Sum = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Direction(StrEnum):
    """What an order asks for."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"


class Trigger(StrEnum):
    """What brought a change about; the label of ``failsoft_rollbacks_total`` for the last two."""

    FIRST = "first"  # a worker served it, and there was no row yet
    PROMOTE = "promote"
    OPERATOR = "operator"  # a person's rollback
    AUTOMATIC = "automatic"  # the owner's, because of failed probes


@dataclass(frozen=True, slots=True)
class Health:
    """What became of a version's calls in one worker, over a rolling window (``failsoft.models.rollout.health.SPAN``).

    ``seconds`` is the sum over ``runs`` (batches) of how long each took; ``sure`` the sum of the confidences of
    ``judged`` answers, of outputs that have one.
    """

    calls: Count = 0
    failures: Count = 0
    runs: Count = 0
    seconds: _Sum = 0.0
    judged: Count = 0
    sure: _Sum = 0.0

    def __add__(self, other: Health) -> Health:
        return Health(
            self.calls + other.calls,
            self.failures + other.failures,
            self.runs + other.runs,
            self.seconds + other.seconds,
            self.judged + other.judged,
            self.sure + other.sure,
        )


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A worker to the owner: the version of ``model`` that it serves (None: none is loaded).

    ``problem`` is why that is not the one that the fleet's row wants. ``health`` is by version.
    """

    worker: Worker
    model: _Name
    serving: _Version | None
    at_ms: Epoch
    problem: Text | None = None
    health: dict[_Version, Health] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        return wire.dumps({**asdict(self), "health": {str(v): asdict(h) for v, h in self.health.items()}})

    @classmethod
    def parse(cls, raw: bytes | None) -> Heartbeat:
        """Raises Malformed."""
        return checked(_PRESENCE, _numbered(wire.loads(raw, MAX_MESSAGE)))


@dataclass(frozen=True, slots=True)
class Order:
    """Somebody to the owner: move a model to another version.

    ``target`` is ``model@version``, or for a rollback also the model alone: to the last good version then.
    ``failing`` is set by an automatic rollback: the version that failed; it is obeyed only while that one is active.
    """

    target: Target
    order: Direction
    who: Who
    why: Why
    at_ms: Epoch
    failing: _Version | None = None

    @property
    def name(self) -> str:
        """What tells it from others: a row keeps the names of the last few."""
        return f"{self.at_ms} {self.order} {self.who}"

    def to_bytes(self) -> bytes:
        return wire.dumps(asdict(self))

    @classmethod
    def parse(cls, raw: bytes | None) -> Order:
        """Raises Malformed."""
        return checked(_ORDER, wire.loads(raw, MAX_MESSAGE))


@dataclass(frozen=True, slots=True)
class Change:
    """One move of a model from a version to another."""

    at_ms: Epoch
    from_: _Version | None
    to: _Version
    who: Who
    why: Text
    trigger: Trigger


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What a worker said last of itself; ``at_ms`` is never in the owner's future."""

    version: _Version | None
    at_ms: Epoch
    problem: Text | None = None
    health: dict[_Version, Health] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OrderResult:
    """An order, by its name, and why it was refused (None: it was obeyed)."""

    order: Text
    refused: Text | None = None


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """One model as the fleet knows it: a value of the table ``rollouts``. Times are the owner's wall clock.

    ``active`` is the version that every worker is to serve, ``previous`` the one that was active before it. ``moves``
    counts the changes of ``active``, so that a row which is read again is known to be an old one.
    ``history`` is in order, the oldest first, the last ``models.rollout.CHANGES_KEPT`` of them. No automatic rollback
    before ``held_until_ms``.
    """

    model: _Name
    active: _Version
    previous: _Version | None = None
    moves: Count = 0
    since_ms: Epoch = 0
    held_until_ms: Epoch | None = None
    history: tuple[Change, ...] = ()
    workers: dict[Worker, WorkerStatus] = field(default_factory=dict)
    orders: tuple[OrderResult, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold; ``from_dict`` gives the row back."""
        found = asdict(self)
        found["history"] = [*found["history"]]
        found["orders"] = [*found["orders"]]
        for status in found["workers"].values():
            status["health"] = {str(version): health for version, health in status["health"].items()}
        return found

    @classmethod
    def from_dict(cls, given: object) -> RolloutRow:
        """Raises Malformed."""
        statuses = given.get("workers") if isinstance(given, dict) else None
        if isinstance(given, dict) and isinstance(statuses, dict):
            given = {**given, "workers": {name: _numbered(status) for name, status in statuses.items()}}
        return checked(_ROW, given)

    @classmethod
    def parse(cls, raw: bytes | None) -> RolloutRow:
        """Raises Malformed."""
        return cls.from_dict(wire.loads(raw, MAX_ROW))


def _numbered(given: Any) -> Any:
    """JSON's names are text; versions are numbers, and what is none of them stays as it is, to be refused."""
    if isinstance(given, dict) and isinstance(given.get("health"), dict):
        health = {int(v) if _NUMBER.fullmatch(v) else v: h for v, h in given["health"].items()}
        return {**given, "health": health}
    return given


_PRESENCE = TypeAdapter(Heartbeat)
_ORDER = TypeAdapter(Order)
_ROW = TypeAdapter(RolloutRow)
