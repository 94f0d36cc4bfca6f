"""Owns the switch between versions: loads and serves the version that the fleet's row wants, and sends heartbeats."""

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
from failsoft.models.rollout.rollout import heartbeat_every, newer, workers_by_version
from failsoft.models.runtime.session import Unloadable
from failsoft.schemas.backoff import doubled
from failsoft.schemas.config.refusal import Refused
from failsoft.schemas.fleet.rollout import Heartbeat, RolloutRow
from failsoft.workers.execution.runner import Runner
from failsoft.workers.scoring.plan import Call, CallResult
from failsoft.workers.serving.loader import Opened
from failsoft.workers.serving.registry import ServingRegistry
from failsoft.workers.serving.unserved import NoVersion, Unserved
from failsoft.workers.telemetry.metrics import Metrics

log = structlog.get_logger("failsoft.versions")

RETRY_WAIT = (1.0, 30.0)
"""Seconds before a version that could not serve is tried again: the first wait and the longest. Its files may still be
copied to this machine."""

CHECK_EVERY = 0.5
"""Seconds between two checks whether a version is to be tried again."""

Open = Callable[[str, int | None], Opened | NoVersion]
"""Vets, loads and warms a version of a model; blocks. The version is the one given, or with None the first that can
serve. Raises Refused, UnknownModel or Unloadable."""


@dataclass(slots=True)
class _ServedModel:
    """One model in this worker.

    Attributes:
        row: the fleet's newest row of the model, None before the first.
        workers: how many workers the row lists.
        counted: versions for which the gauge of workers has been set.
        problem: why the wanted version cannot serve here, None without a problem.
        tries: failed tries of the wanted version.
        try_at: when to try again (monotonic seconds).
        sent: version and problem in the last heartbeat, None before the first.
        sent_at: when that heartbeat was sent (monotonic seconds).
        changed: set when the fleet wants another version.
    """

    row: RolloutRow | None = None
    workers: int = 1
    counted: set[int] = field(default_factory=set)
    problem: str | None = None
    tries: int = 0
    try_at: float = 0.0
    sent: tuple[int | None, str | None] | None = None
    sent_at: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def wanted(self) -> int | None:
        """The active version in the fleet's row; None without a row."""
        return None if self.row is None else self.row.active


@dataclass(slots=True)
class _LoadedVersion:
    """A loaded version and its recent health."""

    opened: Opened
    recent: Recent = field(default_factory=Recent)


