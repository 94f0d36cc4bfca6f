"""The view behind `failsoft breakers`: rows parsed, described and formatted, targets checked, orders obeyed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from failsoft.models.breaker.fleet import fold
from failsoft.models.breaker.rules import BreakerPolicy
from failsoft.schemas.fleet.breaker import Action, BreakerRow, Command, Lease, WorkerWindow
from failsoft.schemas.fleet.counts import Counts
from failsoft.schemas.wire import Malformed
from failsoft.workers.operations.breaker_view import (
    check_version,
    described,
    listed,
    named_model,
    obeyed,
    rows,
    shown,
    span,
    state,
)

NOW = 1_800_000_000_000
POLICY = BreakerPolicy(
    failure_rate=0.5, window=30, minimum_calls=20, slow_call=0.1, slow_rate=0.8, open_for=15, max_open=300, probes=3
)
POLICIES = {"repayment": POLICY, "repayment-lite": POLICY}


def _row(key: str = "repayment@2", **changes: Any) -> BreakerRow:
    return replace(BreakerRow(key, since_ms=NOW - 125_000), **changes)


def _window(age: float, tally: Counts) -> WorkerWindow:
    return WorkerWindow(1, NOW - round(1000 * age), tally)


def _command(target: str, action: Action = Action.FORCE_OPEN) -> Command:
    return Command(target, action, "ann@here", "drift", NOW)


def _obey(row: BreakerRow | None, command: Command) -> BreakerRow:
    after = fold(row, command, POLICY, NOW, 0.5).row
    assert after is not None
    return after


def test_rows_are_the_last_values_and_null_deletes() -> None:
    """Keys are JSON strings; an unreadable row is listed and hides no other row; version 10 comes after 9."""
    kept = [_row("m@10", generation=7), _row("m@9"), _row("a@1")]
    latest: dict[bytes | None, bytes | None] = {json.dumps(r.key).encode(): r.to_bytes() for r in kept}
    found = rows({**latest, b'"gone@1"': None, b'"bad@1"': b'{"state": "ajar"}', b"\xff no json": b"[]", None: b"{}"})
    assert [k for k in found if "@" in k] == ["a@1", "bad@1", "m@9", "m@10"]
    assert found["m@10"] == kept[0]
    assert [k for k, row in found.items() if isinstance(row, Malformed)] == ["", "bad@1", "\ufffd no json"]


def test_a_model_without_a_row_is_closed() -> None:
    """A model of the pipeline without a row is closed; a row of a removed model is listed without thresholds."""
    about = listed(
        rows({b'"old@1"': _row("old@1", windows={"w": _window(1, Counts(9, 9, 0, 9))}).to_bytes()}), POLICIES, NOW
    )
    assert [(a["breaker"], a["version"], a["state"], a["generation"]) for a in about] == [
        ("old@1", 1, "closed", 0),
        ("repayment", None, "closed", 0),
        ("repayment-lite", None, "closed", 0),
    ]
    assert (about[0]["failure_rate"], about[0]["failure_rate_opens"]) == (None, None)
    assert shown(about[1])["for"] is None, "the start of its state is unknown"


def test_rates_are_of_the_fresh_windows() -> None:
    """Rates are sums over the workers, next to the thresholds; a worker silent for a whole window is left out."""
    windows = {
        "a": _window(1, Counts(30, 10, 1, 10)),
        "b": _window(29, Counts(70, 2, 3, 10)),
        "dead": _window(30, Counts(1000, 1000, 100, 100)),
    }
    about = described("repayment@2", _row(windows=windows, sick=("a",)), POLICY, NOW)
    assert (about["calls"], about["failures"], about["failure_rate"], about["failure_rate_opens"]) == (
        100,
        12,
        0.12,
        0.5,
    )
    assert (about["runs"], about["slow"], about["slow_rate"], about["slow_rate_opens"]) == (20, 4, 0.2, 0.8)
    cells = shown(about)
    assert (cells["failures"], cells["slow"]) == ("12 % of 100 (50 % opens)", "20 % of 20 (80 % opens)")
    assert (cells["sick"], cells["for"], cells["next"]) == (["a"], "2 min 5 s", None)


def test_no_calls_have_no_rate() -> None:
    """Without calls the rates are unknown: None, not 0."""
    about = described("repayment@2", _row(), POLICY, NOW)
    assert (about["calls"], about["failure_rate"], about["slow_rate"]) == (0, None, None)
    assert (shown(about)["failures"], shown(about)["slow"]) == (None, None)


@pytest.mark.parametrize(
    ("until", "left", "text"),
    [
        (NOW + 12_900, 12.9, "half-open in 12 s"),
        (NOW - 5, 0.0, "half-open as soon as a worker has an event to probe with"),
    ],
)
def test_an_open_breaker_shows_when_it_may_probe(until: int, left: float, text: str) -> None:
    """After ``until_ms`` an open breaker waits for a worker that has an event to probe with."""
    about = described("repayment@2", _row(state="open", until_ms=until, reason="why"), POLICY, NOW)
    assert (about["half_open_in_seconds"], shown(about)["next"], about["reason"]) == (left, text, "why")


@pytest.mark.parametrize(
    ("lease", "text"),
    [
        (None, "1 of 3 passed; no probes leased"),
        (Lease("w1", 2, NOW - 1000, NOW + 9000, passed=1), "2 of 3 passed; 2 leased to w1, for 9 s"),
        (Lease("w1", 2, NOW - 9000, NOW - 1), "1 of 3 passed; 2 leased to w1, expired"),
    ],
)
def test_a_half_open_breaker_shows_its_lease(lease: Lease | None, text: str) -> None:
    """It shows the worker, number and remaining time of the lease, and the probes passed in this half-open period."""
    about = described("repayment@2", _row(state="half_open", lease=lease, passed=1), POLICY, NOW)
    assert shown(about)["next"] == text
    if lease is not None:
        left = max(0, lease.expires_ms - NOW) / 1000
        assert about["lease"] == {"worker": "w1", "probes": 2, "passed": lease.passed, "expires_in_seconds": left}


def test_an_unreadable_row_is_listed_as_unreadable() -> None:
    """Its state is ``unreadable``, and its reason is the parse error."""
    about = described("repayment@2", Malformed("state: no such"), POLICY, NOW)
    assert (about["state"], about["reason"]) == ("unreadable", "state: no such")
    assert shown(about)["next"] is None
    assert [state(row) for row in (None, Malformed("x"), _row(state="disabled"))] == [
        "closed",
        "unreadable",
        "disabled",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.9, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (185, "3 min 5 s"),
        (7_805, "2 h 10 min"),
        (345_605, "4 d"),
    ],
)
def test_a_span_is_written_in_its_two_largest_units(seconds: float, text: str) -> None:
    """A length of time is rounded down and written in at most two units."""
    assert span(seconds) == text


def test_a_target_must_name_a_model_of_the_pipeline() -> None:
    """A target may have a version; an unknown model is refused with a near spelling and the known models."""
    assert named_model("repayment", POLICIES) == named_model("repayment@2", POLICIES) == "repayment"
    for wrong in ("repaymnet", "repaymnet@2", "@2", ""):
        with pytest.raises(ValueError, match="there are: repayment, repayment-lite"):
            named_model(wrong, POLICIES)
    with pytest.raises(ValueError, match=r"did you mean 'repayment'\?"):
        named_model("repaymnet@2", POLICIES)


def test_a_targets_version_must_exist() -> None:
    """The version must be in the repository or the fleet; an order for another would create a useless row."""
    keys = ["repayment@1", "repayment@10", "repayment@2", "repayment-lite@7"]
    check_version("repayment", "repayment", [])
    check_version("repayment@2", "repayment", keys)
    for wrong in ("repayment@7", "repayment@02", "repayment@", "repayment@x"):
        with pytest.raises(ValueError, match=r"there are: repayment@1, repayment@2, repayment@10$"):
            check_version(wrong, "repayment", keys)


def test_an_order_is_obeyed_when_each_targeted_row_shows_it() -> None:
    """At least one row must show it; another order or an unreadable row does not count."""
    one, both = _command("repayment@2"), _command("repayment")
    old, new = _row("repayment@1"), _row("repayment@2")
    lite = _row("repayment-lite@1")
    assert obeyed(both, {}) == obeyed(both, {"repayment-lite@1": lite}) == {}
    assert obeyed(one, {"repayment@2": new}) == {}

    opened = _obey(new, replace(one, target="repayment@2"))
    assert obeyed(one, {"repayment@1": old, "repayment@2": opened}) == {"repayment@2": opened}
    assert obeyed(replace(one, at_ms=NOW + 1), {"repayment@2": opened}) == {}
    assert obeyed(both, {"repayment@1": old, "repayment@2": opened}) == {}
    assert obeyed(both, {"repayment@1": Malformed("x"), "repayment@2": opened}) == {}
    rest = _obey(old, replace(both, target="repayment@1"))
    done = {"repayment@1": rest, "repayment@2": opened}
    assert obeyed(both, {**done, "repayment-lite@1": lite}) == done


def test_an_order_that_changes_nothing_is_obeyed_too() -> None:
    """Closing a closed breaker changes no state, but the row records the order."""
    command = _command("repayment@2", Action.CLOSE)
    after = _obey(_row(), command)
    assert (after.state, after.generation) == ("closed", 0)
    assert obeyed(command, {"repayment@2": after})
