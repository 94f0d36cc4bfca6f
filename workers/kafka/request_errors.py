"""What the error codes of Kafka's responses mean: one table of those after which a request is sent again. Pure.

Every code that the table does not name for a request is final. The codes are those that Apache Kafka's own producer
retries, less those that only a bug can cause.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum, IntEnum


class Code(IntEnum):
    """Kafka's error codes that this client acts on or has a reason for. aiokafka does not have all of them."""

    UNKNOWN_SERVER_ERROR = -1
    NONE = 0
    UNKNOWN_TOPIC_OR_PARTITION = 3
    LEADER_NOT_AVAILABLE = 5
    NOT_LEADER_OR_FOLLOWER = 6
    REQUEST_TIMED_OUT = 7
    MESSAGE_TOO_LARGE = 10
    OFFSET_METADATA_TOO_LARGE = 12
    NETWORK_EXCEPTION = 13
    COORDINATOR_LOAD_IN_PROGRESS = 14
    COORDINATOR_NOT_AVAILABLE = 15
    NOT_COORDINATOR = 16
    RECORD_LIST_TOO_LARGE = 18
    NOT_ENOUGH_REPLICAS = 19
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
    ILLEGAL_GENERATION = 22
    UNKNOWN_MEMBER_ID = 25
    INVALID_SESSION_TIMEOUT = 26
    REBALANCE_IN_PROGRESS = 27
    INVALID_COMMIT_OFFSET_SIZE = 28
    TOPIC_AUTHORIZATION_FAILED = 29
    GROUP_AUTHORIZATION_FAILED = 30
    CLUSTER_AUTHORIZATION_FAILED = 31
    INVALID_TIMESTAMP = 32
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    DUPLICATE_SEQUENCE_NUMBER = 46
    INVALID_PRODUCER_EPOCH = 47
    INVALID_TXN_STATE = 48
    INVALID_PRODUCER_ID_MAPPING = 49
    INVALID_TRANSACTION_TIMEOUT = 50
    CONCURRENT_TRANSACTIONS = 51
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
    OPERATION_NOT_ATTEMPTED = 55
    KAFKA_STORAGE_ERROR = 56
    UNKNOWN_PRODUCER_ID = 59
    FENCED_LEADER_EPOCH = 74
    FENCED_INSTANCE_ID = 82
    INVALID_RECORD = 87
    UNSTABLE_OFFSET_COMMIT = 88
    PRODUCER_FENCED = 90
    STALE_MEMBER_EPOCH = 113
    TRANSACTION_ABORTABLE = 120


_CODES = {int(code): code for code in Code}


class Remedy(Enum):
    """What an error code asks of the client, from the mildest to the gravest."""

    DONE = 0
    """It is as if there were no error."""

    MARKERS = 1
    """Send again soon: the markers of this producer's last transaction are still being written."""

    UNSTABLE = 2
    """Send again: an open transaction may still change an offset."""

    WAIT = 3
    """Send again after a wait."""

    METADATA = 4
    """Send again after a wait, to the leader that new metadata names."""

    COORDINATOR = 5
    """Send again after a wait, to the coordinator that a new lookup names."""

    FINAL = 6
    """Never send again."""


_COORDINATED = {
    Code.COORDINATOR_LOAD_IN_PROGRESS: Remedy.WAIT,
    Code.COORDINATOR_NOT_AVAILABLE: Remedy.COORDINATOR,
    Code.NOT_COORDINATOR: Remedy.COORDINATOR,
}
_TRANSACTION = _COORDINATED | {Code.CONCURRENT_TRANSACTIONS: Remedy.MARKERS}
# A group's coordinator answers with a timeout when its own log is slow; its successor may be ready.
_GROUP = _COORDINATED | {
    Code.REQUEST_TIMED_OUT: Remedy.COORDINATOR,
    Code.UNKNOWN_TOPIC_OR_PARTITION: Remedy.WAIT,  # the broker has not heard of a new topic yet
}

