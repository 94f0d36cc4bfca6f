"""A batch of a lane between its scoring and its commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiokafka import TopicPartition

from failsoft.schemas.record import Record
from failsoft.workers.lanes.crash_marks import BatchMode
from failsoft.workers.scoring.plan import Scored


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """A scored batch on its way to the commit.

    Attributes:
        records: the batch.
        scored: its verdicts.
        mode: how it ran.
        counts: the number of records, by partition.
        retries: how many of the records came from the ladder.
        offsets: the offsets that it advances.
        arrived: when the oldest of its records arrived (monotonic seconds).
        wrote: the rungs that it writes to, each with the end offset that was known before, or None.
    """

    records: Sequence[Record]
    scored: Scored
    mode: BatchMode[TopicPartition]
    counts: Mapping[TopicPartition, int]
    retries: int
    offsets: Mapping[TopicPartition, int]
    arrived: float
    wrote: Mapping[TopicPartition, int | None]
