"""Where the logs of partitions begin and end, and their last committed records. Each partition fails by itself.

Nothing here waits for a leader: what cannot be answered now is left out, new metadata is asked for, and the caller asks
again. So no partition holds up another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError

from failsoft.workers.kafka.chunk import Chunk, FetchedRecord
from failsoft.workers.kafka.fetch_protocol import FetchAnswer, FetchCall, PartitionAnswer
from failsoft.workers.kafka.fetch_session import NO_SESSION, FetchContent
from failsoft.workers.kafka.list_offsets import ask, by_leader
from failsoft.workers.kafka.partition_errors import (
    OFFSET_OUT_OF_RANGE,
    PASSING,
    TOPIC_AUTHORIZATION_FAILED,
    partition_error,
)
from failsoft.workers.kafka.unreadable import Unreadable

T = TypeVar("T")

ANSWER_BYTES = 8 * 1_048_576
"""The most bytes of an answer, which bounds the memory of a read of many partitions."""

PARTITION_BYTES = 1_200_000
"""The most bytes of a partition in one answer at first: a batch of failsoft's, which has at most 1,000,000."""

AT_ONCE = 64
"""Partitions of one request. Each has a batch or two, so an answer is soon full."""

NO_EPOCH = -1
"""The epoch of a request without a session."""

FIRST_STEP, STEP = 2, 8
"""Offsets from the end at which a read begins, and by how much each further step back is longer. The log of a
transactional producer ends with a record and a marker, so the first step usually finds the last batch."""

TRIES = 20
"""Requests after which a partition without an answer is left out."""

MOST_BACK = 100_000
"""Offsets after which the search for a committed record ends. Only aborted transactions can be so many."""


@dataclass(slots=True)
class Answered(Generic[T]):
    """The partitions that were answered.

    Attributes:
        found: the answers.
        refused: why others cannot be answered.
        leaderless: those without a known leader now. What is in none of these may be asked again.
    """

    found: dict[TopicPartition, T] = field(default_factory=dict)
    refused: dict[TopicPartition, Exception] = field(default_factory=dict)
    leaderless: list[TopicPartition] = field(default_factory=list)


Bounds = tuple[int, int]
"""The first offset of a log and the offset after its last record."""


async def log_bounds(
    client: AIOKafkaClient, partitions: Collection[TopicPartition], *, read_committed: bool
) -> Answered[Bounds]:
    """The bounds of each partition. ``read_committed``: the end is that of what can be read now."""
    leaders, leaderless = by_leader(client, partitions)
    result: Answered[Bounds] = Answered(leaderless=leaderless)
    firsts = [ask(client, node, tps, "earliest", read_committed) for node, tps in leaders.items()]
    lasts = [ask(client, node, tps, "latest", read_committed) for node, tps in leaders.items()]
    answers = await asyncio.gather(*firsts, *lasts)
    ends = {tp: at for answer in answers[len(firsts) :] for tp, at in answer.found.items()}
    for answer in answers[: len(firsts)]:
        # Records may be deleted between the two answers, so an end may be before a beginning.
        result.found |= {tp: (at, max(at, ends[tp])) for tp, at in answer.found.items() if tp in ends}
    for answer in answers:
        result.refused |= answer.refused
    for tp in leaderless:
        if tp.topic in client.cluster.unauthorized_topics:  # it is no topic, in metadata that one may not see
            result.refused[tp] = partition_error(TOPIC_AUTHORIZATION_FAILED, tp)
    _look_for_leaders(client, partitions, result)
    return result


