"""The operator's view of the fleet's breakers: parses, describes and formats rows, and checks targets. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from failsoft.models.breaker.fleet import fresh_counts, targets, view
from failsoft.models.breaker.rules import BreakerPolicy, BreakerState
from failsoft.schemas import wire
from failsoft.schemas.config.refusal import near
from failsoft.schemas.event import iso
from failsoft.schemas.fleet.breaker import BreakerRow, Command
from failsoft.schemas.fleet.counts import Counts
from failsoft.schemas.model_version import ModelVersion, model_of
from failsoft.schemas.wire import Malformed

BreakerRows = Mapping[str, BreakerRow | Malformed]
"""A pipeline's breaker rows by ``model@version``; Malformed for a row that cannot be read."""

UNREADABLE = "unreadable"
"""Shown as the state of a row that cannot be parsed. Workers treat such a row as missing."""

LONGEST_KEY = 10_000
"""Maximum bytes of a changelog key that is parsed. Our keys have at most 300, or 600 where JSON escapes them."""


def rows(latest: Mapping[bytes | None, bytes | None]) -> dict[str, BreakerRow | Malformed]:
    """Parses the latest changelog values by key; deleted keys are left out. Sorted by model, then by version number."""
    parsed: dict[str, BreakerRow | Malformed] = {}
    for key, value in latest.items():
        if value is None:
            continue
        try:
            parsed[_name(key)] = BreakerRow.parse(value)
        except Malformed as e:
            parsed[_name(key)] = e
    return dict(sorted(parsed.items(), key=lambda item: _order(item[0])))


def named_model(target: str, models: Iterable[str]) -> str:
    """The model named by ``target`` (a model or ``model@version``). Raises ValueError that suggests a near spelling."""
    known = [*models]
    model = target if target in known else (model_of(target) or target)
    if model not in known:
        raise ValueError(f"no model {model!r} in this pipeline{near(model, known)}; there are: {', '.join(known)}")
    return model


def check_version(target: str, model: str, keys: Iterable[str]) -> None:
    """Raises ValueError when ``target`` names a version not in ``keys``: an order would create a row for it."""
    if target == model or target in (known := {*keys}):
        return
    there = ", ".join(sorted((k for k in known if model_of(k) == model), key=_order)) or "none"
    raise ValueError(f"{target!r} is neither in the model repository nor in the fleet; there are: {there}")


def obeyed(command: Command, by_key: BreakerRows) -> dict[str, BreakerRow]:
    """The rows that ``command`` targets, if each shows that the owner obeyed it; else an empty dict."""
    name = f"{command.at_ms} {command.action} {command.who}"  # as failsoft.models.breaker.fleet writes it
    keys = targets(command.target, by_key)
    done = {k: row for k in keys if isinstance(row := by_key[k], BreakerRow) and name in row.commands}
    return done if len(done) == len(keys) else {}


def state(row: BreakerRow | Malformed | None) -> str:
    """The state of the breaker with this row; closed without a row."""
    if row is None:
        return BreakerState.CLOSED.value
    return UNREADABLE if isinstance(row, Malformed) else row.state


def listed(by_key: BreakerRows, policies: Mapping[str, BreakerPolicy], now_ms: int) -> list[dict[str, Any]]:
    """Describes every breaker. A model of the pipeline without a row was never reported on: it is listed as closed."""
    with_rows = {model_of(key) for key in by_key}
    new = {model: BreakerRow(model) for model in policies if model not in with_rows}
    every = sorted([*by_key.items(), *new.items()], key=lambda item: _order(item[0]))
    return [described(key, row, policies.get(_parts(key)[0]), now_ms) for key, row in every]


def described(key: str, row: BreakerRow | Malformed, policy: BreakerPolicy | None, now_ms: int) -> dict[str, Any]:
    """One breaker at ``now_ms`` as a JSON object.

    Rates are sums over the workers' fresh windows. They are None without calls, and when ``policy`` is None (a model
    that the pipeline does not have any more). Remaining times are in seconds, 0 when they are over.
    """
    model, version = _parts(key)
    about: dict[str, Any] = {"breaker": key, "model": model, "version": version}
    about["state"] = state(row)
    if isinstance(row, Malformed):
        return about | {"reason": str(row)}
    counts = Counts() if policy is None else fresh_counts(row, policy, now_ms)
    lease = row.lease
    over = view(row, "", now_ms).may_ask  # no worker is named "", so only the time decides; it handles a clock set back
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
    """The result of ``described`` as the cells of a table."""
    return {
        **about,
        "for": None if about.get("for_seconds") is None else span(about["for_seconds"]),
        "failures": _rate(about, "failure_rate", "calls"),
        "slow": _rate(about, "slow_rate", "runs"),
        "next": _next(about),
        "sick": about.get("sick", []),
    }


def span(seconds: float) -> str:
    """A length of time in its two largest units: "12 s", "3 min 5 s", "2 h 10 min", "4 d"."""
    left = int(seconds)
    units: list[tuple[int, str]] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        n, left = divmod(left, size)
        if units or n:
            units.append((n, unit))
    return " ".join(f"{n} {unit}" for n, unit in units[:2] if n) or "0 s"


def _next(about: Mapping[str, Any]) -> str | None:
    """The text that says what an open or half-open breaker waits for; None in the other states."""
    match about["state"]:
        case BreakerState.OPEN:
            left = about["half_open_in_seconds"]
            return f"half-open in {span(left)}" if left else "half-open as soon as a worker has an event to probe with"
        case BreakerState.HALF_OPEN:
            needed = about["probes_needed"]
            passed = f"{about['probes_passed']} of {needed} passed" if needed else f"{about['probes_passed']} passed"
            lease = about["lease"]
            if lease is None:
                return f"{passed}; no probes leased"
            left = lease["expires_in_seconds"]
            leased = f"{lease['probes']} leased to {lease['worker']}"
            return f"{passed}; {leased}, {f'for {span(left)}' if left else 'expired'}"
    return None


def _rate(about: Mapping[str, Any], name: str, of: str) -> str | None:
    if about.get(name) is None:
        return None
    return f"{100 * about[name]:.3g} % of {about[of]:,} ({100 * about[f'{name}_opens']:.3g} % opens)"


def _left(until_ms: int, now_ms: int, over: bool) -> float:
    return 0.0 if over else max(0, until_ms - now_ms) / 1000


def _name(key: bytes | None) -> str:
    try:
        name = wire.loads(key, LONGEST_KEY)
    except Malformed:
        name = None
    return name if isinstance(name, str) else (key or b"").decode(errors="replace")


def _parts(key: str) -> tuple[str, int | None]:
    """Splits a key: ``"m@2"`` -> ("m", 2); the version is None for a model alone."""
    named = ModelVersion.parse(key)
    return (key, None) if named is None else (named.model, named.version)


def _order(key: str) -> tuple[str, int]:
    model, version = _parts(key)
    return model, version or 0
