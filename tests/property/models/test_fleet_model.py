"""The fleet breaker compared with a reference model, under any behaviour of workers, owners and clocks."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from failsoft.models.breaker.fleet import LONE_FAILURE_MS, View, fold, view
from failsoft.models.breaker.rules import BreakerPolicy, BreakerState
from failsoft.schemas.fleet.breaker import Action, BreakerRow, Command, Probes, Report, ReportKind
from failsoft.schemas.fleet.counts import Counts

POLICY = BreakerPolicy(
    failure_rate=0.5,
    window=8.0,
    minimum_calls=8,
    slow_call=0.1,
    slow_rate=0.75,
    open_for=2.0,
    max_open=16.0,
    probes=3,
    probe_lease=5.0,
)
KEY, T0 = "m@1", 1_800_000_000_000
WORKERS = ("a", "b", "c")
WINDOWS = [(8, 8), (40, 40), (8, 4), (2, 2), (1, 1), (3, 1), (20, 0), (0, 0)]
COMMANDS = {
    Action.FORCE_OPEN: ("forced_open", {"closed", "open", "half_open", "disabled"}),
    Action.DISABLE: ("disabled", {"closed", "open", "half_open", "forced_open"}),
    Action.CLOSE: ("closed", {"open", "half_open", "forced_open", "disabled"}),
    Action.RESET: ("closed", {"closed", "open", "half_open", "forced_open", "disabled"}),
}


def over(since: int, length: int, now: int) -> bool:
    return not since - length <= now < since + length


class Model:
    """A simple implementation of the same rules, with dictionaries and lists, without table, rows and window."""

    def __init__(self) -> None:
        self.generation, self.failed_periods = -1, 0
        self.orders: list[Command] = []
        self.to("closed", 0)

    def to(self, state: str, now: int) -> None:
        self.state, self.generation, self.since = state, self.generation + 1, now
        self.failed_periods = self.failed_periods if state in ("open", "half_open") else 0
        self.windows: dict[str, dict[str, Any]] = {}
        self.lease: list[Any] | None = None  # worker, probes, since when, passed
        self.passed = self.length = 0

    def order(self, c: Command, now: int) -> None:
        to, where = COMMANDS[c.action]
        if c not in self.orders and self.state in where:
            self.to(to, now)
        self.orders = self.orders if c in self.orders else [*self.orders, c][-8:]

    def fold_report(self, r: Report, now: int) -> None:
        if r.generation != self.generation:
            return
        if r.kind == "window" and self.state in ("closed", "disabled"):
            self.window(r, now)
        elif r.kind == "ask" and r.want:
            lease, passed = self.lease, self.passed
            if (self.state == "open" and over(self.since, self.length, now)) or (
                self.state == "half_open" and (lease is None or over(lease[2], 5_000, now))
            ):
                passed += lease[3] if lease is not None else 0
                self.to("half_open", now)
                self.passed, self.lease = passed, [r.worker, min(r.want, 3 - passed), now, 0]
        elif r.kind == "probed" and self.lease is not None and self.lease[0] == r.worker:
            self.lease[3] = max(self.lease[3], min(r.probes.passed, self.lease[1]))
            if r.probes.failed:
                self.failed_periods += 1
                self.to("open", now)
            elif self.passed + self.lease[3] == 3:
                self.to("closed", now)
            elif self.lease[3] == self.lease[1]:
                self.passed, self.lease = self.passed + self.lease[3], None

    def window(self, r: Report, now: int) -> None:
        windows = {w: h for w, h in self.windows.items() if abs(now - h["at"]) < 8_000}
        at, (calls, failures), old = min(r.at_ms, now), (r.counts.calls, r.counts.failures), windows.get(r.worker)
        if now - at >= 8_000 or (r.sequence <= old["n"] if old else not calls and not r.tripped):
            return
        fails = r.tripped or (calls >= 2 and failures / calls >= 0.5)
        since = (old["since"] if old and old["since"] is not None else now) if fails else None
        windows[r.worker] = {"n": r.sequence, "at": at, "c": calls, "f": failures, "since": since, "t": r.tripped}
        self.windows = windows
        reporting = [h for h in windows.values() if h["c"] or h["t"]]
        bad = [h for h in reporting if h["since"] is not None]
        calls, failures = sum(h["c"] for h in reporting), sum(h["f"] for h in reporting)
        if self.state != "closed" or calls < 8 or failures / calls < 0.5:
            return
        suspect = (bad or sorted(reporting, key=lambda h: -h["f"]))[0]
        rest, failed = calls - suspect["c"], failures - suspect["f"]
        alone = bool(bad) and len(reporting) <= 2 and abs(now - bad[0]["since"]) >= 1_000
        if len(bad) > 1 or alone or (rest >= 2 and failed / rest >= 0.5):
            self.to("open", now)


class Worker:
    """A worker that follows the last row it received, and reports under that row's generation."""

    def __init__(self, name: str) -> None:
        self.name, self.skew, self.sequence = name, 0, 0
        self.start(None)

    def start(self, row: BreakerRow | None) -> None:
        """A new process: it knows the row from the table, and its sequence continues."""
        self.row_seen, self.asked, self.outcomes = row, set[int](), dict[int, tuple[int, int]]()

    def may(self, now: int) -> View:
        return view(self.row_seen, self.name, now + self.skew)

    def report(self, kind: ReportKind, now: int, **fields: Any) -> bytes:
        self.sequence += 1
        generation = self.row_seen.generation if self.row_seen else 0
        return Report(KEY, self.name, self.sequence, now + self.skew, generation, kind, **fields).to_bytes()

    def ask(self, now: int, want: int) -> bytes:
        self.asked.add(self.may(now).generation)
        return self.report(ReportKind.ASK, now, want=want)

    def probe(self, now: int, n: int, well: bool) -> tuple[int, bytes]:
        """Makes up to ``n`` probes; returns their number and the report."""
        may = self.may(now)
        passed, failed = self.outcomes.get(may.generation, (0, 0))
        leased = may.probes_granted if may.state is BreakerState.HALF_OPEN and may.generation - 1 in self.asked else 0
        assert leased is not None
        n = max(0, min(n, leased - passed - failed))  # after an expiry it may have made more than is allowed now
        passed, failed = passed + n * well, failed + n * (not well)
        self.outcomes[may.generation] = passed, failed
        return n, self.report(ReportKind.PROBED, now, probes=Probes(passed, failed))


