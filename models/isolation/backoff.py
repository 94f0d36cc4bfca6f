"""When a model's process that died is started again: at once while that finds bad rows, later when nothing helps."""

from __future__ import annotations

from dataclasses import dataclass

from failsoft.schemas.backoff import doubled, upper_half

AT_ONCE = 64
"""Deaths without an answer in between that are followed by a start at once. A batch that kills its process is halved
until the row stands alone: thirteen deaths find one row in 4,096, the largest batch, and several lanes may each be
looking for one. Waiting would outlast any deadline, and a fork costs some milliseconds."""

FIRST = 0.1
"""Seconds of the first wait: a process that only ever dies may not keep a core busy with dying."""

LONGEST = 10.0
"""Seconds; what a model needs that is not there (memory, mostly) may be back at any time, and a try costs a second."""

HEALTHY = 30.0
"""Seconds without a death after which the next counts as the first; three times the longest wait."""


@dataclass(slots=True)
class Restarts:
    """The deaths of one model's processes since one of them answered. ``now`` is monotonic seconds."""

    deaths: int = 0
    last: float | None = None

    def answered(self) -> None:
        """A call came back: the model can do more than die."""
        self.deaths = 0

    def after(self, now: float, u: float) -> float:
        """Seconds until the next start, after a death at ``now``: none for the first ``AT_ONCE``, then doubling.

        ``u`` in [0, 1) spreads a wait over its upper half, so that what fell together does not come back together.
        """
        if self.last is not None and now - self.last >= HEALTHY:
            self.deaths = 0
        self.deaths, self.last = self.deaths + 1, now
        if self.deaths <= AT_ONCE:
            return 0.0
        return upper_half(doubled(FIRST, LONGEST, self.deaths - AT_ONCE - 1), u)
