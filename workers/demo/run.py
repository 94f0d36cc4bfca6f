"""What plays behind the story: the stream, the readers and the table, and how a chapter waits for a fact."""

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

PAINT = 0.25
"""Seconds between two paintings of the table: quick enough to live, slow enough to read."""

SLOW = 4.0
"""How many times longer than it should take something may take on a busy machine before the demo gives up."""


class ScenarioFailed(Exception):
    """What should have happened did not; says what."""


@dataclass(frozen=True, slots=True)
class Script:
    """How long the chapters last (seconds), and how much happens in them. ``rate`` is events a second."""

    delays: tuple[str, ...]
    healthy: float
    outage: float  # counted from the opening of the fleet's breaker
    calm: float
    rate: float
    dear: int = 6
    seed: int = 7


@dataclass(slots=True)
class ScenarioRun:
    """What is going on: the tasks behind the story, and what they have seen."""

    script: Script
    environment: Environment
    workers: Sequence[Worker]
    watch: Watch
    feed: Feed
    narrator: Narrator
    started: float
    chapter: str = ""
    breakers: dict[str, Breakers] = field(default_factory=dict)  # by the workers' ids, as they said last
    describe: int = 0  # of the turns of the fleet's breakers
    moved: int = 0  # of the primary's moves, as many as were told
    rates: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=12))
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def primary(self) -> str:
        """The primary in the version that the fleet wants, as model@version."""
        model = self.environment.pipeline.model
        version = self.watch.moves.active(model)
        return model if version is None else str(ModelVersion(model, version))

    @property
    def settled(self) -> int:
        """Events that have a first answer, or are dead letters without one."""
        return self.watch.tallies.answered + self.watch.tallies.dead_at_once

    def opened(self, key: str) -> dict[str, int]:
        """How often the breaker of ``key`` opened, by worker."""
        return {worker.id: self._breakers(worker).opened(key) for worker in self.workers}

    def all_serve(self, version: int) -> bool:
        """Is ``version`` of the primary what the fleet wants, and what every worker serves?"""
        model, moves = self.environment.pipeline.model, self.watch.moves
        return {moves.active(model), *(moves.serving(model, w.id) for w in self.workers)} == {version}

    def all_are(self, state: str) -> bool:
        """Is the primary's breaker in ``state``, for the fleet and at every worker?"""
        states = [self._breakers(worker).states.get(self.primary) for worker in self.workers]
        return {self.watch.fleet.state(self.primary), *states} == {state}

    def check(self) -> None:
        """Raises what ended one of the tasks behind the story, or StageFailed if a worker ended."""
        for worker in self.workers:
            worker.check()
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def until(self, what: str, fact: Callable[[], bool], within: float) -> float:
        """Waits for ``fact``; the seconds it took. Raises ScenarioFailed after ``SLOW * within`` seconds."""
        began = time.monotonic()
        while not fact():
            self.check()
            if time.monotonic() - began > SLOW * within:
                raise ScenarioFailed(f"{what}: it should take {within:.0f} s, and {SLOW * within:.0f} have passed")
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def stay(self, seconds: float) -> None:
        """Lets the stream run on."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check()
            await asyncio.sleep(min(0.1, max(0.0, end - time.monotonic())))

    def turn(self, chapter: str, text: str) -> None:
        """A new chapter, after the news that it is about."""
        self._tell_news()
        self.chapter = chapter
        self.narrator.say(text)

    def moment(self) -> Moment:
        """How things stand now."""
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
        """Keeps the table, and the news of breakers and versions, up to date."""
        while True:
            await asyncio.gather(*map(self._ask, self.workers))
            self._tell_news()
            self.narrator.update(self.moment())
            await asyncio.sleep(PAINT)

    async def _ask(self, worker: Worker) -> None:
        with suppress(OSError):  # no answer is no news: a worker that is gone is found out by ``check``
            self.breakers[worker.id] = await scrape(worker.address)

    def _tell_news(self) -> None:
        turns = self.watch.fleet.turns
        for turn in turns[self.describe :]:
            self.narrator.note(f"{time.monotonic() - self.started:.0f} s: the fleet's breaker of {turn}")
        self.describe = len(turns)
        model = self.environment.pipeline.model
        moves = self.watch.moves.of(model)
        for move in moves[self.moved :]:
            self.narrator.note(f"{time.monotonic() - self.started:.0f} s: the fleet moves {describe(model, move)}")
        self.moved = len(moves)

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
    """A scene from its first event on; what plays behind it ends with the block."""
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
