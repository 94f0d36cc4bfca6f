"""The rollout row: orders, heartbeats and automatic rollbacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from failsoft.models.rollout.rollout import (
    CHANGES_KEPT,
    HEARTBEAT_EVERY,
    MISSED_HEARTBEATS,
    PROBLEM_KEPT,
    Rollback,
    RollbackBlocked,
    RollbackPolicy,
    fold,
    good_versions,
    heartbeat_every,
    is_news,
    newer,
    verdict,
    workers_by_version,
)
from failsoft.schemas import wire
from failsoft.schemas.fleet.breaker import MAX_ROW, BreakerRow
from failsoft.schemas.fleet.rollout import Direction, Health, Heartbeat, Order, RolloutRow, Trigger

T0 = 1_800_000_000_000
POLICY = RollbackPolicy(after_failed_probes=3, hold=1800.0)


class Desk:
    """An owner of one model's row, on a clock that the test sets."""

    def __init__(self, *versions: int) -> None:
        self.now, self.row = T0, None
        self.alerts: list[Any] = []
        if versions:
            self.alive("w", versions[0])
            for version in versions[1:]:
                self.promote(version)

    def hear(self, message: Order | Heartbeat) -> bool:
        folded = fold(self.row, message, POLICY, self.now)
        changed = folded.row is not self.row
        assert changed or not folded.alerts
        self.row, self.change = folded.row, folded.change
        self.alerts += folded.alerts
        return changed

    def alive(self, worker: str, version: int | None, **fields: Any) -> bool:
        return self.hear(Heartbeat(worker, "m", version, fields.pop("at_ms", self.now), **fields))

    def order(self, direction: Direction, target: str, failing: int | None = None) -> bool:
        self.now += 1
        return self.hear(Order(target, direction, "ann", "a reason", self.now, failing))

    def promote(self, version: int) -> bool:
        return self.order(Direction.PROMOTE, f"m@{version}")

    def back(self, target: str = "m", failing: int | None = None) -> bool:
        return self.order(Direction.ROLLBACK, target, failing)

    def breaker(self, version: int, reopenings: int, state: str = "open") -> BreakerRow:
        until = self.now + 1000 if state == "open" else None
        return BreakerRow(f"m@{version}", state, 9, self.now, until, reopenings)  # type: ignore[arg-type]

    def verdict(self, version: int, reopenings: int = 3, state: str = "open") -> Rollback | RollbackBlocked | None:
        return verdict(self.row, self.breaker(version, reopenings, state), POLICY, self.now)

    @property
    def refusals(self) -> list[str | None]:
        assert self.row is not None
        return [answered.refused for answered in self.row.orders]


def test_the_first_version_that_is_served_is_the_active_one() -> None:
    """The first heartbeat with a version creates the row; orders before that are ignored."""
    desk = Desk()
    assert not desk.promote(2) and not desk.alive("w", None)
    assert desk.alive("w", 2)
    assert (desk.row.active, desk.row.previous, desk.change.trigger) == (2, None, Trigger.FIRST)
    assert desk.row.workers["w"].version == 2


def test_a_promotion_is_applied_once_and_records_who_and_why() -> None:
    """The row has both versions and the history; reading the order again changes nothing."""
    desk = Desk(1)
    order = Order("m@2", Direction.PROMOTE, "ann", "better recall", T0 + 5)
    assert desk.hear(order)
    assert (desk.row.active, desk.row.previous) == (2, 1)
    assert desk.row.history[-1].who == "ann" and desk.row.history[-1].why == "better recall"
    assert [(a.name, a.key, a.from_, a.to) for a in desk.alerts] == [("promotion", "m@2", "1", "2")]
    assert not desk.hear(order) and len(desk.row.history) == 2


def test_a_rollback_goes_to_the_last_good_version() -> None:
    """Each rollback goes further back; a version left by a rollback is a target again only after a promotion."""
    desk = Desk(1, 2, 3)
    assert good_versions(desk.row) == [2, 1]
    desk.back()
    assert desk.row.active == 2 and good_versions(desk.row) == [1]
    desk.promote(3)
    assert good_versions(desk.row) == [2, 1]
    desk.back(), desk.back()
    assert desk.row.active == 1 and good_versions(desk.row) == []
    desk.back()
    assert desk.row.active == 1 and "name a version" in (desk.refusals[-1] or "")


def test_a_rollback_may_name_a_version_and_a_promotion_must() -> None:
    """An operator's rollback may name any version; a promotion without a version is refused."""
    desk = Desk(1, 2, 3)
    desk.back("m@1")
    assert desk.row.active == 1
    desk.order(Direction.PROMOTE, "m")
    assert desk.row.active == 1 and "m names no version" in (desk.refusals[-1] or "")


@pytest.mark.parametrize("version", ["0", "1000000000", "9" * 40, "x", "02", ""])
def test_an_order_with_an_invalid_version_is_refused(version: str) -> None:
    """If it were applied, the row could not be parsed and the fleet would lose its history."""
    desk = Desk(1)
    desk.order(Direction.PROMOTE, f"m@{version}")
    desk.back(f"m@{version}")
    assert desk.row.active == 1 and all("from 1 to 999999999" in (refusal or "") for refusal in desk.refusals)
    assert RolloutRow.from_dict(desk.row.to_dict()) == desk.row


