"""The breaker compared with a short reference model, and invariants for any sequence of calls."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from failsoft.models.breaker.breaker import Breaker, Transition
from failsoft.models.breaker.rules import BreakerPolicy, BreakerState
from failsoft.schemas.fleet.counts import Counts

POLICY = BreakerPolicy(
    failure_rate=0.5,
    window=8.0,
    minimum_calls=4,
    slow_call=0.1,
    slow_rate=0.75,
    open_for=2.0,
    max_open=16.0,
    probes=3,
    probe_lease=5.0,
)
WINDOW_BUCKETS = 30


class Model:
    """A simple implementation of the same rules, with a list of all counts, and without table and window."""

    def __init__(self) -> None:
        self.failed_periods = -1
        self.to("closed", 0.0, first=True)

    def to(self, state: str, now: float, u: float = 0.0, first: bool = False) -> None:
        self.generation = 0 if first else self.generation + 1
        self.failed_periods = self.failed_periods + (state == "open") if state in ("open", "half_open") else -1
        wait = min(2.0 * 2**self.failed_periods, 16.0) * (0.8 + 0.4 * u)
        self.until = now + (wait if wait <= 16.0 else 32.0 - wait) if state == "open" else None
        self.state, self.counts, self.out, self.passed, self.slow, self.lease = state, [], 0, 0, 0, None

    def time(self, now: float) -> None:
        if (self.state == "open" and now >= self.until) or (self.lease is not None and now >= self.lease):
            self.to("half_open", now)

    def admit(self, n: int, now: float) -> int:
        self.time(now)
        if self.state == "closed":
            return n
        granted = min(n, 3 - self.out - self.passed) if self.state == "half_open" else 0
        self.lease = now + 5.0 if granted and not self.out else self.lease
        self.out += granted
        return granted

    def settle(self, n: int) -> int:
        n = min(n, self.out)
        self.out, self.lease = self.out - n, self.lease if self.out > n else None
        return n

    def report(self, generation: int, c: Counts, now: float, u: float) -> None:
        self.time(now)
        if generation != self.generation or not c.calls:
            return
        if self.state == "closed":
            bucket = int(now * WINDOW_BUCKETS / 8.0)
            self.counts.append((bucket, c))
            calls, failures, slow = (
                sum(getattr(x, f) for b, x in self.counts if b > bucket - WINDOW_BUCKETS)
                for f in ("calls", "failures", "slow")
            )
            if calls >= 4 and (failures / calls >= 0.5 or slow / calls >= 0.75):
                self.to("open", now, u)
        elif self.state == "half_open":
            n = self.settle(c.calls)
            self.passed, self.slow = self.passed + n, self.slow + min(n, c.slow)
            if c.failures or self.slow / 3 >= 0.75:
                self.to("open", now, u)
            elif self.passed >= 3:
                self.to("closed", now)


class Conversation(RuleBasedStateMachine):
    """Admissions, results (prompt, late, lost, released) and time, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(POLICY, self.now)
        self.model = Model()
        self.calls: list[tuple[int, int]] = []  # (generation, granted) still to be reported, released or lost
        self.last: Transition | None = None
        self.transition_count = 0

    def check(self, moved: list[Transition]) -> None:
        for t in moved:
            self.transition_count += 1
            assert t.generation == self.transition_count, (
                "each transition is returned once, in order, one generation each"
            )
            if self.last is not None:
                assert t.from_ is self.last.to
            self.last = t
        if moved and self.breaker.state is BreakerState.OPEN and moved[-1].to is BreakerState.OPEN:
            assert self.breaker.until is not None
            waits = self.breaker.until - moved[-1].at
            assert POLICY.open_for * 0.8 - 1e-9 <= waits <= POLICY.max_open + 1e-9

    @rule(eighths=st.integers(0, 200))
    def time_passes(self, eighths: int) -> None:
        """Time passes in eighths of a second: their sums are exact, so that breaker and model agree at bucket edges."""
        self.now += eighths / 8

    @rule()
    def tick(self) -> None:
        self.check(self.breaker.tick(self.now))
        self.model.time(self.now)

    @rule(n=st.integers(0, 6))
    def admit(self, n: int) -> None:
        admission = self.breaker.admit(n, self.now)
        assert admission.granted == self.model.admit(n, self.now)
        assert admission.generation == self.model.generation
        if admission.granted:
            self.calls.append((admission.generation, admission.granted))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), u=st.floats(0, 1, exclude_max=True))
    def report(self, data: st.DataObject, u: float) -> None:
        generation, granted = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        failures = data.draw(st.sampled_from([0, 0, granted, granted // 2]))
        slow = data.draw(st.sampled_from([0, 0, granted, granted // 2]))
        before = self.breaker.snapshot(self.now) if generation != self.breaker.generation else None
        moved = self.breaker.report(generation, Counts(granted, failures, slow), self.now, u)
        self.check(moved)
        self.model.report(generation, Counts(granted, failures, slow), self.now, u)
        if before is not None and before.generation == self.breaker.generation:
            assert self.breaker.snapshot(self.now) == before, "a late report changes nothing"

    @precondition(lambda self: self.model.state == "closed")
    @rule(u=st.floats(0, 1, exclude_max=True))
    def trip(self, u: float) -> None:
        """A whole batch fails. Together with ``wait_it_out`` and ``probe`` this reaches many reopenings."""
        generation = self.breaker.admit(4, self.now).generation
        self.model.admit(4, self.now)
        self.check(self.breaker.report(generation, Counts(4, 4, 0), self.now, u))
        self.model.report(generation, Counts(4, 4, 0), self.now, u)

    @precondition(lambda self: self.model.state == "open")
    @rule()
    def wait_it_out(self) -> None:
        """Time moves to the first eighth of a second after the wait; at its very end the two round differently."""
        self.now = max(self.now, math.floor(self.model.until * 8 + 1) / 8)
        self.tick()

    @precondition(lambda self: self.model.state in ("open", "half_open"))
    @rule(n=st.integers(1, 3), well=st.booleans(), u=st.floats(0, 1, exclude_max=True))
    def probe(self, n: int, well: bool, u: float) -> None:
        """Probes are granted and reported at once."""
        granted = self.model.admit(n, self.now)
        admission = self.breaker.admit(n, self.now)
        assert (admission.granted, admission.generation) == (granted, self.model.generation)
        counts = Counts(granted, 0 if well else granted, 0)
        self.check(self.breaker.report(admission.generation, counts, self.now, u))
        self.model.report(admission.generation, counts, self.now, u)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        generation, granted = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        self.breaker.release(generation, granted)
        if generation == self.model.generation:
            self.model.settle(granted)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))

    @rule(jump=st.sampled_from([0.0, 1e6]))
    def move_to_another_clock(self, jump: float) -> None:
        """A restored breaker has the same snapshot, except for the last digits of the remaining times."""
        before = self.breaker.snapshot(self.now)
        after = Breaker.restore(before, self.now + jump).snapshot(self.now + jump)
        assert replace(after, open_left=None, lease_left=None) == replace(before, open_left=None, lease_left=None)
        for name in ("open_left", "lease_left"):
            then, now = getattr(before, name), getattr(after, name)
            assert (then is None and now is None) or abs(then - now) < 1e-6

    @invariant()
    def it_agrees_with_the_model(self) -> None:
        assert self.breaker.state == self.model.state
        assert self.breaker.generation == self.model.generation
        assert self.breaker.reopenings == max(0, self.model.failed_periods)

    @invariant()
    def never_more_probes_than_allowed(self) -> None:
        snapshot = self.breaker.snapshot(self.now)
        if snapshot.state is BreakerState.HALF_OPEN:
            assert snapshot.outstanding + snapshot.passed <= POLICY.probes
            assert sum(n for g, n in self.calls if g == snapshot.generation) <= POLICY.probes

    def teardown(self) -> None:
        """From any state, successes and time alone close the breaker, within one wait and one lease."""
        now = self.now
        for wait in (0.0, POLICY.max_open, POLICY.probe_lease):
            now += wait
            admission = self.breaker.admit(POLICY.probes, now)
            self.check(self.breaker.report(admission.generation, Counts(admission.granted), now, 0.5))
            while self.breaker.state is BreakerState.HALF_OPEN and admission.granted:  # some probes were used earlier
                admission = self.breaker.admit(POLICY.probes, now)
                self.check(self.breaker.report(admission.generation, Counts(admission.granted), now, 0.5))
        assert self.breaker.state is BreakerState.CLOSED


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
