"""The owner's work on versions: what it writes and sends, in which order, and when it rolls back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from failsoft.models.breaker.rules import BreakerState
from failsoft.models.rollout import rollout
from failsoft.schemas.fleet.breaker import Alert, BreakerRow
from failsoft.schemas.fleet.rollout import Direction, Heartbeat, Order, RolloutRow, Trigger
from failsoft.schemas.model_version import SCHEMA_REGISTRY
from failsoft.topics.names import Names
from failsoft.workers.fleet import control_plane
from failsoft.workers.fleet.control_plane import ControlPlane
from failsoft.workers.fleet.owner import Owner
from failsoft.workers.fleet.rollback import Rollbacks
from tests.fleet_owner import POLICY, T0
from tests.kafka import eventually

CONNECTION = {"bootstrap_servers": "127.0.0.1:1", "security_protocol": "PLAINTEXT"}


class Table(dict[str, dict[str, Any]]):
    """A stand-in for a Faust table that counts writes."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.writes = name, 0

    def __setitem__(self, key: str, value: dict[str, Any]) -> None:
        self.writes += 1
        super().__setitem__(key, value)


class Desk:
    """An owner without Kafka. The test calls the folds and decides which versions pass their checks (``unfit`` fail).

    Sent messages are recorded; an order is folded only when the test calls ``fold_last_order``.
    """

    def __init__(self, breakers: Table | None = None, rollouts: Table | None = None, now: int = T0) -> None:
        self.now, self.sent, self.done = now, [], []  # type: ignore[var-annotated]
        self.unfit: dict[int, str] = {}
        self.asked: list[int] = []
        self.may_finish_checks = asyncio.Event()
        self.may_finish_checks.set()
        policies = {"m": POLICY, "n": POLICY}
        rollbacks = dict.fromkeys(policies, rollout.RollbackPolicy(3, 1800.0))
        owner = Owner(policies, rollbacks, lambda: self.now / 1000, lambda: 0.5, self.prove, self.changed)
        self.plane = plane = ControlPlane(Names("loans"), CONNECTION, "w", owner, set)
        plane._breakers, plane._rollouts = breakers or Table("breakers"), rollouts or Table("rollouts")
        plane._send = self.send  # type: ignore[method-assign]
        self.fails_to_send = False

    def changed(self, model: str, change: Any) -> None:
        self.done.append(change)

    async def prove(self, model: str, version: int) -> str | None:
        self.asked.append(version)
        await self.may_finish_checks.wait()
        return self.unfit.get(version)

    async def send(self, topic: Any, key: str, value: bytes) -> None:
        if self.fails_to_send:
            raise ConnectionError("no broker")
        self.sent.append((topic.get_topic_name(), value))

    @property
    def alerts(self) -> list[tuple[str, str]]:
        return [(a.name, a.key) for t, v in self.sent if t == "loans.alerts" for a in [Alert.parse(v)]]

    @property
    def orders(self) -> list[Order]:
        return [Order.parse(v) for t, v in self.sent if t == "loans.outcomes"]

    @property
    def row(self) -> RolloutRow:
        row = self.plane._row(self.plane._rollouts, "m", RolloutRow)
        assert row is not None
        return row

    def breaker(self, version: int) -> BreakerRow | None:
        return self.plane._row(self.plane._breakers, f"m@{version}", BreakerRow)

    async def heartbeat(self, worker: str = "w", serving: int = 1, **fields: Any) -> None:
        await self.plane._fold_rollout(Heartbeat(worker, "m", serving, self.now, **fields))

    async def promote(self, version: int, who: str = "ann") -> None:
        self.now += 1
        await self.plane._fold_rollout(Order(f"m@{version}", Direction.PROMOTE, who, "why", self.now))

    async def fails(self, version: int, reopenings: int = 3) -> None:
        """Sets a version's breaker to open after ``reopenings`` failed cycles, and considers a rollback."""
        row = BreakerRow(f"m@{version}", "open", 20 + reopenings, self.now, self.now + 9, reopenings)
        self.plane._write(self.plane._breakers, row.key, row)
        await self.plane._rollback.consider(row)

    async def decided(self) -> None:
        """Waits until no rollback is in progress."""
        await eventually(lambda: not self.plane._rollback._running, 10, "the owner to have decided")

    async def fold_last_order(self) -> None:
        """Folds the last order that was sent."""
        await self.plane._fold_rollout(self.orders[-1])


async def desk(*versions: int) -> Desk:
    """A desk on which ``versions`` were active one after the other."""
    at = Desk()
    await at.heartbeat(serving=versions[0])
    for version in versions[1:]:
        await at.promote(version)
    at.sent.clear()
    return at


