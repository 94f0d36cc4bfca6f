"""How the fleet's row of a model moves: orders, presences, and when it goes back by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from failsoft.models.rollout.rollout import (
    CHANGES_KEPT,
    EVERY,
    MISSED,
    PROBLEM_KEPT,
    Rollback,
    RollbackBlocked,
    RollbackPolicy,
    fold,
    good,
    heartbeat_every,
    newer,
    news,
    skew,
    verdict,
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
    """A pipeline begins with what its first worker took; an order before that means nothing."""
    desk = Desk()
    assert not desk.promote(2) and not desk.alive("w", None)
    assert desk.alive("w", 2)
    assert (desk.row.active, desk.row.previous, desk.change.trigger) == (2, None, Trigger.FIRST)
    assert desk.row.workers["w"].version == 2


def test_a_promotion_is_obeyed_once_and_says_who_and_why() -> None:
    """The row has both versions and the history; an owner that reads the order again changes nothing."""
    desk = Desk(1)
    order = Order("m@2", Direction.PROMOTE, "ann", "better recall", T0 + 5)
    assert desk.hear(order)
    assert (desk.row.active, desk.row.previous) == (2, 1)
    assert desk.row.history[-1].who == "ann" and desk.row.history[-1].why == "better recall"
    assert [(a.name, a.key, a.from_, a.to) for a in desk.alerts] == [("promotion", "m@2", "1", "2")]
    assert not desk.hear(order) and len(desk.row.history) == 2


def test_a_rollback_goes_to_the_last_good_version() -> None:
    """And again, further back; a version that was left so is no target until it is promoted again."""
    desk = Desk(1, 2, 3)
    assert good(desk.row) == [2, 1]
    desk.back()
    assert desk.row.active == 2 and good(desk.row) == [1]
    desk.promote(3)
    assert good(desk.row) == [2, 1]
    desk.back(), desk.back()
    assert desk.row.active == 1 and good(desk.row) == []
    desk.back()
    assert desk.row.active == 1 and "name a version" in (desk.refusals[-1] or "")


def test_a_rollback_to_a_named_version_and_one_that_names_nothing() -> None:
    """A person may name any version; a promotion has to."""
    desk = Desk(1, 2, 3)
    desk.back("m@1")
    assert desk.row.active == 1
    desk.order(Direction.PROMOTE, "m")
    assert desk.row.active == 1 and "m names no version" in (desk.refusals[-1] or "")


@pytest.mark.parametrize("version", ["0", "1000000000", "9" * 40, "x", "02", ""])
def test_an_order_for_what_is_no_version_is_refused(version: str) -> None:
    """Obeyed, it would make a row that nobody can read, and the fleet would lose its history."""
    desk = Desk(1)
    desk.order(Direction.PROMOTE, f"m@{version}")
    desk.back(f"m@{version}")
    assert desk.row.active == 1 and all("from 1 to 999999999" in (said or "") for said in desk.refusals)
    assert RolloutRow.from_dict(desk.row.to_dict()) == desk.row


def test_a_row_that_is_read_again_is_no_news() -> None:
    """A new owner reads the table's history from its beginning, and so do all workers: nobody follows it once more. A
    table that was made anew is followed, and so is an owner whose clock is late.
    """
    desk = Desk(1)
    rows = [desk.row]
    for version in (2, 1, 3):
        desk.promote(version)
        rows.append(desk.row)
    assert all(newer(later, before) for before, later in zip([None, *rows], rows, strict=False))
    assert not any(newer(row, rows[-1]) for row in rows[:-1])
    assert newer(replace(rows[-1], workers={}), rows[-1]), "the same moves: only who serves is told anew"
    desk.now -= 60_000
    desk.promote(2)
    assert newer(desk.row, rows[-1])
    anew = Desk()
    anew.now += 3_600_000
    anew.alive("w", 9)
    assert newer(anew.row, desk.row)


def test_what_cannot_wait() -> None:
    """A move, an answer, a worker that comes, goes, changes its version or has a problem; not that one is still there,
    nor how it does.
    """
    desk = Desk(1)
    first = desk.row
    assert news(first, None)
    desk.now += 2_000
    desk.alive("w", 1, health={1: HEALTH})
    assert desk.row is not first and not news(desk.row, first)
    for version, fields in ((2, {}), (1, {"problem": "x"}), (None, {})):
        before = desk.row
        desk.now += 1
        desk.alive("w", version, **fields)
        assert news(desk.row, before)
    before = desk.row
    desk.alive("other", 1)
    assert news(desk.row, before)
    before = desk.row
    desk.promote(1)
    assert news(desk.row, before), "an order was answered"


def test_an_order_for_the_active_version_changes_nothing_and_is_answered() -> None:
    """No history, no alert: who waits for the answer gets it."""
    desk = Desk(1)
    desk.promote(1)
    assert len(desk.row.history) == 1 and not desk.alerts and desk.refusals == [None]


def test_an_automatic_rollback_is_obeyed_only_while_the_failing_version_is_active() -> None:
    """Proving a version takes a while, and a person may have been quicker."""
    desk = Desk(1, 2)
    desk.promote(3)
    desk.back("m@1", failing=2)
    assert desk.row.active == 3 and "not active any more" in (desk.refusals[-1] or "")
    desk.back("m@2", failing=3)
    assert desk.row.active == 2 and desk.change.trigger is Trigger.AUTOMATIC
    assert desk.row.held_until_ms == desk.now + 1_800_000


@pytest.mark.parametrize("state", ["open", "half_open"])
def test_failed_half_open_cycles_send_the_active_version_back(state: str) -> None:
    """As many as the card says, of the version that is active, to the last good one first."""
    desk = Desk(1, 2, 3)
    found = desk.verdict(3, 3, state)
    assert isinstance(found, Rollback) and found.candidates == (2, 1) and "3 half-open periods of m@3" in found.why
    assert desk.verdict(3, 2, state) is None
    assert desk.verdict(2, 9, state) is None


@pytest.mark.parametrize("state", ["closed", "forced_open", "disabled"])
def test_only_a_breaker_that_is_open_by_itself_rolls_back(state: str) -> None:
    """What a person forced is a person's to end, and a closed one has no reason."""
    assert Desk(1, 2).verdict(2, 5, state) is None


