"""Owns the back-off of an isolated model's restarts: none at first, as bisecting a batch needs it, then longer
waits.
"""

from __future__ import annotations

from dataclasses import dataclass

from failsoft.schemas.backoff import doubled, upper_half

DEATHS_WITHOUT_WAIT = 64
"""Deaths in a row, with no answer between them, that are followed by a restart at once. A batch that kills its process
is halved until the failing row stands alone. Thirteen deaths find one row in 4,096, more than the largest batch, and
several lanes may each bisect a batch. A wait would be longer than any deadline, and a fork costs only milliseconds."""

FIRST_WAIT = 0.1
"""Seconds of the first wait. Without it a process that dies at every start would keep a core busy."""

LONGEST_WAIT = 10.0
"""Seconds of the longest wait. A missing resource (mostly memory) may be back at any time, and a try costs a second."""

HEALTHY = 30.0
"""Seconds without a death after which the next death counts as the first. It is three times the longest wait."""


@dataclass(slots=True)
class Restarts:
    """Counts the deaths of one model's processes since the last answer.

    Attributes:
        deaths: deaths in a row.
        last: when the last one happened (monotonic seconds), None before the first.
    """

    deaths: int = 0
    last: float | None = None

    def answered(self) -> None:
        """Resets the count: a call was answered, so the model works for some batches."""
        self.deaths = 0

    def after(self, now: float, u: float) -> float:
        """Seconds until the next start, after a death at ``now`` (monotonic seconds): 0 for the first
        ``DEATHS_WITHOUT_WAIT`` deaths, then doubling.

        ``u`` in [0, 1) spreads the wait over its upper half, so that processes that died together do not restart
        together.
        """
        if self.last is not None and now - self.last >= HEALTHY:
            self.deaths = 0
        self.deaths, self.last = self.deaths + 1, now
        if self.deaths <= DEATHS_WITHOUT_WAIT:
            return 0.0
        return upper_half(doubled(FIRST_WAIT, LONGEST_WAIT, self.deaths - DEATHS_WITHOUT_WAIT - 1), u)