TABLE: dict[str, dict[Code, Remedy]] = {
    "FindCoordinator": {Code.COORDINATOR_NOT_AVAILABLE: Remedy.WAIT, Code.COORDINATOR_LOAD_IN_PROGRESS: Remedy.WAIT},
    "ApiVersions": {},
    "InitProducerId": _TRANSACTION | {Code.REQUEST_TIMED_OUT: Remedy.WAIT},
    "AddPartitionsToTxn": _TRANSACTION
    | {
        Code.UNKNOWN_TOPIC_OR_PARTITION: Remedy.WAIT,
        Code.OPERATION_NOT_ATTEMPTED: Remedy.WAIT,  # another partition of the request has the error
    },
    "AddOffsetsToTxn": _TRANSACTION,
    "Produce": {
        Code.NOT_LEADER_OR_FOLLOWER: Remedy.METADATA,
        Code.LEADER_NOT_AVAILABLE: Remedy.METADATA,
        Code.UNKNOWN_TOPIC_OR_PARTITION: Remedy.METADATA,  # a broker that has just started knows no topic
        Code.FENCED_LEADER_EPOCH: Remedy.METADATA,
        Code.KAFKA_STORAGE_ERROR: Remedy.METADATA,
        Code.NETWORK_EXCEPTION: Remedy.METADATA,
        Code.REQUEST_TIMED_OUT: Remedy.WAIT,
        Code.NOT_ENOUGH_REPLICAS: Remedy.WAIT,
        Code.NOT_ENOUGH_REPLICAS_AFTER_APPEND: Remedy.WAIT,
        # The leader asks the transaction's coordinator, and passes on what it answers.
        Code.COORDINATOR_LOAD_IN_PROGRESS: Remedy.WAIT,
        Code.COORDINATOR_NOT_AVAILABLE: Remedy.WAIT,
        Code.NOT_COORDINATOR: Remedy.WAIT,
        Code.CONCURRENT_TRANSACTIONS: Remedy.MARKERS,
        # The batch is in the log. The answer to an earlier copy of the request was lost.
        Code.DUPLICATE_SEQUENCE_NUMBER: Remedy.DONE,
    },
    "TxnOffsetCommit": _GROUP | {Code.CONCURRENT_TRANSACTIONS: Remedy.MARKERS},
    "OffsetCommit": _GROUP,
    "EndTxn": _TRANSACTION,
    "OffsetFetch": _COORDINATED
    | {Code.REQUEST_TIMED_OUT: Remedy.COORDINATOR, Code.UNSTABLE_OFFSET_COMMIT: Remedy.UNSTABLE},
}
"""For each request, the codes after which it is sent again, and how."""

_STALE_MEMBER = "the group has given this member's partitions away"
FENCED: dict[Code, str] = {
    Code.PRODUCER_FENCED: "a newer producer has this transactional id",
    Code.INVALID_PRODUCER_EPOCH: "a newer producer has this transactional id, or the transaction took too long",
    Code.INVALID_PRODUCER_ID_MAPPING: "the transactional id has another producer id, or has expired",
    Code.ILLEGAL_GENERATION: _STALE_MEMBER,
    Code.UNKNOWN_MEMBER_ID: _STALE_MEMBER,
    Code.STALE_MEMBER_EPOCH: _STALE_MEMBER,
    Code.REBALANCE_IN_PROGRESS: _STALE_MEMBER,
    Code.FENCED_INSTANCE_ID: "another process has this static member id",
}
"""The codes that tell a client that another one has taken over, with the reason."""

CLOCKS_APART = (
    "this host's clock and the broker's differ by more than the topic's message.timestamp.after.max.ms or "
    "message.timestamp.before.max.ms allows; set this host's clock (failsoft_clock_skew_seconds is the difference)"
)
"""Why a broker refuses a record's timestamp."""

