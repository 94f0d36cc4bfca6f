"""The restart policy: after a worker ends, restart it with a back-off, leave it ended, or stop all. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from failsoft.schemas.backoff import doubled, upper_half

FIRST_WAIT = 0.5
"""Seconds before the first restart: little time is lost after a one-time crash, and a failed broker is not flooded."""

LONGEST_WAIT = 30.0
"""Longest back-off in seconds: after an outage of any length a worker is back within half a minute."""

HEALTHY = 60.0
"""Seconds of running after which a crash counts as the first one again."""

MISTAKES = frozenset({2, 3})
"""Exit codes for wrong usage and a refused file: a restart would end the same way."""

ASKED = frozenset({0, 130})
"""Exit codes of a worker that was asked to end (SIGTERM, SIGINT)."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Restart the worker.

    Attributes:
        wait: the back-off before the restart (seconds).
        crashes: crashes in a row, this one included.
    """

    wait: float
    crashes: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The worker was asked to end and is not restarted."""


@dataclass(frozen=True, slots=True)
class StopAll:
    """A restart cannot help: all workers stop, and the supervisor exits with ``code``."""

    code: int


Decision = Restart | Ended | StopAll


def decide(code: int, lived: float, crashes: int, u: float) -> Decision:
    """The decision for a worker that ended.

    code: the exit code; negative is the number of a signal.
    lived: how long the worker ran (seconds).
    crashes: crashes in a row before this one.
    u: a random number in [0, 1). It spreads a wait over its upper half, so that workers that crashed together do not
    restart together.
    """
    if code in ASKED:
        return Ended()
    if code in MISTAKES:
        return StopAll(code)
    if lived >= HEALTHY:
        crashes = 0
    return Restart(upper_half(doubled(FIRST_WAIT, LONGEST_WAIT, crashes), u), crashes + 1)
