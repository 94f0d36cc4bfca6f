"""A worker follows the fleet's versions: what it loads, switches to and unloads, and which heartbeats it sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import structlog
from prometheus_client import CollectorRegistry

from failsoft.models.rollout.rollout import HEARTBEAT_EVERY
from failsoft.models.runtime.session import Cancel, ModelOutput, Unloadable
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns
from failsoft.schemas.fleet.rollout import RolloutRow, WorkerStatus
from failsoft.schemas.prediction import Predictions
from failsoft.workers.execution.runner import Runner
from failsoft.workers.scoring.plan import Call, Served
from failsoft.workers.serving import version_switch as tested
from failsoft.workers.serving.loader import Opened
from failsoft.workers.serving.registry import ServingRegistry
from failsoft.workers.serving.unserved import REMIND_EVERY, NoVersion, Unserved
from failsoft.workers.serving.version_switch import Versions
from failsoft.workers.telemetry.metrics import Metrics
from tests.kafka import eventually
from tests.kit import card, failing, fine

CARD = card("m")
ROWS = columns([{"x": 0.5, "y": 1.0}], CARD.specs)


class Loaded:
    """A model that answers its version number, once ``may_end`` is set."""

    def __init__(self, version: int) -> None:
        self.version, self.closed = version, False
        self.may_end = asyncio.Event()
        self.may_end.set()
        self._loop = asyncio.get_running_loop()

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        asyncio.run_coroutine_threadsafe(self.may_end.wait(), self._loop).result(20)
        assert not self.closed
        scores = np.full(columns.size, self.version / 10, np.float32)
        return ModelOutput(Predictions(scores, [0] * columns.size, None, scores), {})

    def close(self) -> None:
        self.closed = True


class Desk:
    """A worker that serves version 1, and a repository in which the test decides what loads."""

    def __init__(self, none: NoVersion | None = None) -> None:
        self.now = 100.0
        self.collector = CollectorRegistry()
        metrics = Metrics(self.collector)
        self.loaded: dict[int, Loaded] = {}
        self.broken: set[int | None] = set()
        self.asked: list[int | None] = []
        self.slow: dict[int | None, asyncio.Event] = {}
        self.moves = 0
        self.runner = Runner({}, 4, metrics, lambda: self.now, pytest.fail)
        self.registry = ServingRegistry("w", metrics, lambda: self.now, lambda: 1e9 + self.now, lambda: 0.5)
        self.unserved = Unserved(["m"], 1, lambda: self.now)
        self.versions = Versions(
            "w",
            {"m": CARD, "n": card("n")},
            [none or self.make(1), self.make(1, "n")],
            self.open,
            self.runner,
            self.registry,
            self.unserved,
            metrics,
            lambda: self.now,
            lambda: 1e9 + self.now,
        )

    def make(self, version: int, model: str = "m") -> Opened:
        loaded = Loaded(version)
        if model == "m":
            self.loaded[version] = loaded
        return Opened(Served(model, version, {}), loaded, f"sha-{version}", loaded.close)

    def open(self, model: str, version: int | None) -> Opened | NoVersion:
        self.asked.append(version)
        if version in self.slow:
            asyncio.run_coroutine_threadsafe(self.slow[version].wait(), self._loop).result(20)
        if version in self.broken:
            raise Unloadable(f"m@{version}: broken")
        return asyncio.run_coroutine_threadsafe(self._made(version or 7, model), self._loop).result(20)

    async def _made(self, version: int, model: str) -> Opened:
        return self.make(version, model)

    def wants(self, version: int, model: str = "m") -> None:
        self.moves += 1
        self.versions.absorb(RolloutRow(model, version, moves=self.moves))

    @property
    def serves(self) -> int | None:
        return self.serving("m")

    def serving(self, model: str) -> int | None:
        served = self.registry.serving(model)
        return served and served.version

    async def score(self) -> float:
        served = self.registry.serving("m")
        assert served is not None
        result = await self.runner.run(Call(served.key, ROWS, 10.0, 10.0))
        assert result.predictions is not None, result.bad
        return float(result.predictions.scores[0])

    def sent(self) -> list[tuple[int | None, str | None]]:
        return [(p.serving, p.problem) for p in self.versions.heartbeats() if p.model == "m"]

    def info(self, version: int) -> float | None:
        labels = {"model": "m", "version": str(version), "sha256": f"sha-{version}"}
        return self.collector.get_sample_value("failsoft_model_info", labels)


@pytest.fixture
def none() -> NoVersion | None:
    """Why there is no version at the start. A test may parametrize it; None: version 1 serves."""
    return None


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch, none: NoVersion | None) -> AsyncIterator[Desk]:
    """Runs, and checks for retries often."""
    monkeypatch.setattr(tested, "CHECK_EVERY", 0.01)
    desk = Desk(none)
    desk.broken |= {None} if none else set()
    desk._loop = asyncio.get_running_loop()  # type: ignore[attr-defined]
    await desk.versions.start()
    yield desk
    for event in (*desk.slow.values(), *(loaded.may_end for loaded in desk.loaded.values())):
        event.set()
    await desk.versions.stop()
    desk.runner.close()


async def test_a_worker_that_ends_unloads_what_it_serves(desk: Desk) -> None:
    """A model may have its own processes, which a worker that ends waits for."""
    desk.wants(2)
    await eventually(lambda: desk.loaded[1].closed, 20, "version 1 to be unloaded")
    assert not desk.loaded[2].closed
    await asyncio.to_thread(desk.versions.unload_all)
    assert desk.loaded[2].closed


async def test_the_fleets_version_is_loaded_and_the_one_before_unloaded(desk: Desk) -> None:
    """The switch happens between two batches; the old version's breaker and metrics are removed."""
    assert await desk.score() == pytest.approx(0.1) and desk.info(1) == 1
    desk.wants(2)
    await eventually(lambda: desk.loaded[1].closed, 20, "version 1 to be unloaded")
    assert await desk.score() == pytest.approx(0.2)
    assert set(desk.registry.breakers) == {"m@2", "n@1"} and (desk.info(1), desk.info(2)) == (None, 1)
    assert desk.sent() == [(2, None)]


