"""The most records that a batch may hold: few when a model is slow, thousands when there is a backlog."""

from __future__ import annotations

FIRST_LIMIT = 500
SMALLEST = 16
LARGEST = 4000
"""The largest limit. Measured: 250 records a transaction gave 55,000 events/s, 1,000 gave 64,000, 4,000 gave 86,000.
Larger batches only raise the latency."""

LONGEST_BATCH = 1.0
"""Seconds to score a batch. A rebalance waits for it, and so may other lanes: together they score a bounded number of
records. The time includes waiting for other lanes of the process: with 0.25 s batches stayed small during a backlog."""


class BatchSize:
    """The limit of the next fetch, in records. In light traffic a fetch returns fewer, so only a backlog reaches it."""

    def __init__(self) -> None:
        self.limit = FIRST_LIMIT

    def adapt(self, records: int, inference: float, total: float, slow_call: float) -> None:
        """Adapt the limit to a finished batch. All times are seconds.

        A batch is one call of the model, and a slow call counts against the breaker. So when a call took over half of
        ``slow_call``, the limit becomes half of the batch's records, or half of the limit if that is less; and so when
        the batch took over LONGEST_BATCH, as with many failing rows. The limit is doubled when a full batch took less
        than that and its slowest call took under a quarter of ``slow_call``.

        Args:
            records: the number of records of the batch.
            inference: the time of its slowest call.
            total: the time from fetch until it was scored.
            slow_call: the card's threshold of a slow call.
        """
        if inference > slow_call / 2 or total > LONGEST_BATCH:
            self.limit = max(SMALLEST, min(self.limit, records) // 2)
        elif records >= self.limit and inference < slow_call / 4:
            self.limit = min(LARGEST, self.limit * 2)
