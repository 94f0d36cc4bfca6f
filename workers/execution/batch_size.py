"""The most records that a lane's batch may hold: few when a model is slow, thousands when there is a backlog."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from failsoft.models.runtime.run_times import RunTimes
from failsoft.workers.scoring.plan import Plan, Registry

FIRST_LIMIT = 500
"""Of a first batch, for fast models."""

LARGEST = 4000
"""The largest limit. Measured: 250 records a transaction gave 55,000 events/s, 1,000 gave 64,000, 4,000 gave 86,000.
Larger batches only raise the latency."""

LONGEST_BATCH = 1.0
"""Seconds to score a batch. A rebalance waits for it, and so may other lanes: together they score a bounded number of
records. The time includes waiting for other lanes of the process: with 0.25 s batches stayed small during a backlog."""

FIRST_BATCH = LONGEST_BATCH / 4
"""Seconds to score the first batch of a version, by the times that were measured when it was loaded. Other lanes share
the cores, and real rows may cost more than made-up ones."""

LONGEST_FALLBACK = 5.0
"""Seconds for the fallbacks of a batch whose primary fails. They are slower than LONGEST_BATCH for one batch, and then
the limit follows."""

FEWEST = 250
"""A slow fallback does not lower the limit below this, since it rarely answers. Where it cannot answer so many within
the runner's LONGEST_CALL, the chain goes on for the others."""


class BatchSize:
    """The limit of the next fetch, in records. In light traffic a fetch returns fewer, so only a backlog reaches it."""

    def __init__(self) -> None:
        self.limit = FIRST_LIMIT
        self._most = LARGEST
        self._keys: list[str | None] = []  # the versions that the limit is for

    def next(self, plan: Plan, registry: Registry) -> int:
        """The limit of the next batch. It starts anew when other versions serve: they may be slower."""
        asked, fallbacks = plan.asked, plan.fallbacks
        keys = [served.key if served else None for served in map(registry.serving, (*asked, *fallbacks))]
        if keys != self._keys:
            self._keys = keys
            self._expect(list(_times(asked, plan, registry)), _times(fallbacks, plan, registry))
        return self.limit

    def _expect(self, asked: Sequence[RunTimes], fallbacks: Iterable[RunTimes]) -> None:
        """Set the limit to what the models ``asked``, one after the other, are expected to score in time; and the
        largest limit to what each of the fallbacks is.
        """
        total = RunTimes(sum(times.run for times in asked), sum(times.row for times in asked))
        first = total.rows(max(FIRST_BATCH, 2 * total.run))
        self._most = int(max(FEWEST, min([LARGEST, *(times.rows(LONGEST_FALLBACK) for times in fallbacks)])))
        self.limit = int(max(1, min(self.limit, FIRST_LIMIT, self._most, first)))

    def adapt(self, records: int, total: float) -> None:
        """Adapt the limit to a finished batch of ``records``, which took ``total`` seconds from fetch until it was
        scored.

        When that is over LONGEST_BATCH (a slow model, or many failing rows), the limit becomes what fits into it by
        the same pace, at most half. When a full batch took less, the limit is doubled.
        """
        if total > LONGEST_BATCH:
            seen = min(self.limit, records)
            self.limit = max(1, int(min(seen / 2, seen * LONGEST_BATCH / total)))
        elif records >= self.limit:
            self.limit = min(self._most, self.limit * 2)


def _times(models: Iterable[str], plan: Plan, registry: Registry) -> Iterable[RunTimes]:
    """How long the runs of ``models`` take, where that was measured, with what each card allows in a run."""
    for model in models:
        served = registry.serving(model)
        if served is not None and served.times is not None:
            yield served.times.in_runs_of(plan.cards[model].model.max_batch)
