"""One partition as the fetcher reads it."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiokafka import TopicPartition

from failsoft.workers.kafka.fetch_marks import KnownMark


@dataclass(slots=True, eq=False)
class FetchPosition:
    """One partition that is read.

    Attributes:
        tp: the partition.
        offset: the next offset to fetch.
        max_bytes: the most bytes of it in one answer, unless its topic's record batches are larger.
        paused: not fetched until ``resume``.
        failed: not fetched until ``read``.
        node: the broker whose session contains it; None while it is not fetched.
        preferred: the replica that the leader named; None is the leader itself.
        unknown: how often in a row it was unknown.
        doubted: its offset was out of range once, of a broker that may not be the leader any more.
        known: how far its log goes.
    """

    tp: TopicPartition
    offset: int
    max_bytes: int
    paused: bool = False
    failed: bool = False
    node: int | None = None
    preferred: int | None = None
    unknown: int = 0
    doubted: bool = False
    known: KnownMark = field(default_factory=KnownMark)

    def begin(self, offset: int, max_bytes: int) -> None:
        """Read from ``offset`` on, whatever was before."""
        self.offset, self.max_bytes, self.known = offset, max_bytes, KnownMark()
        self.paused = self.failed = self.doubted = False
        self.unknown = 0
