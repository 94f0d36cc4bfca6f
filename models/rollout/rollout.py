"""The version of a model that the fleet serves: folds orders and heartbeats into rollout rows, and decides rollbacks.

The owner alone writes rows and all workers read them, as with breakers (``failsoft.models.breaker.fleet``). The
row is the owner's only state. Times are wall-clock milliseconds.

An automatic rollback needs evidence: failed half-open periods, in which probes were made and failed. Its target was
active before, is older than the failing version, and was not rolled back from since it was last active. A second
automatic rollback within
``hold`` is refused. If two versions fail in a row, the cause is probably outside both, and flapping between them would
not help.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.fleet.breaker import Alert, BreakerRow
from failsoft.schemas.fleet.rollout import (
    VERSIONS,
    Change,
    Direction,
    Heartbeat,
    Order,
    OrderResult,
    RolloutRow,
    Trigger,
    WorkerStatus,
)
from failsoft.schemas.model_version import ModelVersion

MAX_WORKERS = 1_000
"""Most worker statuses in a row. With problems and health the row stays under Kafka's limit for one record."""

CHANGES_KEPT = 50
"""Changes that the history keeps: one year of weekly changes. Each takes some 200 bytes."""

ORDERS_KEPT = 8
"""Orders that a row remembers. A new owner reads the last few seconds again; more orders than this are not given in
that time."""

HEARTBEAT_EVERY = 2.0
"""Seconds between two unchanged heartbeats of a worker, in a fleet of up to twenty workers. Larger fleets send them
less often, so that the owner folds at most ten a second."""

PROBLEM_KEPT = 200
"""Characters of a worker's problem that a row keeps: even if a thousand workers refuse a version, the row fits into one
record. The alert carries the whole text."""

MISSED_HEARTBEATS = 4
"""Missed heartbeats after which a worker no longer counts as alive."""


@dataclass(frozen=True, slots=True)
class RollbackPolicy:
    """The card's ``[rollback]`` section.

    Attributes:
        after_failed_probes: failed half-open periods in a row that cause an automatic rollback.
        hold: the time after an automatic rollback in which no second one is made (seconds).
    """

    after_failed_probes: int
    hold: float


@dataclass(frozen=True, slots=True)
class FoldedRollout:
    """The result of folding one message into a rollout row.

    Attributes:
        row: the row after the message. It is the same object as before when nothing changed and no write is needed.
        alerts: alerts to send before the row is written.
        change: the change of the active version that the message caused, if any.
    """

    row: RolloutRow | None
    alerts: tuple[Alert, ...] = ()
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Rollback:
    """Go back to the first of ``candidates`` that passes its checks now.

    Attributes:
        candidates: versions to try, the last good one first.
        why: the reason for the rollback.
    """

    candidates: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True)
class RollbackBlocked:
    """A rollback is due but not possible; ``why`` says for what reason."""

    why: str


def heartbeat_every(workers: int) -> float:
    """Seconds between two heartbeats of a worker in a fleet of ``workers`` workers."""
    return max(HEARTBEAT_EVERY, HEARTBEAT_EVERY * workers / 20)


def good_versions(row: RolloutRow) -> list[int]:
    """The versions that a rollback may go to, the most recent one first.

    They were active before, and no rollback left them since they last became active. Example: versions 1, 2 and 3 are
    active in turn, then a rollback from 3 makes 2 active. Only 1 is left to go back to.
    """
    versions: list[int] = []
    for change in row.history:
        if change.trigger in (Trigger.OPERATOR, Trigger.AUTOMATIC) and change.from_ in versions:
            versions.remove(change.from_)
        if change.to in versions:
            versions.remove(change.to)
        versions.append(change.to)
    return [version for version in reversed(versions) if version != row.active]


def verdict(
    row: RolloutRow | None, breaker: BreakerRow, policy: RollbackPolicy, now_ms: int
) -> Rollback | RollbackBlocked | None:
    """Decides whether the fleet should leave the version of ``breaker``. None means that there is no reason to."""
    if row is None or str(ModelVersion(row.model, row.active)) != breaker.key:
        return None
    if (
        BreakerState(breaker.state) not in (BreakerState.OPEN, BreakerState.HALF_OPEN)
        or breaker.reopenings < policy.after_failed_probes
    ):
        return None
    failed = f"{breaker.reopenings} half-open periods of {breaker.key} failed in a row"
    # If the clock was set back to before the hold began, the hold ends: it must not last longer than ``hold``.
    if row.held_until_ms is not None and row.since_ms - 1000 * policy.hold <= now_ms < row.held_until_ms:
        left = (row.held_until_ms - now_ms) / 1000
        return RollbackBlocked(f"{failed}, but the last rollback was recent: no second one for {left:.0f} s more")
    candidates = tuple(v for v in good_versions(row) if v < row.active)
    if not candidates:
        return RollbackBlocked(f"{failed}, but there is no older good version to return to")
    return Rollback(candidates, failed)


def fold(row: RolloutRow | None, message: Order | Heartbeat, policy: RollbackPolicy, now_ms: int) -> FoldedRollout:
    """Folds ``message`` into ``row`` at ``now_ms`` on the owner's clock. Without a row, orders are ignored."""
    if isinstance(message, Order):
        return FoldedRollout(None) if row is None else _fold_order(row, message, policy, now_ms)
    if row is not None:
        return _fold_heartbeat(row, message, now_ms)
    if message.serving is None:
        return FoldedRollout(None)
    first = Change(now_ms, None, message.serving, message.worker, "the first version that was served", Trigger.FIRST)
    new = RolloutRow(message.model, message.serving, since_ms=now_ms, history=(first,))
    return replace(_fold_heartbeat(new, message, now_ms), change=first)


