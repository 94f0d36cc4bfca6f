"""The circuit breaker of one model version: a state machine whose transitions are one table.

Counting (``window``), deciding (``judge``, ``wait``) and moving (``TRANSITIONS``) are apart, so that whoever decides
for a fleet can use the same table on summed counts. There is no clock and no random number here: both are passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

from failsoft.models.breaker.rules import TRANSITIONS, BreakerEvent, BreakerPolicy, BreakerState, judge, wait
from failsoft.models.breaker.window import Counts, Window


@dataclass(frozen=True, slots=True)
class Admission:
    """How many of the calls asked for may be made, the generation to report them under, and whether they are probes:
    calls of which it is not expected that they succeed. ``anywhere``: waiting retries are to be drawn for it from
    wherever they stand, and not in their order.
    """

    granted: int
    generation: int
    probe: bool = False
    anywhere: bool = False


@dataclass(frozen=True, slots=True)
class Transition:
    """A move that happened, at ``at`` on the breaker's clock; it began ``generation``. ``reason`` is for people."""

    from_: BreakerState
    to: BreakerState
    generation: int
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A breaker at one moment. Times left are seconds from then on, so that they mean the same to another clock."""

    state: BreakerState
    generation: int
    reopenings: int
    reason: str | None
    counts: Counts
    open_left: float | None  # open: until it may probe
    outstanding: int  # half-open: probes lent and not yet heard of
    passed: int  # half-open: probes that came back well
    slow: int  # half-open: those of them that were slow
    lease_left: float | None  # half-open: until the outstanding probes are given up
    policy: BreakerPolicy


class Breaker:
    """One model version's breaker, used by one event loop. ``now`` is monotonic seconds, always of one clock.

    Ask (``admit``), call, then report: counts that are reported under an older generation are dropped, so a late
    result can never move a breaker that has moved on.
    """

    def __init__(self, policy: BreakerPolicy, now: float) -> None:
        self.policy = policy
        self.state = BreakerState.CLOSED
        self.generation = 0
        self.reopenings = 0  # half-open cycles that failed since it was last closed
        self.since = now
        self.until: float | None = None  # open: when it may probe
        self.reason: str | None = None  # of the last transition
        self._window = Window(policy.window)
        self._outstanding = 0
        self._passed = 0
        self._slow = 0
        self._lease_until: float | None = None
        self._unseen: list[Transition] = []  # moves that admit() made, for the next call that can return them

    def admit(self, n: int, now: float) -> Admission:
        """Asks for ``n`` calls: all while closed or disabled, none while open, the probes not yet lent while half-open.

        Each call granted must end in ``report`` or ``release``. An open breaker whose time has come is half-open from
        here on; that transition is returned by the next ``tick`` or ``report``.
        """
        self._advance(now)
        if self.state in (BreakerState.CLOSED, BreakerState.DISABLED):
            return Admission(n, self.generation)
        if self.state is not BreakerState.HALF_OPEN:
            return Admission(0, self.generation)
        granted = max(0, min(n, self.policy.probes - self._outstanding - self._passed))
        if granted and not self._outstanding:
            # The lease runs from the oldest probe out: extending it at each loan would let one lost probe hide.
            self._lease_until = now + self.policy.probe_lease
        self._outstanding += granted
        return Admission(granted, self.generation, probe=True)

    def report(self, generation: int, counts: Counts, now: float, u: float) -> list[Transition]:
        """What became of calls admitted under ``generation``; ``u`` in [0, 1) jitters the wait, should one start.

        While half-open, one failed probe reopens at once; slow ones do when they are ``slow_rate`` of the probes (one
        slow first call of a cold model must not).
        """
        self._advance(now)
        if generation == self.generation and counts.calls:
            if self.state in (BreakerState.CLOSED, BreakerState.DISABLED):
                self._window.add(counts, now)
            if self.state is BreakerState.CLOSED:
                why = judge(self.policy, self._window.totals(now))
                if why is not None:
                    self._move(BreakerEvent.TRIPPED, now, why, u)
            elif self.state is BreakerState.HALF_OPEN:
                self._probed(counts, now, u)
        return self._seen()

    def release(self, generation: int, n: int) -> None:
        """Gives back ``n`` probes of ``generation`` that were never made; another caller may have them."""
        if generation == self.generation and self.state is BreakerState.HALF_OPEN:
            self._settle(n)

    def tick(self, now: float) -> list[Transition]:
        """What time alone has moved: open to half-open, or half-open anew because probes were lost."""
        self._advance(now)
        return self._seen()

    def force_open(self, now: float, who: str, why: str) -> list[Transition]:
        """No call is admitted until another command."""
        return self._command(BreakerEvent.FORCE_OPEN, now, who, why)

    def disable(self, now: float, who: str, why: str) -> list[Transition]:
        """Every call is admitted and counted; it never opens until another command."""
        return self._command(BreakerEvent.DISABLE, now, who, why)

    def close(self, now: float, who: str, why: str) -> list[Transition]:
        """Calls are admitted and judged again, from an empty window; nothing happens to a closed one."""
        return self._command(BreakerEvent.CLOSE, now, who, why)

    def reset(self, now: float, who: str, why: str) -> list[Transition]:
        """As new: closed, with an empty window; a closed one forgets its counts too."""
        return self._command(BreakerEvent.RESET, now, who, why)

    def snapshot(self, now: float) -> Snapshot:
        """The breaker as it is at ``now``; it changes nothing (an open one stays open until it is asked or ticked)."""
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
        """The breaker that ``snapshot`` was taken of, on another clock; its counts age from ``now`` on."""
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
                BreakerEvent.PROBES_LOST, now, f"{self._outstanding} probes not heard of in {now - self.since:.3g} s"
            )

    def _probed(self, counts: Counts, now: float, u: float) -> None:
        settled = self._settle(counts.calls)
        self._slow += min(counts.slow * counts.calls // counts.runs, settled)  # a slow run's probes were all slow
        if counts.failures:
            self._move(BreakerEvent.PROBE_FAILED, now, f"{counts.failures} of {counts.calls} probes failed", u)
        elif self._slow / self.policy.probes >= self.policy.slow_rate:
            self._move(BreakerEvent.PROBE_FAILED, now, f"{self._slow} of {self.policy.probes} probes were slow", u)
        else:
            self._passed += settled
            if self._passed >= self.policy.probes:
                self._move(BreakerEvent.PROBES_PASSED, now, f"{self._passed} probes passed")

    def _settle(self, n: int) -> int:
        """Takes ``n`` probes off those outstanding; how many of them had really been lent."""
        settled = min(n, self._outstanding)
        self._outstanding -= settled
        if not self._outstanding:
            self._lease_until = None
        return settled

    def _command(self, event: BreakerEvent, now: float, who: str, why: str) -> list[Transition]:
        self._move(event, now, f"{who}: {why}")
        return self._seen()

    def _move(self, event: BreakerEvent, now: float, reason: str, u: float = 0.5) -> None:
        to = TRANSITIONS[self.state].get(event)
        if to is None:
            return
        if event is BreakerEvent.PROBE_FAILED:
            self.reopenings += 1
        elif to not in (BreakerState.OPEN, BreakerState.HALF_OPEN):
            self.reopenings = 0
        self.generation += 1
        self._unseen.append(Transition(self.state, to, self.generation, now, reason))
        self.state, self.since, self.reason = to, now, reason
        self.until = now + wait(self.policy, self.reopenings, u) if to is BreakerState.OPEN else None
        self._window.reset()
        self._outstanding = self._passed = self._slow = 0
        self._lease_until = None

    def _seen(self) -> list[Transition]:
        seen, self._unseen = self._unseen, []
        return seen