async def test_the_owner_rolls_back_to_a_version_that_passes_its_checks() -> None:
    """A candidate that fails its checks is skipped; the rollback is alerted and stands in the history as automatic."""
    at = await desk(1, 2, 3)
    at.unfit[2] = "golden: 3 of 20"
    await at.fails(3)
    await at.decided()
    assert at.asked == [2, 1] and at.row.active == 3
    (order,) = at.orders
    assert (order.target, order.failing, order.who) == ("m@1", 3, "failsoft")
    await at.fold_last_order()
    assert at.row.active == 1 and at.row.history[-1].trigger is Trigger.AUTOMATIC
    assert at.alerts == [("rollback", "m@1")]


async def test_a_refused_rollback_is_alerted_once_a_cycle() -> None:
    """If no version passes its checks, one alert is sent for each failed cycle."""
    at = await desk(1, 2)
    at.unfit[1] = "its files are gone"
    for _ in range(3):
        await at.fails(2)
        await at.decided()
    assert at.alerts == [("rollback_refused", "m@2")] and at.row.active == 2
    await at.fails(2, reopenings=4)
    await at.decided()
    assert len(at.alerts) == 2 and at.asked == [1, 1]


async def test_a_version_promoted_again_starts_with_a_reset_breaker() -> None:
    """Failures from its earlier service neither keep its breaker open nor roll it back; new ones do."""
    at = await desk(1, 2)
    await at.fails(2)
    await at.decided()
    await at.fold_last_order()
    left = at.breaker(2)
    assert left is not None and BreakerState(left.state) is BreakerState.OPEN
    at.now += 2_000_000  # the hold is over
    await at.promote(2)
    reset = at.breaker(2)
    assert reset is not None and (BreakerState(reset.state), reset.reopenings) == (BreakerState.CLOSED, 0)
    assert reset.generation == left.generation + 1
    await at.plane._rollback.consider(reset)
    assert len(at.orders) == 1 and at.row.active == 2
    await at.fails(2)
    await at.decided()
    assert len(at.orders) == 2, "it failed the card's number of cycles again: it is rolled back again"


async def test_the_target_of_a_rollback_starts_with_a_closed_breaker() -> None:
    """Its breaker may have been open when it was replaced, for a reason that is over."""
    at = await desk(1, 2)
    at.plane._write(at.plane._breakers, "m@1", BreakerRow("m@1", "open", 7, T0, T0 + 300_000, 5))
    await at.fails(2)
    await at.decided()
    await at.fold_last_order()
    assert BreakerState(at.breaker(1).state) is BreakerState.CLOSED  # type: ignore[union-attr]


@pytest.mark.parametrize("state", ["forced_open", "disabled"])
async def test_a_promotion_keeps_an_operators_breaker_state(state: str) -> None:
    """A promotion does not reset a breaker that an operator forced open or disabled."""
    at = await desk(1)
    held = BreakerRow("m@2", state, 4, T0)  # type: ignore[arg-type]
    at.plane._write(at.plane._breakers, "m@2", held)
    await at.promote(2)
    assert at.breaker(2) == held


async def test_no_rollback_to_a_version_whose_breaker_is_forced_open() -> None:
    """Such a version would answer no event."""
    at = await desk(1, 2, 3)
    at.plane._write(at.plane._breakers, "m@2", BreakerRow("m@2", "forced_open", 4, T0))
    await at.fails(3)
    await at.decided()
    assert at.asked == [1] and at.orders[-1].target == "m@1"


async def test_an_owner_that_dies_before_its_order_leaves_it_to_the_next() -> None:
    """The next owner works from the tables. Both owners may send an order; only one is obeyed."""
    at = await desk(1, 2)
    at.may_finish_checks.clear()
    await at.fails(2)
    await eventually(lambda: at.asked, 10, "the checks to have begun")
    after = Desk(at.plane._breakers, at.plane._rollouts, at.now + 5_000)
    await after.plane._rollback.consider(after.breaker(2))  # type: ignore[arg-type]
    await after.decided()
    await after.fold_last_order()
    at.may_finish_checks.set()
    await at.decided()  # the first owner was only slow, and sends its order too
    await after.plane._fold_rollout(at.orders[-1])
    assert after.row.active == 1 and [c.trigger for c in after.done] == [Trigger.AUTOMATIC]
    assert "not active any more" in (after.row.orders[-1].refused or "")


async def test_an_order_read_again_by_another_owner_changes_nothing() -> None:
    """An owner may die after it wrote the row and before it committed its offset; the order must apply once."""
    at = await desk(1)
    order = Order("m@2", Direction.PROMOTE, "ann", "why", at.now)
    await at.plane._fold_rollout(order)
    after = Desk(at.plane._breakers, at.plane._rollouts, at.now)
    await after.plane._fold_rollout(order)
    assert after.row == at.row and not after.done and not after.sent


