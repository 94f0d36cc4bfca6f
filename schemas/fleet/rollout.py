"""Rollout messages: workers' heartbeats, orders to change a model's version, and the fleet's row of one model.

A reader cannot trust the writer, so ``parse`` and ``from_dict`` check every limit and raise Malformed. Unknown fields
are ignored, so that workers of two versions can run together.
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
"""Valid version numbers: failsoft.models.catalog.repository accepts folders with these names as versions."""

_Version = Annotated[int, Field(strict=True, ge=VERSIONS.start, lt=VERSIONS.stop)]
_NUMBER = re.compile("[0-9]{1,9}")  # limited, because int() raises for thousands of digits
_Sum = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Direction(StrEnum):
    """The direction of an order."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"


class Trigger(StrEnum):
    """The cause of a version change. The last two are labels of ``failsoft_rollbacks_total``."""

    FIRST = "first"  # a worker served the model before a row existed
    PROMOTE = "promote"
    OPERATOR = "operator"  # a rollback that an operator ordered
    AUTOMATIC = "automatic"  # a rollback that the owner decided, because probes failed


@dataclass(frozen=True, slots=True)
class Health:
    """Health of one version in one worker, over a rolling window (``failsoft.models.rollout.health.SPAN``).

    Attributes:
        calls: rows.
        failures: rows that failed.
        runs: batches.
        seconds: total duration of the runs (seconds).
        judged: answers that have a confidence.
        sure: sum of those confidences.
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
    """A worker's heartbeat to the owner, about one model.

    Attributes:
        worker: id of the worker.
        model: the model.
        serving: the version that the worker serves; None when none is loaded.
        at_ms: when it was sent (epoch milliseconds).
        problem: why the worker does not serve the row's active version; None when it does.
        health: health of each version, by version number.
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
        return checked(_HEARTBEAT, _numbered(wire.loads(raw, MAX_MESSAGE)))


@dataclass(frozen=True, slots=True)
class Order:
    """An order to the owner to change a model's version.

    Attributes:
        target: ``model@version``; for a rollback also the model alone, which means its last good version.
        order: promotion or rollback.
        who: the operator, or the owner for an automatic rollback.
        why: the reason.
        at_ms: when it was sent (epoch milliseconds).
        failing: for an automatic rollback, the version that failed. The order is ignored unless that one is active.
    """

    target: Target
    order: Direction
    who: Who
    why: Why
    at_ms: Epoch
    failing: _Version | None = None

    @property
    def name(self) -> str:
        """Identifies the order. A row keeps the names of the last few, so that an order is applied once."""
        return f"{self.at_ms} {self.order} {self.who}"

    def to_bytes(self) -> bytes:
        return wire.dumps(asdict(self))

    @classmethod
    def parse(cls, raw: bytes | None) -> Order:
        """Raises Malformed."""
        return checked(_ORDER, wire.loads(raw, MAX_MESSAGE))


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a model's active version.

    Attributes:
        at_ms: when (epoch milliseconds).
        from_: the version that was active before; None for the first.
        to: the version that is active since.
        who: the operator, the worker that first served the model, or the owner.
        why: the reason.
        trigger: the cause.
    """

    at_ms: Epoch
    from_: _Version | None
    to: _Version
    who: Who
    why: Text
    trigger: Trigger


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker's latest heartbeat, as the rollout row keeps it.

    Attributes:
        version: the version that the worker serves; None when none is loaded.
        at_ms: time of the heartbeat (epoch milliseconds), at most the owner's clock at that moment.
        problem: why the worker does not serve the active version; None when it does.
        health: health of each version, by version number.
    """

    version: _Version | None
    at_ms: Epoch
    problem: Text | None = None
    health: dict[_Version, Health] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OrderResult:
    """The result of one order: its name, and why it was refused; None means it was applied."""

    order: Text
    refused: Text | None = None


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """The fleet's state of one model: a row of the table ``rollouts``. Times are the owner's wall clock (epoch ms).

    Attributes:
        model: the model.
        active: the version that every worker must serve.
        previous: the version that was active before.
        moves: number of changes of ``active``; a reader recognises an old row by its lower number.
        since_ms: time of the last change.
        held_until_ms: no automatic rollback happens before this time.
        history: the last ``failsoft.models.rollout.rollout.CHANGES_KEPT`` changes, oldest first.
        workers: the latest heartbeat of each worker, by worker id.
        orders: results of the last few orders.
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
        """The row as JSON types; the inverse of ``from_dict``."""
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
    """Convert the keys of ``health`` from JSON text to version numbers. Other keys stay, so validation refuses them."""
    if isinstance(given, dict) and isinstance(given.get("health"), dict):
        health = {int(v) if _NUMBER.fullmatch(v) else v: h for v, h in given["health"].items()}
        return {**given, "health": health}
    return given


_HEARTBEAT = TypeAdapter(Heartbeat)
_ORDER = TypeAdapter(Order)
_ROW = TypeAdapter(RolloutRow)
