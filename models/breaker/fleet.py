"""The fleet breakers: folds reports and commands into breaker rows, and derives from a row what a worker may do.

The transition table, ``judge`` and ``wait`` come from ``rules``. This module applies them to counts summed over
workers, adds a quorum, and grants leases for probes to one worker at a time. The owner alone writes rows and all
workers read them, so no locks are needed. The row is the owner's only state. When an owner dies, the next one continues
from the last written row, and may fold messages again that its predecessor had already folded.

Times are wall-clock milliseconds. The clocks of workers must agree to within much less than a window and a lease. If
one worker's clock is further off, its reports are ignored or it does not probe; other workers are not affected.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from failsoft.models.breaker.rules import TRANSITIONS, BreakerEvent, BreakerPolicy, BreakerState, judge, wait
from failsoft.schemas.fleet.breaker import Alert, BreakerRow, Command, Lease, Report, ReportKind, WorkerWindow
from failsoft.schemas.fleet.counts import Counts
from failsoft.schemas.model_version import model_of

MAX_WORKERS = 1_000
"""Most windows in a row. With the longest worker ids the row stays under half of Kafka's limit for one record."""

COMMANDS_KEPT = 8
"""Commands that a row remembers. A new owner reads the last few seconds again; more commands than this are not given
in that time."""

LONE_FAILURE_MS = 1_000
"""Milliseconds for which one worker must fail before it opens the fleet breaker alone or counts as a sick node.

Four report intervals, so that the other workers report too if they have calls. Without this wait, the first worker to
report after a pause would be all, or half, of the workers that reported. The wait costs nothing, because the worker's
local breaker is already open."""


