"""A test double for the owner of the fleet's breakers: it folds messages without Kafka or Faust."""

from __future__ import annotations

from typing import Any

from failsoft.models.breaker.fleet import fold
from failsoft.models.breaker.rules import BreakerPolicy, BreakerState
from failsoft.schemas.fleet.breaker import Action, Alert, BreakerRow, Command, Probes, Report, ReportKind
from failsoft.schemas.fleet.counts import Counts

POLICY = BreakerPolicy(
    failure_rate=0.5,
    window=30.0,
    minimum_calls=20,
    slow_call=0.1,
    slow_rate=0.8,
    open_for=15.0,
    max_open=300.0,
    probes=3,
    probe_lease=10.0,
)
KEY = "repayment@2"
T0 = 1_800_000_000_000
BAD, GOOD = Counts(20, 20, 0, 5), Counts(20, 0, 0, 5)


class Owner:
    """Folds messages into one breaker row. The test sets the clock ``now`` (ms)."""

    def __init__(self, row: BreakerRow | None = None, policy: BreakerPolicy = POLICY) -> None:
        self.row, self.policy, self.now, self.sequence = row, policy, T0, 0
        self.alerts: list[Alert] = []

    def hear(self, message: Report | Command, u: float = 0.5) -> bool:
        """Folds ``message``; returns whether the row has to be written."""
        folded = fold(self.row, message, self.policy, self.now, u)
        changed = folded.row is not self.row
        assert changed or not folded.alerts
        self.row = folded.row
        self.alerts += folded.alerts
        return changed

    def report(self, worker: str, kind: ReportKind, **fields: Any) -> Report:
        self.sequence += 1
        fields = {"at_ms": self.now, "generation": self.row.generation if self.row else 0, **fields}
        return Report(KEY, worker, self.sequence, kind=kind, **fields)

    def window(self, worker: str, counts: Counts, **fields: Any) -> bool:
        return self.hear(self.report(worker, ReportKind.WINDOW, counts=counts, **fields))

    def ask(self, worker: str, want: int = 3, **fields: Any) -> bool:
        return self.hear(self.report(worker, ReportKind.ASK, want=want, **fields))

    def probed(self, worker: str, *totals: int, **fields: Any) -> bool:
        return self.hear(self.report(worker, ReportKind.PROBED, probes=Probes(*totals), **fields))

    def order(self, action: Action, who: str = "ann", why: str = "a drill") -> bool:
        return self.hear(Command(KEY, action, who, why, self.now))

    def state(self) -> BreakerState:
        return BreakerState(self.row.state) if self.row else BreakerState.CLOSED

    def moves(self) -> list[tuple[str, str]]:
        return [(a.from_, a.to) for a in self.alerts if a.name == "breaker"]

    def sickness(self) -> list[tuple[str | None, str]]:
        return [(a.worker, a.to) for a in self.alerts if a.name == "node_sick"]


def opened() -> Owner:
    owner = Owner()
    owner.window("a", BAD)
    owner.window("b", BAD)
    assert owner.state() is BreakerState.OPEN
    return owner


def half_open(want: int = 3) -> Owner:
    owner = opened()
    owner.now += 15_000
    assert owner.ask("a", want)
    assert owner.state() is BreakerState.HALF_OPEN
    return owner