def test_a_replayed_row_is_not_newer() -> None:
    """Rows of a replayed table are older; rows of a new table, or of an owner with a slow clock, are newer."""
    desk = Desk(1)
    rows = [desk.row]
    for version in (2, 1, 3):
        desk.promote(version)
        rows.append(desk.row)
    assert all(newer(later, before) for before, later in zip([None, *rows], rows, strict=False))
    assert not any(newer(row, rows[-1]) for row in rows[:-1])
    assert newer(replace(rows[-1], workers={}), rows[-1]), "the same moves: only the worker statuses differ"
    desk.now -= 60_000
    desk.promote(2)
    assert newer(desk.row, rows[-1])
    recreated = Desk()
    recreated.now += 3_600_000
    recreated.alive("w", 9)
    assert newer(recreated.row, desk.row)


def test_which_changes_are_news() -> None:
    """Moves, answers to orders and changes of a worker are news; heartbeat times and health are not."""
    desk = Desk(1)
    first = desk.row
    assert is_news(first, None)
    desk.now += 2_000
    desk.alive("w", 1, health={1: HEALTH})
    assert desk.row is not first and not is_news(desk.row, first)
    for version, fields in ((2, {}), (1, {"problem": "x"}), (None, {})):
        before = desk.row
        desk.now += 1
        desk.alive("w", version, **fields)
        assert is_news(desk.row, before)
    before = desk.row
    desk.alive("other", 1)
    assert is_news(desk.row, before)
    before = desk.row
    desk.promote(1)
    assert is_news(desk.row, before), "the row has a new order result"


def test_an_order_for_the_active_version_changes_nothing_and_is_answered() -> None:
    """The order gets a result, but there is no new history and no alert."""
    desk = Desk(1)
    desk.promote(1)
    assert len(desk.row.history) == 1 and not desk.alerts and desk.refusals == [None]


def test_an_automatic_rollback_applies_only_while_the_failing_version_is_active() -> None:
    """While the candidate was being checked, an operator may have moved the fleet."""
    desk = Desk(1, 2)
    desk.promote(3)
    desk.back("m@1", failing=2)
    assert desk.row.active == 3 and "not active any more" in (desk.refusals[-1] or "")
    desk.back("m@2", failing=3)
    assert desk.row.active == 2 and desk.change.trigger is Trigger.AUTOMATIC
    assert desk.row.held_until_ms == desk.now + 1_800_000


@pytest.mark.parametrize("state", ["open", "half_open"])
def test_failed_half_open_periods_cause_a_rollback(state: str) -> None:
    """The card's number of failed half-open periods of the active version leads to the last good version first."""
    desk = Desk(1, 2, 3)
    found = desk.verdict(3, 3, state)
    assert isinstance(found, Rollback) and found.candidates == (2, 1) and "3 half-open periods of m@3" in found.why
    assert desk.verdict(3, 2, state) is None
    assert desk.verdict(2, 9, state) is None


@pytest.mark.parametrize("state", ["closed", "forced_open", "disabled"])
def test_operator_states_and_closed_breakers_cause_no_rollback(state: str) -> None:
    """A state that an operator set is the operator's to end, and a closed breaker gives no reason."""
    assert Desk(1, 2).verdict(2, 5, state) is None


def test_no_rollback_without_a_row_or_without_a_version_to_go_to() -> None:
    """Without a row there is no verdict; without a candidate the rollback is blocked, since an operator must act."""
    desk = Desk(1)
    assert verdict(None, desk.breaker(1, 3), POLICY, T0) is None
    found = desk.verdict(1)
    assert isinstance(found, RollbackBlocked) and "no older good version" in found.why


def test_a_rollback_never_goes_to_a_newer_version() -> None:
    """If an operator promoted an older version and it fails, the newer version is no candidate."""
    desk = Desk(3, 2)
    found = desk.verdict(2)
    assert good_versions(desk.row) == [3] and isinstance(found, RollbackBlocked)


def test_no_second_rollback_within_the_hold() -> None:
    """A second automatic rollback is blocked within the hold, and possible after it."""
    desk = Desk(1, 2, 3)
    desk.back("m@2", failing=3)
    desk.now += 1_799_000
    found = desk.verdict(2)
    assert isinstance(found, RollbackBlocked) and "for 1 s more" in found.why
    desk.now += 1_001
    assert isinstance(desk.verdict(2), Rollback)


def test_the_hold_does_not_apply_to_operators() -> None:
    """An operator may roll back within the hold, and an operator's rollback starts no hold."""
    desk = Desk(1, 2, 3)
    desk.back("m@2", failing=3)
    desk.back("m@1")
    assert desk.row.active == 1
    desk = Desk(1, 2, 3)
    desk.back()
    assert isinstance(desk.verdict(2), Rollback)