@dataclass(frozen=True, slots=True)
class FoldedBreaker:
    """The result of folding one message into a breaker row.

    Attributes:
        row: the row after the message. It is the same object as before when nothing changed and no write is needed.
        alerts: alerts to send before the row is written. If the owner dies in between, they are repeated, not lost.
    """

    row: BreakerRow | None
    alerts: tuple[Alert, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """What a breaker row allows one worker.

    A worker uses a lease only if this process requested it. After a restart, probes of the process before may
    still be running.

    Attributes:
        state: the state of the fleet breaker.
        generation: the row's generation.
        probes_granted: calls allowed under ``generation``; None means unlimited.
        may_ask: the worker may request probes now, if it has records to probe with.
    """

    state: BreakerState
    generation: int
    probes_granted: int | None
    may_ask: bool = False


def view(row: BreakerRow | None, worker: str, now_ms: int) -> View:
    """What ``worker`` may do at ``now_ms`` on its own clock. Without a row the breaker is closed, at generation 0."""
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
    """The ``keys`` that a command's ``target`` selects: one ``model@version``, or every version of a model."""
    return [key for key in keys if target in (key, model_of(key))]


def fold(
    row: BreakerRow | None, message: Report | Command, policy: BreakerPolicy, now_ms: int, u: float
) -> FoldedBreaker:
    """Folds ``message`` into ``row`` at ``now_ms`` on the owner's clock.

    ``u`` in [0, 1) jitters the wait if the breaker opens. Raises ValueError if the message is for another key than the
    row's, or if there is no row and a command names a model without a version.
    """
    key = message.key if isinstance(message, Report) else message.target
    if row is not None and not targets(key, [row.key]):
        raise ValueError(f"a message for {key!r} does not belong to the row of {row.key!r}")
    if row is None and model_of(key) is None:
        raise ValueError(f"{key!r} names no version, and there is no row to take it from")
    before = BreakerRow(key, since_ms=now_ms) if row is None else row
    if isinstance(message, Command):
        after = _fold_command(before, message, policy, now_ms)
    elif message.generation != before.generation:
        after = FoldedBreaker(before)  # about an earlier state
    elif message.kind is ReportKind.WINDOW:
        after = _fold_window(before, message, policy, now_ms, u)
    elif message.kind is ReportKind.ASK:
        after = _fold_request(before, message, policy, now_ms)
    else:
        after = _fold_probes(before, message, policy, now_ms, u)
    return FoldedBreaker(row) if after.row is before else after


def quorum(policy: BreakerPolicy, windows: Iterable[WorkerWindow], now_ms: int) -> str | None:
    """The reason why these windows open the fleet breaker, or None if they do not.

    The summed counts must be over a threshold, and one worker alone must not be the cause. One of these must hold:

    - at least two workers fail on their own counts;
    - one worker fails, has failed for ``LONE_FAILURE_MS``, and at most one other worker reported;
    - the sum without the worker with most failures is over a threshold too, with a quarter of ``minimum_calls``.
      This covers many workers with so few calls each that none can be judged on its own counts.
    """
    reported = [w for w in windows if w.counts.calls or w.tripped]
    why = judge(policy, _sum(reported))
    if why is None:
        return None
    failing = [w for w in reported if w.failing_ms is not None]
    if len(failing) < 2 and not (failing and len(reported) <= 2 and _failing_long_enough(failing[0], now_ms)):
        suspect = failing[0] if failing else max(reported, key=lambda w: w.counts.failures + w.counts.slow)
        if judge(_quarter_minimum(policy), _sum(w for w in reported if w is not suspect)) is None:
            return None
    return f"{why}; {len(failing)} of {len(reported)} workers fail by themselves"


def fresh_counts(row: BreakerRow, policy: BreakerPolicy, now_ms: int) -> Counts:
    """The sum of the windows in ``row`` that are recent enough to be judged at ``now_ms``."""
    return _sum(w for w in row.windows.values() if _fresh(w.at_ms, policy, now_ms))


def _fold_window(row: BreakerRow, report: Report, policy: BreakerPolicy, now_ms: int, u: float) -> FoldedBreaker:
    """Replaces the worker's window in the row; may open the fleet breaker or mark the worker as a sick node."""
    if BreakerState(row.state) not in (BreakerState.CLOSED, BreakerState.DISABLED):
        return FoldedBreaker(row)
    windows = {name: w for name, w in row.windows.items() if _fresh(w.at_ms, policy, now_ms)}
    previous = windows.get(report.worker)
    # A worker whose clock is ahead must not keep its counts in the row for longer than others.
    at_ms = min(report.at_ms, now_ms)
    nothing_new = report.sequence <= previous.sequence if previous else not (report.counts.calls or report.tripped)
    if nothing_new or not _fresh(at_ms, policy, now_ms) or (previous is None and len(windows) >= MAX_WORKERS):
        return FoldedBreaker(row)
    fails = report.tripped or judge(_quarter_minimum(policy), report.counts) is not None
    since = previous.failing_ms if previous is not None and previous.failing_ms is not None else now_ms
    windows[report.worker] = WorkerWindow(
        report.sequence, at_ms, report.counts, report.tripped, since if fails else None
    )
    row = replace(row, windows=windows)
    if BreakerState(row.state) is BreakerState.CLOSED:
        why = quorum(policy, windows.values(), now_ms)
        if why is not None:
            return _transition(row, BreakerEvent.TRIPPED, policy, now_ms, why, report.worker, u)
    return _update_sick(row, policy, now_ms)


def _update_sick(row: BreakerRow, policy: BreakerPolicy, now_ms: int) -> FoldedBreaker:
    """Updates which workers are sick nodes, and raises the alerts for the changes.

    A worker becomes sick when it has failed by itself for ``LONE_FAILURE_MS`` while the fleet breaker stays closed. It
    stays sick until its rates are under the thresholds.
    """
    any_calls = _with_minimum(policy, 1)
    reasons: dict[str, str] = {}
    for name, w in row.windows.items():
        # To become sick takes minimum_calls, as opening the local breaker does. To recover takes the rate alone: after
        # a trip there are few calls, and an alert that switched on and off with their number would be noise.
        why = judge(any_calls if name in row.sick else policy, w.counts)
        if (w.tripped or why is not None) and (name in row.sick or _failing_long_enough(w, now_ms)):
            reasons[name] = why or "its own breaker is open"
    alerts = [
        Alert("node_sick", row.key, now_ms, "well", "sick", why, name)
        for name, why in reasons.items()
        if name not in row.sick
    ]
    for name in row.sick:
        if name not in reasons:
            reported = name in row.windows
            why = "its rates are under the thresholds" if reported else f"no report for {policy.window:g} s"
            to = "well" if reported else "unknown"
            alerts.append(Alert("node_sick", row.key, now_ms, "sick", to, why, name))
    return FoldedBreaker(replace(row, sick=tuple(sorted(reasons))), tuple(alerts))


def _fold_request(row: BreakerRow, report: Report, policy: BreakerPolicy, now_ms: int) -> FoldedBreaker:
    """Grants a lease for probes to the worker that requests them, if the wait is over. Each lease has a new generation.

    Workers request probes only when they have records to probe with. Without a request the breaker stays open past its
    wait, which does no harm because no record needs the model.
    """
    state, lease, passed, slow = BreakerState(row.state), row.lease, row.passed, row.slow
    if not report.want:
        return FoldedBreaker(row)
    if state is BreakerState.OPEN and _over(row.since_ms, row.until_ms, now_ms):
        why = f"open for {_seconds(row.since_ms, now_ms)}"
        moved = _transition(row, BreakerEvent.WAITED, policy, now_ms, why, report.worker)
    elif state is BreakerState.HALF_OPEN and lease is None:
        # The probes of the last lease passed but were not enough. There is no transition, but the generation changes,
        # so that one report cannot count for both leases.
        moved = FoldedBreaker(replace(row, generation=row.generation + 1))
    elif state is BreakerState.HALF_OPEN and lease is not None and _over(lease.granted_ms, lease.expires_ms, now_ms):
        lost = f"{lease.probes - lease.passed} probes of {lease.worker}"
        why = f"no result of {lost} in {_seconds(lease.granted_ms, now_ms)}"
        moved = _transition(row, BreakerEvent.PROBES_LOST, policy, now_ms, why, report.worker)
        # Keep the probes that passed. If each lease started from zero, one event a lease would never close the breaker.
        passed, slow = passed + lease.passed, slow + lease.slow
    else:
        return FoldedBreaker(row)
    assert moved.row is not None
    # Grant no more than the worker can use. Other workers can then request the rest as soon as this worker has
    # reported, without waiting for the lease to expire.
    probes = min(report.want, max(1, policy.probes - passed))
    expires_ms = now_ms + math.ceil(policy.probe_lease * 1000)
    leased = replace(moved.row, passed=passed, slow=slow, lease=Lease(report.worker, probes, now_ms, expires_ms))
    return FoldedBreaker(leased, moved.alerts)


def _fold_probes(row: BreakerRow, report: Report, policy: BreakerPolicy, now_ms: int, u: float) -> FoldedBreaker:
    """Folds the results of probes. A late report counts as long as no new lease has been granted."""
    lease, probes = row.lease, report.probes
    if lease is None or report.worker != lease.worker:
        return FoldedBreaker(row)
    # Reports carry totals, which only grow, so an older report adds nothing.
    passed = max(lease.passed, min(probes.passed, lease.probes))
    slow = max(lease.slow, min(probes.slow, passed))
    all_passed, all_slow = row.passed + passed, row.slow + slow
    if probes.failed:
        why = f"{probes.failed} of {probes.failed + probes.passed} probes failed"
        return _transition(row, BreakerEvent.PROBE_FAILED, policy, now_ms, why, report.worker, u)
    if all_slow / policy.probes >= policy.slow_rate:
        why = f"{all_slow} of {policy.probes} probes were slow"
        return _transition(row, BreakerEvent.PROBE_FAILED, policy, now_ms, why, report.worker, u)
    if all_passed >= policy.probes:
        return _transition(
            row, BreakerEvent.PROBES_PASSED, policy, now_ms, f"{all_passed} probes passed", report.worker
        )
    if passed >= lease.probes:
        return FoldedBreaker(replace(row, lease=None, passed=all_passed, slow=all_slow))
    if (passed, slow) == (lease.passed, lease.slow):
        return FoldedBreaker(row)
    return FoldedBreaker(replace(row, lease=replace(lease, passed=passed, slow=slow)))


def _fold_command(row: BreakerRow, command: Command, policy: BreakerPolicy, now_ms: int) -> FoldedBreaker:
    """Applies an operator's command once.

    A command that changes nothing is remembered too. Otherwise it could take effect when a new owner reads it again.
    """
    name = f"{command.at_ms} {command.action} {command.who}"
    if name in row.commands:
        return FoldedBreaker(row)
    why = f"{command.who}: {command.why}"
    moved = _transition(row, BreakerEvent[command.action.name], policy, now_ms, why, command.who)
    assert moved.row is not None
    return FoldedBreaker(replace(moved.row, commands=(*row.commands, name)[-COMMANDS_KEPT:]), moved.alerts)


def _transition(
    row: BreakerRow, event: BreakerEvent, policy: BreakerPolicy, now_ms: int, reason: str, by: str, u: float = 0.5
) -> FoldedBreaker:
    """The row after ``event``, by the rules of ``Breaker``: a new generation, empty counts and no lease."""
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
    forgotten = f"the fleet's breaker is {to.value} now and starts to count from zero"
    alerts = [Alert("node_sick", row.key, now_ms, "sick", "unknown", forgotten, name) for name in row.sick]
    alerts.append(Alert("breaker", row.key, now_ms, from_.value, to.value, reason, by))
    return FoldedBreaker(after, tuple(alerts))


def _over(since_ms: int, until_ms: int | None, now_ms: int) -> bool:
    """Has the time from ``since_ms`` to ``until_ms`` ended?

    Also true if ``now_ms`` lies before ``since_ms`` by more than that time. Then the clock was set back, and waiting
    for it to reach ``until_ms`` again could take very long.
    """
    return until_ms is None or now_ms >= until_ms or now_ms < since_ms - (until_ms - since_ms)


def _fresh(at_ms: int, policy: BreakerPolicy, now_ms: int) -> bool:
    return abs(now_ms - at_ms) < policy.window * 1000  # abs: the owner's clock may have been set back


def _failing_long_enough(w: WorkerWindow, now_ms: int) -> bool:
    return w.failing_ms is not None and abs(now_ms - w.failing_ms) >= LONE_FAILURE_MS


def _quarter_minimum(policy: BreakerPolicy) -> BreakerPolicy:
    """The policy with a quarter of ``minimum_calls``: enough to judge one worker when other workers report too."""
    return _with_minimum(policy, max(1, policy.minimum_calls // 4))


def _with_minimum(policy: BreakerPolicy, calls: int) -> BreakerPolicy:
    return replace(policy, minimum_calls=calls)


def _sum(windows: Iterable[WorkerWindow]) -> Counts:
    return sum((w.counts for w in windows), Counts())


def _seconds(since_ms: int, now_ms: int) -> str:
    return f"{max(0, now_ms - since_ms) / 1000:.3g} s"
