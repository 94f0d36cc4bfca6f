"""How many records a batch may hold: few when a model is slow, thousands when there is a backlog."""

from __future__ import annotations

FIRST = 500
SMALLEST = 16
LARGEST = 4000
"""Measured: 250 a transaction gave 55,000 events/s, 1,000 64,000, 4,000 86,000; beyond, only the latency grows."""

LONGEST = 1.0
"""Seconds a batch may take from fetch to commit before it stops growing: a rebalance waits for it. The other lanes of
the process have their turn within it, so a quarter of a second kept batches small just when there was a backlog."""


class BatchSize:
    """The limit of the next fetch. In light traffic a fetch returns what is there, so only a backlog meets it."""

    def __init__(self) -> None:
        self.limit = FIRST

    def adapt(self, records: int, inference: float, total: float, slow_call: float) -> None:
        """A batch of ``records`` took ``total`` seconds, its slowest call ``inference``; ``slow_call`` is the card's.

        A batch is one call, and a slow call counts against the breaker: the batch must stay well below it.
        """
        if inference > slow_call / 2:
            self.limit = max(SMALLEST, min(self.limit, records) // 2)
        elif records >= self.limit and total < LONGEST and inference < slow_call / 4:
            self.limit = min(LARGEST, self.limit * 2)