async def test_a_call_under_way_ends_on_the_version_that_it_began_on(desk: Desk) -> None:
    """The new version answers new calls; the old one is unloaded when its last call has ended."""
    desk.loaded[1].may_end.clear()
    call = asyncio.create_task(desk.score())
    await eventually(lambda: desk.runner._models["m@1"].calls, 20, "the call to be under way")
    desk.wants(2)
    await eventually(lambda: desk.serves == 2, 20, "version 2 to serve")
    assert await desk.score() == pytest.approx(0.2)
    assert not desk.loaded[1].closed and set(desk.registry.breakers) == {"m@1", "m@2", "n@1"}
    desk.loaded[1].may_end.set()
    assert await call == pytest.approx(0.1)
    await eventually(lambda: desk.loaded[1].closed, 20, "version 1 to be unloaded")


async def test_a_version_that_cannot_serve_leaves_the_one_before(desk: Desk) -> None:
    """The heartbeat gives the reason, and the version is retried with growing waits: its files may still be copied."""
    desk.broken.add(3)
    desk.wants(3)
    await eventually(lambda: desk.sent() == [(1, "m@3: broken")], 20, "the problem to be reported")
    assert await desk.score() == pytest.approx(0.1) and desk.asked == [3]
    desk.now += 1.0
    await eventually(lambda: desk.asked == [3, 3], 20, "a second try")
    desk.now += 1.9
    desk.broken.clear()
    desk.now += 0.1
    await eventually(lambda: desk.serves == 3, 20, "version 3 to serve")
    assert desk.sent() == [(3, None)]


