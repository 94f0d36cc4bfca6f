"""One run of the demo: the background tasks (stream, readers, table), and how a chapter waits for a condition."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from failsoft.schemas.model_version import ModelVersion
from failsoft.workers.demo.applications import Application, Feed
from failsoft.workers.demo.environment import Environment, Worker
from failsoft.workers.demo.progress import Narrator
from failsoft.workers.demo.table import Moment, Standing
from failsoft.workers.demo.version_history import describe
from failsoft.workers.demo.watch import Breakers, Watch, scrape

REDRAW_EVERY = 0.25
"""Seconds between two updates of the table: fast enough to look live, slow enough to read."""

SLOW = 4.0
"""Factor on each expected duration before the demo gives up, for busy machines."""


class ScenarioFailed(Exception):
    """An expected condition did not come true in time; the message names it."""


@dataclass(frozen=True, slots=True)
class Script:
    """The durations of the chapters and the size of the stream.

    Attributes:
        delays: the delays of the retry ladder.
        healthy: duration of the first chapter (s).
        outage: duration of the outage after the fleet's breaker opened (s).
        calm: pause after each recovery (s).
        rate: events a second.
        expensive: applications for expensive cars, on which the primary fails.
        seed: seed of the choice of spoiled applications.
    """

    delays: tuple[str, ...]
    healthy: float
    outage: float
    calm: float
    rate: float
    expensive: int = 6
    seed: int = 7


@dataclass(slots=True)
class ScenarioRun:
    """The state of a run.

    Attributes:
        script: durations and sizes.
        environment: the demo's files.
        workers: the running workers.
        watch: reads the pipeline's topics.
        feed: publishes the applications.
        narrator: prints narration and the table.
        started: monotonic time of the start (s).
        chapter: the title of the current chapter.
        breakers: the breakers by worker id, from the worker's last metrics.
        changes_noted: changes of the fleet's breakers that were printed.
        moves_noted: changes of the primary's version that were printed.
        rates: (time, first answers) of the last updates, for the rate.
        tasks: the background tasks.
    """

    script: Script
    environment: Environment
    workers: Sequence[Worker]
    watch: Watch
    feed: Feed
    narrator: Narrator
    started: float
    chapter: str = ""
    breakers: dict[str, Breakers] = field(default_factory=dict)
    changes_noted: int = 0
    moves_noted: int = 0
    rates: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=12))
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def primary(self) -> str:
        """The primary's active version as model@version; the model alone while it is unknown."""
        model = self.environment.pipeline.model
        version = self.watch.moves.active(model)
        return model if version is None else str(ModelVersion(model, version))

    @property
    def settled(self) -> int:
        """Events that have a first answer, or became a dead letter without one."""
        return self.watch.tallies.answered + self.watch.tallies.dead_at_once

    def opened(self, key: str) -> dict[str, int]:
        """How often the breaker of ``key`` opened at each worker."""
        return {worker.id: self._breakers(worker).opened(key) for worker in self.workers}

    def all_serve(self, version: int) -> bool:
        """Is ``version`` the primary's active version, and does every worker serve it?"""
        model, moves = self.environment.pipeline.model, self.watch.moves
        return {moves.active(model), *(moves.serving(model, w.id) for w in self.workers)} == {version}

    def all_are(self, state: str) -> bool:
        """Is the primary's breaker in ``state`` in the fleet's row and at every worker?"""
        states = [self._breakers(worker).states.get(self.primary) for worker in self.workers]
        return {self.watch.fleet.state(self.primary), *states} == {state}

    def check(self) -> None:
        """Raises the error of a failed background task, or EnvironmentFailed if a worker ended."""
        for worker in self.workers:
            worker.check()
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def until(self, name: str, condition: Callable[[], bool], within: float) -> float:
        """Waits for ``condition`` and returns the seconds it took. Raises ScenarioFailed after ``SLOW * within`` s."""
        began = time.monotonic()
        while not condition():
            self.check()
            if time.monotonic() - began > SLOW * within:
                raise ScenarioFailed(f"{name}: expected within {within:.0f} s; {SLOW * within:.0f} s have passed")
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def stay(self, seconds: float) -> None:
        """Waits while the stream continues."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check()
            await asyncio.sleep(min(0.1, max(0.0, end - time.monotonic())))

    def begin(self, chapter: str, text: str) -> None:
        """Prints pending news, then begins a new chapter."""
        self._note_news()
        self.chapter = chapter
        self.narrator.say(text)

    def moment(self) -> Moment:
        """The current counts and states."""
        tallies, now = self.watch.tallies, time.monotonic()
        self.rates.append((now, tallies.answered))
        (then, before), passed = self.rates[0], now - self.rates[0][0]
        return Moment(
            chapter=self.chapter,
            elapsed=now - self.started,
            published=self.feed.acknowledged,
            rate=(tallies.answered - before) / passed if now > then else 0.0,
            answers=dict(tallies.first),
            provisional=tallies.provisional,
            corrected=tallies.corrected,
            confirmed=tallies.confirmed,
            imputed=tallies.imputed,
            primary=self.primary,
            serving={w.id: self.watch.moves.serving(self.environment.pipeline.model, w.id) for w in self.workers},
            breakers=self._standings(),
            rungs={delay: tallies.rung(delay) for delay in self.script.delays},
            dead=dict(tallies.dead),
            replayed=tallies.replayed,
            corrected_by_replay=tallies.corrected_by_replay,
            dead_again=tallies.dead_again,
            now_ms=time.time() * 1000,
        )

    async def paint(self) -> None:
        """Updates the table and prints changes of breakers and versions, until cancelled."""
        while True:
            await asyncio.gather(*map(self._scrape, self.workers))
            self._note_news()
            self.narrator.update(self.moment())
            await asyncio.sleep(REDRAW_EVERY)

    async def _scrape(self, worker: Worker) -> None:
        with suppress(OSError):  # the last values stay; ``check`` finds a worker that has ended
            self.breakers[worker.id] = await scrape(worker.address)

    def _note_news(self) -> None:
        changes = self.watch.fleet.changes
        for change in changes[self.changes_noted :]:
            self.narrator.note(f"{time.monotonic() - self.started:.0f} s: the fleet's breaker of {change}")
        self.changes_noted = len(changes)
        model = self.environment.pipeline.model
        moves = self.watch.moves.of(model)
        for move in moves[self.moves_noted :]:
            self.narrator.note(f"{time.monotonic() - self.started:.0f} s: the fleet moves {describe(model, move)}")
        self.moves_noted = len(moves)

    def _breakers(self, worker: Worker) -> Breakers:
        return self.breakers.get(worker.id) or Breakers()

    def _standings(self) -> dict[str, Standing]:
        fleet = self.watch.fleet
        keys = dict.fromkeys(key for b in self.breakers.values() for key in b.states)
        return {
            key: Standing(
                workers={w.id: self._breakers(w).states.get(key, "") for w in self.workers},
                opened={w.id: self._breakers(w).opened(key) for w in self.workers},
                fleet=fleet.state(key),
                generation=fleet.generation(key),
                fleet_opened=fleet.opened(key),
            )
            for key in keys
        }


@asynccontextmanager
async def play(
    script: Script,
    environment: Environment,
    workers: Sequence[Worker],
    partitions: int,
    source: Iterator[Application],
    narrator: Narrator,
) -> AsyncIterator[ScenarioRun]:
    """Starts the background tasks of a run and cancels them at the end of the block."""
    pipeline = environment.pipeline
    feed = Feed(pipeline, source, script.rate)
    run = ScenarioRun(script, environment, workers, Watch(pipeline, partitions), feed, narrator, time.monotonic())
    work: Sequence[Coroutine[Any, Any, None]] = (feed.run(), run.watch.run(), run.paint())
    run.tasks = [asyncio.create_task(each) for each in work]
    try:
        yield run
    finally:
        for task in run.tasks:
            task.cancel()
        await asyncio.gather(*run.tasks, return_exceptions=True)
