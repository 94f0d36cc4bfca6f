"""One worker's local breaker of a model version, governed by the fleet's breaker row.

While the row is closed, the worker counts by itself and opens its own breaker at once. In any other state the row
decides: the worker does not leave it by itself. Disabled, it makes every call; else only the probes of its lease. A
worker whose requests for probes get no answer becomes autonomous: it uses its own breaker until the row's generation
changes. This module uses no Kafka; the time and the random draw are parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from failsoft.models.breaker.breaker import Admission, Breaker, Transition
from failsoft.models.breaker.fleet import view
from failsoft.models.breaker.rules import BreakerPolicy, BreakerState
from failsoft.models.breaker.window import Window
from failsoft.schemas.fleet.breaker import BreakerRow, Probes, Report, ReportKind
from failsoft.schemas.fleet.counts import Counts

REPORT_EVERY = 0.25
"""Seconds between two reports of the same kind. A trip or a probe's result is reported at once."""

AUTONOMOUS_AFTER = 20.0
"""Seconds without an answer to requests for probes before a worker becomes autonomous. A killed owner is replaced
within the session timeout (6 s), and its successor must first read the table."""

MAX_REQUESTS = 3
"""Requests without an answer before a worker becomes autonomous. A single request may be lost, or be too early by the
owner's clock; with one event a minute, AUTONOMOUS_AFTER has already passed at the second."""

RESEND_AFTER = 0.1
"""Share of the policy's window after which unchanged totals are reported again. Reports get lost, and the owner drops
a report that is as old as the window, even if the totals stay the same because calls arrive at a steady rate."""

RESERVED_FOR = 1.0
"""Seconds at the start of a half-open period that are reserved for one kind of probe.

First come waiting retries, so that live events are not spent on probes. After an odd number of reopenings, live events
come first instead: the records at the heads of the rungs may be ones that no model can answer, and with those alone a
healthy version would never pass its probes. In these periods retries are also taken from any position on their rungs,
since no live events may arrive. After the reserved time both kinds may use the remaining probes."""

DEMAND_VALID_FOR = 2.0
"""Seconds for which waiting retries or refused calls count as records to probe with. Lanes check for waiting retries
twice a second. A lease for records that are gone would block the other workers until it expires."""


@dataclass(frozen=True, slots=True)
class Move:
    """A change of the state that this worker follows.

    Attributes:
        from_: the state before.
        to: the state after.
        generation: the generation that the change began.
        reason: why, as text for people.
        by_fleet: the breaker row caused the change, not the worker's own breaker.
    """

    from_: BreakerState
    to: BreakerState
    generation: int
    reason: str | None
    by_fleet: bool