async def test_another_wanted_version_does_not_wait_for_the_back_off(desk: Desk) -> None:
    """The back-off belongs to the version that could not serve."""
    desk.broken.add(3)
    desk.wants(3)
    await eventually(lambda: desk.sent() == [(1, "m@3: broken")], 20, "the problem to be reported")
    desk.wants(2)
    await eventually(lambda: desk.serves == 2, 20, "version 2 to serve")
    assert desk.sent() == [(2, None)]


async def test_the_newest_row_counts_while_another_version_loads(desk: Desk) -> None:
    """A version that is no longer wanted when it is loaded never serves, and is closed."""
    desk.slow[3] = asyncio.Event()
    desk.wants(3)
    await eventually(lambda: desk.asked == [3], 20, "version 3 to be loading")
    desk.wants(2)
    desk.slow[3].set()
    await eventually(lambda: desk.serves == 2, 20, "version 2 to serve")
    assert desk.asked == [3, 2] and desk.loaded[3].closed and set(desk.registry.breakers) == {"m@2", "n@1"}


async def test_a_row_that_returns_to_the_served_version_during_a_load(desk: Desk) -> None:
    """The served version stays, and a failure of the version that is no longer wanted is not reported."""
    problems: list[str | None] = []
    desk.versions.on_news = lambda: problems.append(desk.versions._models["m"].problem)
    for version in (3, 4):
        desk.slow[version] = asyncio.Event()
        desk.wants(version)
        await eventually(lambda version=version: desk.asked[-1:] == [version], 20, "the load to begin")  # type: ignore[misc]
        desk.wants(1)
        desk.broken.add(4)
        desk.slow[version].set()
    await eventually(lambda: desk.loaded[3].closed, 20, "version 3 to be closed")
    assert desk.serves == 1 and not desk.loaded[1].closed
    desk.wants(2)  # it is loaded after version 4 has failed
    await eventually(lambda: desk.serves == 2, 20, "version 2 to serve")
    assert problems == [None] and desk.asked == [3, 4, 2]


async def test_a_vetting_does_not_delay_another_model(desk: Desk) -> None:
    """A vetting may take a minute, and another model's rollback must not wait for it."""
    desk.slow[3] = asyncio.Event()
    desk.wants(3)
    await eventually(lambda: desk.asked == [3], 20, "version 3 to be loading")
    desk.wants(2, "n")
    await eventually(lambda: desk.serving("n") == 2, 20, "the other model to follow")
    assert desk.serves == 1


async def test_old_rows_that_are_read_again_are_ignored(desk: Desk) -> None:
    """After a rebalance of the control plane the table's whole history is read again."""
    for version in (2, 3, 2):
        desk.wants(version)
        await eventually(lambda version=version: desk.serves == version, 20, "the version to serve")  # type: ignore[misc]
    asked = list(desk.asked)
    for moves, version in enumerate((1, 2, 3, 2)):
        desk.versions.absorb(RolloutRow("m", version, moves=moves))
        assert desk.versions._models["m"].wanted == 2
    desk.wants(3)
    await eventually(lambda: desk.serves == 3, 20, "a new order to be followed")
    assert desk.asked == [*asked, 3]


async def test_a_worker_that_ends_waits_for_no_load(desk: Desk) -> None:
    """A vetting may take a minute, and its version would not be used."""
    desk.slow[3] = asyncio.Event()
    desk.wants(3)
    await eventually(lambda: desk.asked == [3], 20, "version 3 to be loading")
    await asyncio.wait_for(desk.versions.stop(), 15)  # the load would take 20
    assert desk.serves == 1 and not desk.loaded[1].closed


async def test_heartbeats_are_sent_regularly_and_at_once_after_a_change(desk: Desk) -> None:
    """The fleet counts its workers by their heartbeats."""
    assert desk.sent() == [(1, None)] and desk.sent() == []
    desk.now += HEARTBEAT_EVERY
    assert desk.sent() == [(1, None)]


