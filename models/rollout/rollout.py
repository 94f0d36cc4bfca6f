"""Which version of a model the fleet serves: how one owner folds orders and what workers say of themselves into a row,
and when it goes back to an older version by itself.

One writer folds and everybody reads, as with breakers (``models.breaker.fleet``); a row is all that an owner knows.
Times are wall-clock milliseconds.

An automatic rollback is decided from data alone: half-open cycles that failed are probes that were made and failed. It
goes to a version that has been active before and is older than the failing one, never forward, and not to one that the
fleet has left by a rollback. A second one within ``hold`` is refused: two versions that fail in a row are more likely
to have one cause outside of both, and a fleet that flaps between them helps nobody.
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
"""Seats that a row holds: with problems and health still under what Kafka takes as one record."""

CHANGES_KEPT = 50
"""Of a history: a year of a model that changes weekly. Each has some 200 bytes."""

ORDERS_KEPT = 8
"""An owner that takes over reads the last few seconds again; no operator gives more orders in them."""

EVERY = 2.0
"""Seconds between two presences of a worker that has nothing new to say, in a fleet of up to twenty: more workers say
it less often, so that a row is written ten times a second at most."""

PROBLEM_KEPT = 200
"""Characters of a worker's problem that a row keeps: a version that a thousand workers refuse is still one record. The
alert has all of it."""

MISSED = 4
"""Presences that did not come, after which a worker is not counted any more."""


@dataclass(frozen=True, slots=True)
class RollbackPolicy:
    """The card's ``[rollback]``: after how many failed half-open cycles, and for how many seconds no second one."""

    after_failed_probes: int
    hold: float


@dataclass(frozen=True, slots=True)
class FoldedRollout:
    """The row after a message: the very object that was given when nothing changed (nothing needs to be written).

    Alerts are sent before the row is written. ``change`` is the move that the message brought about, if one.
    """

    row: RolloutRow | None
    alerts: tuple[Alert, ...] = ()
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Rollback:
    """Go back to the first of ``candidates`` (the last good one first) that proves itself now."""

    candidates: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True)
class RollbackBlocked:
    """It should go back and cannot: why."""

    why: str


def heartbeat_every(workers: int) -> float:
    """Seconds between two presences in a fleet of so many."""
    return max(EVERY, EVERY * workers / 20)


def good(row: RolloutRow) -> list[int]:
    """The versions to go back to, the last one first: active before, and not left by a rollback since they last came.

    Two promotions 1, 2, 3 and a rollback from 3 leave 1, for 2 is active then.
    """
    came: list[int] = []
    for change in row.history:
        if change.trigger in (Trigger.OPERATOR, Trigger.AUTOMATIC) and change.from_ in came:
            came.remove(change.from_)
        if change.to in came:
            came.remove(change.to)
        came.append(change.to)
    return [version for version in reversed(came) if version != row.active]


def verdict(
    row: RolloutRow | None, breaker: BreakerRow, policy: RollbackPolicy, now_ms: int
) -> Rollback | RollbackBlocked | None:
    """Should the fleet leave the version that ``breaker`` is of? None when there is no reason to."""
    if row is None or str(ModelVersion(row.model, row.active)) != breaker.key:
        return None
    if (
        BreakerState(breaker.state) not in (BreakerState.OPEN, BreakerState.HALF_OPEN)
        or breaker.reopenings < policy.after_failed_probes
    ):
        return None
    failed = f"{breaker.reopenings} half-open cycles of {breaker.key} failed in a row"
    # ``since_ms`` guards against a clock that was set back: a hold is never longer than it was.
    if row.held_until_ms is not None and row.since_ms - 1000 * policy.hold <= now_ms < row.held_until_ms:
        left = (row.held_until_ms - now_ms) / 1000
        return RollbackBlocked(f"{failed}, but there was a rollback, and for {left:.0f} s more there is no second one")
    candidates = tuple(v for v in good(row) if v < row.active)
    if not candidates:
        return RollbackBlocked(f"{failed}, but no older version has served before that was not left by a rollback")
    return Rollback(candidates, failed)


