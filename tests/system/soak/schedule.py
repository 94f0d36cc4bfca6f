"""Which fault comes when: a pure function of the seed and the options, so that a run can be repeated.

Two tracks run side by side, each one fault at a time: what happens to processes and the broker, and what happens to
the model. So a worker is killed while the model fails, or while a bad version is rolled back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is done to the fleet."""

    KILL = "kill -9"
    STOP = "SIGSTOP anywhere"
    STOP_AT_COMMIT = "SIGSTOP before a commit"
    ROLLING = "SIGTERM in turn"
    BROKER_RESTART = "broker restart"
    BROKER_KILL = "broker kill"
    OWNER = "owner of the breakers killed"
    STORM = "rebalance storm"
    POISON = "poison event"
    BAD_OUTPUT = "model: out of range"
    RAISES = "model: raises"
    HANGS = "model: hangs"
    NAN = "model: NaN"
    DEAF = "model: ignores its deadline"
    SICK = "model: fails on one worker"
    BAD_VERSION = "bad version promoted"


@dataclass(frozen=True, slots=True)
class Fault:
    """At ``at`` seconds from the first event on, for ``lasts`` seconds; ``victim`` is a worker's number, where one is
    meant."""

    at: float
    kind: Kind
    lasts: float
    victim: int


@dataclass(frozen=True, slots=True)
class Options:
    """``minutes`` of ``events`` evenly spread; ``without`` are kinds that are left out."""

    events: int = 300_000
    minutes: float = 12.0
    workers: int = 3
    partitions: int = 6
    seed: int = 1
    without: frozenset[Kind] = frozenset()

    @property
    def seconds(self) -> float:
        return 60 * self.minutes


PROCESSES: dict[Kind, tuple[int, tuple[float, float]]] = {
    Kind.KILL: (8, (0.0, 0.0)),
    Kind.OWNER: (1, (0.0, 0.0)),
    Kind.STOP: (1, (7.0, 9.0)),  # past the session, which is 6 s
    Kind.STOP_AT_COMMIT: (1, (9.0, 11.0)),
    Kind.ROLLING: (1, (8.0, 8.0)),
    Kind.STORM: (1, (8.0, 8.0)),
    Kind.BROKER_RESTART: (1, (6.0, 6.0)),
    Kind.BROKER_KILL: (1, (8.0, 8.0)),
    Kind.POISON: (1, (10.0, 10.0)),
}
"""Of each deck: how many of a kind, and how many seconds it lasts (or is reckoned to take), from and to."""

MODELS: dict[Kind, tuple[int, tuple[float, float]]] = {
    Kind.BAD_OUTPUT: (1, (2.0, 6.0)),
    Kind.RAISES: (1, (2.0, 6.0)),
    Kind.HANGS: (1, (2.0, 6.0)),
    Kind.NAN: (1, (2.0, 6.0)),
    Kind.DEAF: (1, (1.0, 3.0)),
    Kind.SICK: (1, (4.0, 8.0)),
    Kind.BAD_VERSION: (1, (30.0, 30.0)),
}

GAPS: dict[bool, tuple[float, float]] = {True: (1.0, 6.0), False: (4.0, 12.0)}
"""Seconds between two faults of the track of processes (True) and of models: a worker starts in two to five."""

CALM = 15.0
"""Seconds at the end without a new fault: the load still runs, and recovery is seen under it."""


def plan(options: Options) -> tuple[Fault, ...]:
    """The faults of a run, by time. Each deck has every kind, so long runs see all of them several times."""
    faults = [
        *_track(options, PROCESSES, GAPS[True], random.Random(f"{options.seed}-processes")),
        *_track(options, MODELS, GAPS[False], random.Random(f"{options.seed}-models")),
    ]
    return tuple(sorted(faults, key=lambda f: f.at))


def _track(
    options: Options, deck: dict[Kind, tuple[int, tuple[float, float]]], gap: tuple[float, float], draw: random.Random
) -> Iterator[Fault]:
    at = draw.uniform(*gap)
    while at < options.seconds - CALM:
        cards = [kind for kind, (n, _) in deck.items() if kind not in options.without for _ in range(n)]
        if not cards:
            return
        draw.shuffle(cards)
        for kind in cards:
            lasts = draw.uniform(*deck[kind][1])
            victim = draw.randrange(options.workers)
            if at + lasts < options.seconds - CALM:
                yield Fault(round(at, 3), kind, round(lasts, 3), victim)
            at += lasts + draw.uniform(*gap)
