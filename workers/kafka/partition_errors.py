"""Kafka's error codes of a partition, in fetches and in requests for offsets: which of them pass."""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import TopicPartition
from aiokafka.errors import (
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

OFFSET_OUT_OF_RANGE = 1
UNKNOWN_TOPIC_OR_PARTITION = 3
TOPIC_AUTHORIZATION_FAILED = 29
UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID = 100, 103
OTHER_TOPIC = frozenset({UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID})
"""The broker has no topic with the id that was asked for. A broker may not know a new one yet."""

PASSING = frozenset(
    {
        -1,  # UNKNOWN_SERVER_ERROR: the broker met an error of its own. Kafka's clients retry it.
        UNKNOWN_TOPIC_OR_PARTITION,  # also of a topic that is being created, or of a broker with old metadata
        5,  # LEADER_NOT_AVAILABLE
        6,  # NOT_LEADER_OR_FOLLOWER
        7,  # REQUEST_TIMED_OUT
        8,  # BROKER_NOT_AVAILABLE
        9,  # REPLICA_NOT_AVAILABLE
        13,  # NETWORK_EXCEPTION
        56,  # KAFKA_STORAGE_ERROR: a disk failed, and another replica will lead
        74,  # FENCED_LEADER_EPOCH
        75,  # UNKNOWN_LEADER_EPOCH
        78,  # OFFSET_NOT_AVAILABLE: a new leader does not know its high watermark yet
        UNKNOWN_TOPIC_ID,
        INCONSISTENT_TOPIC_ID,
    }
)
"""After these, the metadata is read again and the partition is tried again. All others are final."""

UNKNOWN_TRIES = {UNKNOWN_TOPIC_OR_PARTITION: 300, UNKNOWN_TOPIC_ID: 10, INCONSISTENT_TOPIC_ID: 10}
"""How often in a row, ten times a second, a partition may be unknown before it is given up. 30 seconds by its name:
longer than a new or a restarted broker needs to hear of all topics; then the topic is taken for deleted. A second by
the id of its topic, which a broker has shown: the topic was deleted, and may have been made anew."""

_PLACE = "failsoft_place"
"""The attribute in which an error of one partition has it. aiokafka's classes have no place for it."""


class PartitionLost(UnknownTopicOrPartitionError):  # type: ignore[misc]
    """A partition was unknown for so long that it is taken for deleted."""


class TopicReplaced(UnknownTopicOrPartitionError):  # type: ignore[misc]
    """The topic with the id that was read does not exist any more: it was deleted, or made anew."""


def partition_error(code: int, tp: TopicPartition, offset: int | None = None) -> KafkaError:
    """The exception for a partition's error code. aiokafka knows no codes above 72, so the text has the number.
    ``place_of`` gives its partition and offset.
    """
    if code == OFFSET_OUT_OF_RANGE:
        error: KafkaError = OffsetOutOfRangeError({tp: offset})
    elif code == UNKNOWN_TOPIC_OR_PARTITION:
        error = PartitionLost(f"{tp.topic}-{tp.partition}")
    elif code in OTHER_TOPIC:
        error = TopicReplaced(f"{tp.topic}-{tp.partition}")
    else:
        error = for_code(code)(f"{tp.topic}-{tp.partition}: Kafka's error code {code}")
    setattr(error, _PLACE, (tp, offset))
    return error


def of_one_of(error: Exception, tps: Iterable[TopicPartition]) -> Exception:
    """A refusal of a topic, as that of the partition in ``tps`` that the topic has. Any other error as it is.

    A request for many lanes is answered with the refusal of one partition, and each lane has its own.
    """
    place = place_of(error)
    if place is None or not isinstance(error, TopicAuthorizationFailedError):
        return error
    own = next((tp for tp in tps if tp.topic == place[0].topic), None)
    return error if own is None else partition_error(TOPIC_AUTHORIZATION_FAILED, own)  # type: ignore[no-any-return]


def place_of(error: Exception) -> tuple[TopicPartition, int | None] | None:
    """The partition, and the offset if there is one, that an error of ``partition_error`` is about. None for any other
    error.
    """
    found: tuple[TopicPartition, int | None] | None = getattr(error, _PLACE, None)
    return found
