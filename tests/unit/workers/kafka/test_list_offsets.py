"""Offsets are asked of the leaders, and again until all are known."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IncompatibleBrokerVersion, KafkaConnectionError, KafkaError, TopicAuthorizationFailedError
from aiokafka.protocol.offset import OffsetRequest

from failsoft.workers.kafka.list_offsets import list_offsets
from failsoft.workers.kafka.partition_errors import place_of
from tests.unit.workers.kafka.fake_client import FakeClient, FakeCluster

A, B, C = TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("u", 0)
Asked = tuple[int, int, dict[TopicPartition, int]]


@dataclass
class Client(FakeClient):
    """A client whose brokers answer from ``offsets``: an offset, an error code as a negative number, or an exception.

    Each list is used up from the front; its last entry stays.
    """

    offsets: dict[TopicPartition, list[int | Exception]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    async def send(self, node: int, request: Any, *, group: object = 0) -> Any:
        assert isinstance(request, OffsetRequest)
        call = request.prepare({2: (1, 10)})
        tps = {TopicPartition(topic, p): at for topic, parts in call.topics for p, at in parts}
        self.asked.append((node, call.isolation_level, tps))
        topics = []
        for tp in tps:
            found = self.offsets[tp].pop(0) if len(self.offsets[tp]) > 1 else self.offsets[tp][0]
            if isinstance(found, Exception):
                raise found
            code, offset = (-found, -1) if found < 0 else (0, found)
            topics.append((tp.topic, [(tp.partition, code, -1, offset)]))
        return SimpleNamespace(topics=topics)


def _client(leaders: dict[TopicPartition, int], offsets: dict[TopicPartition, list[int | Exception]]) -> Client:
    return Client(FakeCluster(leaders), offsets=offsets)


@pytest.mark.parametrize(("which", "timestamp"), [("earliest", -2), ("latest", -1)])
@pytest.mark.parametrize("committed", [True, False])
async def test_each_leader_is_asked_once(which: Any, timestamp: int, committed: bool) -> None:
    """With the timestamp that stands for the first or the last offset, and the isolation level."""
    client = _client({A: 1, B: 2, C: 1}, {A: [5], B: [0], C: [7]})
    assert await list_offsets(client, [A, B, C], which, read_committed=committed) == {A: 5, B: 0, C: 7}
    assert client.asked == [
        (1, int(committed), {A: timestamp, C: timestamp}),
        (2, int(committed), {B: timestamp}),
    ]
    assert client.updates == 0


async def test_no_partitions_need_no_request() -> None:
    """An empty question has an empty answer."""
    assert await list_offsets(_client({}, {}), [], "latest") == {}


async def test_only_what_is_missing_is_asked_again() -> None:
    """After new metadata, the new leader is asked."""
    client = _client({A: 1, B: 1}, {A: [5], B: [-6, 8]})
    client.next_leaders = {A: 1, B: 2}
    assert await list_offsets(client, [A, B], "latest", retry_after=0.001) == {A: 5, B: 8}
    assert [(node, set(tps)) for node, _, tps in client.asked] == [(1, {A, B}), (2, {B})]


@pytest.mark.parametrize("failure", [KafkaConnectionError(), -3, -5, -56, -75, -78])
async def test_what_passes_is_tried_again(failure: int | Exception) -> None:
    """A broken connection, and each error of a leader that moves or that is not ready."""
    client = _client({A: 1}, {A: [failure, failure, 9]})
    assert await list_offsets(client, [A], "earliest", retry_after=0.001) == {A: 9}
    assert len(client.asked) == 3 and client.updates == 2


@pytest.mark.parametrize(
    ("leader", "failure", "why"),
    [
        (1, KafkaConnectionError("gone"), "node 1: no answer (KafkaConnectionError('gone'))"),
        (1, -78, "node 1: Kafka's error code 78"),
        (-1, 3, "it has no leader"),
    ],
)
async def test_a_long_wait_is_logged_with_its_reason(
    caplog: pytest.LogCaptureFixture, leader: int, failure: int | Exception, why: str
) -> None:
    """A lane that cannot open is not silent."""
    client = _client({A: leader}, {A: [failure, failure, 9]})
    asking = asyncio.create_task(
        list_offsets(client, [A], "earliest", retry_after=0.001, clock=lambda: 6.0 * client.updates)
    )
    while client.updates < 2:
        await asyncio.sleep(0)
    client.next_leaders = {A: 4}
    assert await asyncio.wait_for(asking, 5) == {A: 9 if leader > 0 else 3}
    (record,) = caplog.records
    assert record.getMessage() == f"still trying after 6 s: the earliest offset of t-0: {why}"


@pytest.mark.parametrize("leader", [None, -1])
async def test_a_leader_is_waited_for(leader: int | None) -> None:
    """The caller bounds the time, by cancellation."""
    client = _client({} if leader is None else {A: leader}, {A: [3]})
    asking = asyncio.create_task(list_offsets(client, [A], "latest", retry_after=0.001))
    while client.updates < 3:
        await asyncio.sleep(0)
    assert not asking.done() and client.topics == (set() if leader else {"t"})
    client.next_leaders = {A: 4}
    assert await asyncio.wait_for(asking, 5) == {A: 3}


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(-29, TopicAuthorizationFailedError), (-43, KafkaError), (IncompatibleBrokerVersion("old"), KafkaError)],
)
async def test_what_does_not_pass_is_raised(failure: int | Exception, kind: type[Exception]) -> None:
    """Asking again would not help."""
    with pytest.raises(kind):
        await list_offsets(_client({A: 1}, {A: [failure]}), [A], "latest")


async def test_a_topic_that_may_not_be_seen_is_an_error() -> None:
    """The metadata has no leader of it. It is told apart from a topic whose brokers are away, which is waited for."""
    client = _client({}, {})
    client.cluster.unauthorized_topics = {"t"}
    with pytest.raises(TopicAuthorizationFailedError) as caught:
        await list_offsets(client, [A], "earliest", retry_after=0.001)
    assert place_of(caught.value) == (A, None) and client.updates == 1