async def test_health_counts_the_results_of_calls(desk: Desk) -> None:
    """It counts failures of the model, and the confidences of the rows that the model answered."""
    call = Call("m@1", columns([{"x": 0.5, "y": 1.0}] * 4, CARD.specs), 1.0, 1.0)
    desk.versions.on_result(call, fine(call))
    desk.versions.on_result(call, failing(0, 2)(call))
    desk.versions.on_result(call, failing(1, kind=Kind.INVALID)(call))
    heartbeat, _ = desk.versions.heartbeats()
    health = heartbeat.health[1]
    assert (health.calls, health.failures, health.runs, health.judged) == (12, 2, 3, 4 + 2 + 3)
    assert health.sure / health.judged == pytest.approx(0.9)


async def test_a_new_versions_breaker_obeys_the_fleets_row(desk: Desk) -> None:
    """The row may have arrived before the version was loaded here."""
    from failsoft.models.breaker.rules import BreakerState
    from failsoft.schemas.fleet.breaker import BreakerRow

    desk.registry.absorb(BreakerRow("m@2", "forced_open", 4, 1))
    desk.wants(2)
    await eventually(lambda: desk.serves == 2, 20, "version 2 to serve")
    assert desk.registry.breakers["m@2"].state is BreakerState.FORCED_OPEN
    assert desk.registry.admit("m@2", 5).granted == 0


@pytest.mark.parametrize("none", [NoVersion("m", ("m@1: half copied",))])
async def test_a_worker_without_a_version_serves_one_that_appears(none: NoVersion, desk: Desk) -> None:
    """If no version could be loaded at the start, one that is copied in later is served without a restart."""
    await eventually(lambda: desk.sent() == [(None, "m@None: broken")], 20, "the first try to fail")
    desk.broken.clear()
    desk.now += 1
    await eventually(lambda: desk.serves == 7, 20, "a version to serve")
    assert set(desk.asked) == {None} and desk.unserved.not_ready() is None


@pytest.mark.parametrize("none", [NoVersion("m", ("m@1: half copied",))])
async def test_a_worker_without_a_version_says_so_every_minute(none: NoVersion, desk: Desk) -> None:
    """The log and /readyz give the reasons of the last try."""
    with structlog.testing.capture_logs() as logs:

        def reminders() -> list[Any]:
            return [line["why"] for line in logs if line["event"] == "no version of a model can serve"]

        desk.broken.add(2)
        desk.wants(2)
        await eventually(lambda: desk.sent() == [(None, "m@2: broken")], 20, "the problem to be reported")
        for minute in (1, 2):
            desk.now += REMIND_EVERY
            await eventually(lambda minute=minute: len(reminders()) == minute, 20, "the line of this minute")  # type: ignore[misc]
    assert reminders() == [["m@2: broken"]] * 2
    assert desk.unserved.not_ready() == "no version of m can serve: m@2: broken"


async def test_the_gauge_of_workers_per_version_returns_to_zero(desk: Desk) -> None:
    """When no worker serves a version any more, its gauge is 0 and does not keep the old value."""

    def workers(version: int) -> float | None:
        return desk.collector.get_sample_value("failsoft_fleet_workers", {"model": "m", "version": str(version)})

    at_ms = int(1000 * (1e9 + desk.now))
    desk.versions.absorb(
        RolloutRow(
            "m", 1, workers={"a": WorkerStatus(1, at_ms), "b": WorkerStatus(2, at_ms), "c": WorkerStatus(1, at_ms)}
        )
    )
    assert (workers(1), workers(2)) == (2, 1)
    desk.versions.absorb(RolloutRow("m", 1, workers={"a": WorkerStatus(1, at_ms), "b": WorkerStatus(1, at_ms)}))
    assert (workers(1), workers(2)) == (2, 0)
