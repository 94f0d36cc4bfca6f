"""How large the record batches of each topic are, so that a fetch asks for whole ones. Pure."""

from __future__ import annotations

KEPT = 15 / 16
"""What is left of a size after a smaller batch: one large batch among small ones is soon forgotten, and a topic of
large ones whose last batches are small is not."""


class RecordBatchSizes:
    """The sizes of record batches by topic, as far as they are over what a partition may have in one answer.

    A broker sends a batch over that limit only as the first one of an answer. So where a topic's batches are larger,
    each answer has a single partition, however many have records. With 200 partitions and batches three times the
    limit, that was half of the time of a backlog. The batch comes whole in any case.
    """

    def __init__(self, largest: int) -> None:
        """``largest``: the most bytes of one answer."""
        self._largest = largest
        self._sizes: dict[str, float] = {}

    def limit(self, topic: str, max_bytes: int) -> int:
        """The bytes to ask for of a partition of ``topic``, instead of ``max_bytes``. A power of two if it is larger,
        so that it seldom changes.
        """
        size = int(self._sizes.get(topic, 0))
        return max_bytes if size <= max_bytes else max(max_bytes, min(self._largest, 1 << (size - 1).bit_length()))

    def seen(self, topic: str, size: int, max_bytes: int) -> bool:
        """A batch of ``size`` bytes came of a partition of ``topic``. True if its other partitions' limits change."""
        before = self._sizes.get(topic, 0.0)
        if size <= max_bytes and not before:
            return False
        limit = self.limit(topic, max_bytes)
        after = self._sizes[topic] = max(float(size), before * KEPT)
        if after <= max_bytes:
            del self._sizes[topic]
        return self.limit(topic, max_bytes) != limit