REASONS: dict[Code, str] = FENCED | {
    Code.INVALID_TIMESTAMP: CLOCKS_APART,
    Code.UNKNOWN_SERVER_ERROR: "the broker failed; its log has the reason",
    Code.MESSAGE_TOO_LARGE: "the batch is larger than the topic's max.message.bytes",
    Code.RECORD_LIST_TOO_LARGE: "the batch is larger than a segment of the topic",
    Code.INVALID_RECORD: "the topic does not take such a record, for example one without a key",
    Code.OFFSET_METADATA_TOO_LARGE: "the offset's metadata is longer than offset.metadata.max.bytes",
    Code.INVALID_COMMIT_OFFSET_SIZE: "the offsets are larger than the broker stores at once",
    Code.UNKNOWN_TOPIC_OR_PARTITION: "there is no such topic or partition",
    Code.TOPIC_AUTHORIZATION_FAILED: "no permission for the topic",
    Code.GROUP_AUTHORIZATION_FAILED: "no permission for the group",
    Code.CLUSTER_AUTHORIZATION_FAILED: "no permission for idempotent writes",
    Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "no permission for the transactional id",
    Code.OUT_OF_ORDER_SEQUENCE_NUMBER: "the log lacks an earlier batch of this producer",
    Code.UNKNOWN_PRODUCER_ID: "the log has no batch of this producer left",
    Code.INVALID_TXN_STATE: "the coordinator has no such open transaction",
    Code.INVALID_TRANSACTION_TIMEOUT: "the timeout is over the broker's transaction.max.timeout.ms",
    Code.TRANSACTION_ABORTABLE: "the broker can only abort this transaction",
}
"""What a final code means."""

MARKERS_WAIT, MARKERS_SOON = 0.002, 10
"""Seconds until a request is sent again that came before the markers of the last transaction, and how often. Markers
take 1 to 5 ms; aiokafka waits 20 ms, which was half of an event's latency in light traffic."""
MARKERS_LATE = 0.02
"""Seconds between later tries: the markers wait for a broker that is away."""
UNSTABLE_WAIT = 0.05
"""Seconds between two looks at an unstable offset. A transaction takes 5 to 20 ms; a dead owner's, until it expires."""
FIRST_WAIT, LONGEST_WAIT = 0.002, 0.5
"""Seconds until the first and between the last tries after any other error. A new leader takes 50 ms to seconds."""


def remedy(request: str, code: int) -> Remedy:
    """What an error code in the response to ``request`` asks of the client."""
    return Remedy.DONE if code == Code.NONE else TABLE[request].get(_known(code), Remedy.FINAL)


def gravest(request: str, codes: Iterable[int]) -> Remedy:
    """The gravest of what the error codes of one response ask."""
    return max((remedy(request, code) for code in codes), key=lambda a: a.value, default=Remedy.DONE)


def wait(after: Remedy, tried: int) -> float:
    """Seconds until a request is sent again that was sent ``tried`` times."""
    if after is Remedy.MARKERS:
        return MARKERS_WAIT if tried <= MARKERS_SOON else MARKERS_LATE
    if after is Remedy.UNSTABLE:
        return UNSTABLE_WAIT
    return float(min(FIRST_WAIT * 2 ** min(tried - 1, 10), LONGEST_WAIT))


def describe(code: int) -> str:
    """An error code's name, and what it means if it is final."""
    known = _known(code)
    reason = REASONS.get(known)
    name = known.name if known == code else f"error {code}"
    return f"{name}: {reason}" if reason and known == code else name


_OUT_OF_RANGE = re.compile(r"Timestamp (\d+) .*within \[(-?\d+), (\d+)\]")


def out_of_range(message: str) -> str:
    """By how much a timestamp is out of range, from Kafka's message about a record; "" if it does not say."""
    found = _OUT_OF_RANGE.search(message)
    if found is None:
        return ""
    at, first, last = map(int, found.groups())
    if first <= at <= last:
        return ""
    return f"{(at - last) / 1000:g} s too late" if at > last else f"{(first - at) / 1000:g} s too early"


def fences(code: int) -> bool:
    """Does a code tell the client that another one has taken over?"""
    return _known(code) in FENCED


def _known(code: int) -> Code:
    return _CODES.get(code, Code.UNKNOWN_SERVER_ERROR)