class LocalBreaker:
    """The breaker of ``key`` in ``worker``. ``now`` is monotonic seconds, ``now_ms`` wall-clock milliseconds."""

    def __init__(self, key: str, worker: str, policy: BreakerPolicy, now: float) -> None:
        self.key, self.worker, self.policy = key, worker, policy
        self.breaker = Breaker(policy, now)
        self.row: BreakerRow | None = None
        self._autonomous = False  # the owner did not answer: ignore the row until it changes
        self._base = 0  # added to the own breaker's generation, so that no number repeats
        self._window = Window(policy.window)  # for reports: the own breaker's transitions do not empty it
        self._used = 0
        self._results = Probes()
        self._since = now  # when the current state began
        self._asked_under: int | None = None  # the row's generation at the last request for probes
        self._asked_since: float | None = None
        self._asks = 0
        self._want = 0
        self._wanted = now
        self._waiting_seen: float | None = None
        self._sent: dict[ReportKind, tuple[float, object]] = {}

    # --- state ----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> BreakerState:
        """The state that this worker follows: the row's, or its own breaker's."""
        row = self._governing()
        return self.breaker.state if row is None else BreakerState(row.state)

    @property
    def generation(self) -> int:
        """The number that calls are admitted and reported under. It changes with each state and never repeats."""
        return self._base + self.breaker.generation

    @property
    def tripped(self) -> bool:
        """Is the worker's own breaker in charge, and open or half-open?"""
        return self._governing() is None and self.breaker.state in (BreakerState.OPEN, BreakerState.HALF_OPEN)

    @property
    def sick(self) -> bool:
        """Does the breaker row list this worker as a sick node?"""
        return self.row is not None and self.worker in self.row.sick

    def _governing(self) -> BreakerRow | None:
        if self.row is None or self._autonomous or BreakerState(self.row.state) is BreakerState.CLOSED:
            return None
        return self.row

    def absorb(self, row: BreakerRow, now: float) -> list[Move]:
        """Takes over the current breaker row. A new generation discards earlier counts and the earlier lease.

        An older row is ignored, because a new owner replays the whole history of the table. A lower generation with a
        later ``since_ms`` is accepted: it means that the table was created again.
        """
        before, old = self.state, self.row
        if old is not None and row.generation < old.generation and row.since_ms <= old.since_ms:
            return []
        self.row = row
        if (0 if old is None else old.generation) == row.generation:
            return []
        self._base = self.generation + 1
        self._autonomous = False
        self.breaker = Breaker(self.policy, now)
        self._window.reset()
        self._used, self._results = 0, Probes()
        self._asked_since, self._asks = None, 0
        self._want = 0
        self._sent.clear()
        self._since = now
        return [Move(before, self.state, row.generation, row.reason, by_fleet=True)]

    # --- calls ----------------------------------------------------------------------------------------------------

    def admit(self, n: int, ladder: int, now: float, now_ms: int) -> Admission:
        """Requests ``n`` calls, ``ladder`` of them for retries. Each granted call ends in ``report`` or ``release``."""
        row = self._governing()
        if row is None:
            admission = self.breaker.admit(n, now)
            if self._autonomous:
                self._note_demand(n, now)
            anywhere = admission.probe and self.breaker.reopenings % 2 == 1
            return replace(admission, generation=self.generation, anywhere=anywhere)
        if BreakerState(row.state) is BreakerState.DISABLED:
            return Admission(n, self.generation)
        left = self._probes_left(row, now_ms)
        if not left:
            self._note_demand(n, now)
        elif not ladder and self._retries_first(row, now):
            left = 0
        granted = min(n, left)
        self._used += granted
        return Admission(granted, self.generation, probe=True, anywhere=row.reopenings % 2 == 1)

    def report(self, generation: int, counts: Counts, now: float, u: float) -> list[Move]:
        """Reports the results of calls admitted under ``generation``; ``u`` in [0, 1) jitters a wait."""
        moves = self.tick(now)
        if generation != self.generation or not counts.calls:
            return moves
        row = self._governing()
        if row is None:
            self._window.add(counts, now)
            own = self.breaker.generation
            self._record_moves(self.breaker.report(own, counts, now, u), now, moves)
        elif BreakerState(row.state) is BreakerState.DISABLED:
            self._window.add(counts, now)
        elif BreakerState(row.state) is BreakerState.HALF_OPEN:
            passed = counts.calls - counts.failures
            results = self._results
            self._results = Probes(
                results.passed + passed, results.failed + counts.failures, results.slow + counts.slow_passes
            )
        return moves

    def release(self, generation: int, n: int) -> None:
        """Returns ``n`` admitted calls that were never made."""
        if generation != self.generation:
            return
        if self._governing() is None:
            self.breaker.release(self.breaker.generation, n)
        else:
            self._used = max(0, self._used - n)

    def request_probes(self, now: float, now_ms: int) -> None:
        """Notes that retries wait for this model. Requests probes if the row decides and no leased probe is left."""
        self._waiting_seen = now
        row = self._governing()
        if row is None or BreakerState(row.state) is BreakerState.DISABLED:
            return
        if not self._probes_left(row, now_ms):
            self._note_demand(self.policy.probes, now)

    def may_retry(self, now: float, now_ms: int) -> bool:
        """May the lanes attempt waiting retries now?"""
        row = self._governing()
        if row is None:
            return self._own_breaker_retries(now)
        if BreakerState(row.state) is BreakerState.DISABLED:
            return True
        return bool(self._probes_left(row, now_ms)) and not (row.reopenings % 2 and now - self._since < RESERVED_FOR)

    def tick(self, now: float) -> list[Move]:
        """Makes the transitions of the worker's own breaker that depend on time alone."""
        moves: list[Move] = []
        if self._governing() is None:
            self._record_moves(self.breaker.tick(now), now, moves)
        return moves

    def _record_moves(self, transitions: list[Transition], now: float, moves: list[Move]) -> None:
        for t in transitions:
            self._since = now
            moves.append(Move(t.from_, t.to, self._base + t.generation, t.reason, by_fleet=False))

    def _own_breaker_retries(self, now: float) -> bool:
        own = self.breaker
        if own.state is BreakerState.CLOSED:
            return True
        if own.state is not BreakerState.HALF_OPEN or (own.reopenings % 2 and now - own.since < RESERVED_FOR):
            return False
        snapshot = own.snapshot(now)
        return snapshot.outstanding + snapshot.passed < snapshot.policy.probes

    def _note_demand(self, n: int, now: float) -> None:
        self._want = max(n, self._demand(now))
        self._wanted = now

    def _demand(self, now: float) -> int:
        """How many records to probe with were seen within ``DEMAND_VALID_FOR``."""
        return self._want if now - self._wanted < DEMAND_VALID_FOR else 0

    def _probes_left(self, row: BreakerRow, now_ms: int) -> int:
        """Unused probes of the lease; 0 if a previous process of this worker requested the lease."""
        if self._asked_under != row.generation - 1:
            return 0
        granted = view(row, self.worker, now_ms).probes_granted
        return max(0, (granted or 0) - self._used)

    def _retries_first(self, row: BreakerRow, now: float) -> bool:
        last_seen = self._waiting_seen
        waiting = last_seen is not None and now - last_seen < DEMAND_VALID_FOR
        return waiting and not row.reopenings % 2 and now - self._since < RESERVED_FOR

    # --- reports to the owner -------------------------------------------------------------------------------------

    def reports(self, sequence: int, now: float, now_ms: int) -> Iterator[Report]:
        """The reports that are due; each counts as sent. ``sequence`` must grow with every call, also over restarts."""
        base = Report(
            self.key, self.worker, sequence, now_ms, self.row.generation if self.row else 0, ReportKind.WINDOW
        )
        if self.row is None or BreakerState(self.row.state) in (BreakerState.CLOSED, BreakerState.DISABLED):
            yield from self._window_reports(base, now)
            return
        lease, results = self.row.lease, self._results
        has_results = lease is not None and lease.worker == self.worker and (results.passed or results.failed)
        if has_results and self._due(ReportKind.PROBED, results, now):
            yield replace(base, kind=ReportKind.PROBED, probes=results)
        want = min(self._demand(now), self.policy.probes)
        if want and view(self.row, self.worker, now_ms).may_ask and self._due(ReportKind.ASK, None, now):
            if self._asked_since is None:
                self._asked_since = now
            self._asks += 1
            self._asked_under = self.row.generation
            yield replace(base, kind=ReportKind.ASK, want=want)
            self._want = 0
            self._become_autonomous(now)

    def _window_reports(self, base: Report, now: float) -> Iterator[Report]:
        counts = self._window.totals(now)
        state = (counts, self.tripped)
        at, reported = self._sent.get(ReportKind.WINDOW, (-math.inf, (Counts(), False)))
        if state != reported:
            every = 0.0 if self.tripped else REPORT_EVERY
        elif self.tripped:
            every = REPORT_EVERY
        elif counts.calls:
            every = RESEND_AFTER * self.policy.window
        else:
            return
        if now - at >= every:
            self._sent[ReportKind.WINDOW] = (now, state)
            yield replace(base, counts=counts, tripped=self.tripped)

    def _due(self, kind: ReportKind, content: object, now: float) -> bool:
        """Is a report of ``kind`` due? It is if its content changed, or if the last one is ``REPORT_EVERY`` old."""
        before = self._sent.get(kind)
        if before is not None and before[1] == content and now - before[0] < REPORT_EVERY:
            return False
        self._sent[kind] = (now, content)
        return True

    def _become_autonomous(self, now: float) -> None:
        if (
            self._autonomous
            or self._asks < MAX_REQUESTS
            or self._asked_since is None
            or now - self._asked_since < AUTONOMOUS_AFTER
        ):
            return
        self._base = self.generation + 1
        self._autonomous = True
        waited = replace(Breaker(self.policy, now).snapshot(now), state=BreakerState.OPEN, open_left=0.0)
        self.breaker = Breaker.restore(waited, now)
        self._since = now
