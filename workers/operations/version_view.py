"""The operator's view of a pipeline's model versions: role, serving workers, health and history. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from failsoft.models.rollout.rollout import alive, good_versions
from failsoft.schemas.event import iso
from failsoft.schemas.fleet.breaker import BreakerRow
from failsoft.schemas.fleet.rollout import Health, RolloutRow
from failsoft.schemas.model_version import ModelVersion
from failsoft.schemas.wire import Malformed
from failsoft.workers.operations.breaker_view import state


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A complete version in the repository. ``trained_at`` is ISO 8601, or None if unknown."""

    model: str
    version: int
    trained_at: str | None


def listed(
    disk: Iterable[OnDisk],
    rollouts: Mapping[str, RolloutRow],
    breakers: Mapping[str, BreakerRow | Malformed],
    now_ms: int,
) -> list[dict[str, Any]]:
    """Every version that is on disk or has served, the newest of each model first.

    ``role`` is one of: active, previous, good (a rollback may return to it), left (by a rollback), new (never served).
    "missing here" is added when the local repository lacks the version. Rates and means cover the last five minutes
    (``health.SPAN``) of all workers, and are None without calls. ``latency_ms`` is milliseconds a batch.
    """
    local = {(each.model, each.version): each for each in disk}
    served = {(m, v) for m, row in rollouts.items() for v in _served(row)}
    versions = []
    for model, version in sorted({*local, *served}, key=lambda at: (at[0], -at[1])):
        row, key = rollouts.get(model), str(ModelVersion(model, version))
        statuses = [s for s in row.workers.values() if alive(s, len(row.workers), now_ms)] if row else []
        health = sum((s.health[version] for s in statuses if version in s.health), Health())
        at = local.get((model, version))
        versions.append(
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
    return versions


def shown(about: Mapping[str, Any]) -> dict[str, Any]:
    """One result of ``listed`` as the cells of a table."""
    rate, latency, sure = about["failure_rate"], about["latency_ms"], about["confidence"]
    return {
        **about,
        "failures": None if rate is None else f"{100 * rate:.3g} %",
        "latency": None if latency is None else f"{latency:.3g} ms",
        "confidence": None if sure is None else f"{sure:.3f}",
        "problems": "; ".join(f"{worker}: {why}" for worker, why in about["problems"].items()) or None,
    }


def history(row: RolloutRow) -> list[dict[str, Any]]:
    """The changes of a model's active version, the newest first."""
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
    if version in good_versions(row):
        return "previous" if version == row.previous else "good"
    return "left"


def _served(row: RolloutRow) -> set[int]:
    return {change.to for change in row.history} | {row.active}


def _problems(row: RolloutRow | None, version: int, now_ms: int) -> dict[str, str]:
    """The workers that cannot serve the active version, with the reason; empty for other versions."""
    if row is None or version != row.active:
        return {}
    statuses = row.workers.items()
    return {name: s.problem for name, s in statuses if s.problem and alive(s, len(row.workers), now_ms)}