async def last_records(
    client: AIOKafkaClient,
    bounds: Mapping[TopicPartition, Bounds],
    digest: Callable[[Sequence[FetchedRecord]], T],
) -> Answered[T]:
    """What ``digest`` makes of the last committed records of each partition: at least the last one, in order; none only
    if the log has none (among its last MOST_BACK offsets).

    ``bounds``: of what can be read (``log_bounds`` with read_committed).
    """
    result: Answered[T] = Answered()
    searches: dict[int, list[_Search]] = {}
    leaders, result.leaderless = by_leader(client, bounds)
    for node, tps in leaders.items():
        searches[node] = [_Search(tp, *bounds[tp]) for tp in tps if bounds[tp][0] < bounds[tp][1]]
        result.found |= {tp: digest(()) for tp in tps if bounds[tp][0] >= bounds[tp][1]}

    async def read(node: int, left: list[_Search]) -> None:
        while left:
            left.sort(key=lambda search: -search.tries)  # the first one of a request is answered whatever its size
            answer = await _fetch(client, node, left[:AT_ONCE])
            if answer is None:
                return
            for search in left[:AT_ONCE]:
                part = answer.get(search.tp)
                if part is not None and part.error:
                    if part.error not in (*PASSING, OFFSET_OUT_OF_RANGE):
                        result.refused[search.tp] = partition_error(part.error, search.tp, search.at)
                    left.remove(search)
                    continue
                try:
                    ended = search.take(part)
                except Unreadable as error:
                    result.refused[search.tp] = error
                    ended = True
                else:
                    if ended:
                        result.found[search.tp] = digest(search.records)
                if ended or search.tries > TRIES:
                    left.remove(search)

    await asyncio.gather(*(read(node, left) for node, left in searches.items()))
    _look_for_leaders(client, bounds, result)
    return result


def _look_for_leaders(client: AIOKafkaClient, partitions: Collection[TopicPartition], result: Answered[Any]) -> None:
    """Ask for new metadata if a partition has no answer: another broker may lead it by now. Nobody else might ask."""
    if any(tp not in result.found and tp not in result.refused for tp in partitions):
        client.force_metadata_update()


async def batch_at(
    client: AIOKafkaClient, tp: TopicPartition, offset: int, max_bytes: int = PARTITION_BYTES
) -> PartitionAnswer | None:
    """The record batches of ``tp`` from the one with ``offset`` on, as its leader has them, and at least the first one
    whole. None if there is no leader, or no answer.
    """
    leaders, _ = by_leader(client, [tp])
    for node in leaders:
        call = FetchCall(FetchContent(NO_SESSION, NO_EPOCH, [(tp, offset, max_bytes)], []), 0, ANSWER_BYTES, "")
        answer = await _send(client, node, call)
        return next(iter(answer.partitions), None) if answer is not None else None
    return None


class _Search:
    """The search for the last committed records of one partition: forwards from a place near the end, and if there are
    none, from places further back.
    """

    def __init__(self, tp: TopicPartition, start: int, end: int) -> None:
        self.tp, self.start, self.end = tp, start, end
        self.records: list[FetchedRecord] = []
        self.tries = 0
        self.max_bytes = PARTITION_BYTES
        self._step = FIRST_STEP
        self._until = end
        self.at = self._begin = max(start, end - FIRST_STEP)

    def take(self, part: PartitionAnswer | None) -> bool:
        """Use an answer. Returns whether the search has ended. Raises Unreadable."""
        if part is None or not part.records:
            self.tries += 1
            return False
        # From the log's start: the records of the batch before the offset that was asked for are welcome too.
        chunk = Chunk(self.tp, self.start, part.records, part.aborted)
        if not chunk.first_batch:
            self.tries, self.max_bytes = self.tries + 1, 4 * self.max_bytes
            return False
        self.tries = 0
        self.records += [record for record in chunk.take() if record.offset < self._until]
        self.at = max(self.at + 1, chunk.end)
        if self.at < self._until:
            return False
        if self.records or self._begin <= self.start or self.end - self._begin >= MOST_BACK:
            return True
        self._until, self._step = self._begin, self._step * STEP
        self.at = self._begin = max(self.start, self._until - self._step)
        return False


async def _fetch(
    client: AIOKafkaClient, node: int, searches: Sequence[_Search]
) -> dict[TopicPartition, PartitionAnswer] | None:
    wanted = [(search.tp, search.at, search.max_bytes) for search in searches]
    call = FetchCall(FetchContent(NO_SESSION, NO_EPOCH, list(wanted), []), 0, ANSWER_BYTES, "")
    answer = await _send(client, node, call)
    if answer is None:
        return None
    return {TopicPartition(part.topic, part.partition): part for part in answer.partitions}


async def _send(client: AIOKafkaClient, node: int, call: FetchCall) -> FetchAnswer | None:
    """The answer. None if there was none now."""
    try:
        answer: FetchAnswer = await client.send(node, call)
    except IncompatibleBrokerVersion:
        raise
    except KafkaError:  # no connection, or no answer: such errors pass
        return None
    return None if answer.error else answer
