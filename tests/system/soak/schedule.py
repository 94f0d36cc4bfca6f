"""Which fault comes when: a pure function of the seed and the options, so that a run can be repeated.

Three tracks run side by side, each one fault at a time: kills, what else happens to processes and the broker, and what
happens to the model. So a worker is killed while the broker restarts, while another one is a zombie, while the model
fails, or while a bad version is rolled back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
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
    """``minutes`` of ``events`` evenly spread; ``brokers`` are Kafka's; ``without`` are kinds that are left out."""

    events: int = 300_000
    minutes: float = 12.0
    workers: int = 3
    partitions: int = 6
    seed: int = 1
    brokers: int = 3
    without: frozenset[Kind] = frozenset()

    @property
    def seconds(self) -> float:
        return 60 * self.minutes


Deck = Mapping[Kind, tuple[float, float]]
"""The kinds of a track, and how many seconds each lasts (or is reckoned to take), from and to."""

KILLS: Deck = {Kind.KILL: (0.0, 0.0)}
PROCESSES: Deck = {
    Kind.OWNER: (0.0, 0.0),
    Kind.STOP: (7.0, 9.0),  # past the session, which is 6 s
    Kind.STOP_AT_COMMIT: (9.0, 11.0),
    Kind.ROLLING: (8.0, 8.0),
    Kind.STORM: (8.0, 8.0),
    Kind.BROKER_RESTART: (6.0, 6.0),
    Kind.BROKER_KILL: (8.0, 8.0),
    Kind.POISON: (10.0, 10.0),
}
MODELS: Deck = {
    Kind.BAD_OUTPUT: (2.0, 6.0),
    Kind.RAISES: (2.0, 6.0),
    Kind.HANGS: (2.0, 6.0),
    Kind.NAN: (2.0, 6.0),
    Kind.DEAF: (1.0, 3.0),
    Kind.SICK: (4.0, 8.0),
    Kind.BAD_VERSION: (30.0, 30.0),
}

TRACKS: Mapping[str, tuple[Deck, tuple[float, float]]] = {
    "kills": (KILLS, (6.0, 18.0)),
    "processes": (PROCESSES, (2.0, 8.0)),
    "models": (MODELS, (4.0, 12.0)),
}
"""Each with the seconds between two of its faults: a worker starts in two to five, when the machine is quiet."""

CALM = 15.0
"""Seconds at the end without a new fault: the load still runs, and recovery is seen under it."""


def plan(options: Options) -> tuple[Fault, ...]:
    """The faults of a run, by time. A track goes through its deck in random order, again and again."""
    faults = [f for name in TRACKS for f in _track(options, *TRACKS[name], random.Random(f"{options.seed}-{name}"))]
    return tuple(sorted(faults, key=lambda f: f.at))


def _track(options: Options, deck: Deck, gap: tuple[float, float], draw: random.Random) -> Iterator[Fault]:
    at = draw.uniform(*gap)
    while at < options.seconds - CALM:
        cards = [kind for kind in deck if kind not in options.without]
        if not cards:
            return
        draw.shuffle(cards)
        for kind in cards:
            lasts = draw.uniform(*deck[kind])
            victim = draw.randrange(options.workers)
            if at + lasts < options.seconds - CALM:
                yield Fault(round(at, 3), kind, round(lasts, 3), victim)
            at += lasts + draw.uniform(*gap)