def fold(row: RolloutRow | None, message: Order | Heartbeat, policy: RollbackPolicy, now_ms: int) -> FoldedRollout:
    """The row after ``message``, at ``now_ms`` on the owner's clock."""
    if isinstance(message, Order):
        return FoldedRollout(None) if row is None else _obeyed(row, message, policy, now_ms)
    if row is not None:
        return _seated(row, message, now_ms)
    if message.serving is None:
        return FoldedRollout(None)
    first = Change(now_ms, None, message.serving, message.worker, "the first that was served", Trigger.FIRST)
    new = RolloutRow(message.model, message.serving, since_ms=now_ms, history=(first,))
    return replace(_seated(new, message, now_ms), change=first)


def newer(row: RolloutRow, seen: RolloutRow | None) -> bool:
    """Is ``row`` no older than the one ``seen`` before? An owner that takes over reads the table's whole history again,
    and nobody is to follow it once more. Only a table that was made anew has fewer moves at a later time.
    """
    return seen is None or row.moves >= seen.moves or row.since_ms > seen.since_ms


def news(row: RolloutRow, before: RolloutRow | None) -> bool:
    """Does ``row`` say more than that workers are still there, and how they do? That much can wait a little."""
    if before is None or replace(row, workers={}) != replace(before, workers={}):
        return True
    return {n: (s.version, s.problem) for n, s in row.workers.items()} != {
        n: (s.version, s.problem) for n, s in before.workers.items()
    }


def skew(row: RolloutRow, now_ms: int) -> dict[int, int]:
    """How many workers serve each version, by what they said lately; a worker that serves none is not counted."""
    found: dict[int, int] = {}
    for status in row.workers.values():
        if status.version is not None and alive(status, len(row.workers), now_ms):
            found[status.version] = found.get(status.version, 0) + 1
    return found


def _seated(row: RolloutRow, said: Heartbeat, now_ms: int) -> FoldedRollout:
    """What a worker says of itself replaces what it said before; whoever is not heard of loses the seat."""
    statuses = {name: status for name, status in row.workers.items() if alive(status, len(row.workers), now_ms)}
    held = statuses.pop(said.worker, None)
    at_ms = min(said.at_ms, now_ms)  # a clock that is ahead must not keep its seat for longer than others do
    late = held is not None and at_ms < held.at_ms <= now_ms
    problem = None if said.problem is None else said.problem[:PROBLEM_KEPT]
    status = WorkerStatus(said.serving, at_ms, problem, said.health)
    if late or not alive(status, len(statuses), now_ms) or len(statuses) >= MAX_WORKERS:
        return FoldedRollout(row)
    alerts: tuple[Alert, ...] = ()
    if said.problem is not None and (held is None or held.problem is None):
        key = str(ModelVersion(row.model, row.active))
        serves = "none" if said.serving is None else str(said.serving)
        alerts = (Alert("version_refused", key, now_ms, serves, str(row.active), said.problem, said.worker),)
    return FoldedRollout(replace(row, workers={**statuses, said.worker: status}), alerts)


def _obeyed(row: RolloutRow, order: Order, policy: RollbackPolicy, now_ms: int) -> FoldedRollout:
    """An order, once; one that is refused is remembered too, with the reason."""
    if any(order.name == answered.order for answered in row.orders):
        return FoldedRollout(row)
    to, refused = _wanted(row, order)
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


def _wanted(row: RolloutRow, order: Order) -> tuple[int | None, str | None]:
    """The version that an order means, or why it means none."""
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
    candidates = good(row)
    if not candidates:
        return None, f"no version of {row.model} has served before that was not left by a rollback: name one"
    return candidates[0], None


def alive(status: WorkerStatus, workers: int, now_ms: int) -> bool:
    """Was it heard of lately? ``abs``: the owner's clock may have been set back."""
    return abs(now_ms - status.at_ms) < 1000 * MISSED * heartbeat_every(workers)
