"""Breaker messages: workers' reports and operators' commands to the owner, and the owner's rows and alerts.

A reader cannot trust the writer, so ``parse`` and ``from_dict`` check every limit and raise Malformed. Unknown fields
are ignored, so that workers of two versions can run together.
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
"""Bytes of a report, a command or an alert. Usual ones have under 1,000; an operator's reason can add some more."""

MAX_ROW = 1_000_000
"""Bytes of a breaker row: about Kafka's default limit of a record. A row has some 150 bytes per worker."""

_StateName = Literal[
    "closed", "open", "half_open", "forced_open", "disabled"
]  # the values of failsoft.models.breaker.rules.BreakerState; a test compares them


class ReportKind(StrEnum):
    """The kinds of a worker's report."""

    WINDOW = "window"  # its counts: every 250 ms if there are any, at once when its local breaker opens
    ASK = "ask"  # a request for probes: it has records to probe with, and the breaker row says that probes are due
    PROBED = "probed"  # results of the probes of its lease


class Action(StrEnum):
    """An operator's command to a breaker."""

    FORCE_OPEN = "force_open"
    CLOSE = "close"
    DISABLE = "disable"
    RESET = "reset"

    @property
    def command(self) -> str:
        """The subcommand of ``failsoft breakers`` that sends this action."""
        return self.value.removeprefix("force_")


def _without_runs(given: object) -> object:
    """A message without ``runs`` has 0 runs, not one per call: slowness that was not measured must not count."""
    return {"runs": 0, **given} if isinstance(given, dict) else given


_Counts = Annotated[Counts, BeforeValidator(_without_runs)]


@dataclass(frozen=True, slots=True)
class Probes:
    """Results of one lease so far. They are totals, so a repeated report adds nothing.

    Attributes:
        passed: rows whose probe passed.
        failed: rows whose probe failed.
        slow: those of ``passed`` that were slow.
    """

    passed: Count = 0
    failed: Count = 0
    slow: Count = 0

    def __post_init__(self) -> None:
        if self.slow > self.passed:
            raise ValueError("more probes were slow than passed")


@dataclass(frozen=True, slots=True)
class Report:
    """A report of one worker to the owner, about one breaker.

    Counts are totals, so the newer of two reports replaces the older: repeated and late reports are harmless.

    Attributes:
        key: the breaker, ``model@version``.
        worker: id of the reporting worker.
        sequence: grows with each report of the worker, also over its restarts: it starts at the wall clock (ms).
        at_ms: when it was sent (epoch milliseconds).
        generation: generation of the breaker row that the worker read last.
        kind: the kind of the report.
        counts: totals of the worker's rolling window. A trip of its local breaker does not clear them.
        probes: totals of the worker's lease (PROBED).
        want: how many probes the worker has records for (ASK).
        tripped: its local breaker stops its calls. The worker counts as failing although its counts do not grow, and it
            keeps reporting while this holds.
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
    """An operator's command to the owner.

    Attributes:
        target: one ``model@version``, or a model, which means each of its versions.
        action: the command.
        who: the operator.
        why: the operator's reason.
        at_ms: when it was sent (epoch milliseconds).
    """

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
    """A worker's latest report, as the breaker row keeps it.

    Attributes:
        sequence: sequence of that report.
        at_ms: its time (epoch milliseconds), at most the owner's clock at that moment.
        counts: totals of the worker's rolling window.
        tripped: the worker's local breaker stops its calls.
        failing_ms: since when the worker fails by its own report, on the owner's clock (epoch milliseconds); None when
            it does not fail.
    """

    sequence: Count
    at_ms: Epoch
    counts: _Counts
    tripped: bool = False
    failing_ms: Epoch | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """Probes granted to one worker for a limited time.

    Attributes:
        worker: the worker that may probe.
        probes: number of rows that it may probe with.
        granted_ms: when the lease was granted (epoch milliseconds).
        expires_ms: when it ends (epoch milliseconds).
        passed: probes that passed so far.
        slow: those of ``passed`` that were slow.
    """

    worker: Worker
    probes: Count
    granted_ms: Epoch
    expires_ms: Epoch
    passed: Count = 0
    slow: Count = 0


@dataclass(frozen=True, slots=True)
class BreakerRow:
    """The fleet's state of one breaker: a row of the table ``breakers``. Times are the owner's wall clock (epoch ms).

    Attributes:
        key: the breaker, ``model@version``.
        state: the breaker's state.
        generation: grows with every transition and every lease; reports of another generation are dropped.
        since_ms: time of the last transition.
        until_ms: from when an open breaker may become half-open; None in every other state.
        reopenings: failed half-open periods in a row; the open time doubles with each.
        reason: why the state changed last.
        changed_by: the worker or operator that caused the change.
        lease: the current lease of a half-open breaker.
        passed: probes that passed in this half-open period under earlier leases.
        slow: those of ``passed`` that were slow.
        windows: the latest report of each worker, by worker id.
        sick: workers that fail by their own reports while the fleet's breaker stays closed; each has a ``node_sick``
            alert.
        commands: names of the last few commands applied; a command that is read again is ignored.
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
            raise ValueError("an open breaker must have until_ms, and no other state may")
        if self.lease is not None and self.state != "half_open":
            raise ValueError("only a half-open breaker may have a lease")

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON types; the inverse of ``from_dict``."""
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
    """An alert for operators, written to the alerts topic.

    Attributes:
        name: ``breaker`` (a transition between states), ``node_sick`` (a worker's change between ``well``, ``sick``
            and ``unknown``), ``lane`` (a lane's change between ``running`` and a cause for which it is stopped),
            ``malformed`` (a topic's change between ``readable`` and ``malformed``: more than half of the events of a
            minute are), ``unread`` (a worker's change between ``read`` and ``unread``: events wait for their schemas)
            or ``lost`` (records that were never read, and never will be).
        key: the breaker, ``model@version``; of a lane the partition, ``topic-partition``; of ``malformed`` the topic;
            of ``unread`` the registry's breaker.
        at_ms: when it happened (epoch milliseconds).
        from_: the old state; ``from`` in JSON.
        to: the new state.
        reason: why it changed.
        worker: the worker or operator whose message caused the change, if any; for ``node_sick`` the worker concerned.
        first_offset: of a partition: the first offset concerned. Left out in JSON where it says nothing.
        end_offset: the offset after the last one concerned. Likewise.
    """

    name: str
    key: Target
    at_ms: Epoch
    from_: Annotated[str, Field(alias="from")]
    to: str
    reason: Text
    worker: str | None
    first_offset: Epoch | None = None
    end_offset: Epoch | None = None

    def to_bytes(self) -> bytes:
        offsets = ("first_offset", "end_offset")
        found = {name.rstrip("_"): value for name, value in asdict(self).items()}
        return wire.dumps({name: value for name, value in found.items() if value is not None or name not in offsets})

    @classmethod
    def parse(cls, raw: bytes | None) -> Alert:
        """Raises Malformed."""
        return checked(_ALERT, wire.loads(raw, MAX_MESSAGE))


_REPORT = TypeAdapter(Report)
_COMMAND = TypeAdapter(Command)
_ROW = TypeAdapter(BreakerRow)
_ALERT = TypeAdapter(Alert)
