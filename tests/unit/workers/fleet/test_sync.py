"""The sync of a worker with the fleet: a control plane that does not start, and news that arrive at any time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from failsoft.models.breaker.local import AUTONOMOUS_AFTER, MAX_REQUESTS
from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.fleet.breaker import Alert, BreakerRow, Report, ReportKind
from failsoft.workers.fleet import sync
from failsoft.workers.fleet.sync import Sync
from failsoft.workers.scoring.plan import Served
from failsoft.workers.serving.registry import ServingRegistry
from failsoft.workers.serving.version_switch import Versions
from failsoft.workers.telemetry.metrics import Metrics
from tests.kafka import eventually
from tests.kit import card

OPEN = BreakerRow("m@2", "open", 1, 1_000_000, 1_015_000)


class Plane:
    """A fake control plane whose tables are ready at once, or whose start fails."""

    def __init__(self, rows: dict[str, dict[str, Any]], starts: bool) -> None:
        self.ready, self.starts, self.held, self.ended = starts, starts, rows, asyncio.Event()
        self.app = SimpleNamespace(start=self.start, wait_until_stopped=self.ended.wait, crash_reason=None)

    async def start(self) -> None:
        if not self.starts:
            raise RuntimeError("no group, no table")

    async def end(self) -> None:
        self.ended.set()

    def breakers(self) -> dict[str, dict[str, Any]]:
        return self.held

    def rollouts(self) -> dict[str, dict[str, Any]]:
        return {}


class Desk:
    """A sync with a producer that records what was sent, and a clock that the test moves."""

    def __init__(self, starts: bool) -> None:
        self.now = 1000.0
        self.rows: dict[str, dict[str, Any]] = {}
        self.sent: list[Report] = []
        self.alerts: list[Alert] = []
        self.fails: list[Exception] = []  # raised by the next sends of an alert
        self.lacking: list[str] = []
        self.collectors = CollectorRegistry()
        metrics = Metrics(self.collectors)
        self.registry = ServingRegistry("w", metrics, lambda: self.now, lambda: self.now, lambda: 0.5)
        self.registry.serve(Served("m", 2, {}), card("m"))
        self.sync = Sync(
            make_plane=lambda: cast(Any, Plane(self.rows, starts)),
            make_producer=lambda: cast(Any, self),
            outcomes="loans.outcomes",
            alerts="loans.alerts",
            registry=self.registry,
            versions=Versions(
                "w", {}, [], cast(Any, None), cast(Any, None), self.registry, cast(Any, None), metrics, float, float
            ),
            metrics=metrics,
            lacks=self.lacks,
            probe=cast(Any, SimpleNamespace(due=False)),
        )

    @property
    def local(self) -> Any:
        return self.registry.breakers["m@2"]

    @property
    def up(self) -> float | None:
        """The gauge of the control plane; None while it has no value."""
        return self.collectors.get_sample_value("failsoft_control_plane_up")

    async def lacks(self) -> list[str]:
        return self.lacking

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def partitions_for(self, topic: str) -> set[int]:
        return {0}

    async def send(self, topic: str, key: bytes, value: bytes, partition: int) -> asyncio.Future[None]:
        if topic == "loans.alerts":
            self.alerts.append(Alert.parse(value))
            if self.fails:
                raise self.fails.pop()
        else:
            self.sent.append(Report.parse(value))
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def ask(self, times: int) -> None:
        """Lets a live event be refused ``times`` times, and waits for each request for probes."""
        for _ in range(times):
            before = self.local._asks
            self.registry.admit("m@2", 1)
            await eventually(lambda before=before: self.local._asks > before, 10, "an ask")  # type: ignore[misc]
            self.now += AUTONOMOUS_AFTER / (MAX_REQUESTS - 1)


@pytest.fixture
async def apart() -> AsyncIterator[Desk]:
    """A worker whose control plane does not start."""
    desk = Desk(starts=False)
    await desk.sync.start()
    yield desk
    await desk.sync.stop()


async def test_without_a_control_plane_a_breaker_does_not_stay_open(apart: Desk) -> None:
    """After an open row and unanswered requests the local breaker becomes autonomous; no request is sent meanwhile."""
    apart.registry.absorb(OPEN)
    apart.now += 15
    await apart.ask(MAX_REQUESTS)
    assert apart.registry.admit("m@2", 9).granted == 3
    assert apart.local.state is BreakerState.HALF_OPEN and apart.sent == [] and not apart.sync.up


async def test_an_alert_is_sent_without_a_control_plane_and_again_after_an_error(
    apart: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped lane must be known although no owner is there, and although a broker failed meanwhile."""
    monkeypatch.setattr(sync, "BACKOFF", (0.001, 0.001))
    apart.fails.append(KafkaError("no leader"))
    alert = Alert("lane", "loans.events-3", 1, "running", "unreadable", "a batch cannot be read", "w", 7)
    apart.sync.alert(alert)
    await eventually(lambda: len(apart.alerts) == 2, 10, "the second try")
    assert apart.alerts == [alert, alert] and alert.to_bytes().endswith(b'"first_offset":7}')


