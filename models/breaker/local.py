"""One model version's breaker as one worker obeys it: its own, and over it the fleet's row.

While the row is closed, the worker counts and opens by itself, at once. Any other row is obeyed as it stands: nobody
leaves an open one by himself, and probes are those that were lent. Who asks for probes and hears nothing goes on alone
with its own breaker, until the row moves. No Kafka, clock or random number is in here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from failsoft.models.breaker.breaker import Admission, Breaker, Transition
from failsoft.models.breaker.fleet import view
from failsoft.models.breaker.rules import BreakerPolicy, BreakerState
from failsoft.models.breaker.window import Counts, Window
from failsoft.schemas.fleet.breaker import BreakerRow, Probes, Report, ReportKind, Tally

EVERY = 0.25
"""Seconds between two reports of the same kind; what cannot wait (a trip, a probe's result) goes at once."""

ALONE_AFTER = 20.0
"""Seconds without an answer to a request for probes before a worker probes alone: an owner that was killed is replaced
within the session's timeout (6 s), and the next one reads the table first."""

ASKS = 3
"""Requests without an answer before a worker goes alone: one alone may be lost, or come early by the owner's clock, and
where an event comes once a minute, the second is as late as many."""

AGAIN_BY = 0.1
"""Windows (of a policy) after which totals that have not changed are told again: a report may be lost, and one that is
as old as its window is forgotten, though calls came so evenly that their number never changed."""

FIRST = 1.0
"""Seconds of a half-open spell that belong to one kind of probe: waiting retries, so that live events need not pay, or
in every second spell live events. After an outage the heads of the rungs may be rows that no model can answer: they
alone would keep a sound one out for ever. Whatever is left after this second goes to whoever comes; waiting retries are
drawn from anywhere on their rungs then, since live events may have ended with the outage."""

WAITING_SEEN = 2.0
"""Seconds for which a lane's word that retries wait, or a call that was refused, counts as something to probe with; a
lane looks twice a second. A lease for what is no more would keep the others waiting until it ends."""


@dataclass(frozen=True, slots=True)
class Move:
    """A change of the state that is obeyed; ``by_fleet``: the row brought it."""

    from_: BreakerState
    to: BreakerState
    generation: int
    reason: str | None
    by_fleet: bool


class LocalBreaker:
    """The breaker of ``key`` at ``worker``. ``now`` is monotonic seconds, ``now_ms`` the wall clock's milliseconds."""

    def __init__(self, key: str, worker: str, policy: BreakerPolicy, now: float) -> None:
        self.key, self.worker, self.policy = key, worker, policy
        self.breaker = Breaker(policy, now)
        self.row: BreakerRow | None = None
        self._autonomous = False  # the row is not obeyed until it moves: nobody answered
        self._base = 0  # what is added to the own breaker's generation, so that no number comes twice
        self._window = Window(policy.window)  # for the fleet: the own breaker's trips do not empty it
        self._used = 0
        self._back = Probes()
        self._since = now  # of the state that is obeyed
        self._asked_under: int | None = None  # the generation of the row under which probes were asked for
        self._asked_since: float | None = None
        self._asks = 0
        self._want = 0
        self._wanted = now
        self._waiting_seen: float | None = None
        self._sent: dict[ReportKind, tuple[float, object]] = {}

    # --- what is obeyed -------------------------------------------------------------------------------------------

    @property
    def state(self) -> BreakerState:
        """What this worker does with calls."""
        row = self._governing()
        return self.breaker.state if row is None else BreakerState(row.state)

    @property
    def generation(self) -> int:
        """Never the same number for two spells."""
        return self._base + self.breaker.generation

    @property
    def tripped(self) -> bool:
        """Is it open, or probing, by its own doing alone?"""
        return self._governing() is None and self.breaker.state in (BreakerState.OPEN, BreakerState.HALF_OPEN)

    @property
    def sick(self) -> bool:
        """Does the fleet say that this worker fails alone?"""
        return self.row is not None and self.worker in self.row.sick

    def _governing(self) -> BreakerRow | None:
        if self.row is None or self._autonomous or BreakerState(self.row.state) is BreakerState.CLOSED:
            return None
        return self.row

    def absorb(self, row: BreakerRow, now: float) -> list[Move]:
        """The fleet's row, as it is now. A new generation ends whatever was counted or lent before.

        An owner that takes over reads the table's whole history again: what this worker saw before is no news. Only
        a table that was made anew has a lower number at a later time.
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
        self._used, self._back = 0, Probes()
        self._asked_since, self._asks = None, 0
        self._want = 0
        self._sent.clear()
        self._since = now
        return [Move(before, self.state, row.generation, row.reason, by_fleet=True)]

    # --- calls ----------------------------------------------------------------------------------------------------

    def admit(self, n: int, ladder: int, now: float, now_ms: int) -> Admission:
        """Asks for ``n`` calls, of which ``ladder`` are waiting retries. Each granted one ends in ``report``."""
        row = self._governing()
        if row is None:
            given = self.breaker.admit(n, now)
            if self._autonomous:
                self._wants(n, now)
            anywhere = given.probe and self.breaker.reopenings % 2 == 1
            return replace(given, generation=self.generation, anywhere=anywhere)
        if BreakerState(row.state) is BreakerState.DISABLED:
            return Admission(n, self.generation)
        left = self._left(row, now_ms)
        if not left:
            self._wants(n, now)
        elif not ladder and self._ladder_first(row, now):
            left = 0
        granted = min(n, left)
        self._used += granted
        return Admission(granted, self.generation, probe=True, anywhere=row.reopenings % 2 == 1)

    def report(self, generation: int, counts: Counts, now: float, u: float) -> list[Move]:
        """What became of calls that were admitted under ``generation``; ``u`` in [0, 1) jitters a wait."""
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
            slow = passed if counts.slow else 0  # a run answers all of its rows, and was slow for each
            back = self._back
            self._back = Probes(back.passed + passed, back.failed + counts.failures, back.slow + slow)
        return moves

    def release(self, generation: int, n: int) -> None:
        """Gives back calls that were never made."""
        if generation != self.generation:
            return
        if self._governing() is None:
            self.breaker.release(self.breaker.generation, n)
        else:
            self._used = max(0, self._used - n)

    def request_probes(self, now: float, now_ms: int) -> None:
        """Retries wait for this model. Where the fleet lends the probes and none is left, ask for some."""
        self._waiting_seen = now
        row = self._governing()
        if row is None or BreakerState(row.state) is BreakerState.DISABLED:
            return
        if not self._left(row, now_ms):
            self._wants(self.policy.probes, now)

    def may_retry(self, now: float, now_ms: int) -> bool:
        """May waiting retries be attempted now?"""
        row = self._governing()
        if row is None:
            return self._own_retry(now)
        if BreakerState(row.state) is BreakerState.DISABLED:
            return True
        return bool(self._left(row, now_ms)) and not (row.reopenings % 2 and now - self._since < FIRST)

    def tick(self, now: float) -> list[Move]:
        """What time alone has moved in the worker's own breaker."""
        moves: list[Move] = []
        if self._governing() is None:
            self._record_moves(self.breaker.tick(now), now, moves)
        return moves

    def _record_moves(self, transitions: list[Transition], now: float, moves: list[Move]) -> None:
        for t in transitions:
            self._since = now
            moves.append(Move(t.from_, t.to, self._base + t.generation, t.reason, by_fleet=False))

    def _own_retry(self, now: float) -> bool:
        own = self.breaker
        if own.state in (BreakerState.CLOSED, BreakerState.DISABLED):
            return True
        if own.state is not BreakerState.HALF_OPEN or (own.reopenings % 2 and now - own.since < FIRST):
            return False
        seen = own.snapshot(now)
        return seen.outstanding + seen.passed < seen.policy.probes

    def _wants(self, n: int, now: float) -> None:
        self._want = max(n, self._wish(now))
        self._wanted = now

    def _wish(self, now: float) -> int:
        """How many probes there is something for, as far as is known."""
        return self._want if now - self._wanted < WAITING_SEEN else 0

    def _left(self, row: BreakerRow, now_ms: int) -> int:
        """Probes that were lent and not used; none under a lease that an earlier life of this worker asked for."""
        if self._asked_under != row.generation - 1:
            return 0
        granted = view(row, self.worker, now_ms).probes_granted
        return max(0, (granted or 0) - self._used)

    def _ladder_first(self, row: BreakerRow, now: float) -> bool:
        seen = self._waiting_seen
        waiting = seen is not None and now - seen < WAITING_SEEN
        return waiting and not row.reopenings % 2 and now - self._since < FIRST

    # --- what the fleet is told -----------------------------------------------------------------------------------

    def reports(self, sequence: int, now: float, now_ms: int) -> Iterator[Report]:
        """What to tell now; each is counted as sent. ``sequence`` grows with every call, and over restarts."""
        base = Report(
            self.key, self.worker, sequence, now_ms, self.row.generation if self.row else 0, ReportKind.WINDOW
        )
        if self.row is None or BreakerState(self.row.state) in (BreakerState.CLOSED, BreakerState.DISABLED):
            yield from self._of_window(base, now)
            return
        lease, back = self.row.lease, self._back
        mine = lease is not None and lease.worker == self.worker and (back.passed or back.failed)
        if mine and self._due(ReportKind.PROBED, back, now):
            yield replace(base, kind=ReportKind.PROBED, probes=back)
        want = min(self._wish(now), self.policy.probes)
        if want and view(self.row, self.worker, now_ms).may_ask and self._due(ReportKind.ASK, None, now):
            if self._asked_since is None:
                self._asked_since = now
            self._asks += 1
            self._asked_under = self.row.generation
            yield replace(base, kind=ReportKind.ASK, want=want)
            self._want = 0
            self._go_alone(now)

    def _of_window(self, base: Report, now: float) -> Iterator[Report]:
        c = self._window.totals(now)
        state = (Tally(c.calls, c.failures, c.slow, c.runs), self.tripped)
        at, told = self._sent.get(ReportKind.WINDOW, (-math.inf, (Tally(), False)))
        if state != told:
            every = 0.0 if self.tripped else EVERY
        elif self.tripped:
            every = EVERY
        elif c.calls:
            every = AGAIN_BY * self.policy.window
        else:
            return
        if now - at >= every:
            self._sent[ReportKind.WINDOW] = (now, state)
            yield replace(base, counts=state[0], tripped=self.tripped)

    def _due(self, kind: ReportKind, what: object, now: float) -> bool:
        """Is it new, or was it said long enough ago to be said again?"""
        before = self._sent.get(kind)
        if before is not None and before[1] == what and now - before[0] < EVERY:
            return False
        self._sent[kind] = (now, what)
        return True

    def _go_alone(self, now: float) -> None:
        if self._autonomous or self._asks < ASKS or self._asked_since is None or now - self._asked_since < ALONE_AFTER:
            return
        self._base = self.generation + 1
        self._autonomous = True
        waited = replace(Breaker(self.policy, now).snapshot(now), state=BreakerState.OPEN, open_left=0.0)
        self.breaker = Breaker.restore(waited, now)
        self._since = now