def test_no_rollback_without_a_row_or_without_a_version_to_go_to() -> None:
    """The second is said, for somebody has to act."""
    desk = Desk(1)
    assert verdict(None, desk.breaker(1, 3), POLICY, T0) is None
    found = desk.verdict(1)
    assert isinstance(found, RollbackBlocked) and "no older version" in found.why


def test_never_forward() -> None:
    """A person went back to an old version by promoting it; when it fails, the newer one is not the way out."""
    desk = Desk(3, 2)
    found = desk.verdict(2)
    assert good(desk.row) == [3] and isinstance(found, RollbackBlocked)


def test_no_second_rollback_within_the_hold() -> None:
    """Two versions that fail in a row have one cause outside of both. After the hold there may be one again."""
    desk = Desk(1, 2, 3)
    desk.back("m@2", failing=3)
    desk.now += 1_799_000
    found = desk.verdict(2)
    assert isinstance(found, RollbackBlocked) and "for 1 s more" in found.why
    desk.now += 1_001
    assert isinstance(desk.verdict(2), Rollback)


def test_a_person_is_not_held() -> None:
    """Nor does a person's rollback hold the owner's."""
    desk = Desk(1, 2, 3)
    desk.back("m@2", failing=3)
    desk.back("m@1")
    assert desk.row.active == 1
    desk = Desk(1, 2, 3)
    desk.back()
    assert isinstance(desk.verdict(2), Rollback)


def test_a_clock_that_was_set_back_does_not_hold_for_ever() -> None:
    """A hold is never longer than it was meant to be."""
    desk = Desk(1, 2, 3)
    desk.back("m@2", failing=3)
    desk.now -= 1_900_000
    assert isinstance(desk.verdict(2), Rollback)


