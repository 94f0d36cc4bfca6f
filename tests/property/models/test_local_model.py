"""Local breakers and one breaker row: the fleet opens and closes although reports get lost and processes die."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from failsoft.models.breaker.fleet import fold
from failsoft.models.breaker.local import AUTONOMOUS_AFTER, REPORT_EVERY, LocalBreaker
from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.fleet.breaker import Action, BreakerRow, Command, Probes, Report, ReportKind
from failsoft.schemas.fleet.counts import Counts
from tests.property.models.test_fleet_model import KEY, POLICY, T0, WORKERS

NAMES = st.sampled_from(WORKERS)
HELD = (BreakerState.OPEN, BreakerState.HALF_OPEN)


@dataclass
class Run:
    """Calls in flight: the local breaker that admitted them, its generation then, and their number."""

    local: LocalBreaker
    generation: int
    calls: int


@dataclass
class Worker:
    """The current process of one worker name.

    Attributes:
        last_row_at: when this process last received a row of a new generation.
        probes_made: the probes that it made under leases, by the row's generation.
        last_generation: the last generation of its local breaker.
    """

    name: str
    local: LocalBreaker
    last_row_at: float
    sequence: int = 0
    skew: int = 0
    runs: list[Run] = field(default_factory=list)
    probes_made: Counter[int] = field(default_factory=Counter)
    last_generation: int = -1


class Fleet(RuleBasedStateMachine):
    """Real local breakers, and an owner whose only state is its row. ``now`` is the seconds of all clocks."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.row: BreakerRow | None = None
        self.history: list[BreakerRow] = []
        self.workers = {name: Worker(name, self.new_breaker(name), self.now) for name in WORKERS}
        self.in_flight: list[bytes] = []
        self.folded: list[bytes] = []
        self.probes: Counter[int] = Counter()  # made under leases by all workers, by the row's generation

    # --- environment --------------------------------------------------------------------------------------------

    def new_breaker(self, name: str) -> LocalBreaker:
        return LocalBreaker(KEY, name, POLICY, self.now)

    def ms(self, skew: int = 0) -> int:
        return T0 + round(self.now * 1000) + skew

    def take(self, raw: bytes, u: float = 0.5) -> None:
        """The owner folds a report."""
        row = fold(self.row, Report.parse(raw), POLICY, self.ms(), u).row
        self.folded.append(raw)
        self.write(row)

    def write(self, row: BreakerRow | None) -> None:
        if row is not None and row is not self.row:
            self.history.append(row)
        self.row = row

    def see(self, worker: Worker, row: BreakerRow | None) -> None:
        before = worker.local.row
        if row is not None and worker.local.absorb(row, self.now):
            assert before is None or row.generation > before.generation
            worker.last_row_at = self.now
            assert worker.local.state is BreakerState(row.state), "a worker follows a row of a new generation"

    def admit(self, worker: Worker, n: int, ladder: int) -> Run:
        local = worker.local
        admission = local.admit(n, ladder, self.now, self.ms(worker.skew))
        row = local.row
        if (
            row is not None
            and BreakerState(row.state) in HELD
            and not local.tripped
            and local.state is not BreakerState.CLOSED
        ):
            assert admission.probe or not admission.granted
            assert local.state is BreakerState.HALF_OPEN or not admission.granted, "no probes while the row is open"
            self.probes[row.generation] += admission.granted
            worker.probes_made[row.generation] += admission.granted
        elif local.state is BreakerState.FORCED_OPEN:
            assert admission.granted == 0
        elif local.state is BreakerState.DISABLED:
            assert admission.granted == n
        return Run(local, admission.generation, admission.granted)

    def end(self, run: Run, failures: int, u: float = 0.5) -> None:
        if run.calls:
            run.local.report(run.generation, Counts(run.calls, min(failures, run.calls), 0, 1), self.now, u)

    def send_reports(self, worker: Worker) -> list[bytes]:
        worker.local.tick(self.now)
        reports = list(worker.local.reports(worker.sequence + 1, self.now, self.ms(worker.skew)))
        worker.sequence += len(reports)
        for report in reports:
            self.check(worker, report)
        return [r.to_bytes() for r in reports]

    def check(self, worker: Worker, report: Report) -> None:
        row = worker.local.row
        assert report.generation == (row.generation if row else 0)
        if report.kind is ReportKind.ASK:
            assert 1 <= report.want <= POLICY.probes
        elif report.kind is ReportKind.PROBED:
            assert report.probes != Probes()
            assert report.probes.passed + report.probes.failed <= worker.probes_made[report.generation]

    # --- rules -----------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 9.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=NAMES, skew=st.sampled_from([-400, -50, 0, 50, 400]))
    def a_clock_is_a_little_wrong(self, name: str, skew: int) -> None:
        self.workers[name].skew = skew

    @rule(names=st.sets(NAMES, min_size=1))
    def the_row_arrives(self, names: set[str]) -> None:
        for name in names:
            self.see(self.workers[name], self.row)

    @precondition(lambda self: self.history)
    @rule(name=NAMES, at=st.integers(0, 1_000))
    def the_table_is_read_again(self, name: str, at: int) -> None:
        """A worker that becomes the owner replays the table; an old row changes nothing if it has a newer one."""
        local, old = self.workers[name].local, self.history[at % len(self.history)]
        if local.row is None or old.generation > local.row.generation:
            return
        before = local.state, local.generation, local.row.generation
        self.see(self.workers[name], old)
        assert (local.state, local.generation, local.row.generation) == before

    @rule(name=NAMES, n=st.sampled_from([1, 2, 5, 40]), ladder=st.booleans(), failures=st.sampled_from([0, 1, 99]))
    def calls_are_made(self, name: str, n: int, ladder: bool, failures: int) -> None:
        worker = self.workers[name]
        self.end(self.admit(worker, n, n * ladder), failures)

    @rule(name=NAMES, n=st.sampled_from([1, 2, 5]), ladder=st.booleans())
    def calls_go_out(self, name: str, n: int, ladder: bool) -> None:
        worker = self.workers[name]
        worker.runs.append(self.admit(worker, n, n * ladder))

    @rule(name=NAMES, failures=st.sampled_from([0, 1, 99]), u=st.sampled_from([0.0, 0.5, 0.99]))
    def calls_come_back(self, name: str, failures: int, u: float) -> None:
        if self.workers[name].runs:
            self.end(self.workers[name].runs.pop(0), failures, u)

    @rule(name=NAMES, waiting=st.booleans())
    def a_lane_looks(self, name: str, waiting: bool) -> None:
        worker = self.workers[name]
        worker.local.tick(self.now)
        if waiting:
            worker.local.request_probes(self.now, self.ms(worker.skew))

    @rule(names=st.sets(NAMES, min_size=1))
    def workers_send_reports(self, names: set[str]) -> None:
        for name in sorted(names):
            self.in_flight += self.send_reports(self.workers[name])

    @precondition(lambda self: self.in_flight)
    @rule(at=st.integers(0, 1_000), stays=st.booleans(), u=st.sampled_from([0.0, 0.5, 0.99]))
    def a_report_arrives(self, at: int, stays: bool, u: float) -> None:
        """Any report in flight arrives, and it may arrive again later."""
        at %= len(self.in_flight)
        self.take(self.in_flight[at] if stays else self.in_flight.pop(at), u)

    @precondition(lambda self: self.in_flight)
    @rule()
    def all_reports_arrive(self) -> None:
        in_flight, self.in_flight = self.in_flight, []
        for raw in in_flight:
            self.take(raw)

    @precondition(lambda self: self.in_flight)
    @rule(at=st.integers(0, 1_000))
    def a_report_is_lost(self, at: int) -> None:
        self.in_flight.pop(at % len(self.in_flight))

    @rule(again=st.integers(0, 6))
    def the_owner_dies(self, again: int) -> None:
        """The next owner has the row, and reads the last few reports again."""
        if self.row is not None:
            self.row = BreakerRow.parse(self.row.to_bytes())
        for raw in self.folded[len(self.folded) - again :] if again <= len(self.folded) else []:
            self.take(raw)

    @rule(name=NAMES, reads=st.booleans())
    def a_worker_dies(self, name: str, reads: bool) -> None:
        """Its calls never return. The next process of its name reads the table before it scores, or later."""
        worker = self.workers[name]
        self.workers[name] = worker = Worker(name, self.new_breaker(name), self.now, worker.sequence + 1_000)
        if reads:
            self.see(worker, self.row)

    @rule(action=st.sampled_from(Action), rarely=st.integers(0, 3))
    def an_operator_orders(self, action: Action, rarely: int) -> None:
        if not rarely:
            order = Command(KEY, action, "ann", "a drill", self.ms())
            self.write(fold(self.row, order, POLICY, self.ms(), 0.5).row)

    @precondition(lambda self: self.row is not None and BreakerState(self.row.state) in HELD)
    @rule(
        name=NAMES,
        ladder=st.booleans(),
        uses=st.integers(0, 3),
        failures=st.sampled_from([0, 0, 1]),
        late=st.booleans(),
    )
    def a_worker_gets_a_lease(self, name: str, ladder: bool, uses: int, failures: int, late: bool) -> None:
        """A request for probes at the right time that arrives, so that sequences reach many probes."""
        assert self.row is not None
        worker = self.workers[name]
        ends = self.row.lease.expires_ms if self.row.lease else self.row.until_ms or 0
        self.now, worker.skew = max(self.now, (ends - T0) / 1000), 0
        self.see(worker, self.row)
        if ladder:
            worker.local.request_probes(self.now, self.ms())
        else:
            worker.runs.append(self.admit(worker, 5, 0))
        for raw in self.send_reports(worker):
            self.take(raw)
        self.see(worker, self.row)
        while worker.runs and late:
            self.end(worker.runs.pop(), failures)
        self.end(self.admit(worker, uses, uses), failures)
        self.in_flight += self.send_reports(worker)

    @precondition(lambda self: self.row is not None and BreakerState(self.row.state) in HELD)
    @rule(name=NAMES)
    def the_owner_does_not_answer(self, name: str) -> None:
        """Whatever the row's state, a worker with records to probe with becomes autonomous in the end."""
        worker, waited = self.workers[name], 0.0
        worker.skew = 0
        self.see(worker, self.row)
        while not worker.local.tripped and worker.local.state is not BreakerState.CLOSED:
            assert waited <= 16 + POLICY.probe_lease + AUTONOMOUS_AFTER + 1, "the worker does not become autonomous"
            self.now, waited = self.now + 0.5, waited + 0.5
            worker.local.request_probes(self.now, self.ms())
            self.send_reports(worker)

    @precondition(lambda self: self.row is None or self.row.state == "closed")
    @rule(lost=st.integers(0, 6), pause=st.sampled_from([0.01, REPORT_EVERY, 0.5]))
    def the_model_fails_everywhere(self, lost: int, pause: float) -> None:
        """From any closed state the fleet breaker opens, even if the first reports are lost."""
        for worker in self.workers.values():
            worker.skew = 0
            self.see(worker, self.row)
            self.close_own_breaker(worker)
        for worker in self.workers.values():
            self.see(worker, self.row)
            self.end(self.admit(worker, 5_000, 0), 5_000)
            assert worker.local.tripped
        rounds = 0
        while self.row is None or self.row.state == "closed":
            reports = [raw for worker in self.workers.values() for raw in self.send_reports(worker)]
            for raw in reports[max(0, lost) :]:
                self.take(raw)
            lost -= len(reports)
            self.now += pause
            rounds += 1
            assert rounds * pause < 2.0 and rounds < 200, "the fleet breaker does not open"
        assert self.row.state == "open"

    def close_own_breaker(self, worker: Worker) -> None:
        """Closes the worker's own breaker, so that it makes calls that can fail."""
        for _ in range(200):
            if not worker.local.tripped:
                return
            self.now += 0.5
            worker.local.tick(self.now)
            self.end(self.admit(worker, 3, 0), 0)
        raise AssertionError("its own breaker does not close")

    # --- invariants -------------------------------------------------------------------------------------------------

    @invariant()
    def never_more_probes_than_allowed(self) -> None:
        """In each generation all workers together make at most the allowed probes, except autonomous workers."""
        assert all(n <= POLICY.probes for n in self.probes.values()), self.probes

    @invariant()
    def no_worker_is_autonomous_too_soon(self) -> None:
        for worker in self.workers.values():
            row = worker.local.row
            if (
                row is not None
                and BreakerState(row.state) in HELD
                and worker.local.state is not BreakerState(row.state)
            ):
                assert self.now - worker.last_row_at >= AUTONOMOUS_AFTER

    @invariant()
    def generations_of_a_worker_never_decrease(self) -> None:
        for worker in self.workers.values():
            assert worker.local.generation >= worker.last_generation
            worker.last_generation = worker.local.generation

    @invariant()
    def operator_states_are_followed(self) -> None:
        for worker in self.workers.values():
            row = worker.local.row
            if row is not None and row.state in ("forced_open", "disabled"):
                assert worker.local.state is BreakerState(row.state) and not worker.local.tripped

    def teardown(self) -> None:
        """With traffic, a healthy model and two of three reports delivered, the breaker closes."""
        traffic = len(self.folded) % 4  # live events, waiting retries, both, or one worker with both
        busy = [*self.workers.values()][: 1 if traffic == 3 else 3]
        started, reports = self.now, 0
        for worker in self.workers.values():
            worker.skew, worker.runs = 0, []
        while self.row is not None and BreakerState(self.row.state) in HELD:
            if self.row.state == "open" and self.row.until_ms is not None:
                self.now = max(self.now, (self.row.until_ms - T0) / 1000 - 1)
            self.now += REPORT_EVERY
            assert self.now - started < 120, f"{self.row} does not close"
            for worker in busy:
                self.see(worker, self.row)
                self.score(worker, live=traffic != 1, retries=traffic != 0)
                for raw in self.send_reports(worker):
                    reports += 1
                    if reports % 3:
                        self.take(raw)
            self.never_more_probes_than_allowed()
        for worker in self.workers.values():
            self.see(worker, self.row)
            if self.row is not None and self.row.state == "closed":
                self.close_own_breaker(worker)
                assert worker.local.state is BreakerState.CLOSED

    def score(self, worker: Worker, live: bool, retries: bool) -> None:
        worker.local.tick(self.now)
        if retries:
            worker.local.request_probes(self.now, self.ms())
        reads = retries and worker.local.may_retry(self.now, self.ms())
        if live or reads:
            self.end(self.admit(worker, live + 2 * reads, 2 * reads), 0)


TestLocalBreakers = Fleet.TestCase
TestLocalBreakers.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
