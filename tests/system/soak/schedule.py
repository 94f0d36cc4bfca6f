"""The schedule of faults: a pure function of the seed and the options, so that a run can be repeated.

Three tracks run at the same time, each with one fault at a time: kills; other faults of processes and the broker; and
faults of the model. So a worker may be killed while the broker restarts, while another worker is stopped, while the
model fails, or while a bad version is rolled back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tests.system.stops import BEFORE_COMMIT, MOMENTS


class Kind(StrEnum):
    """The kinds of fault."""

    KILL = "kill -9"
    STOP = "SIGSTOP anywhere"
    STOP_IN_COMMIT = "SIGSTOP in a commit"
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
    """One fault.

    Attributes:
        at: seconds after the first event.
        kind: the kind of fault.
        lasts: its duration (seconds).
        victim: the number of the worker that it hits, for kinds that hit one worker.
        moment: where a worker stops in a commit (tests.system.stops), for that kind.
    """

    at: float
    kind: Kind
    lasts: float
    victim: int
    moment: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run.

    Attributes:
        events: the number of events, published evenly.
        minutes: the duration of the load (minutes).
        workers: worker processes.
        partitions: lanes.
        seed: the seed of the schedule.
        brokers: Kafka brokers, 1 or 3.
        without: kinds that are left out.
    """

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
"""The kinds of a track, each with the least and the longest duration (seconds; estimated for some)."""

KILLS: Deck = {Kind.KILL: (0.0, 0.0)}
PROCESSES: Deck = {
    Kind.OWNER: (0.0, 0.0),
    Kind.STOP: (7.0, 9.0),  # longer than the session timeout of 6 s
    Kind.STOP_IN_COMMIT: (7.0, 11.0),
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
"""By name: the track's deck, and the least and the longest gap between its faults (seconds). A worker needs two to five
seconds to start on a quiet machine.
"""

CALM = 15.0
"""Seconds at the end without a new fault, so that recovery is seen under load."""


def plan(options: Options) -> tuple[Fault, ...]:
    """The faults of a run in order of time. A track goes through its deck in random order, repeatedly."""
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
            moment = draw.choice((BEFORE_COMMIT, *MOMENTS)) if kind is Kind.STOP_IN_COMMIT else ""
            if at + lasts < options.seconds - CALM:
                yield Fault(round(at, 3), kind, round(lasts, 3), victim, moment)
            at += lasts + draw.uniform(*gap)
