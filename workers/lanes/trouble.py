"""Why one lane stops alone: a fault of its own partitions, with what mends it.

A fault of one partition must not stop the others: a batch that cannot be unpacked, offsets that retention has deleted,
a topic that may not be read. The lane of that partition stops, says so, and opens again after a back-off
(failsoft.workers.lanes.keeper). Whatever concerns the whole worker, such as a failed write, is no trouble of a lane: it
ends the worker.
"""

from __future__ import annotations

from enum import StrEnum

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError, TopicAuthorizationFailedError

from failsoft.workers.kafka.partition_errors import PartitionLost, TopicReplaced, place_of
from failsoft.workers.kafka.unreadable import Unreadable


class Cause(StrEnum):
    """Why a lane stopped; the label ``cause`` of ``failsoft_lane_stopped``."""

    UNREADABLE = "unreadable"  # a batch that cannot be unpacked
    OUT_OF_RANGE = "out_of_range"  # the records were deleted before they were read
    OFFSETS_MISSING = "offsets_missing"  # no committed offset, although records of the partition were answered
    OFFSETS_BEHIND = "offsets_behind"  # a committed offset before what was answered
    RECREATED = "recreated"  # the topic was deleted and made anew
    TOPIC_GONE = "topic_gone"
    NOT_AUTHORIZED = "not_authorized"
    NO_LEADER = "no_leader"
    PARTITIONS_MISSING = "partitions_missing"  # a topic of the pipeline has fewer partitions than the inputs
    LETTERS_UNREAD = "letters_unread"  # a dead letter came back, and the dead or replay topic cannot be read now
    MEMORY_UNREAD = "memory_unread"  # the answers that the lane is to remember cannot be read now
    REFUSED = "refused"  # any other refusal of this partition by its broker


OF_THE_CLUSTER = frozenset(
    {Cause.NO_LEADER, Cause.PARTITIONS_MISSING, Cause.TOPIC_GONE, Cause.LETTERS_UNREAD, Cause.MEMORY_UNREAD}
)
"""Causes that lie in the cluster. They never make a worker not live (CONTRACT.md: never for a broker): a restart would
not mend them, and would stop its other lanes."""


OF_ITS_START = frozenset({Cause.RECREATED, Cause.OUT_OF_RANGE, Cause.OFFSETS_BEHIND})
"""Causes after which the lane begins elsewhere, maybe before the offset of the trouble: in a new topic, or rewound."""


class LaneTrouble(Exception):
    """A lane cannot go on because of one of its partitions.

    Attributes:
        cause: the kind of trouble.
        tp: the partition.
        offset: where the lane stands in it; None if it is not known.
        why: what is wrong, as a sentence without its end.
        mend: what a person can do: a command, or what to wait for.
    """

    def __init__(self, cause: Cause, tp: TopicPartition, offset: int | None, why: str, mend: str) -> None:
        self.cause, self.tp, self.offset, self.why, self.mend = cause, tp, offset, why, mend
        at = "" if offset is None else f" at offset {offset}"
        super().__init__(f"{tp.topic}-{tp.partition}{at}: {why}; {mend}")

    @property
    def key(self) -> tuple[Cause, TopicPartition, int | None, str]:
        """What makes two troubles the same one. Better advice on the same fault is told again."""
        return self.cause, self.tp, self.offset, self.mend


def trouble_of(error: Exception) -> LaneTrouble | None:
    """The trouble that ``error``, raised by reading a partition or by asking for its offsets, is of that partition.
    None if it does not name a partition.
    """
    if isinstance(error, LaneTrouble):
        return error
    if isinstance(error, Unreadable):
        place = f"{error.tp.topic}:{error.tp.partition}"
        mend = (
            f"read it with another client to see whether it is damaged; failsoft offsets skip --topic {place} goes on "
            f"after it and records it as lost"
        )
        until = "" if error.next_offset is None else f" to {error.next_offset - 1}"
        why = f"a batch (offsets {error.offset}{until}) cannot be read: {error.why}"
        return LaneTrouble(Cause.UNREADABLE, error.tp, error.offset, why, mend)
    place_found = place_of(error)
    if place_found is None:
        return None
    tp, offset = place_found
    place = f"{tp.topic}:{tp.partition}"
    if isinstance(error, OffsetOutOfRangeError):
        why = "the records there do not exist: deleted before they were read, or the topic is a new one"
        mend = f"see failsoft offsets show; failsoft offsets skip --topic {place} goes on and records them as lost"
        return LaneTrouble(Cause.OUT_OF_RANGE, tp, offset, why, mend)
    if isinstance(error, TopicAuthorizationFailedError):
        why = "this worker's user may not read the topic"
        mend = f"grant it: kafka-acls.sh --add --allow-principal User:<user> --operation Read --topic {tp.topic}"
        return LaneTrouble(Cause.NOT_AUTHORIZED, tp, offset, why, mend)
    if isinstance(error, TopicReplaced):
        why = "the topic that was read does not exist any more: it was deleted, or made anew"
        mend = "a new topic of that name is read from its beginning by itself"
        return LaneTrouble(Cause.RECREATED, tp, offset, why, mend)
    if isinstance(error, PartitionLost):
        mend = "create the topic again, for own topics with: failsoft topics apply"
        return LaneTrouble(Cause.TOPIC_GONE, tp, offset, "the topic or the partition does not exist any more", mend)
    if isinstance(error, KafkaError):
        return LaneTrouble(Cause.REFUSED, tp, offset, f"the broker refuses it: {error}", "see the broker's log")
    return None
