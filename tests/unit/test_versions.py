"""A worker follows the fleet's versions: what it loads, when it swaps, what it unloads, and what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from models.rollout import EVERY
from models.session import Cancel, Outcome, Unloadable
from schemas.failure import Failure, Kind
from schemas.features import Columns, columns
from schemas.prediction import Predictions
from schemas.rollout import RolloutRow, Seat
from tests.kafka import eventually
from tests.kit import card, failing, fine
from workers import versions as tested
from workers.board import LocalBoard
from workers.metrics import Metrics
from workers.plan import Call, Served
from workers.runner import Runner
from workers.sessions import Opened
from workers.versions import Versions

CARD = card("m")
ROWS = columns([{"x": 0.5, "y": 1.0}], CARD.specs)


class Loaded:
    """A model that answers its version, once it is let."""

    def __init__(self, version: int) -> None:
        self.version, self.closed = version, False
        self.may_end = asyncio.Event()
        self.may_end.set()
        self._loop = asyncio.get_running_loop()

    def run(self, columns: Columns, cancel: Cancel | None = None) -> Outcome | Failure:
        asyncio.run_coroutine_threadsafe(self.may_end.wait(), self._loop).result(20)
        assert not self.closed
        scores = np.full(columns.size, self.version / 10, np.float32)
        return Outcome(Predictions(scores, [0] * columns.size, None, scores), {})

    def close(self) -> None:
        self.closed = True


class Desk:
    """A worker that serves version 1, and a repository of which the test says what loads."""

    def __init__(self) -> None:
        self.now = 100.0
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        self.loaded: dict[int, Loaded] = {}
        self.broken: set[int] = set()
        self.asked: list[int | None] = []
        self.runner = Runner({}, 4, metrics, lambda: self.now, pytest.fail)
        self.board = LocalBoard("w", metrics, lambda: self.now, lambda: 1e9 + self.now, lambda: 0.5)
        self.versions = Versions(
            "w",
            {"m": CARD},
            [self.make(1)],
            self.open,
            self.runner,
            self.board,
            metrics,
            lambda: self.now,
            lambda: 1e9 + self.now,
        )

    def make(self, version: int) -> Opened:
        loaded = self.loaded[version] = Loaded(version)
        return Opened(Served("m", version, {}), loaded, f"sha-{version}", loaded.close)

    def open(self, model: str, version: int | None) -> Opened | None:
        self.asked.append(version)
        if version in self.broken:
            raise Unloadable(f"m@{version}: broken")
        return asyncio.run_coroutine_threadsafe(self._made(version or 7), self._loop).result(20)

    async def _made(self, version: int) -> Opened:
        return self.make(version)

    def wants(self, version: int) -> None:
        self.versions.absorb(RolloutRow("m", version))

    @property
    def serves(self) -> int | None:
        served = self.board.serving("m")
        return served and served.version

    async def score(self) -> float:
        served = self.board.serving("m")
        assert served is not None
        result = await self.runner.run(Call(served.key, ROWS, 10.0, 10.0))
        assert result.predictions is not None, result.bad
        return float(result.predictions.scores[0])

    def told(self) -> list[tuple[int | None, str | None]]:
        return [(p.serving, p.problem) for p in self.versions.presences()]

    def info(self, version: int) -> float | None:
        labels = {"model": "m", "version": str(version), "sha256": f"sha-{version}"}
        return self.registry.get_sample_value("failsoft_model_info", labels)


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """It runs, and looks often."""
    monkeypatch.setattr(tested, "LOOK", 0.01)
    desk = Desk()
    desk._loop = asyncio.get_running_loop()  # type: ignore[attr-defined]
    await desk.versions.start()
    yield desk
    for loaded in desk.loaded.values():
        loaded.may_end.set()
    await desk.versions.stop()
    desk.runner.close()


async def test_a_worker_that_ends_unloads_what_it_serves(desk: Desk) -> None:
    """Its models may have processes of their own, which it waits for."""
    desk.wants(2)
    await eventually(lambda: desk.loaded[1].closed, 20, "version 1 to be unloaded")
    assert not desk.loaded[2].closed
    await asyncio.to_thread(desk.versions.unload_all)
    assert desk.loaded[2].closed


async def test_the_fleets_version_is_loaded_and_the_one_before_unloaded(desk: Desk) -> None:
    """Between two batches; its breaker and metrics go with it."""
    assert await desk.score() == pytest.approx(0.1) and desk.info(1) == 1
    desk.wants(2)
    await eventually(lambda: desk.loaded[1].closed, 20, "version 1 to be unloaded")
    assert await desk.score() == pytest.approx(0.2)
    assert set(desk.board.homes) == {"m@2"} and (desk.info(1), desk.info(2)) == (None, 1)
    assert desk.told() == [(2, None)]


async def test_a_call_under_way_ends_on_the_version_that_it_began_on(desk: Desk) -> None:
    """The new one answers meanwhile, and the old one is unloaded only then."""
    desk.loaded[1].may_end.clear()
    call = asyncio.create_task(desk.score())
    await eventually(lambda: desk.runner._models["m@1"].calls, 20, "the call to be under way")
    desk.wants(2)
    await eventually(lambda: desk.serves == 2, 20, "version 2 to serve")
    assert await desk.score() == pytest.approx(0.2)
    assert not desk.loaded[1].closed and set(desk.board.homes) == {"m@1", "m@2"}
    desk.loaded[1].may_end.set()
    assert await call == pytest.approx(0.1)
    await eventually(lambda: desk.loaded[1].closed, 20, "version 1 to be unloaded")


async def test_a_version_that_cannot_serve_leaves_the_one_before(desk: Desk) -> None:
    """The fleet is told why, and it is tried again later and later: it may be on its way to this machine."""
    desk.broken.add(3)
    desk.wants(3)
    await eventually(lambda: desk.told() == [(1, "m@3: broken")], 20, "the problem to be told")
    assert await desk.score() == pytest.approx(0.1) and desk.asked == [3]
    desk.now += 1.0
    await eventually(lambda: desk.asked == [3, 3], 20, "a second try")
    desk.now += 1.9
    desk.broken.clear()
    desk.now += 0.1
    await eventually(lambda: desk.serves == 3, 20, "version 3 to serve")
    assert desk.told() == [(3, None)]


async def test_a_new_wish_is_not_kept_waiting_for_an_old_ones_turn(desk: Desk) -> None:
    """The backoff is the refused version's."""
    desk.broken.add(3)
    desk.wants(3)
    await eventually(lambda: desk.told() == [(1, "m@3: broken")], 20, "the problem to be told")
    desk.wants(2)
    await eventually(lambda: desk.serves == 2, 20, "version 2 to serve")
    assert desk.told() == [(2, None)]


