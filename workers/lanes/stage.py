"""The stages of a lane, by which the watchdog, the probes and the metrics know what it does."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """What a lane is doing now. The watchdog reads it."""

    OPENING = "opening"
    FETCHING = "fetching"
    WAITING = "waiting"  # for other lanes: for one that runs alone, or because together they have enough
    SCORING = "scoring"
    COMMITTING = "committing"
    STOPPED = "stopped"  # by a trouble of its partitions
    CLOSED = "closed"
