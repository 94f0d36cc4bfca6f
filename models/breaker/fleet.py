"""The fleet's breakers: how one owner folds reports and commands into rows, and what a row lets a worker do.

The table of transitions, the judging and the waiting are ``breaker``'s; here they meet summed counts, a quorum, and
probes that are lent to one worker at a time. One writer folds and everybody reads, so nothing is locked. A row is all
that an owner knows: when it dies, the next one goes on from the last row that was written, and may well fold again
what its predecessor had folded.

Times are wall-clock milliseconds. Workers' clocks may differ by a good deal less than a window and a lease: one that is
wrong by more is not heard, or does not probe, while the others go on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from failsoft.models.breaker.rules import TRANSITIONS, BreakerEvent, BreakerPolicy, BreakerState, judge, wait
from failsoft.models.breaker.window import Counts
from failsoft.schemas.fleet.breaker import Alert, BreakerRow, Command, Lease, Report, ReportKind, WorkerWindow
from failsoft.schemas.model_version import model_of

MAX_WORKERS = 1_000
"""Windows that a row holds: with ids of the longest kind still under half of what Kafka takes as one record."""

COMMANDS_KEPT = 8
"""An owner that takes over reads the last few seconds again; no operator gives more orders in them."""

ALONE_MS = 1_000
"""Before one failing worker is taken for the fleet, or for a sick node: four times the interval of reports, so that the
others are heard if they have calls. The first to report after a pause would be half of all that reported, or all. It
waits at no cost, for it is open at home."""


@dataclass(frozen=True, slots=True)
class FoldedBreaker:
    """The row after a message: the very object that was given when nothing changed (nothing needs to be written).

    Alerts are sent before the row is written: an owner that dies in between repeats them, rather than losing them.
    """

    row: BreakerRow | None
    alerts: tuple[Alert, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """What a row lets one worker do. ``probes_granted``: calls under ``generation``; None is as many as it likes.

    ``may_ask``: it is time to ask for probes, if there is something to probe with. A worker uses a lease only if it
    asked for it in this life: the probes of its life before may be out yet.
    """

    state: BreakerState
    generation: int
    probes_granted: int | None
    may_ask: bool = False


def view(row: BreakerRow | None, worker: str, now_ms: int) -> View:
    """What ``worker`` may do at ``now_ms`` on its own clock; without a row the breaker is closed and new."""
    if row is None:
        return View(BreakerState.CLOSED, 0, None)
    state, lease = BreakerState(row.state), row.lease
    if state in (BreakerState.CLOSED, BreakerState.DISABLED):
        return View(state, row.generation, None)
    if state is BreakerState.OPEN:
        return View(state, row.generation, 0, may_ask=_over(row.since_ms, row.until_ms, now_ms))
    if state is BreakerState.HALF_OPEN:
        live = lease is not None and not _over(lease.granted_ms, lease.expires_ms, now_ms)
        mine = lease.probes if lease is not None and live and lease.worker == worker else 0
        return View(state, row.generation, mine, may_ask=not live)
    return View(state, row.generation, 0)


def targets(target: str, keys: Iterable[str]) -> list[str]:
    """Those of ``keys`` that a command's ``target`` means: the one named, or every version of the model named."""
    return [key for key in keys if target in (key, model_of(key))]


def fold(
    row: BreakerRow | None, message: Report | Command, policy: BreakerPolicy, now_ms: int, u: float
) -> FoldedBreaker:
    """The row after ``message``, at ``now_ms`` on the owner's clock; ``u`` in [0, 1) jitters the wait, if one starts.

    Without a row a command has to name one key (``targets``). Raises ValueError for a message that is not the row's.
    """
    key = message.key if isinstance(message, Report) else message.target
    if row is not None and not targets(key, [row.key]):
        raise ValueError(f"a message for {key!r} is none for {row.key!r}")
    if row is None and model_of(key) is None:
        raise ValueError(f"{key!r} names no version, and there is no row that does")
    before = BreakerRow(key, since_ms=now_ms) if row is None else row
    if isinstance(message, Command):
        after = _obeyed(before, message, policy, now_ms)
    elif message.generation != before.generation:
        after = FoldedBreaker(before)  # of a state that is over, whatever it says
    elif message.kind is ReportKind.WINDOW:
        after = _counted(before, message, policy, now_ms, u)
    elif message.kind is ReportKind.ASK:
        after = _asked(before, message, policy, now_ms)
    else:
        after = _probed(before, message, policy, now_ms, u)
    return FoldedBreaker(row) if after.row is before else after


def quorum(policy: BreakerPolicy, windows: Iterable[WorkerWindow], now_ms: int) -> str | None:
    """Why these windows open the fleet's breaker, or None.

    The sum has to be over a threshold, and not by one worker's doing: two fail by themselves; or one does that is at
    least half of those that reported, and has for ``ALONE_MS``; or the sum without the one suspect fails as well (many
    workers with a few calls each, of which none can be judged by itself).
    """
    reported = [w for w in windows if w.counts.calls or w.tripped]
    why = judge(policy, _sum(reported))
    if why is None:
        return None
    failing = [w for w in reported if w.failing_ms is not None]
    if len(failing) < 2 and not (failing and len(reported) <= 2 and _settled(failing[0], now_ms)):
        suspect = failing[0] if failing else max(reported, key=lambda w: w.counts.failures + w.counts.slow)
        if judge(_few(policy), _sum(w for w in reported if w is not suspect)) is None:
            return None
    return f"{why}; {len(failing)} of {len(reported)} workers fail by themselves"


