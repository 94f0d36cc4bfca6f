"""A client without brokers, and a fetcher on it: a test answers the requests, one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from failsoft.workers.kafka.chunk import Chunk
from failsoft.workers.kafka.fetch_protocol import FetchAnswer, FetchCall, FetchCall_v11, PartitionAnswer
from failsoft.workers.kafka.fetch_session import FetchContent
from failsoft.workers.kafka.fetcher import Fetcher

A, B, C = TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("u", 0)

WITHIN = 5.0
"""Seconds for what must happen at once."""


@dataclass(eq=False)
class Sent:
    """One fetch request in flight."""

    node: int
    content: FetchContent
    call: FetchCall_v11
    answered: asyncio.Future[FetchAnswer]

    def answer(self, *parts: PartitionAnswer, error: int = 0, session: int = 1, throttle: int = 0) -> None:
        """Answer with ``parts``."""
        self.answered.set_result(FetchAnswer(throttle, error, session, list(parts)))

    def fail(self, error: Exception | None = None) -> None:
        """Break the connection."""
        self.answered.set_exception(error or KafkaConnectionError("broken"))

    @property
    def asked(self) -> dict[tuple[str, int], int]:
        """The offsets in the request."""
        return {tp: offset for tp, offset, _ in self.content.partitions}


class FakeCluster:
    """The metadata: who leads each partition; -1 is nobody. Topics that the client may not see have no leaders."""

    def __init__(self, leaders: dict[TopicPartition, int]) -> None:
        self.leaders = leaders
        self.unauthorized_topics: set[str] = set()
        self.listeners: set[Callable[[Any], None]] = set()

    def leader_for_partition(self, tp: TopicPartition) -> int | None:
        return self.leaders.get(tp)

    def add_listener(self, listener: Callable[[Any], None]) -> None:
        self.listeners.add(listener)

    def remove_listener(self, listener: Callable[[Any], None]) -> None:
        self.listeners.remove(listener)


@dataclass
class FakeClient:
    """What Fetcher uses of aiokafka's client.

    Attributes:
        cluster: the metadata as the client has it.
        next_leaders: the metadata that the next update brings; None changes nothing.
        reachable: whether an update succeeds.
        updates: the number of updates.
        topics: the topics that were added.
        requests: the fetch requests, in order.
        groups: the groups of connections that were used.
        closed: whether it was closed.
    """

    cluster: FakeCluster
    next_leaders: dict[TopicPartition, int] | None = None
    reachable: bool = True
    updates: int = 0
    topics: set[str] = field(default_factory=set)
    requests: asyncio.Queue[Sent] = field(default_factory=asyncio.Queue)
    groups: set[object] = field(default_factory=set)
    closed: bool = False

    async def send(self, node: int, request: FetchCall, *, group: object = 0) -> FetchAnswer:
        self.groups.add(group)
        call = request.prepare({1: (4, 17)})
        call.encode()
        sent = Sent(node, call.content, call, asyncio.get_running_loop().create_future())
        self.requests.put_nowait(sent)
        return await sent.answered

    def force_metadata_update(self) -> asyncio.Future[bool]:
        self.updates += 1
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(self._updated, done)
        return done

    def _updated(self, done: asyncio.Future[bool]) -> None:
        if self.reachable:
            if self.next_leaders is not None:
                self.cluster.leaders, self.next_leaders = self.next_leaders, None
            for listener in list(self.cluster.listeners):
                listener(self.cluster)
        if not done.done():
            done.set_result(self.reachable)

    def add_topic(self, topic: str) -> None:
        self.topics.add(topic)

    async def close(self) -> None:
        self.closed = True

    async def next(self) -> Sent:
        """The next request. Raises TimeoutError if none comes."""
        return await asyncio.wait_for(self.requests.get(), WITHIN)


def part(
    tp: TopicPartition, raw: bytes = b"", *, error: int = 0, high: int = 9, preferred: int = -1
) -> PartitionAnswer:
    return PartitionAnswer(tp.topic, tp.partition, error, high, high - 1, [], preferred, raw)


@dataclass
class Desk:
    """A fetcher on a fake client, and what it delivered and gave up."""

    client: FakeClient
    chunks: list[Chunk] = field(default_factory=list)
    failures: list[tuple[TopicPartition, Exception]] = field(default_factory=list)
    fetcher: Fetcher = field(init=False)

    def __post_init__(self) -> None:
        self.fetcher = Fetcher(
            self.client, self.chunks.append, lambda *failure: self.failures.append(failure), retry_after=0.001
        )

    async def next(self) -> Sent:
        return await self.client.next()

    async def silence(self) -> None:
        """Returns when the fetcher has had every chance to send a request, and has sent none."""
        for _ in range(20):
            await asyncio.sleep(0)
        assert self.client.requests.empty()


@asynccontextmanager
async def running(leaders: dict[TopicPartition, int] | None = None) -> AsyncIterator[Desk]:
    """A running fetcher; node 1 leads A, B and C."""
    desk = Desk(FakeClient(FakeCluster({A: 1, B: 1, C: 1} if leaders is None else leaders)))
    run = asyncio.create_task(desk.fetcher.run())
    try:
        yield desk
    finally:
        await asyncio.wait_for(desk.fetcher.stop(), WITHIN)
        await asyncio.wait_for(run, WITHIN)
        assert desk.client.closed and not desk.client.cluster.listeners