async def test_presences_are_told_now_and_then_and_at_once_when_something_changed(desk: Desk) -> None:
    """The fleet counts who is there."""
    assert desk.told() == [(1, None)] and desk.told() == []
    desk.now += EVERY
    assert desk.told() == [(1, None)]


async def test_health_is_of_what_came_back(desk: Desk) -> None:
    """Failures that are the model's, and confidences of the rows that it answered."""
    call = Call("m@1", columns([{"x": 0.5, "y": 1.0}] * 4, CARD.specs), 1.0, 1.0)
    desk.versions.saw(call, fine(call))
    desk.versions.saw(call, failing(0, 2)(call))
    desk.versions.saw(call, failing(1, kind=Kind.INVALID)(call))
    (presence,) = desk.versions.presences()
    health = presence.health[1]
    assert (health.calls, health.failures, health.runs, health.judged) == (12, 2, 3, 4 + 2 + 3)
    assert health.sure / health.judged == pytest.approx(0.9)


async def test_a_breaker_of_a_version_that_comes_is_under_the_fleets_row(desk: Desk) -> None:
    """The row may have come long before, when nothing of that version was loaded."""
    from models.breaker import State
    from schemas.fleet import BreakerRow

    desk.board.absorb(BreakerRow("m@2", "forced_open", 4, 1))
    desk.wants(2)
    await eventually(lambda: desk.serves == 2, 20, "version 2 to serve")
    assert desk.board.homes["m@2"].state is State.FORCED_OPEN
    assert desk.board.admit("m@2", 5).granted == 0


def test_a_worker_without_any_version_takes_what_comes() -> None:
    """Nothing could be loaded when it started: what is copied in later is served without a restart."""

    async def main() -> Any:
        desk = Desk()
        desk._loop = asyncio.get_running_loop()  # type: ignore[attr-defined]
        await desk.versions._unload("m@1")
        desk.board._serving.clear()
        await desk.versions.start()
        await eventually(lambda: desk.serves == 7, 20, "a version to serve")
        await desk.versions.stop()
        return desk.asked

    assert asyncio.run(main()) == [None]


async def test_the_skew_is_told_and_goes(desk: Desk) -> None:
    """A version that nobody serves any more is 0, and not what it was when somebody did."""

    def workers(version: int) -> float | None:
        return desk.registry.get_sample_value("failsoft_fleet_workers", {"model": "m", "version": str(version)})

    at_ms = int(1000 * (1e9 + desk.now))
    desk.versions.absorb(RolloutRow("m", 1, workers={"a": Seat(1, at_ms), "b": Seat(2, at_ms), "c": Seat(1, at_ms)}))
    assert (workers(1), workers(2)) == (2, 1)
    desk.versions.absorb(RolloutRow("m", 1, workers={"a": Seat(1, at_ms), "b": Seat(1, at_ms)}))
    assert (workers(1), workers(2)) == (2, 0)