def _counted(row: BreakerRow, report: Report, policy: BreakerPolicy, now_ms: int, u: float) -> FoldedBreaker:
    """A worker's window: it replaces the one before, and may open the fleet's breaker or show that a node is sick."""
    if BreakerState(row.state) not in (BreakerState.CLOSED, BreakerState.DISABLED):
        return FoldedBreaker(row)
    windows = {name: w for name, w in row.windows.items() if _fresh(w.at_ms, policy, now_ms)}
    held = windows.get(report.worker)
    # A clock that is ahead must not keep its counts for longer than others do.
    at_ms = min(report.at_ms, now_ms)
    nothing_new = report.sequence <= held.sequence if held else not (report.counts.calls or report.tripped)
    if nothing_new or not _fresh(at_ms, policy, now_ms) or (held is None and len(windows) >= MAX_WORKERS):
        return FoldedBreaker(row)
    fails = report.tripped or judge(_few(policy), _counts(report)) is not None
    since = held.failing_ms if held is not None and held.failing_ms is not None else now_ms
    windows[report.worker] = WorkerWindow(
        report.sequence, at_ms, report.counts, report.tripped, since if fails else None
    )
    row = replace(row, windows=windows)
    if BreakerState(row.state) is BreakerState.CLOSED:
        why = quorum(policy, windows.values(), now_ms)
        if why is not None:
            return _moved(row, BreakerEvent.TRIPPED, policy, now_ms, why, report.worker, u)
    return _examined(row, policy, now_ms)


def _examined(row: BreakerRow, policy: BreakerPolicy, now_ms: int) -> FoldedBreaker:
    """Who is sick, by the windows: whoever would open alone, and from then on until its rate is no longer over."""
    any_calls = _minimum(policy, 1)
    reasons: dict[str, str] = {}
    for name, w in row.windows.items():
        # Sickness needs the full minimum (as opening at home does), and recovery the rate alone: after a trip there
        # are few calls, and an alert that came and went with their number would be noise.
        why = judge(any_calls if name in row.sick else policy, _counts(w))
        if (w.tripped or why is not None) and (name in row.sick or _settled(w, now_ms)):
            reasons[name] = why or "its own breaker is open"
    alerts = [
        Alert("node_sick", row.key, now_ms, "well", "sick", why, name)
        for name, why in reasons.items()
        if name not in row.sick
    ]
    for name in row.sick:
        if name not in reasons:
            heard = name in row.windows
            why = "its rates are under the thresholds" if heard else f"not heard of for {policy.window:g} s"
            to = "well" if heard else "unknown"
            alerts.append(Alert("node_sick", row.key, now_ms, "sick", to, why, name))
    return FoldedBreaker(replace(row, sick=tuple(sorted(reasons))), tuple(alerts))


def _asked(row: BreakerRow, report: Report, policy: BreakerPolicy, now_ms: int) -> FoldedBreaker:
    """A worker has something to probe with; when it is time, it is lent probes, under a new generation each time.

    Nobody asks when there is nothing to probe with: the breaker then stays as it is past its time, and harms nobody.
    """
    state, lease, passed, slow = BreakerState(row.state), row.lease, row.passed, row.slow
    if not report.want:
        return FoldedBreaker(row)
    if state is BreakerState.OPEN and _over(row.since_ms, row.until_ms, now_ms):
        why = f"open for {_seconds(row.since_ms, now_ms)}"
        moved = _moved(row, BreakerEvent.WAITED, policy, now_ms, why, report.worker)
    elif state is BreakerState.HALF_OPEN and lease is None:
        # The last one's probes all passed, and were not enough: no transition, but no report is taken for both.
        moved = FoldedBreaker(replace(row, generation=row.generation + 1))
    elif state is BreakerState.HALF_OPEN and lease is not None and _over(lease.granted_ms, lease.expires_ms, now_ms):
        lost = f"{lease.probes - lease.passed} probes of {lease.worker}"
        why = f"{lost} not heard of in {_seconds(lease.granted_ms, now_ms)}"
        moved = _moved(row, BreakerEvent.PROBES_LOST, policy, now_ms, why, report.worker)
        # What passed did pass: begun anew each time, a trickle of one event a lease would never close it.
        passed, slow = passed + lease.passed, slow + lease.slow
    else:
        return FoldedBreaker(row)
    assert moved.row is not None
    # No more than it can use: what it leaves, others may ask for as soon as it is done, and not once it has expired.
    probes = min(report.want, max(1, policy.probes - passed))
    expires_ms = now_ms + math.ceil(policy.probe_lease * 1000)
    lent = replace(moved.row, passed=passed, slow=slow, lease=Lease(report.worker, probes, now_ms, expires_ms))
    return FoldedBreaker(lent, moved.alerts)


