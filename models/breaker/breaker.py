"""The circuit breaker of one model version: a state machine whose transitions are one table.

Counting (``window``), deciding (``judge``, ``wait``) and transitions (``TRANSITIONS``) are separate. The fleet breaker
uses the same rules and table on counts summed over workers. The time and the random draw are parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

from failsoft.models.breaker.rules import TRANSITIONS, BreakerEvent, BreakerPolicy, BreakerState, judge, wait
from failsoft.models.breaker.window import Window
from failsoft.schemas.fleet.counts import Counts


@dataclass(frozen=True, slots=True)
class Admission:
    """The breaker's reply to a request for calls.

    Attributes:
        granted: how many of the requested calls may be made.
        generation: the generation to report the calls under.
        probe: the calls are probes, so they may well fail.
        anywhere: retries used as probes are taken from any position on their rungs, not from the heads.
    """

    granted: int
    generation: int
    probe: bool = False
    anywhere: bool = False


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state.

    Attributes:
        from_: the state before.
        to: the state after.
        generation: the generation that the transition began.
        at: when it happened, in seconds on the breaker's clock.
        reason: why, as text for people.
    """

    from_: BreakerState
    to: BreakerState
    generation: int
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A breaker's state at one moment. Remaining times are relative, so that another clock can restore them.

    Attributes:
        state: the current state.
        generation: the number of transitions so far.
        reopenings: half-open periods that failed since the breaker was last closed.
        reason: why the last transition happened.
        counts: the totals of the window.
        open_left: seconds until the first probe (open only).
        outstanding: probes granted but not yet reported (half-open only).
        passed: probes that succeeded, including slow ones (half-open only).
        slow: those of ``passed`` that were slow (half-open only).
        lease_left: seconds until the outstanding probes count as lost (half-open only).
        policy: the breaker's policy.
    """

    state: BreakerState
    generation: int
    reopenings: int
    reason: str | None
    counts: Counts
    open_left: float | None
    outstanding: int
    passed: int
    slow: int
    lease_left: float | None
    policy: BreakerPolicy


class Breaker:
    """One model version's breaker, used by one event loop. ``now`` is monotonic seconds, always of one clock.

    The caller asks (``admit``), calls the model, then reports (``report``). Counts of an older generation are dropped,
    so a late result cannot move a breaker that has changed state since.

    The state is closed, open or half-open. Operators' commands set the state of the breaker row instead (``fleet``),
    and the local breaker follows that row (``local``).
    """

    def __init__(self, policy: BreakerPolicy, now: float) -> None:
        self.policy = policy
        self.state = BreakerState.CLOSED
        self.generation = 0
        self.reopenings = 0  # half-open periods that failed since it was last closed
        self.since = now
        self.until: float | None = None  # open: when the first probe may be made
        self.reason: str | None = None  # of the last transition
        self._window = Window(policy.window)
        self._outstanding = 0
        self._passed = 0
        self._slow = 0
        self._lease_until: float | None = None
        self._unreported: list[Transition] = []  # not yet returned: admit() makes transitions but cannot return them

    def admit(self, n: int, now: float) -> Admission:
        """Requests ``n`` calls. Closed grants all, open grants none, half-open grants the probes not yet granted.

        Each granted call must end in ``report`` or ``release``. If an open breaker's wait has ended, this call makes
        it half-open; the next ``tick`` or ``report`` returns that transition.
        """
        self._advance(now)
        if self.state is BreakerState.CLOSED:
            return Admission(n, self.generation)
        if self.state is not BreakerState.HALF_OPEN:
            return Admission(0, self.generation)
        granted = max(0, min(n, self.policy.probes - self._outstanding - self._passed))
        if granted and not self._outstanding:
            # The lease starts with the oldest outstanding probe. If each grant extended it, a lost probe would never
            # expire.
            self._lease_until = now + self.policy.probe_lease
        self._outstanding += granted
        return Admission(granted, self.generation, probe=True)

    def report(self, generation: int, counts: Counts, now: float, u: float) -> list[Transition]:
        """Reports the results of calls admitted under ``generation`` and returns the transitions since the last call.

        ``u`` in [0, 1) jitters the wait if the breaker opens. While half-open, one failed probe reopens the breaker.
        Slow probes reopen it only when they reach ``slow_rate`` of the probes: a cold model's first call may be slow.
        """
        self._advance(now)
        if generation == self.generation and counts.calls:
            if self.state is BreakerState.CLOSED:
                self._window.add(counts, now)
                why = judge(self.policy, self._window.totals(now))
                if why is not None:
                    self._move(BreakerEvent.TRIPPED, now, why, u)
            elif self.state is BreakerState.HALF_OPEN:
                self._count_probes(counts, now, u)
        return self._unreported_transitions()

    def release(self, generation: int, n: int) -> None:
        """Returns ``n`` probes of ``generation`` that were never made, so that another caller can use them."""
        if generation == self.generation and self.state is BreakerState.HALF_OPEN:
            self._settle(n)

    def tick(self, now: float) -> list[Transition]:
        """Makes and returns the transitions that depend on time alone.

        They are open to half-open, and half-open to a new half-open period when a lease has expired.
        """
        self._advance(now)
        return self._unreported_transitions()

    def snapshot(self, now: float) -> Snapshot:
        """The state at ``now``. Changes nothing: an open breaker stays open until ``admit``, ``report`` or ``tick``."""
        return Snapshot(
            state=self.state,
            generation=self.generation,
            reopenings=self.reopenings,
            reason=self.reason,
            counts=self._window.totals(now),
            open_left=None if self.until is None else max(0.0, self.until - now),
            outstanding=self._outstanding,
            passed=self._passed,
            slow=self._slow,
            lease_left=None if self._lease_until is None else max(0.0, self._lease_until - now),
            policy=self.policy,
        )

    @classmethod
    def restore(cls, snapshot: Snapshot, now: float) -> Breaker:
        """A breaker with the state in ``snapshot``, on a possibly different clock. Its counts age from ``now`` on."""
        breaker = cls(snapshot.policy, now)
        breaker.state = snapshot.state
        breaker.generation = snapshot.generation
        breaker.reopenings = snapshot.reopenings
        breaker.reason = snapshot.reason
        breaker._window.add(snapshot.counts, now)
        breaker.until = None if snapshot.open_left is None else now + snapshot.open_left
        breaker._outstanding = snapshot.outstanding
        breaker._passed = snapshot.passed
        breaker._slow = snapshot.slow
        breaker._lease_until = None if snapshot.lease_left is None else now + snapshot.lease_left
        return breaker

    def _advance(self, now: float) -> None:
        if self.state is BreakerState.OPEN and self.until is not None and now >= self.until:
            self._move(BreakerEvent.WAITED, now, f"open for {now - self.since:.3g} s")
        elif self.state is BreakerState.HALF_OPEN and self._lease_until is not None and now >= self._lease_until:
            self._move(
                BreakerEvent.PROBES_LOST, now, f"no result of {self._outstanding} probes in {now - self.since:.3g} s"
            )

    def _count_probes(self, counts: Counts, now: float, u: float) -> None:
        settled = self._settle(counts.calls)
        self._slow += min(counts.slow_passes, settled)
        if counts.failures:
            self._move(BreakerEvent.PROBE_FAILED, now, f"{counts.failures} of {counts.calls} probes failed", u)
        elif self._slow / self.policy.probes >= self.policy.slow_rate:
            self._move(BreakerEvent.PROBE_FAILED, now, f"{self._slow} of {self.policy.probes} probes were slow", u)
        else:
            self._passed += settled
            if self._passed >= self.policy.probes:
                self._move(BreakerEvent.PROBES_PASSED, now, f"{self._passed} probes passed")

    def _settle(self, n: int) -> int:
        """Removes up to ``n`` probes from the outstanding ones; returns how many were removed."""
        settled = min(n, self._outstanding)
        self._outstanding -= settled
        if not self._outstanding:
            self._lease_until = None
        return settled

    def _move(self, event: BreakerEvent, now: float, reason: str, u: float = 0.5) -> None:
        to = TRANSITIONS[self.state].get(event)
        if to is None:
            return
        if event is BreakerEvent.PROBE_FAILED:
            self.reopenings += 1
        elif to is BreakerState.CLOSED:
            self.reopenings = 0
        self.generation += 1
        self._unreported.append(Transition(self.state, to, self.generation, now, reason))
        self.state, self.since, self.reason = to, now, reason
        self.until = now + wait(self.policy, self.reopenings, u) if to is BreakerState.OPEN else None
        self._window.reset()
        self._outstanding = self._passed = self._slow = 0
        self._lease_until = None

    def _unreported_transitions(self) -> list[Transition]:
        transitions, self._unreported = self._unreported, []
        return transitions