def newer(row: RolloutRow, seen: RolloutRow | None) -> bool:
    """Is ``row`` at least as new as ``seen``, the last row that the caller followed?

    A new owner replays the whole history of the table, and workers must not follow it again. Fewer ``moves`` with a
    later ``since_ms`` are accepted: they mean that the table was created again.
    """
    return seen is None or row.moves >= seen.moves or row.since_ms > seen.since_ms


def is_news(row: RolloutRow, before: RolloutRow | None) -> bool:
    """Does ``row`` differ from ``before`` in more than heartbeat times and health?

    A change of only these may be written later.
    """
    if before is None or replace(row, workers={}) != replace(before, workers={}):
        return True
    return {n: (s.version, s.problem) for n, s in row.workers.items()} != {
        n: (s.version, s.problem) for n, s in before.workers.items()
    }


def workers_by_version(row: RolloutRow, now_ms: int) -> dict[int, int]:
    """The number of live workers that serve each version. Workers that serve no version are not counted."""
    counts: dict[int, int] = {}
    for status in row.workers.values():
        if status.version is not None and alive(status, len(row.workers), now_ms):
            counts[status.version] = counts.get(status.version, 0) + 1
    return counts


def _fold_heartbeat(row: RolloutRow, heartbeat: Heartbeat, now_ms: int) -> FoldedRollout:
    """Replaces the worker's status by its heartbeat, and removes workers that are no longer alive."""
    statuses = {name: status for name, status in row.workers.items() if alive(status, len(row.workers), now_ms)}
    previous_status = statuses.pop(heartbeat.worker, None)
    at_ms = min(heartbeat.at_ms, now_ms)  # a worker whose clock is ahead must not stay alive for longer than others
    outdated = previous_status is not None and at_ms < previous_status.at_ms <= now_ms
    problem = None if heartbeat.problem is None else heartbeat.problem[:PROBLEM_KEPT]
    status = WorkerStatus(heartbeat.serving, at_ms, problem, heartbeat.health)
    if outdated or not alive(status, len(statuses), now_ms) or len(statuses) >= MAX_WORKERS:
        return FoldedRollout(row)
    alerts: tuple[Alert, ...] = ()
    if heartbeat.problem is not None and (previous_status is None or previous_status.problem is None):
        key = str(ModelVersion(row.model, row.active))
        serves = "none" if heartbeat.serving is None else str(heartbeat.serving)
        alerts = (Alert("version_refused", key, now_ms, serves, str(row.active), heartbeat.problem, heartbeat.worker),)
    return FoldedRollout(replace(row, workers={**statuses, heartbeat.worker: status}), alerts)


def _fold_order(row: RolloutRow, order: Order, policy: RollbackPolicy, now_ms: int) -> FoldedRollout:
    """Applies an order once. A refused order is remembered too, with the reason."""
    if any(order.name == answered.order for answered in row.orders):
        return FoldedRollout(row)
    to, refused = _target(row, order)
    orders = (*row.orders, OrderResult(order.name, refused))[-ORDERS_KEPT:]
    if refused is not None or to is None or to == row.active:
        return FoldedRollout(replace(row, orders=orders))
    automatic = order.failing is not None
    if order.order is Direction.PROMOTE:
        trigger = Trigger.PROMOTE
    else:
        trigger = Trigger.AUTOMATIC if automatic else Trigger.OPERATOR
    change = Change(now_ms, row.active, to, order.who, order.why, trigger)
    after = replace(
        row,
        active=to,
        previous=row.active,
        moves=row.moves + 1,
        since_ms=now_ms,
        held_until_ms=now_ms + round(1000 * policy.hold) if automatic else row.held_until_ms,
        history=(*row.history, change)[-CHANGES_KEPT:],
        orders=orders,
    )
    name = "promotion" if trigger is Trigger.PROMOTE else "rollback"
    why = f"{order.who}: {order.why}"
    alert = Alert(name, str(ModelVersion(row.model, to)), now_ms, str(row.active), str(to), why, None)
    return FoldedRollout(after, (alert,), change)


def _target(row: RolloutRow, order: Order) -> tuple[int | None, str | None]:
    """The version that an order asks for, and the reason if the order is refused; one of the two is None."""
    if order.failing is not None and order.failing != row.active:
        return None, f"{row.model}@{order.failing} is not active any more"
    if order.failing is not None and order.at_ms < row.since_ms:
        return None, f"{row.model}@{order.failing} became active again after this was decided"
    named = ModelVersion.parse(order.target)
    if named is not None and named.model == row.model:
        if named.version not in VERSIONS:
            return None, f"{order.target} names no version: a version is a number from 1 to {VERSIONS[-1]}"
        return named.version, None
    if order.order is Direction.PROMOTE or order.target != row.model:
        return None, f"{order.target} names no version: a version is a number from 1 to {VERSIONS[-1]}"
    candidates = good_versions(row)
    if not candidates:
        return None, f"there is no earlier good version of {row.model} to return to: name a version"
    return candidates[0], None


def alive(status: WorkerStatus, workers: int, now_ms: int) -> bool:
    """Was the last heartbeat recent enough? ``abs``, because the owner's clock may have been set back."""
    return abs(now_ms - status.at_ms) < 1000 * MISSED_HEARTBEATS * heartbeat_every(workers)