async def test_a_decision_older_than_an_operators_promotion_is_dropped() -> None:
    """If an operator promotes the failing version again during the checks, the automatic order is refused."""
    at = await desk(1, 2)
    at.may_finish_checks.clear()
    await at.fails(2)
    await eventually(lambda: at.asked, 10, "the checks to have begun")
    await at.promote(1)
    await at.promote(2)
    at.may_finish_checks.set()
    await at.decided()
    await at.fold_last_order()
    assert at.row.active == 2 and "after this was decided" in (at.row.orders[-1].refused or "")


async def test_an_order_that_could_not_be_sent_is_tried_again() -> None:
    """The next message about the breaker starts it again; no further failed cycle is needed."""
    at = await desk(1, 2)
    at.fails_to_send = True
    await at.fails(2)
    await at.decided()
    at.fails_to_send = False
    await at.fails(2)
    await at.decided()
    assert [o.target for o in at.orders] == ["m@1"]


async def test_rows_with_only_new_heartbeats_are_written_once_an_interval() -> None:
    """Each row holds the whole fleet. The owner keeps every heartbeat in memory, and writes other changes at once."""
    at = await desk(1)
    table = at.plane._rollouts
    for i in range(40):
        await at.heartbeat(f"w{i}")
    before = table.writes
    for _ in range(10):
        at.now += control_plane.HEARTBEAT_MS // 10
        for i in range(40):
            await at.heartbeat(f"w{i}")
    assert table.writes == before + 1
    assert at.row.workers["w39"].at_ms == at.now
    assert RolloutRow.from_dict(at.plane.rollouts()["m"]) == at.row
    at.now += 1
    await at.heartbeat("w7", problem="no such file")
    assert table.writes == before + 2 and RolloutRow.from_dict(table["m"]) == at.row


async def test_a_clock_set_back_delays_no_row() -> None:
    """Otherwise no row would be written until the clock reaches its old time again."""
    at = await desk(1)
    before = at.plane._rollouts.writes
    at.now -= 3_600_000
    await at.heartbeat()
    assert at.plane._rollouts.writes == before + 1


async def test_an_unreadable_row_is_replaced() -> None:
    """The next heartbeat creates a row with the version it serves; without a row no order could be obeyed."""
    at = Desk()
    at.plane._rollouts["m"] = {"model": "m", "active": "two"}
    await at.heartbeat(serving=2)
    assert (at.row.active, at.row.history[-1].trigger) == (2, Trigger.FIRST)


async def test_each_model_is_rolled_back_separately() -> None:
    """Every model of the pipeline (ensemble members and fallbacks too) has its own row and its own rollback."""
    at = await desk(1, 2)
    await at.plane._fold_rollout(Heartbeat("w", "n", 1, at.now))
    await at.plane._fold_rollout(Order("n@2", Direction.PROMOTE, "ann", "why", at.now))
    row = BreakerRow("n@2", "open", 9, at.now, at.now + 9, 3)
    at.plane._write(at.plane._breakers, row.key, row)
    await at.plane._rollback.consider(row)
    await at.decided()
    await at.plane._fold_rollout(at.orders[-1])
    assert at.plane.rollouts()["n"]["active"] == 1 and at.row.active == 2


async def test_the_breakers_row_names_the_reason_of_a_reset() -> None:
    """An operator can see why a breaker closed without a probe."""
    at = await desk(1, 2)
    await at.fails(1)
    await at.promote(1)
    row = at.breaker(1)
    assert row is not None and row.changed_by == "failsoft" and "promote by ann" in (row.reason or "")


async def test_rollbacks_work_without_faust() -> None:
    """Rollbacks need only rows and two send functions: one order a failed cycle, to a version not forced open."""
    at = await desk(1, 2, 3)
    shut = BreakerRow("m@2", "forced_open", 1, T0, None, 0)
    alerts: list[Alert] = []
    orders: list[Order] = []

    async def alert(each: Alert) -> None:
        alerts.append(each)

    async def order(each: Order) -> None:
        orders.append(each)

    owner = at.plane._owner
    alone = Rollbacks(owner, {"m@2": shut}.get, {"m": at.row}.get, alert, order)
    for _ in range(2):
        await alone.consider(BreakerRow("m@3", "open", 23, at.now, at.now + 9, 3))
        await eventually(lambda: not alone._running, 10, "the rollback to end")
    assert [each.target for each in orders] == ["m@1"] and not alerts
    assert at.asked == [1], "a version whose breaker is forced open is not checked"


async def test_a_dependency_is_never_rolled_back() -> None:
    """The schema registry's breaker is folded as a model's is, but there is no other version to go back to."""
    desk = Desk()
    key = str(SCHEMA_REGISTRY)
    await desk.plane._rollback.consider(BreakerRow(key, "open", 9, T0, T0 + 1, reopenings=5))
    assert not desk.sent