def test_a_clock_set_back_does_not_extend_the_hold() -> None:
    """The hold ends when the clock is set back by more than its length."""
    desk = Desk(1, 2, 3)
    desk.back("m@2", failing=3)
    desk.now -= 1_900_000
    assert isinstance(desk.verdict(2), Rollback)


def test_the_skew_counts_live_workers() -> None:
    """Workers are counted by version; workers without a version or without a recent heartbeat are not."""
    desk = Desk(1)
    desk.alive("a", 1), desk.alive("b", 2), desk.alive("c", None)
    assert workers_by_version(desk.row, desk.now) == {1: 2, 2: 1}
    desk.now += round(1000 * HEARTBEAT_EVERY * MISSED_HEARTBEATS)
    desk.alive("a", 2)
    assert workers_by_version(desk.row, desk.now) == {2: 1} and set(desk.row.workers) == {"a"}


def test_a_larger_fleet_sends_fewer_heartbeats() -> None:
    """Each heartbeat writes the row, so the interval grows to keep writes at ten a second."""
    assert heartbeat_every(3) == HEARTBEAT_EVERY
    assert 1000 / heartbeat_every(1000) == pytest.approx(10)


def test_late_heartbeats_and_wrong_clocks_are_ignored() -> None:
    """An older heartbeat and one from a late clock are ignored; one from a clock ahead gets the owner's time."""
    desk = Desk(1)
    desk.alive("a", 2)
    assert not desk.alive("a", 1, at_ms=desk.now - 10)
    assert not desk.alive("b", 1, at_ms=desk.now - 3_600_000)
    desk.alive("b", 1, at_ms=desk.now + 3_600_000)
    assert desk.row.workers["b"].at_ms == desk.now


def test_a_worker_that_refuses_a_version_raises_one_alert() -> None:
    """Each heartbeat repeats the problem, but only the first raises an alert."""
    desk = Desk(1, 2)
    desk.alerts.clear()
    for _ in range(3):
        desk.now += 1000
        desk.alive("a", 1, problem="m@2: golden vectors")
    assert [(a.name, a.key, a.worker, a.reason) for a in desk.alerts] == [
        ("version_refused", "m@2", "a", "m@2: golden vectors")
    ]


def test_a_history_is_bounded() -> None:
    """A row must fit into one record, so only the last changes are kept."""
    desk = Desk(1)
    for version in range(2, 2 * CHANGES_KEPT):
        desk.promote(version)
    assert len(desk.row.history) == CHANGES_KEPT and desk.row.history[-1].to == desk.row.active


HEALTH = Health(9, 1, 2, 0.5, 8, 7.25)


def test_a_row_survives_json() -> None:
    """A row restored from the changelog equals the row that was written."""
    desk = Desk(1, 2)
    desk.alive("a", 2, health={1: HEALTH, 2: HEALTH}, problem="x")
    stored = desk.row.to_dict()
    assert wire.loads(wire.dumps(stored), MAX_ROW) == stored
    assert RolloutRow.from_dict(stored) == desk.row == RolloutRow.parse(wire.dumps(stored))


@pytest.mark.parametrize(
    "message",
    [
        Heartbeat("w", "m", 2, T0, "a problem", {2: HEALTH, 1: Health()}),
        Heartbeat("w", "m", None, T0),
        Order("m@2", Direction.PROMOTE, "ann", "why", T0),
        Order("m", Direction.ROLLBACK, "failsoft", "why", T0, 3),
    ],
)
def test_a_message_survives_its_bytes(message: Any) -> None:
    """Parsing the bytes of a message gives the same value."""
    assert type(message).parse(message.to_bytes()) == message


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"serving": 0}, "serving"),
        ({"serving": "2"}, "serving"),
        ({"model": ""}, "model"),
        ({"health": {"two": {}}}, "health"),
        ({"health": {"2": {"seconds": -1.0}}}, "health"),
        ({"at_ms": None}, "at_ms"),
    ],
)
def test_an_invalid_heartbeat_is_malformed(changes: dict[str, Any], field: str) -> None:
    """Anyone may write to the topic, so each field is checked and the error names it."""
    given = wire.loads(Heartbeat("w", "m", 2, T0, None, {2: HEALTH}).to_bytes(), 9999)
    with pytest.raises(wire.Malformed, match=field):
        Heartbeat.parse(wire.dumps({**given, **changes}))


def test_the_row_of_a_large_fleet_fits_into_a_record() -> None:
    """A thousand workers with two versions and a problem each, and a full history, stay under MAX_ROW."""
    desk = Desk(1)
    for version in range(2, CHANGES_KEPT + 2):
        desk.promote(version)
    desk.alive("w", 1, problem="golden: " + "x" * 1_900)
    assert len(desk.alerts[-1].reason) > PROBLEM_KEPT
    status = desk.row.workers["w"]
    statuses = {f"worker-{i:060}": replace(status, health={50: HEALTH, 51: HEALTH}) for i in range(1000)}
    assert len(wire.dumps(replace(desk.row, workers=statuses).to_dict())) < MAX_ROW
