"""Which versions this worker serves: what the fleet's rows want is loaded and swapped in, and told to the fleet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import structlog
from mode import Service

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.repository import UnknownModel
from failsoft.models.rollout.health import Recent
from failsoft.models.rollout.rollout import heartbeat_every, newer, skew
from failsoft.models.runtime.session import Unloadable
from failsoft.schemas.config.refusal import Refused
from failsoft.schemas.fleet.rollout import Heartbeat, RolloutRow
from failsoft.workers.execution.runner import Runner
from failsoft.workers.scoring.plan import Call, CallResult
from failsoft.workers.serving.loader import Opened
from failsoft.workers.serving.registry import ServingRegistry
from failsoft.workers.telemetry.metrics import Metrics

log = structlog.get_logger("failsoft.versions")

AGAIN = (1.0, 30.0)
"""Seconds before a version that could not be served is tried again: the first time, and at most. It may be on its way
to this machine."""

LOOK = 0.5
"""Seconds between two looks whether something is to be tried again."""

Open = Callable[[str, int | None], Opened | None]
"""Proves, loads and warms a version of a model, blocking: the one named, or the first that can serve. Raises Refused,
UnknownModel or Unloadable."""


@dataclass(slots=True)
class _ServedModel:
    """One model in this worker."""

    row: RolloutRow | None = None  # the fleet's, the newest that was seen
    workers: int = 1
    counted: set[int] = field(default_factory=set)  # versions of which the gauge of workers was set
    problem: str | None = None
    tries: int = 0
    try_at: float = 0.0
    told: tuple[int | None, str | None] | None = None
    told_at: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def wanted(self) -> int | None:
        """What the fleet's row has as active; None while there is no row."""
        return None if self.row is None else self.row.active


@dataclass(slots=True)
class _Known:
    """What is loaded of one version, and how it does."""

    opened: Opened
    recent: Recent = field(default_factory=Recent)


class Versions(Service):  # type: ignore[misc]
    """Follows the fleet, one move of a model at a time. ``clock`` is monotonic seconds, ``wall`` epoch seconds.

    A vetting may take a minute, and no model waits for another's. What was loaded is taken into service between two
    batches; the version before is unloaded when its last call is back. ``on_news`` is called when the fleet should
    hear of this worker.
    """

    def __init__(
        self,
        worker: str,
        cards: Mapping[str, ModelCard],
        opened: Iterable[Opened],
        open: Open,
        runner: Runner,
        registry: ServingRegistry,
        metrics: Metrics,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        super().__init__()
        self._worker, self._cards, self._open = worker, cards, open
        self._runner, self._registry, self._metrics = runner, registry, metrics
        self._clock, self._wall = clock, wall
        self._models = {model: _ServedModel() for model in cards}
        self._known: dict[str, _Known] = {}
        self.on_news: Callable[[], None] = lambda: None
        for each in opened:
            self._serve(each)

    def on_result(self, call: Call, result: CallResult) -> None:
        """A call came back: its version's health."""
        known = self._known.get(call.key)
        if known is None:
            return
        confidences = None if result.predictions is None else result.predictions.confidences
        if confidences is not None and result.bad:
            confidences = np.delete(confidences, list(result.bad))
        failures = sum(1 for f in result.bad.values() if f.trips_breaker)
        known.recent.add(len(call), failures, result.seconds, confidences, self._clock())

    def absorb(self, row: RolloutRow) -> None:
        """The fleet's row of one model, as it is now; one of a model that this pipeline does not have is no matter."""
        model = self._models.get(row.model)
        if model is None or not newer(row, model.row):
            return
        before, model.row = model.wanted, row
        model.workers = len(row.workers)
        workers = skew(row, self._now_ms())
        model.counted |= workers.keys()
        for version in model.counted:
            self._metrics.set("failsoft_fleet_workers", workers.get(version, 0), model=row.model, version=str(version))
        if before != row.active:
            model.tries, model.try_at = 0, 0.0
            model.changed.set()

    def heartbeats(self) -> Iterator[Heartbeat]:
        """What the fleet should be told now of this worker. Each is counted as told."""
        now = self._clock()
        for name, model in self._models.items():
            served = self._registry.serving(name)
            says = None if served is None else served.version, model.problem
            if says == model.told and now - model.told_at < heartbeat_every(model.workers):
                continue
            model.told, model.told_at = says, now
            health = {
                k.opened.served.version: k.recent.totals(now)
                for k in self._known.values()
                if k.opened.served.model == name
            }
            yield Heartbeat(self._worker, name, says[0], self._now_ms(), says[1], health)

    async def on_start(self) -> None:
        """Begins to follow."""
        for name, model in self._models.items():
            self.add_future(self._follow(name, model))

    async def _follow(self, name: str, model: _ServedModel) -> None:
        while not self.should_stop:
            model.changed.clear()
            if self._needs_switch(name, model) and self._clock() >= model.try_at:
                await self._move(name, model)
            with suppress(TimeoutError):
                await asyncio.wait_for(model.changed.wait(), LOOK)

    def _needs_switch(self, name: str, model: _ServedModel) -> bool:
        """Does this worker serve another version than the fleet wants, or none?"""
        served = self._registry.serving(name)
        if served is None:
            return True
        if served.version in (model.wanted, None) or model.wanted is None:
            model.problem = None
            return False
        return True

    async def _move(self, name: str, model: _ServedModel) -> None:
        before, wanted = self._registry.serving(name), model.wanted
        try:
            # On a thread: it takes a second or more, and batches go on.
            opened = await asyncio.to_thread(self._open, name, wanted)
        except (Refused, UnknownModel, Unloadable) as e:
            opened, why = None, str(e)
        else:
            why = f"no version of {name} can serve"
        if model.wanted != wanted and (opened is None or opened.served.version != model.wanted):
            # Another order came meanwhile, and tells what to do next. That this version was fine, or not, is past.
            if opened is not None:
                await asyncio.to_thread(opened.close)
            return
        if opened is None:
            self._failed(name, model, why)
            return
        model.problem, model.tries = None, 0
        self._serve(opened)
        log.info("a version serves", model=name, version=opened.served.version, before=before and before.version)
        self.on_news()
        if before is not None:
            await self._unload(before.key)

    def _failed(self, name: str, model: _ServedModel, why: str) -> None:
        wait = min(AGAIN[1], AGAIN[0] * 2.0 ** min(model.tries, 32))
        model.problem, model.tries, model.try_at = why[:2_000], model.tries + 1, self._clock() + wait
        log.error("the version that the fleet wants cannot serve here", model=name, version=model.wanted, why=why)
        self.on_news()

    def _serve(self, opened: Opened) -> None:
        self._known[opened.served.key] = _Known(opened)
        self._runner.add(opened.served.key, opened.session)
        self._registry.serve(opened.served, self._cards[opened.served.model])
        self._metrics.inform(
            "failsoft_model_info",
            model=opened.served.model,
            version=str(opened.served.version),
            sha256=opened.sha256,
        )

    async def _unload(self, key: str) -> None:
        """Calls under way end on the version that they began on; then its memory is given back."""
        await self._runner.retire(key)
        known = self._known.pop(key)
        self._registry.retire(key)
        await asyncio.to_thread(known.opened.close)

    def unload_all(self) -> None:
        """No call is made any more: models that have processes end them. Blocking, while runs under way come back."""
        for known in self._known.values():
            known.opened.close()

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)
