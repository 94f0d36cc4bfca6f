"""Messages between workers: they are read back unchanged or refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from failsoft.models.breaker.fleet import fold
from failsoft.models.breaker.rules import BreakerEvent, BreakerState
from failsoft.schemas import wire
from failsoft.schemas.fleet import breaker as messages
from failsoft.schemas.fleet.breaker import (
    MAX_ROW,
    Action,
    Alert,
    BreakerRow,
    Command,
    Lease,
    Probes,
    Report,
    ReportKind,
    WorkerWindow,
)
from failsoft.schemas.fleet.counts import Counts
from tests.fleet_owner import BAD, KEY, POLICY, T0

LEASE = Lease("a", 3, T0, T0 + 10_000, 1, 1)
FULL = BreakerRow(
    KEY, "half_open", 7, T0, None, 2, "a reason", "a", LEASE, 1, 0, {"a": WorkerWindow(5, T0, BAD, True, T0)}, ("a",)
)


@pytest.mark.parametrize(
    "message",
    [
        Report(KEY, "a", 3, T0, 4, ReportKind.WINDOW, counts=Counts(9, 3, 1, 2), tripped=True),
        Report("ünïcode@model@1", "a", 3, T0, 4, ReportKind.PROBED, probes=Probes(2, 1, 2)),
        Report(KEY, "a", 3, T0, 4, ReportKind.ASK, want=3),
        Command("repayment", Action.FORCE_OPEN, "ann", "it is wrong", T0),
        FULL,
        replace(FULL, state="open", until_ms=T0, lease=None, commands=("1 close ann",)),
        Alert("breaker", KEY, T0, "closed", "open", "20 of 20", "a"),
        Alert("node_sick", KEY, T0, "sick", "well", "", None),
    ],
)
def test_a_message_is_read_back_unchanged(message: Any) -> None:
    """Parsing a message's bytes gives an equal message."""
    assert type(message).parse(message.to_bytes()) == message


def test_a_row_has_only_json_types() -> None:
    """A row survives JSON unchanged, so it is the same after the table is recovered from its changelog."""
    held = FULL.to_dict()
    assert wire.loads(wire.dumps(held), MAX_ROW) == held
    assert BreakerRow.from_dict(held) == FULL


def test_an_alert_has_the_key_from_in_json() -> None:
    """The field ``from_`` is ``from`` in JSON: only Python reserves the word."""
    assert set(wire.loads(Alert("breaker", KEY, T0, "closed", "open", "x", "a").to_bytes(), 999)) == {
        "name",
        "key",
        "at_ms",
        "from",
        "to",
        "reason",
        "worker",
    }


def test_fields_of_a_newer_version_are_ignored() -> None:
    """Unknown fields are ignored, because workers of two versions run together during an upgrade."""
    report = Report(KEY, "a", 3, T0, 4, ReportKind.WINDOW)
    assert Report.parse(wire.dumps({**wire.loads(report.to_bytes(), 999), "mood": "fine"})) == report


def test_runs_left_out_of_a_message_are_zero() -> None:
    """A message without runs has 0 runs, so nothing counts as slow; in code the default is one run per call."""
    report = wire.loads(Report(KEY, "a", 3, T0, 4, ReportKind.WINDOW).to_bytes(), 999)
    assert Report.parse(wire.dumps({**report, "counts": {"calls": 5, "failures": 2}})).counts == Counts(5, 2, 0, 0)
    assert Report.parse(wire.dumps({**report, "counts": {}})).counts == Counts()


REPORT = wire.loads(Report(KEY, "a", 3, T0, 4, ReportKind.WINDOW, counts=BAD).to_bytes(), 999)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key", "repayment"),
        ("key", "repayment@two"),
        ("key", "x" * 400 + "@1"),
        ("worker", ""),
        ("sequence", True),
        ("sequence", "3"),
        ("sequence", 1.0),
        ("at_ms", -1),
        ("at_ms", 2**60),
        ("generation", None),
        ("kind", "gossip"),
        ("counts", {"calls": 1, "failures": 2}),
        ("counts", {"calls": 1, "failures": 0, "slow": 2, "runs": 1}),
        ("counts", [1, 2, 3]),
        ("probes", {"passed": 1, "slow": 2}),
        ("want", -1),
        ("tripped", "perhaps"),
    ],
)
def test_an_invalid_report_is_malformed(field: str, value: object) -> None:
    """Anyone may write to a topic, so an invalid field is refused; the error names the field, not its value."""
    with pytest.raises(wire.Malformed, match=field):
        Report.parse(wire.dumps({**REPORT, field: value}))


@pytest.mark.parametrize("raw", [None, b"", b"[]", b"7", b"{}", b"not json", b'"' + b"x" * 70_000 + b'"'])
@pytest.mark.parametrize("schema", [Report, Command, BreakerRow, Alert])
def test_values_that_are_not_messages_are_malformed(schema: Any, raw: bytes | None) -> None:
    """A tombstone, invalid JSON, another type and an oversized value raise Malformed."""
    with pytest.raises(wire.Malformed):
        schema.parse(raw)


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "ajar"},
        {"state": "open", "lease": None},  # without until_ms
        {"until_ms": 5},  # not open
        {"state": "closed"},  # with a lease
        {"sick": "a"},
        {"windows": {"a": {"sequence": 1}}},
    ],
)
def test_an_impossible_row_is_malformed(wrong: dict[str, Any]) -> None:
    """A row with a state that no sequence of transitions can reach is refused."""
    with pytest.raises(wire.Malformed):
        BreakerRow.from_dict({**FULL.to_dict(), **wrong})


def test_state_and_action_names_match_those_of_models() -> None:
    """schemas must not import models, so the names exist twice and must be equal."""
    assert {*get_args(messages._StateName)} == {*BreakerState}
    assert all(BreakerEvent[action.name].value.startswith("operator: ") for action in Action)


@pytest.mark.parametrize("state", BreakerState)
@pytest.mark.parametrize("action", Action)
def test_every_written_row_can_be_read(state: BreakerState, action: Action) -> None:
    """A command with the longest accepted operator and reason gives a row that is accepted too."""
    row = BreakerRow(KEY, state.value, until_ms=T0 if state is BreakerState.OPEN else None)
    folded = fold(row, Command(KEY, action, "w" * 200, "y" * 1000, T0), POLICY, T0, 0.5)
    assert folded.row is not None
    assert BreakerRow.parse(folded.row.to_bytes()) == folded.row
