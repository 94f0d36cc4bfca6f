"""What an operator is told of a pipeline's model versions: where each stands, who serves it, and how it does. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from failsoft.models.rollout.rollout import alive, good
from failsoft.schemas.event import iso
from failsoft.schemas.fleet.breaker import BreakerRow
from failsoft.schemas.fleet.rollout import Health, RolloutRow
from failsoft.schemas.model_version import ModelVersion
from failsoft.schemas.wire import Malformed
from failsoft.workers.operations.breaker_view import state


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A complete version in the repository; ``trained_at`` is ISO 8601."""

    model: str
    version: int
    trained_at: str | None


def listed(
    disk: Iterable[OnDisk],
    rollouts: Mapping[str, RolloutRow],
    breakers: Mapping[str, BreakerRow | Malformed],
    now_ms: int,
) -> list[dict[str, Any]]:
    """Each version that is on disk or has served, the newest of a model first.

    ``role``: active, previous, good (a rollback may go there), left (by a rollback), new (never served); missing is
    said beside it when the repository at hand lacks it. Rates and means are over the last minutes of all workers, None
    without calls; times are milliseconds a batch.
    """
    there = {(each.model, each.version): each for each in disk}
    served = {(m, v) for m, row in rollouts.items() for v in _served(row)}
    found = []
    for model, version in sorted({*there, *served}, key=lambda at: (at[0], -at[1])):
        row, key = rollouts.get(model), str(ModelVersion(model, version))
        statuses = [s for s in row.workers.values() if alive(s, len(row.workers), now_ms)] if row else []
        health = sum((s.health[version] for s in statuses if version in s.health), Health())
        at = there.get((model, version))
        found.append(
            {
                "model": model,
                "version": version,
                "role": _role(row, version) + ("" if at else ", missing here"),
                "workers": sum(s.version == version for s in statuses),
                "calls": health.calls,
                "failures": health.failures,
                "failure_rate": health.failures / health.calls if health.calls else None,
                "latency_ms": 1000 * health.seconds / health.runs if health.runs else None,
                "confidence": health.sure / health.judged if health.judged else None,
                "breaker": state(breakers.get(key)),
                "trained_at": at.trained_at if at else None,
                "problems": _problems(row, version, now_ms),
            }
        )
    return found


def shown(about: Mapping[str, Any]) -> dict[str, Any]:
    """What ``listed`` gave, as the cells of a table."""
    rate, latency, sure = about["failure_rate"], about["latency_ms"], about["confidence"]
    return {
        **about,
        "failures": None if rate is None else f"{100 * rate:.3g} %",
        "latency": None if latency is None else f"{latency:.3g} ms",
        "confidence": None if sure is None else f"{sure:.3f}",
        "problems": "; ".join(f"{worker}: {why}" for worker, why in about["problems"].items()) or None,
    }


def history(row: RolloutRow) -> list[dict[str, Any]]:
    """The moves of a model, the newest first."""
    return [
        {
            "at": iso(change.at_ms),
            "model": row.model,
            "from": change.from_,
            "to": change.to,
            "trigger": change.trigger.value,
            "who": change.who,
            "why": change.why,
        }
        for change in reversed(row.history)
    ]


def _role(row: RolloutRow | None, version: int) -> str:
    if row is None or version not in _served(row):
        return "new"
    if version == row.active:
        return "active"
    if version in good(row):
        return "previous" if version == row.previous else "good"
    return "left"


def _served(row: RolloutRow) -> set[int]:
    return {change.to for change in row.history} | {row.active}


def _problems(row: RolloutRow | None, version: int, now_ms: int) -> dict[str, str]:
    """Of the active version: which workers cannot serve it, and why."""
    if row is None or version != row.active:
        return {}
    statuses = row.workers.items()
    return {name: s.problem for name, s in statuses if s.problem and alive(s, len(row.workers), now_ms)}