async def test_a_missing_right_is_named_and_its_grant_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a right no control plane is started. The gauge is 0 from the start, the log has the right, and the worker
    is ready at once. After the grant the control plane comes up; when the right is taken away again, it goes down.
    """
    monkeypatch.setattr(sync, "BACKOFF", (0.01, 0.05))
    monkeypatch.setattr(sync, "RIGHTS_CHECK_EVERY", 0.01)
    desk = Desk(starts=True)
    assert desk.up == 0
    desk.lacking = ["not authorised to Read topic loans.control"]
    with capture_logs() as said:
        await desk.sync.start()
        try:
            await eventually(lambda: desk.sync.not_ready() is None and said, 10, "the refusal logged")
            assert said[0]["lacking"] == desk.lacking and desk.up == 0 and not desk.sync.up
            desk.lacking = []
            await eventually(lambda: desk.up == 1, 10, "the control plane up after the grant")
            desk.lacking = ["not authorised to Write topic loans.outcomes"]
            await eventually(lambda: desk.up == 0, 10, "the control plane down without the right")
            await eventually(lambda: said[-1].get("lacking") == desk.lacking, 10, "the second refusal logged")
        finally:
            await desk.sync.stop()


async def test_rows_are_obeyed_and_requests_for_probes_are_sent() -> None:
    """With a control plane, both happen within a few checks; a row that cannot be read is skipped."""
    desk = Desk(starts=True)
    desk.rows["m@2"] = OPEN.to_dict()
    desk.rows["m@9"] = {"key": "m@9"} | {"state": "ajar"}
    await desk.sync.start()
    try:
        await eventually(lambda: desk.local.state is BreakerState.OPEN, 10, "the row obeyed")
        assert desk.sync.not_ready() is None and desk.sync.up
        desk.now += 15
        desk.registry.admit("m@2", 1)
        await eventually(lambda: desk.sent, 10, "an ask")
        assert [(r.kind, r.want, r.generation) for r in desk.sent] == [(ReportKind.ASK, 1, 1)]
    finally:
        await desk.sync.stop()


async def test_a_new_row_does_not_wait_for_the_next_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control plane announces each new row, and the sync applies it at once."""
    desk = Desk(starts=True)
    await desk.sync.start()
    try:
        await eventually(lambda: desk.sync.up and desk.sync.not_ready() is None, 10, "the table read")
        checked_every = sync.POLL_EVERY
        monkeypatch.setattr(sync, "POLL_EVERY", 60.0)
        await asyncio.sleep(2 * checked_every)  # the check that was due under the old interval is over
        desk.rows["m@2"] = OPEN.to_dict()
        plane = desk.sync._plane
        assert plane is not None
        plane.on_row()
        await eventually(lambda: desk.local.state is BreakerState.OPEN, 10, "the row obeyed")
    finally:
        await desk.sync.stop()


async def test_news_that_arrives_during_a_send_is_reported_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trip is reported at once and does not wait for the next check."""
    monkeypatch.setattr(sync, "REPORT_EVERY", 60.0)
    desk = Desk(starts=True)
    desk.registry.on_news()
    await asyncio.wait_for(desk.sync._something_to_report(), 15)
