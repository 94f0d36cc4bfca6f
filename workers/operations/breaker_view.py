"""What an operator is told of the fleet's breakers, and which of them an order means. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from failsoft.models.breaker.fleet import targets, view
from failsoft.models.breaker.rules import BreakerPolicy, BreakerState
from failsoft.models.breaker.window import Counts
from failsoft.schemas import wire
from failsoft.schemas.config.refusal import near
from failsoft.schemas.event import iso
from failsoft.schemas.fleet.breaker import BreakerRow, Command
from failsoft.schemas.model_version import ModelVersion
from failsoft.schemas.model_version import model_of as model_of_key
from failsoft.schemas.wire import Malformed

Rows = Mapping[str, BreakerRow | Malformed]
"""A pipeline's breakers by ``model@version``; Malformed for a row that cannot be read."""

UNREADABLE = "unreadable"
"""Stands for the state in a row that no owner wrote; to workers it is as if there were none."""

LONGEST_KEY = 10_000
"""Bytes of a changelog's key: ours have at most some three hundred, and twice that where JSON escapes them."""


def rows(latest: Mapping[bytes | None, bytes | None]) -> dict[str, BreakerRow | Malformed]:
    """What the changelog says: the last value of each key, without those that were deleted; models in order."""
    found: dict[str, BreakerRow | Malformed] = {}
    for key, value in latest.items():
        if value is None:
            continue
        try:
            found[_name(key)] = BreakerRow.parse(value)
        except Malformed as e:
            found[_name(key)] = e
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def model_of(target: str, models: Iterable[str]) -> str:
    """The model that ``target`` (a model or ``model@version``) names. Raises ValueError, with a near spelling."""
    known = [*models]
    model = target if target in known else (model_of_key(target) or target)
    if model not in known:
        raise ValueError(f"no model {model!r} in this pipeline{near(model, known)}; there are: {', '.join(known)}")
    return model


def check_version(target: str, model: str, keys: Iterable[str]) -> None:
    """Raises ValueError when ``target`` names a version that is not among ``keys``: an order would make it a row."""
    if target == model or target in (known := {*keys}):
        return
    there = ", ".join(sorted((k for k in known if model_of_key(k) == model), key=_order)) or "none"
    raise ValueError(f"no {target!r}, neither in the model repository nor in the fleet; there are: {there}")


def obeyed(command: Command, found: Rows) -> dict[str, BreakerRow]:
    """The rows that ``command`` means, once there are some and each shows that it was obeyed; else none."""
    name = f"{command.at_ms} {command.action} {command.who}"  # as failsoft.models.breaker.fleet writes it
    meant = targets(command.target, found)
    done = {k: row for k in meant if isinstance(row := found[k], BreakerRow) and name in row.commands}
    return done if len(done) == len(meant) else {}


def state(row: BreakerRow | Malformed | None) -> str:
    """What a row, or that there is none, makes of a breaker."""
    if row is None:
        return BreakerState.CLOSED.value
    return UNREADABLE if isinstance(row, Malformed) else row.state


def listed(found: Rows, policies: Mapping[str, BreakerPolicy], now_ms: int) -> list[dict[str, Any]]:
    """Each breaker in full. A model of the pipeline that has no row is closed: nothing has been told of it yet."""
    told = {model_of_key(key) for key in found}
    new = {model: BreakerRow(model) for model in policies if model not in told}
    every = sorted([*found.items(), *new.items()], key=lambda item: _order(item[0]))
    return [described(key, row, policies.get(_parts(key)[0]), now_ms) for key, row in every]


