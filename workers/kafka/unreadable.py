"""The errors for a record batch that cannot be read."""

from __future__ import annotations

from aiokafka import TopicPartition


class DamagedBatch(ValueError):
    """A batch that cannot be read. The message says why.

    Attributes:
        trusted: False if the batch's header may be damaged too, so that its offsets mean nothing.
    """

    def __init__(self, why: str, trusted: bool = True) -> None:
        super().__init__(why)
        self.trusted = trusted


class Unreadable(Exception):
    """A record batch that cannot be read: damaged, not to be unpacked, or of a format that is unknown here.

    Attributes:
        tp: its partition.
        offset: the first offset that cannot be read.
        why: the reason.
        next_offset: the offset after the batch, from which reading can go on; None if the damage hides it.
    """

    def __init__(self, tp: TopicPartition, offset: int, why: str, next_offset: int | None = None) -> None:
        last = f" to {next_offset - 1}" if next_offset is not None and next_offset > offset + 1 else ""
        super().__init__(f"{tp.topic}-{tp.partition} cannot be read at offset {offset}{last}: {why}")
        self.tp, self.offset, self.why, self.next_offset = tp, offset, why, next_offset