class Fleet(RuleBasedStateMachine):
    """Messages that are lost, late, repeated or reordered; owners and probing workers that die; clocks that jump."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.skew = T0, 0
        self.row: BreakerRow | None = None
        self.model = Model()
        self.workers = {name: Worker(name) for name in WORKERS}
        self.in_flight: list[bytes] = []
        self.folded: list[tuple[type[Report] | type[Command], bytes]] = []
        self.made: Counter[int] = Counter()  # probes made by all workers, by generation
        self.alerted_state, self.sick = "closed", set[str | None]()  # as the alerts report them

    def fold(self, schema: type[Report] | type[Command], raw: bytes, u: float = 0.5) -> None:
        message, now, before = schema.parse(raw), self.now + self.skew, self.row
        after = fold(before, message, POLICY, now, u)
        if isinstance(message, Command):
            self.model.order(message, now)
        else:
            self.model.fold_report(message, now)
            if message.generation != (before.generation if before else 0):
                assert after.row is before, "a message of another generation changes nothing"
        assert after.row is not before or not after.alerts
        assert after.row is before or after.row != before, "an unchanged row is not written"
        for alert in after.alerts:
            if alert.name == "breaker":
                assert alert.from_ == self.alerted_state
                self.alerted_state = alert.to
            else:
                assert (alert.from_ == "sick") is (alert.worker in self.sick), "alerts start and end in turn"
                self.sick ^= {alert.worker}
        self.row = after.row
        if self.row is not None and self.row.state == "open" and not self.model.length:
            waits = min(2.0 * 2**self.row.reopenings, 16.0) * (0.8 + 0.4 * u) * 1000
            assert self.row.until_ms is not None
            self.model.length = self.row.until_ms - self.row.since_ms
            assert abs(self.model.length - waits) <= 1
        self.folded.append((schema, raw))

    @rule(ms=st.integers(0, 9_000))
    def time_passes(self, ms: int) -> None:
        self.now += ms

    @rule(ms=st.sampled_from([-3_600_000, -3_000, -200, 0, 200, 3_000, 3_600_000]))
    def the_owners_clock_steps(self, ms: int) -> None:
        self.skew = ms

    @rule(name=st.sampled_from(WORKERS), ms=st.sampled_from([-60_000, -200, 0, 200, 60_000]))
    def a_workers_clock_steps(self, name: str, ms: int) -> None:
        self.workers[name].skew = ms

    @rule(names=st.sets(st.sampled_from(WORKERS)))
    def the_row_arrives(self, names: set[str]) -> None:
        """Some of the workers receive the row; the others follow an older one."""
        for name in names:
            self.workers[name].row_seen = self.row

    @rule(name=st.sampled_from(WORKERS), counts=st.sampled_from(WINDOWS), tripped=st.booleans())
    def report_a_window(self, name: str, counts: tuple[int, int], tripped: bool) -> None:
        tally = Counts(*counts, runs=counts[0])
        self.in_flight.append(self.workers[name].report(ReportKind.WINDOW, self.now, counts=tally, tripped=tripped))

    @rule(name=st.sampled_from(WORKERS), want=st.integers(0, 4))
    def ask(self, name: str, want: int) -> None:
        """A worker requests probes, even if it may not: the owner decides."""
        self.in_flight.append(self.workers[name].ask(self.now, want))

    @rule(name=st.sampled_from(WORKERS), n=st.integers(1, 4), well=st.booleans())
    def probe(self, name: str, n: int, well: bool) -> None:
        worker = self.workers[name]
        made, report = worker.probe(self.now, n, well)
        self.made[worker.may(self.now).generation] += made
        self.in_flight.append(report)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), stays=st.booleans(), u=st.sampled_from([0.0, 0.3, 0.5, 0.99]))
    def a_message_arrives(self, data: st.DataObject, stays: bool, u: float) -> None:
        """Any message in flight arrives, and it may arrive again later."""
        i = data.draw(st.integers(0, len(self.in_flight) - 1))
        self.fold(Report, self.in_flight[i] if stays else self.in_flight.pop(i), u)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def a_message_is_lost(self, data: st.DataObject) -> None:
        self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))

    @rule(again=st.integers(0, 6))
    def the_owner_dies(self, again: int) -> None:
        """The next owner has the last written row, and reads the last few messages again."""
        if self.row is not None:
            self.row = BreakerRow.parse(self.row.to_bytes())
        for schema, raw in self.folded[len(self.folded) - again :] if again <= len(self.folded) else []:
            self.fold(schema, raw)

    @rule(name=st.sampled_from(WORKERS))
    def a_worker_dies(self, name: str) -> None:
        self.workers[name].start(self.row)

    @rule(action=st.sampled_from(Action), late=st.integers(0, 5_000))
    def an_operator_orders(self, action: Action, late: int) -> None:
        self.fold(Command, Command(KEY, action, "ann", "a drill", self.now - late).to_bytes())

    @precondition(lambda self: self.model.state == "closed")
    @rule(order=st.permutations(WORKERS))
    def the_model_fails_everywhere(self, order: list[str]) -> None:
        """From any closed state, failing reports of all workers that arrive open the fleet breaker."""
        for name in order:
            worker = self.workers[name]
            worker.row_seen, worker.skew = self.row, 0
            raw = worker.report(ReportKind.WINDOW, self.now + self.skew, counts=Counts(8, 8, 0, 8))
            if self.model.state == "closed":  # it may open before the last report
                self.fold(Report, raw)
        assert self.row is not None and self.row.state == "open"

    @precondition(lambda self: self.model.state in ("open", "half_open"))
    @rule(name=st.sampled_from(WORKERS), want=st.integers(1, 4), u=st.floats(0, 1, exclude_max=True))
    def a_worker_gets_a_lease(self, name: str, want: int, u: float) -> None:
        """A request for probes at the right time, so that sequences reach many probes."""
        assert self.row is not None
        ends = self.row.lease.expires_ms if self.row.lease else self.row.until_ms or 0
        self.now = max(self.now, ends - self.skew)
        self.workers[name].row_seen = self.row
        self.fold(Report, self.workers[name].ask(self.now, want), u)
        self.workers[name].row_seen = self.row

    @invariant()
    def it_agrees_with_the_model(self) -> None:
        row, model = self.row or BreakerRow(KEY), self.model
        assert (row.state, row.generation, row.reopenings) == (model.state, model.generation, model.failed_periods)
        assert (
            row.lease and [row.lease.worker, row.lease.probes, row.lease.granted_ms, row.lease.passed]
        ) == model.lease
        assert row.passed == model.passed
        assert set(row.windows) == set(model.windows)
        assert (self.alerted_state, self.sick) == (row.state, {*row.sick}), "the alerts agree with the row"

    @invariant()
    def never_more_probes_than_allowed(self) -> None:
        assert all(n <= POLICY.probes for n in self.made.values())
        if self.row is not None and (lease := self.row.lease) is not None:
            assert self.row.passed + lease.probes <= POLICY.probes and lease.passed < lease.probes

    def teardown(self) -> None:
        """With correct clocks, time, requests and passing probes close the breaker, except operator states."""
        self.skew, asks = 0, 0
        for worker in self.workers.values():
            worker.skew = 0
        while self.row is not None and self.row.state in ("open", "half_open"):
            worker = self.workers[WORKERS[asks % 3]]
            worker.row_seen = self.row
            if worker.may(self.now).may_ask:
                self.fold(Report, worker.ask(self.now, 1 + asks % 3))
                worker.row_seen = self.row
                self.fold(Report, worker.probe(self.now, 3, True)[1])
                asks += 1
                assert asks <= 4, "at most one request for the first lease, and one for each probe"
            else:
                self.now += 1_000
                assert self.now < T0 + 10**9
        assert self.row is None or self.row.state in ("closed", "forced_open", "disabled")


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), failures=st.sampled_from([8, 200]), start=st.permutations(WORKERS))
def test_one_sick_of_three_never_opens_the_fleet(data: st.DataObject, failures: int, start: list[str]) -> None:
    """One sick node does not open the fleet breaker, whatever its share of calls and the order of reports.

    The others' reports arrive within a second.
    """
    row, now, sequence = BreakerRow(KEY), T0, Counter[str]()
    in_flight: list[tuple[int, bytes]] = []
    for tick in range(30):
        now += 250
        for name in start:
            sequence[name] += 1
            bad = failures if name == "a" else 0
            report = Report(KEY, name, sequence[name], now, 0, ReportKind.WINDOW, counts=Counts(bad or 8, bad, 0, 1))
            in_flight.append((now + data.draw(st.integers(0, LONE_FAILURE_MS - 1)), report.to_bytes()))
        due = [m for m in in_flight if m[0] <= now + 250]
        in_flight = [m for m in in_flight if m not in due]
        for at, raw in sorted(due) + (data.draw(st.permutations(due))[:2] if tick % 5 == 0 else []):
            folded = fold(row, Report.parse(raw), POLICY, max(at, now), 0.5)
            assert folded.row is not None and folded.row.state == "closed"
            row = folded.row
    assert row.sick == ("a",)
