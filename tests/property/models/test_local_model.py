"""Workers' breakers under one row: reports get lost, owners and workers die, and still the fleet opens and closes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from failsoft.models.breaker.fleet import fold
from failsoft.models.breaker.local import ALONE_AFTER, EVERY, LocalBreaker
from failsoft.models.breaker.rules import BreakerState
from failsoft.models.breaker.window import Counts
from failsoft.schemas.fleet.breaker import Action, BreakerRow, Command, Probes, Report, ReportKind
from tests.property.models.test_fleet_model import KEY, POLICY, T0, WORKERS

NAMES = st.sampled_from(WORKERS)
HELD = (BreakerState.OPEN, BreakerState.HALF_OPEN)


@dataclass
class Run:
    """Calls that are out: of which life, under which generation of its own, how many."""

    local: LocalBreaker
    generation: int
    calls: int


@dataclass
class Worker:
    """One process after another under one name. ``heard`` is when the present one last saw a new generation, ``made``
    the probes that it made under leases, by the row's generation.
    """

    name: str
    local: LocalBreaker
    heard: float
    sequence: int = 0
    skew: int = 0
    runs: list[Run] = field(default_factory=list)
    made: Counter[int] = field(default_factory=Counter)
    shown: int = -1  # the last generation that it told of itself


class Fleet(RuleBasedStateMachine):
    """Workers that are whole, around an owner that has nothing but its row; ``now`` is seconds of everybody's clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.row: BreakerRow | None = None
        self.history: list[BreakerRow] = []
        self.workers = {name: Worker(name, self.born(name), self.now) for name in WORKERS}
        self.flying: list[bytes] = []
        self.folded: list[bytes] = []
        self.probes: Counter[int] = Counter()  # made under leases, by the row's generation, over the fleet

    # --- what the world does -------------------------------------------------------------------------------------

    def born(self, name: str) -> LocalBreaker:
        return LocalBreaker(KEY, name, POLICY, self.now)

    def ms(self, skew: int = 0) -> int:
        return T0 + round(self.now * 1000) + skew

    def take(self, raw: bytes, u: float = 0.5) -> None:
        """What the owner does with a report."""
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
            worker.heard = self.now
            assert worker.local.state is BreakerState(row.state), "whatever it did alone, it is with the fleet again"

    def admit(self, worker: Worker, n: int, ladder: int) -> Run:
        local = worker.local
        given = local.admit(n, ladder, self.now, self.ms(worker.skew))
        row = local.row
        if (
            row is not None
            and BreakerState(row.state) in HELD
            and not local.tripped
            and local.state is not BreakerState.CLOSED
        ):
            assert given.probe or not given.granted
            assert local.state is BreakerState.HALF_OPEN or not given.granted, "an open row was left alone"
            self.probes[row.generation] += given.granted
            worker.made[row.generation] += given.granted
        elif local.state is BreakerState.FORCED_OPEN:
            assert given.granted == 0
        elif local.state is BreakerState.DISABLED:
            assert given.granted == n
        return Run(local, given.generation, given.granted)

    def end(self, run: Run, failures: int, u: float = 0.5) -> None:
        if run.calls:
            run.local.report(run.generation, Counts(run.calls, min(failures, run.calls), 0, 1), self.now, u)

    def tell(self, worker: Worker) -> list[bytes]:
        worker.local.tick(self.now)
        told = list(worker.local.reports(worker.sequence + 1, self.now, self.ms(worker.skew)))
        worker.sequence += len(told)
        for report in told:
            self.check(worker, report)
        return [r.to_bytes() for r in told]

    def check(self, worker: Worker, report: Report) -> None:
        row = worker.local.row
        assert report.generation == (row.generation if row else 0)
        if report.kind is ReportKind.ASK:
            assert 1 <= report.want <= POLICY.probes
        elif report.kind is ReportKind.PROBED:
            assert report.probes != Probes()
            assert report.probes.passed + report.probes.failed <= worker.made[report.generation]

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
        """As by a worker that becomes the owner: it sees an old row, for a moment, if it has seen a newer one."""
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
    def workers_tell(self, names: set[str]) -> None:
        for name in sorted(names):
            self.flying += self.tell(self.workers[name])

    @precondition(lambda self: self.flying)
    @rule(at=st.integers(0, 1_000), stays=st.booleans(), u=st.sampled_from([0.0, 0.5, 0.99]))
    def a_report_arrives(self, at: int, stays: bool, u: float) -> None:
        """Any of those under way, and it may come again."""
        at %= len(self.flying)
        self.take(self.flying[at] if stays else self.flying.pop(at), u)

    @precondition(lambda self: self.flying)
    @rule()
    def all_reports_arrive(self) -> None:
        flying, self.flying = self.flying, []
        for raw in flying:
            self.take(raw)

    @precondition(lambda self: self.flying)
    @rule(at=st.integers(0, 1_000))
    def a_report_is_lost(self, at: int) -> None:
        self.flying.pop(at % len(self.flying))

    @rule(again=st.integers(0, 6))
    def the_owner_dies(self, again: int) -> None:
        """The next one has the row, and reads the last few reports again."""
        if self.row is not None:
            self.row = BreakerRow.parse(self.row.to_bytes())
        for raw in self.folded[len(self.folded) - again :] if again <= len(self.folded) else []:
            self.take(raw)

    @rule(name=NAMES, reads=st.booleans())
    def a_worker_dies(self, name: str, reads: bool) -> None:
        """Its calls never come back; the next of its name scores before it has read the table, or after."""
        worker = self.workers[name]
        self.workers[name] = worker = Worker(name, self.born(name), self.now, worker.sequence + 1_000)
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
    def one_is_lent_probes(self, name: str, ladder: bool, uses: int, failures: int, late: bool) -> None:
        """An ask at the right time that comes through, so that walks get deep into probing."""
        assert self.row is not None
        worker = self.workers[name]
        ends = self.row.lease.expires_ms if self.row.lease else self.row.until_ms or 0
        self.now, worker.skew = max(self.now, (ends - T0) / 1000), 0
        self.see(worker, self.row)
        if ladder:
            worker.local.request_probes(self.now, self.ms())
        else:
            worker.runs.append(self.admit(worker, 5, 0))
        for raw in self.tell(worker):
            self.take(raw)
        self.see(worker, self.row)
        while worker.runs and late:
            self.end(worker.runs.pop(), failures)
        self.end(self.admit(worker, uses, uses), failures)
        self.flying += self.tell(worker)

    @precondition(lambda self: self.row is not None and BreakerState(self.row.state) in HELD)
    @rule(name=NAMES)
    def nobody_answers(self, name: str) -> None:
        """However it stands with the row, who has something to probe with does probe in the end."""
        worker, waited = self.workers[name], 0.0
        worker.skew = 0
        self.see(worker, self.row)
        while not worker.local.tripped and worker.local.state is not BreakerState.CLOSED:
            assert waited <= 16 + POLICY.probe_lease + ALONE_AFTER + 1, "it obeys for ever"
            self.now, waited = self.now + 0.5, waited + 0.5
            worker.local.request_probes(self.now, self.ms())
            self.tell(worker)

    @precondition(lambda self: self.row is None or self.row.state == "closed")
    @rule(lost=st.integers(0, 6), pause=st.sampled_from([0.01, EVERY, 0.5]))
    def the_model_fails_everywhere(self, lost: int, pause: float) -> None:
        """No lost opening: whatever was before, and whichever reports did not come through, those after them do."""
        for worker in self.workers.values():
            worker.skew = 0
            self.see(worker, self.row)
            self.mend(worker)
        for worker in self.workers.values():
            self.see(worker, self.row)
            self.end(self.admit(worker, 5_000, 0), 5_000)
            assert worker.local.tripped
        rounds = 0
        while self.row is None or self.row.state == "closed":
            reports = [raw for worker in self.workers.values() for raw in self.tell(worker)]
            for raw in reports[max(0, lost) :]:
                self.take(raw)
            lost -= len(reports)
            self.now += pause
            rounds += 1
            assert rounds * pause < 2.0 and rounds < 200, "it does not open"
        assert self.row.state == "open"

    def mend(self, worker: Worker) -> None:
        """Closes what it opened by itself, so that it has calls to fail."""
        for _ in range(200):
            if not worker.local.tripped:
                return
            self.now += 0.5
            worker.local.tick(self.now)
            self.end(self.admit(worker, 3, 0), 0)
        raise AssertionError("its own breaker does not close")

    # --- what must hold ---------------------------------------------------------------------------------------------

    @invariant()
    def never_more_probes_than_allowed(self) -> None:
        """Over the fleet, a generation; who has gone on alone does not count."""
        assert all(n <= POLICY.probes for n in self.probes.values()), self.probes

    @invariant()
    def nobody_goes_alone_too_soon(self) -> None:
        for worker in self.workers.values():
            row = worker.local.row
            if (
                row is not None
                and BreakerState(row.state) in HELD
                and worker.local.state is not BreakerState(row.state)
            ):
                assert self.now - worker.heard >= ALONE_AFTER

    @invariant()
    def no_number_of_a_worker_comes_twice(self) -> None:
        for worker in self.workers.values():
            assert worker.local.generation >= worker.shown
            worker.shown = worker.local.generation

    @invariant()
    def a_row_that_is_not_closed_is_obeyed_by_all_who_see_it(self) -> None:
        for worker in self.workers.values():
            row = worker.local.row
            if row is not None and row.state in ("forced_open", "disabled"):
                assert worker.local.state is BreakerState(row.state) and not worker.local.tripped

    def teardown(self) -> None:
        """No stuck half-open: with traffic, a model that is well, and two of three reports delivered, it closes."""
        traffic = len(self.folded) % 4  # live events, waiting retries, both, or one worker alone that has both
        busy = [*self.workers.values()][: 1 if traffic == 3 else 3]
        began, told = self.now, 0
        for worker in self.workers.values():
            worker.skew, worker.runs = 0, []
        while self.row is not None and BreakerState(self.row.state) in HELD:
            if self.row.state == "open" and self.row.until_ms is not None:
                self.now = max(self.now, (self.row.until_ms - T0) / 1000 - 1)
            self.now += EVERY
            assert self.now - began < 120, f"{self.row} does not close"
            for worker in busy:
                self.see(worker, self.row)
                self.score(worker, live=traffic != 1, retries=traffic != 0)
                for raw in self.tell(worker):
                    told += 1
                    if told % 3:
                        self.take(raw)
            self.never_more_probes_than_allowed()
        for worker in self.workers.values():
            self.see(worker, self.row)
            if self.row is not None and self.row.state == "closed":
                self.mend(worker)
                assert worker.local.state is BreakerState.CLOSED

    def score(self, worker: Worker, live: bool, retries: bool) -> None:
        worker.local.tick(self.now)
        if retries:
            worker.local.request_probes(self.now, self.ms())
        reads = retries and worker.local.may_retry(self.now, self.ms())
        if live or reads:
            self.end(self.admit(worker, live + 2 * reads, 2 * reads), 0)


TestHomes = Fleet.TestCase
TestHomes.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
