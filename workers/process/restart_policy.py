"""What a supervisor does when a worker has ended: start it again, after how long, or stop everything. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from failsoft.schemas.backoff import doubled, upper_half

FIRST = 0.5
"""Seconds before the first restart: a crash by chance costs little, and a broker that just went is not hammered."""

LONGEST = 30.0
"""Seconds; after an outage of any length a worker is back within half a minute."""

HEALTHY = 60.0
"""Seconds of life after which a crash counts as the first again."""

MISTAKES = frozenset({2, 3})
"""Exit codes of a wrong use and a refused file: the next start would end the same."""

ASKED = frozenset({0, 130})
"""Exit codes of a worker that somebody asked to end."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again in ``wait`` seconds; ``crashes`` is how many it has had in a row."""

    wait: float
    crashes: int


@dataclass(frozen=True, slots=True)
class Ended:
    """It was asked to end: leave it."""


@dataclass(frozen=True, slots=True)
class StopAll:
    """A mistake that no restart mends: everything stops, with this code."""

    code: int


Decision = Restart | Ended | StopAll


def decide(code: int, lived: float, crashes: int, u: float) -> Decision:
    """For a worker that ended with ``code`` (negative: a signal) after ``lived`` seconds, having crashed ``crashes``
    times in a row before. ``u`` in [0, 1) spreads the waits over their upper half, so that workers which fell together
    do not come back together.
    """
    if code in ASKED:
        return Ended()
    if code in MISTAKES:
        return StopAll(code)
    if lived >= HEALTHY:
        crashes = 0
    return Restart(upper_half(doubled(FIRST, LONGEST, crashes), u), crashes + 1)
