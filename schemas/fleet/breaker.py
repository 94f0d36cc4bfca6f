"""Messages between workers of a fleet: reports and commands to a breaker's owner, its rows and alerts to everyone.

Who reads one did not write it: ``parse`` and ``from_dict`` give a value within its limits, or raise Malformed. Fields
that a reader does not know are ignored, so that workers of two versions can run side by side.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter

from failsoft.schemas import wire
from failsoft.schemas.fleet.counts import Counts
from failsoft.schemas.fleet.fields import Count, Epoch, Key, Target, Text, Who, Why, Worker, checked

MAX_MESSAGE = 65_536
"""Bytes of a report, a command or an alert: they have under one thousand, and reasons of people some more."""

MAX_ROW = 1_000_000
"""Bytes of a row, which has some 150 a worker: as large as Kafka takes a record by default."""

_StateName = Literal[
    "closed", "open", "half_open", "forced_open", "disabled"
]  # failsoft.models.breaker.rules.State; a test compares


class ReportKind(StrEnum):
    """What a worker tells."""

    WINDOW = "window"  # its counts: every 250 ms when there are some, at once when its own breaker opens
    ASK = "ask"  # it has something to probe with, and by its row it is time
    PROBED = "probed"  # what became of the probes that it was lent


class Action(StrEnum):
    """What an operator orders."""

    FORCE_OPEN = "force_open"
    CLOSE = "close"
    DISABLE = "disable"
    RESET = "reset"

    @property
    def command(self) -> str:
        """The command under ``failsoft breakers`` that gives this order."""
        return self.value.removeprefix("force_")


def _without_runs(given: object) -> object:
    """In a message ``runs`` left out are none, and not one a call: nothing is slow that nobody measured."""
    return {"runs": 0, **given} if isinstance(given, dict) else given


_Counts = Annotated[Counts, BeforeValidator(_without_runs)]


@dataclass(frozen=True, slots=True)
class Probes:
    """Outcomes of one lease so far, in rows: TOTALS, so that a repeat adds nothing. ``slow`` are some of ``passed``."""

    passed: Count = 0
    failed: Count = 0
    slow: Count = 0

    def __post_init__(self) -> None:
        if self.slow > self.passed:
            raise ValueError("more probes were slow than passed")


@dataclass(frozen=True, slots=True)
class Report:
    """A worker to the owner, about one breaker, under the generation of the row that the worker last saw.

    ``counts`` are the TOTALS of the worker's rolling window, which its own breaker's trips do not empty: of two reports
    the newer replaces the older, so repeats and late ones are harmless. ``sequence`` grows within ``worker``, over its
    restarts too (begin at the wall clock in milliseconds). ``tripped``: its own breaker keeps it from calling, so that
    it fails although it has no fresh counts; as long as it does, it goes on reporting. ``want`` (of an ASK): how many
    probes it has something for.
    """

    key: Key
    worker: Worker
    sequence: Count
    at_ms: Epoch
    generation: Count
    kind: ReportKind
    counts: _Counts = field(default_factory=Counts)
    probes: Probes = field(default_factory=Probes)
    want: Count = 0
    tripped: bool = False

    def to_bytes(self) -> bytes:
        return wire.dumps(asdict(self))

    @classmethod
    def parse(cls, raw: bytes | None) -> Report:
        """Raises Malformed."""
        return checked(_REPORT, wire.loads(raw, MAX_MESSAGE))


@dataclass(frozen=True, slots=True)
class Command:
    """An operator to the owner. ``target`` is a model (each of its versions) or one ``model@version``."""

    target: Target
    action: Action
    who: Who
    why: Why
    at_ms: Epoch

    def to_bytes(self) -> bytes:
        return wire.dumps(asdict(self))

    @classmethod
    def parse(cls, raw: bytes | None) -> Command:
        """Raises Malformed."""
        return checked(_COMMAND, wire.loads(raw, MAX_MESSAGE))


@dataclass(frozen=True, slots=True)
class WorkerWindow:
    """The last that a worker reported of its window; ``at_ms`` is never in the owner's future.

    ``failing_ms`` is since when, on the owner's clock, it fails by itself; None when it does not.
    """

    sequence: Count
    at_ms: Epoch
    counts: _Counts
    tripped: bool = False
    failing_ms: Epoch | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """``probes`` lent to ``worker`` until ``expires_ms``, and how many of them passed (and passed slowly) so far."""

    worker: Worker
    probes: Count
    granted_ms: Epoch
    expires_ms: Epoch
    passed: Count = 0
    slow: Count = 0


@dataclass(frozen=True, slots=True)
class BreakerRow:
    """One breaker as the fleet knows it: a value of the table ``breakers``. Times are the owner's wall clock.

    ``passed`` and ``slow`` are the probes of this half-open spell that passed under leases before the one in ``lease``.
    ``commands`` names the last few commands obeyed, so that one which is read twice is obeyed once.
    """

    key: Key
    state: _StateName = "closed"
    generation: Count = 0
    since_ms: Epoch = 0
    until_ms: Epoch | None = None
    reopenings: Count = 0
    reason: Text | None = None
    changed_by: Text | None = None
    lease: Lease | None = None
    passed: Count = 0
    slow: Count = 0
    windows: dict[Worker, WorkerWindow] = field(default_factory=dict)
    sick: tuple[Worker, ...] = ()
    commands: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.until_ms is None) is (self.state == "open"):
            raise ValueError("an open breaker has a time, and no other has")
        if self.lease is not None and self.state != "half_open":
            raise ValueError("only a half-open breaker lends probes")

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold; ``from_dict`` gives the row back."""
        return {**asdict(self), "sick": [*self.sick], "commands": [*self.commands]}

    @classmethod
    def from_dict(cls, given: object) -> BreakerRow:
        """Raises Malformed."""
        return checked(_ROW, given)

    def to_bytes(self) -> bytes:
        return wire.dumps(self.to_dict())

    @classmethod
    def parse(cls, raw: bytes | None) -> BreakerRow:
        """Raises Malformed."""
        return cls.from_dict(wire.loads(raw, MAX_ROW))


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a person may want to know, as an event on the topic of alerts; in JSON ``from_`` is ``from``.

    ``name`` is ``breaker`` (a transition between states) or ``node_sick`` (of ``worker``, between ``well`` and
    ``sick``). ``worker`` is whose message brought it about, if one did.
    """

    name: str
    key: Key
    at_ms: Epoch
    from_: Annotated[str, Field(alias="from")]
    to: str
    reason: Text
    worker: str | None

    def to_bytes(self) -> bytes:
        return wire.dumps({name.rstrip("_"): value for name, value in asdict(self).items()})

    @classmethod
    def parse(cls, raw: bytes | None) -> Alert:
        """Raises Malformed."""
        return checked(_ALERT, wire.loads(raw, MAX_MESSAGE))


_REPORT = TypeAdapter(Report)
_COMMAND = TypeAdapter(Command)
_ROW = TypeAdapter(BreakerRow)
_ALERT = TypeAdapter(Alert)