def test_the_skew_counts_who_was_heard_of_lately() -> None:
    """By version; a worker that serves none, or says nothing any more, is not counted."""
    desk = Desk(1)
    desk.alive("a", 1), desk.alive("b", 2), desk.alive("c", None)
    assert skew(desk.row, desk.now) == {1: 2, 2: 1}
    desk.now += round(1000 * EVERY * MISSED)
    desk.alive("a", 2)
    assert skew(desk.row, desk.now) == {2: 1} and set(desk.row.workers) == {"a"}


def test_a_larger_fleet_says_less_often_that_it_is_there() -> None:
    """The row is written for each word, so that there are ten a second at most."""
    assert heartbeat_every(3) == EVERY
    assert 1000 / heartbeat_every(1000) == pytest.approx(10)


def test_presences_that_are_late_or_from_elsewhere_in_time_are_not_taken() -> None:
    """The newer stays; a clock that is far off is not heard; one that is ahead holds its seat no longer."""
    desk = Desk(1)
    desk.alive("a", 2)
    assert not desk.alive("a", 1, at_ms=desk.now - 10)
    assert not desk.alive("b", 1, at_ms=desk.now - 3_600_000)
    desk.alive("b", 1, at_ms=desk.now + 3_600_000)
    assert desk.row.workers["b"].at_ms == desk.now


def test_a_worker_that_cannot_follow_is_an_alert_once() -> None:
    """It says why with each presence; a person is told when it begins."""
    desk = Desk(1, 2)
    desk.alerts.clear()
    for _ in range(3):
        desk.now += 1000
        desk.alive("a", 1, problem="m@2: golden vectors")
    assert [(a.name, a.key, a.worker, a.reason) for a in desk.alerts] == [
        ("version_refused", "m@2", "a", "m@2: golden vectors")
    ]


def test_a_history_is_bounded() -> None:
    """A row is one record."""
    desk = Desk(1)
    for version in range(2, 2 * CHANGES_KEPT):
        desk.promote(version)
    assert len(desk.row.history) == CHANGES_KEPT and desk.row.history[-1].to == desk.row.active


HEALTH = Health(9, 1, 2, 0.5, 8, 7.25)


def test_a_row_is_what_json_holds() -> None:
    """A table keeps rows as JSON does, so nothing changes when one is recovered from its changelog."""
    desk = Desk(1, 2)
    desk.alive("a", 2, health={1: HEALTH, 2: HEALTH}, problem="x")
    held = desk.row.to_dict()
    assert wire.loads(wire.dumps(held), MAX_ROW) == held
    assert RolloutRow.from_dict(held) == desk.row == RolloutRow.parse(wire.dumps(held))


@pytest.mark.parametrize(
    "message",
    [
        Heartbeat("w", "m", 2, T0, "a problem", {2: HEALTH, 1: Health()}),
        Heartbeat("w", "m", None, T0),
        Order("m@2", Direction.PROMOTE, "ann", "why", T0),
        Order("m", Direction.ROLLBACK, "failsoft", "why", T0, 3),
    ],
)
def test_a_message_comes_back_as_it_was_sent(message: Any) -> None:
    """Bytes and back give the same value."""
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
def test_a_presence_that_cannot_be_is_malformed(changes: dict[str, Any], field: str) -> None:
    """What comes from a topic may come from anybody: the field is named."""
    given = wire.loads(Heartbeat("w", "m", 2, T0, None, {2: HEALTH}).to_bytes(), 9999)
    with pytest.raises(wire.Malformed, match=field):
        Heartbeat.parse(wire.dumps({**given, **changes}))


def test_a_large_fleets_row_is_still_a_record() -> None:
    """A thousand workers, two versions each, none of which can follow, and a full history."""
    desk = Desk(1)
    for version in range(2, CHANGES_KEPT + 2):
        desk.promote(version)
    desk.alive("w", 1, problem="golden: " + "x" * 1_900)
    assert len(desk.alerts[-1].reason) > PROBLEM_KEPT
    seat = desk.row.workers["w"]
    statuses = {f"worker-{i:060}": replace(seat, health={50: HEALTH, 51: HEALTH}) for i in range(1000)}
    assert len(wire.dumps(replace(desk.row, workers=statuses).to_dict())) < MAX_ROW