def _probed(row: BreakerRow, report: Report, policy: BreakerPolicy, now_ms: int, u: float) -> FoldedBreaker:
    """What became of probes; one that comes late, but before the probes were lent anew, is as good as any."""
    lease, probes = row.lease, report.probes
    if lease is None or report.worker != lease.worker:
        return FoldedBreaker(row)
    # Totals only grow: the older of two reports adds nothing.
    passed = max(lease.passed, min(probes.passed, lease.probes))
    slow = max(lease.slow, min(probes.slow, passed))
    all_passed, all_slow = row.passed + passed, row.slow + slow
    if probes.failed:
        why = f"{probes.failed} of {probes.failed + probes.passed} probes failed"
        return _moved(row, BreakerEvent.PROBE_FAILED, policy, now_ms, why, report.worker, u)
    if all_slow / policy.probes >= policy.slow_rate:
        why = f"{all_slow} of {policy.probes} probes were slow"
        return _moved(row, BreakerEvent.PROBE_FAILED, policy, now_ms, why, report.worker, u)
    if all_passed >= policy.probes:
        return _moved(row, BreakerEvent.PROBES_PASSED, policy, now_ms, f"{all_passed} probes passed", report.worker)
    if passed >= lease.probes:
        return FoldedBreaker(replace(row, lease=None, passed=all_passed, slow=all_slow))
    if (passed, slow) == (lease.passed, lease.slow):
        return FoldedBreaker(row)
    return FoldedBreaker(replace(row, lease=replace(lease, passed=passed, slow=slow)))


def _obeyed(row: BreakerRow, command: Command, policy: BreakerPolicy, now_ms: int) -> FoldedBreaker:
    """An operator's command, once; one that changes nothing is remembered too, or read again it might change more."""
    name = f"{command.at_ms} {command.action} {command.who}"
    if name in row.commands:
        return FoldedBreaker(row)
    why = f"{command.who}: {command.why}"
    moved = _moved(row, BreakerEvent[command.action.name], policy, now_ms, why, command.who)
    assert moved.row is not None
    return FoldedBreaker(replace(moved.row, commands=(*row.commands, name)[-COMMANDS_KEPT:]), moved.alerts)


def _moved(
    row: BreakerRow, event: BreakerEvent, policy: BreakerPolicy, now_ms: int, reason: str, by: str, u: float = 0.5
) -> FoldedBreaker:
    """The row after ``event``, as ``Breaker`` moves: a new generation, nothing counted, nothing lent."""
    from_ = BreakerState(row.state)
    to = TRANSITIONS[from_].get(event)
    if to is None:
        return FoldedBreaker(row)
    reopenings = row.reopenings if to in (BreakerState.OPEN, BreakerState.HALF_OPEN) else 0
    reopenings += event is BreakerEvent.PROBE_FAILED
    until_ms = now_ms + math.ceil(wait(policy, reopenings, u) * 1000) if to is BreakerState.OPEN else None
    after = BreakerRow(
        key=row.key,
        state=to.value,
        generation=row.generation + 1,
        since_ms=now_ms,
        until_ms=until_ms,
        reopenings=reopenings,
        reason=reason,
        changed_by=by,
        commands=row.commands,
    )
    forgotten = f"the fleet's breaker is {to.value} now, and counts anew"
    alerts = [Alert("node_sick", row.key, now_ms, "sick", "unknown", forgotten, name) for name in row.sick]
    alerts.append(Alert("breaker", row.key, now_ms, from_.value, to.value, reason, by))
    return FoldedBreaker(after, tuple(alerts))


def _over(since_ms: int, until_ms: int | None, now_ms: int) -> bool:
    """Is the time over? So it is, too, when the clock stands before the beginning by the whole length: it was set back,
    and nobody is to wait for it to come to that place again.
    """
    return until_ms is None or now_ms >= until_ms or now_ms < since_ms - (until_ms - since_ms)


def _fresh(at_ms: int, policy: BreakerPolicy, now_ms: int) -> bool:
    return abs(now_ms - at_ms) < policy.window * 1000  # abs: the owner's clock may have been set back


def _settled(w: WorkerWindow, now_ms: int) -> bool:
    return w.failing_ms is not None and abs(now_ms - w.failing_ms) >= ALONE_MS


def _few(policy: BreakerPolicy) -> BreakerPolicy:
    """A quarter of the calls that open: what one worker may be judged by when there are others beside it."""
    return _minimum(policy, max(1, policy.minimum_calls // 4))


def _minimum(policy: BreakerPolicy, calls: int) -> BreakerPolicy:
    return replace(policy, minimum_calls=calls)


def _counts(w: WorkerWindow | Report) -> Counts:
    return Counts(w.counts.calls, w.counts.failures, w.counts.slow, w.counts.runs)


def _sum(windows: Iterable[WorkerWindow]) -> Counts:
    return sum(map(_counts, windows), Counts())


def _seconds(since_ms: int, now_ms: int) -> str:
    return f"{max(0, now_ms - since_ms) / 1000:.3g} s"
