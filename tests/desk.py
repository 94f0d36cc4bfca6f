"""One worker's local breaker with a clock that the test moves and rows of the fleet that the test passes in."""

from __future__ import annotations

from dataclasses import replace

from failsoft.models.breaker.local import LocalBreaker
from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.fleet.breaker import BreakerRow, Lease, Report, ReportKind
from failsoft.schemas.fleet.counts import Counts
from tests.fleet_owner import KEY, POLICY, T0

OPEN = BreakerRow(KEY, "open", 1, T0, T0 + 15_000, windows={})


class Desk:
    """The local breaker of worker "a", and a clock that the test moves."""

    def __init__(self, row: BreakerRow | None = None) -> None:
        self.now, self.sequence = 100.0, 0
        self.local = LocalBreaker(KEY, "a", POLICY, self.now)
        if row is not None:
            self.see(row)

    @property
    def now_ms(self) -> int:
        return T0 + round((self.now - 100) * 1000)

    def see(self, row: BreakerRow) -> list[tuple[BreakerState, BreakerState, bool]]:
        """Absorb a row of the fleet. Returns the transitions as (from, to, by the fleet)."""
        return [(m.from_, m.to, m.by_fleet) for m in self.local.absorb(row, self.now)]

    def admit(self, n: int, ladder: int = 0) -> int:
        """Request ``n`` calls, ``ladder`` of them waiting retries. Returns how many are admitted."""
        return self.local.admit(n, ladder, self.now, self.now_ms).granted

    def call(self, calls: int, failures: int = 0, slow: int = 0, ladder: int = 0) -> int:
        """Request calls that return at once and are reported. Returns how many were admitted."""
        given = self.local.admit(calls, ladder, self.now, self.now_ms)
        if given.granted:
            counts = Counts(given.granted, min(failures, given.granted), slow, 1)
            self.local.report(given.generation, counts, self.now, 0.5)
        return given.granted

    def may_retry(self, waiting: bool = True) -> bool:
        """Whether waiting retries may be attempted. With ``waiting`` probes are requested first."""
        if waiting:
            self.local.request_probes(self.now, self.now_ms)
        return self.local.may_retry(self.now, self.now_ms)

    def told(self) -> list[Report]:
        """The reports that are due now, as the owner reads them."""
        found = []
        for report in self.local.reports(self.sequence + 1, self.now, self.now_ms):
            self.sequence += 1
            found.append(Report.parse(report.to_bytes()))
        return found

    def kinds(self) -> list[ReportKind]:
        """The kinds of the reports that are due now."""
        return [r.kind for r in self.told()]

    def lend(self, probes: int = 3, worker: str = "a", reopenings: int = 0) -> None:
        """The owner's row that grants ``probes`` to ``worker``."""
        row = self.local.row
        assert row is not None
        lease = Lease(worker, probes, self.now_ms, self.now_ms + 10_000)
        self.see(BreakerRow(KEY, "half_open", row.generation + 1, self.now_ms, reopenings=reopenings, lease=lease))


def asked(reopenings: int = 0, by_ladder: bool = True) -> Desk:
    """A worker whose row is open and past its wait, and which has just asked for probes."""
    desk = Desk(replace(OPEN, reopenings=reopenings))
    desk.now += 15
    if by_ladder:
        assert not desk.may_retry()
    else:
        assert desk.admit(5) == 0
    assert desk.kinds() == [ReportKind.ASK]
    return desk


def with_lease(probes: int = 3, reopenings: int = 0, by_ladder: bool = True) -> Desk:
    """The same worker after the owner granted it ``probes``."""
    desk = asked(reopenings, by_ladder)
    desk.now += 0.05
    desk.lend(probes, reopenings=reopenings)
    return desk
