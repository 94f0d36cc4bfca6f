"""How the owner parses records of the topic of outcomes, and which messages it ignores."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failsoft.models.breaker.fleet import fold
from failsoft.models.rollout import rollout
from failsoft.schemas.fleet.breaker import Action, BreakerRow, Command, Report, ReportKind
from failsoft.schemas.fleet.counts import Counts
from failsoft.schemas.fleet.rollout import Direction, Heartbeat, Order
from failsoft.schemas.wire import Malformed, dumps
from failsoft.workers.fleet.owner import Owner
from tests.fleet_owner import POLICY, T0

KEYS = {"m@1", "m@12", "lite@1", "gone@1"}


@pytest.fixture
def owner() -> Owner:
    """The owner of a pipeline with three models, one of them with an @ in its name."""
    models = ("m", "lite", "a@b")
    rollbacks = dict.fromkeys(models, rollout.RollbackPolicy(3, 1800.0))
    return Owner(dict.fromkeys(models, POLICY), rollbacks, lambda: T0 / 1000, lambda: 0.5, _prove, lambda m, c: None)


async def _prove(model: str, version: int) -> str | None:
    return None


def report(key: str) -> Report:
    return Report(key, "w", 7, T0, 3, ReportKind.WINDOW, Counts(5, 1, 0, 1))


def order(target: str) -> Command:
    return Command(target, Action.FORCE_OPEN, "ann", "a drill", T0)


def test_a_report_is_parsed_unchanged(owner: Owner) -> None:
    """A report is accepted for a version without a row too; the fold creates the row."""
    for key in ("m@1", "m@99", "lite@1"):
        assert owner.messages(report(key).to_bytes(), KEYS) == [report(key)]


def test_a_report_about_a_foreign_model_is_ignored(owner: Owner) -> None:
    """A worker with an older pipeline file may still report a removed model; its row must not be created again."""
    assert owner.messages(report("gone@1").to_bytes(), KEYS) == []
    assert owner.messages(report("M@1").to_bytes(), KEYS) == []


def test_a_command_for_a_model_becomes_one_for_each_version(owner: Owner) -> None:
    """A command for a model applies to its versions with a row or loaded, not to a model with a longer name."""
    commands = owner.messages(order("m").to_bytes(), KEYS | {"mm@1"})
    assert commands == [order("m@1"), order("m@12")]
    assert owner.messages(order("lite").to_bytes(), {"m@1"}) == []


def test_a_command_for_one_version_applies_to_that_version(owner: Owner) -> None:
    """The version needs no row: an operator can force its breaker open before it serves."""
    assert owner.messages(order("m@1").to_bytes(), KEYS) == [order("m@1")]
    assert owner.messages(order("m@77").to_bytes(), KEYS) == [order("m@77")]
    assert owner.messages(order("a@b@3").to_bytes(), KEYS) == [order("a@b@3")]


@pytest.mark.parametrize("target", ["m@latest", "m@", "m@-1", "m@1.0", "m@²", "m@" + "9" * 19, "@1", "unknown@1", "x"])
def test_a_command_for_an_invalid_version_is_ignored(owner: Owner, target: str) -> None:
    """Otherwise it would create a row that cannot be read and stays in the table."""
    assert owner.messages(order(target).to_bytes(), KEYS) == []


def test_every_row_that_a_message_makes_can_be_read(owner: Owner) -> None:
    """A row that the owner creates from any accepted message parses back to the same row."""
    first = replace(report("m@1"), generation=0)
    for raw in (first.to_bytes(), order("m@0").to_bytes(), order("a@b@3").to_bytes()):
        (message,) = owner.messages(raw, set())
        row = fold(None, message, POLICY, T0, 0.5).row
        assert row is not None and BreakerRow.from_dict(row.to_dict()) == row


def test_a_command_for_a_removed_model_still_targets_its_rows(owner: Owner) -> None:
    """The owner has no policy for a removed model, so it leaves the rows unchanged."""
    assert owner.messages(order("gone").to_bytes(), KEYS) == [order("gone@1")]
    assert owner.policy("gone@1") is None and owner.policy("m@1") is POLICY and owner.policy("m") is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"{}",
        b'{"action": "force_open"}',
        b"[" * 100,
        b" " * 70_000,
        dumps({"action": "sing", "target": "m", "who": "ann", "why": "", "at_ms": 1}),
        report("m@1").to_bytes().replace(b'"window"', b'"dream"'),
        report("m@1").to_bytes().replace(b"m@1", b"m"),
    ],
)
def test_any_other_record_is_malformed(owner: Owner, raw: bytes) -> None:
    """A record that is no valid message raises Malformed, which the agent logs and skips."""
    with pytest.raises(Malformed):
        owner.messages(raw, KEYS)


def test_a_record_without_a_value_says_nothing(owner: Owner) -> None:
    """Workers write such records to learn the broker's time."""
    assert owner.messages(None, KEYS) == []


def test_heartbeats_and_orders_are_accepted_for_models_of_the_pipeline(owner: Owner) -> None:
    """A model's name may contain an @; a target that is itself a model's name names that model."""
    heartbeat = Heartbeat("w", "m", 2, T0)
    assert owner.messages(heartbeat.to_bytes(), KEYS) == [heartbeat]
    assert owner.messages(Heartbeat("w", "gone", 2, T0).to_bytes(), KEYS) == []
    for target, model in (("m@3", "m"), ("m", "m"), ("a@b", "a@b"), ("a@b@3", "a@b"), ("x@3", None)):
        order = Order(target, Direction.ROLLBACK, "ann", "why", T0)
        assert owner.model(target) == model
        assert owner.messages(order.to_bytes(), KEYS) == ([order] if model else [])
