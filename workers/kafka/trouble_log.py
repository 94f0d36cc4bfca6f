"""Logs why something is tried again and again: not a short trouble, and a long one not with every try."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

QUIET = 5.0
"""Seconds of trying before the first line. A broker's restart or a leader's move is often over by then."""

EVERY = 10.0
"""Seconds between two lines: a worker that cannot go on says why, and its log stays readable."""


class TroubleLog:
    """The lines about one thing that is tried. It begins when it is created.

    Args:
        clock: the monotonic clock (seconds).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._due = self._since + QUIET

    def note(self, trouble: str) -> None:
        """It is tried again because of ``trouble``. Logs a warning if one is due."""
        now = self._clock()
        if now >= self._due:
            self._due = now + EVERY
            log.warning("still trying after %.0f s: %s", now - self._since, trouble)