class Versions(Service):  # type: ignore[misc]
    """Switches each model to the version that the fleet wants, one switch at a time for a model.

    A vetting may take a minute, so no model waits for another's. A new version starts to serve between two batches; the
    version before is unloaded when its last call has returned. ``first`` has for each model the version that serves
    from the start, or why there is none. ``on_news`` is called when the fleet should get a heartbeat at once. ``clock``
    is monotonic seconds, ``wall`` epoch seconds.
    """

    def __init__(
        self,
        worker: str,
        cards: Mapping[str, ModelCard],
        first: Iterable[Opened | NoVersion],
        open: Open,
        runner: Runner,
        registry: ServingRegistry,
        unserved: Unserved,
        metrics: Metrics,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        super().__init__()
        self._worker, self._cards, self._open = worker, cards, open
        self._runner, self._registry, self._unserved, self._metrics = runner, registry, unserved, metrics
        self._clock, self._wall = clock, wall
        self._models = {model: _ServedModel() for model in cards}
        self._loaded: dict[str, _LoadedVersion] = {}
        self.on_news: Callable[[], None] = lambda: None
        for each in first:
            if isinstance(each, Opened):
                self._serve(each)
            else:
                unserved.lacks(each)

    def on_result(self, call: Call, result: CallResult) -> None:
        """Adds the result of a call to its version's health."""
        loaded = self._loaded.get(call.key)
        if loaded is None:
            return
        confidences = None if result.predictions is None else result.predictions.confidences
        if confidences is not None and result.bad:
            confidences = np.delete(confidences, list(result.bad))
        failures = sum(1 for f in result.bad.values() if f.trips_breaker)
        loaded.recent.add(len(call), failures, result.seconds, confidences, self._clock(), result.runs)

    def absorb(self, row: RolloutRow) -> None:
        """Takes the fleet's row of one model. Ignores a row that is older than the last one, or of a model that is
        not in this pipeline.
        """
        model = self._models.get(row.model)
        if model is None or not newer(row, model.row):
            return
        before, model.row = model.wanted, row
        model.workers = len(row.workers)
        workers = workers_by_version(row, self._now_ms())
        model.counted |= workers.keys()
        for version in model.counted:
            self._metrics.set("failsoft_fleet_workers", workers.get(version, 0), model=row.model, version=str(version))
        if before != row.active:
            model.tries, model.try_at = 0, 0.0
            model.changed.set()

    def heartbeats(self) -> Iterator[Heartbeat]:
        """The heartbeats that are due now. Each is counted as sent."""
        now = self._clock()
        for name, model in self._models.items():
            served = self._registry.serving(name)
            status = None if served is None else served.version, model.problem
            if status == model.sent and now - model.sent_at < heartbeat_every(model.workers):
                continue
            model.sent, model.sent_at = status, now
            health = {
                k.opened.served.version: k.recent.totals(now)
                for k in self._loaded.values()
                if k.opened.served.model == name
            }
            yield Heartbeat(self._worker, name, status[0], self._now_ms(), status[1], health)

    async def on_start(self) -> None:
        """Starts one task per model, which follows the fleet's row."""
        for name, model in self._models.items():
            self.add_future(self._follow(name, model))

    async def _follow(self, name: str, model: _ServedModel) -> None:
        while not self.should_stop:
            model.changed.clear()
            self._unserved.remind(name)
            if self._needs_switch(name, model) and self._clock() >= model.try_at:
                await self._switch(name, model)
            with suppress(TimeoutError):
                await asyncio.wait_for(model.changed.wait(), CHECK_EVERY)

    def _needs_switch(self, name: str, model: _ServedModel) -> bool:
        """True if no version of the model serves here, or another version than the fleet wants."""
        served = self._registry.serving(name)
        if served is None:
            return True
        if served.version in (model.wanted, None) or model.wanted is None:
            model.problem = None
            return False
        return True

    async def _switch(self, name: str, model: _ServedModel) -> None:
        before, wanted = self._registry.serving(name), model.wanted
        opened: Opened | NoVersion
        try:
            # On a thread, because it takes a second or more and batches go on.
            opened = await asyncio.to_thread(self._open, name, wanted)
        except (Refused, UnknownModel, Unloadable) as e:
            opened = NoVersion(name, (str(e),))
        if model.wanted != wanted and (isinstance(opened, NoVersion) or opened.served.version != model.wanted):
            # The fleet has changed the wanted version during the load. The result for the old one no longer counts.
            if isinstance(opened, Opened):
                await asyncio.to_thread(opened.close)
            return
        if isinstance(opened, NoVersion):
            self._failed(name, model, opened)
            return
        model.problem, model.tries = None, 0
        self._serve(opened)
        log.info("a version serves", model=name, version=opened.served.version, before=before and before.version)
        self.on_news()
        if before is not None:
            await self._unload(before.key)

    def _failed(self, name: str, model: _ServedModel, none: NoVersion) -> None:
        wait, why = doubled(*RETRY_WAIT, model.tries), "; ".join(none.reasons)
        model.problem, model.tries, model.try_at = why[:2_000], model.tries + 1, self._clock() + wait
        log.error("the version that the fleet wants cannot serve here", model=name, version=model.wanted, why=why)
        if self._registry.serving(name) is None:
            self._unserved.lacks(none)
        self.on_news()

    def _serve(self, opened: Opened) -> None:
        self._loaded[opened.served.key] = _LoadedVersion(opened)
        self._runner.add(opened.served.key, opened.session)
        self._registry.serve(opened.served, self._cards[opened.served.model])
        self._unserved.serves(opened.served.model)
        self._metrics.inform(
            "failsoft_model_info",
            model=opened.served.model,
            version=str(opened.served.version),
            sha256=opened.sha256,
        )

    async def _unload(self, key: str) -> None:
        """Waits until the calls under way on this version have ended, then frees its memory."""
        await self._runner.retire(key)
        loaded = self._loaded.pop(key)
        self._registry.retire(key)
        await asyncio.to_thread(loaded.opened.close)

    def unload_all(self) -> None:
        """Closes all loaded versions at shutdown, when no more calls are made. An isolated model's
        processes get a deadline and a second to end; this blocks for so long.
        """
        for loaded in self._loaded.values():
            loaded.opened.close()

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)