def described(key: str, row: BreakerRow | Malformed, policy: BreakerPolicy | None, now_ms: int) -> dict[str, Any]:
    """A breaker for programs, at ``now_ms``. Rates are of the windows that are fresh, and None without calls or when
    ``policy`` is (a model that the pipeline does not have any more). Times left are seconds, 0 when they are over.
    """
    model, version = _parts(key)
    about: dict[str, Any] = {"breaker": key, "model": model, "version": version}
    about["state"] = state(row)
    if isinstance(row, Malformed):
        return about | {"reason": str(row)}
    counts = Counts() if policy is None else _sum(row, policy, now_ms)
    lease = row.lease
    over = view(row, "", now_ms).may_ask  # of nobody's lease: the time is over, also by a clock that was set back
    return about | {
        "generation": row.generation,
        "since": iso(row.since_ms) if row.since_ms else None,
        "for_seconds": max(0, now_ms - row.since_ms) / 1000 if row.since_ms else None,
        "calls": counts.calls,
        "failures": counts.failures,
        "failure_rate": counts.failure_rate if counts.calls else None,
        "failure_rate_opens": policy and policy.failure_rate,
        "runs": counts.runs,
        "slow": counts.slow,
        "slow_rate": counts.slow_rate if counts.runs else None,
        "slow_rate_opens": policy and policy.slow_rate,
        "reopenings": row.reopenings,
        "half_open_in_seconds": None if row.until_ms is None else _left(row.until_ms, now_ms, over),
        "probes_passed": row.passed + (lease.passed if lease else 0),
        "probes_needed": policy and policy.probes,
        "lease": lease
        and {
            "worker": lease.worker,
            "probes": lease.probes,
            "passed": lease.passed,
            "expires_in_seconds": _left(lease.expires_ms, now_ms, over),
        },
        "sick": [*row.sick],
        "reason": row.reason,
        "changed_by": row.changed_by,
    }


def shown(about: Mapping[str, Any]) -> dict[str, Any]:
    """What ``described`` gave, as the cells of a table."""
    return {
        **about,
        "for": None if about.get("for_seconds") is None else span(about["for_seconds"]),
        "failures": _rate(about, "failure_rate", "calls"),
        "slow": _rate(about, "slow_rate", "runs"),
        "next": _next(about),
        "sick": about.get("sick", []),
    }


def span(seconds: float) -> str:
    """A time as people say it, in its two largest units: "12 s", "3 min 5 s", "2 h 10 min", "4 d"."""
    left = int(seconds)
    found: list[tuple[int, str]] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        n, left = divmod(left, size)
        if found or n:
            found.append((n, unit))
    return " ".join(f"{n} {unit}" for n, unit in found[:2] if n) or "0 s"


def _next(about: Mapping[str, Any]) -> str | None:
    """What an open or a half-open breaker waits for."""
    match about["state"]:
        case BreakerState.OPEN:
            left = about["half_open_in_seconds"]
            return f"half-open in {span(left)}" if left else "half-open when a worker has an event to try"
        case BreakerState.HALF_OPEN:
            needed = about["probes_needed"]
            passed = f"{about['probes_passed']} of {needed} passed" if needed else f"{about['probes_passed']} passed"
            lease = about["lease"]
            if lease is None:
                return f"{passed}; no probes are lent"
            left = lease["expires_in_seconds"]
            lent = f"{lease['probes']} lent to {lease['worker']}"
            return f"{passed}; {lent}, {f'for {span(left)}' if left else 'expired'}"
    return None


def _rate(about: Mapping[str, Any], name: str, of: str) -> str | None:
    if about.get(name) is None:
        return None
    return f"{100 * about[name]:.3g} % of {about[of]:,} ({100 * about[f'{name}_opens']:.3g} % opens)"


def _left(until_ms: int, now_ms: int, over: bool) -> float:
    return 0.0 if over else max(0, until_ms - now_ms) / 1000


def _sum(row: BreakerRow, policy: BreakerPolicy, now_ms: int) -> Counts:
    """The windows that an owner would judge by."""
    fresh = [w.counts for w in row.windows.values() if abs(now_ms - w.at_ms) < policy.window * 1000]
    return sum((Counts(c.calls, c.failures, c.slow, c.runs) for c in fresh), Counts())


def _name(key: bytes | None) -> str:
    try:
        name = wire.loads(key, LONGEST_KEY)
    except Malformed:
        name = None
    return name if isinstance(name, str) else (key or b"").decode(errors="replace")


def _parts(key: str) -> tuple[str, int | None]:
    """``"m@2"`` -> ("m", 2); a model alone has no version."""
    named = ModelVersion.parse(key)
    return (key, None) if named is None else (named.model, named.version)


def _order(key: str) -> tuple[str, int]:
    model, version = _parts(key)
    return model, version or 0
