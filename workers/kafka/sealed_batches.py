"""Gives batches their place in a producer's sequence, and orders them into produce requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from aiokafka import TopicPartition

from failsoft.workers.kafka import codecs
from failsoft.workers.kafka.produce_batches import Batch

REQUEST_BYTES = 8 * 1_048_576
"""The most bytes of batches in one produce request; a larger batch has a request of its own. A broker takes 100 MiB by
default, and handles the requests of a connection one after the other, so a huge one would hold up the rest."""

SEQUENCES = 2**31
"""Sequence numbers wrap to 0 after 2^31 - 1."""

ATTRIBUTES_AT, TRANSACTIONAL = 22, 0x10
"""Where the low byte of the attributes is in a record batch of magic 2, and its bit of a transactional batch."""

Outputs = Sequence[tuple[TopicPartition, Sequence[Batch]]]
Queues = dict[TopicPartition, deque[bytes]]
"""For each partition the bytes of its batches, in order. The head is the one to send."""


class Sequences:
    """The next sequence number of each partition, of one producer id and epoch."""

    def __init__(self) -> None:
        self._next: dict[TopicPartition, int] = {}

    def take(self, partition: TopicPartition, count: int) -> int:
        """The sequence number of the first of the partition's next ``count`` records."""
        first = self._next.get(partition, 0)
        self._next[partition] = (first + count) % SEQUENCES
        return first

    def clear(self) -> None:
        """Begin again at 0, as a new epoch does."""
        self._next.clear()


def seal(
    outputs: Outputs, producer: tuple[int, int], sequences: Sequences, transactional: bool, codec: int = codecs.NONE
) -> Queues:
    """Write the producer's (id, epoch) and the sequence numbers into the batches, and return their bytes, compressed
    with ``codec`` where that makes them smaller.

    A batch without records is left out. Raises ValueError for a batch that was made for the other kind of producer: a
    broker accepts such a batch, and readers would see it although its transaction was aborted.
    """
    queues: Queues = {}
    for partition, batches in outputs:
        for batch in batches:
            count = batch.record_count()
            if not count:
                continue
            batch._set_producer_state(*producer, sequences.take(partition, count))
            data = batch._build()
            if bool(data[ATTRIBUTES_AT] & TRANSACTIONAL) is not transactional:
                raise ValueError(f"{partition}: the batch was made for a producer of the other kind")
            queues.setdefault(partition, deque()).append(bytes(codecs.packed(data, codec)))
    return queues


def next_requests(
    queues: Queues, leader: Callable[[TopicPartition], int | None]
) -> tuple[list[tuple[int, dict[TopicPartition, bytes]]], list[TopicPartition]]:
    """The first batch of each partition, in requests for the leaders; and the partitions without a leader.

    One batch a partition: with several on their way, a refused one would leave a gap in the sequence before the next.
    """
    requests: list[tuple[int, dict[TopicPartition, bytes]]] = []
    leaderless: list[TopicPartition] = []
    filling: dict[int, tuple[dict[TopicPartition, bytes], int]] = {}
    for partition, batches in queues.items():
        node = leader(partition)
        if node is None or node < 0:
            leaderless.append(partition)
            continue
        size = len(batches[0])
        request, filled = filling.get(node, ({}, 0))
        if not request or filled + size > REQUEST_BYTES:
            request, filled = {}, 0
            requests.append((node, request))
        request[partition] = batches[0]
        filling[node] = (request, filled + size)
    return requests, leaderless


def acknowledge(queues: Queues, partitions: Iterable[TopicPartition]) -> None:
    """Remove the first batch of each of ``partitions``: it is in the log."""
    for partition in partitions:
        queues[partition].popleft()
        if not queues[partition]:
            del queues[partition]


def partitions_of(outputs: Outputs) -> list[TopicPartition]:
    """The partitions that have a record to write, each once."""
    return list(dict.fromkeys(p for p, batches in outputs if any(batch.record_count() for batch in batches)))
