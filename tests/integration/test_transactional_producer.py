"""The transactional client on a real Kafka: what a read_committed reader and the group see, and who is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient

from failsoft.workers.kafka import sealed_batches
from failsoft.workers.kafka.member import GroupMember
from failsoft.workers.kafka.produce_batches import BATCH_BYTES, compressed_batch, new_batch, pack
from failsoft.workers.kafka.request_errors import Code
from failsoft.workers.kafka.request_loop import ClientFenced, RequestRefused
from failsoft.workers.kafka.stable_offsets import stable_offsets
from failsoft.workers.kafka.transactional_producer import ProducerBroken, TransactionalProducer
from tests.kafka import Broker, create_topic, eventually, read_all

TIMEOUT_MS = 60_000
"""Of a transaction: far longer than a test may wait, so that no test passes because a transaction timed out."""

SOON = 20.0
"""Seconds. Generous, so that a busy machine does not fail the test; a third of TIMEOUT_MS."""

NO_GROUP = -1
KINDS = [pytest.param({"transactions_v2": False}, id="v1"), pytest.param({}, id="v2")]


class Place:
    """A topic of two partitions to write to, one to read from, and clients that end with the test."""

    def __init__(self, kafka: Broker, name: str, stack: AsyncExitStack) -> None:
        self.kafka, self.name, self._stack = kafka, name, stack
        self.inputs = [TopicPartition(f"{name}.in", number) for number in range(2)]
        self.outputs = [TopicPartition(f"{name}.out", number) for number in range(2)]
        self.outside = GroupMember(name, NO_GROUP, "", None)

    async def client(self) -> AIOKafkaClient:
        client = AIOKafkaClient(bootstrap_servers=self.kafka.bootstrap)
        await client.bootstrap()
        self._stack.push_async_callback(client.close)
        return client

    async def producer(self, transactional_id: str | None = "id", **options: Any) -> TransactionalProducer:
        name = transactional_id and f"{self.name}.{transactional_id}"
        producer = TransactionalProducer(await self.client(), name, TIMEOUT_MS, **options)
        await producer.start()
        await producer.load([self.outputs[0].topic])
        return producer

    async def consumer(self) -> Any:
        """A member of the group that reads the inputs."""
        consumer = AIOKafkaConsumer(
            self.inputs[0].topic,
            bootstrap_servers=self.kafka.bootstrap,
            group_id=self.name,
            enable_auto_commit=False,
            session_timeout_ms=6_000,
            heartbeat_interval_ms=100,
        )
        await consumer.start()
        self._stack.push_async_callback(consumer.stop)
        await eventually(consumer.assignment, SOON, "an assignment")
        return consumer

    def member(self, consumer: Any) -> GroupMember:
        """Who a consumer is in its group."""
        coordinator = consumer._coordinator
        return GroupMember(self.name, coordinator.generation, coordinator.member_id, None)

    async def offsets(self, **options: Any) -> dict[TopicPartition, tuple[int, str]]:
        """The group's offsets. None of them may be in an open transaction."""
        stable, unstable = await stable_offsets(await self.client(), self.name, self.inputs, **options)
        assert not unstable
        return dict(stable)

    async def visible(self) -> list[bytes]:
        records = await asyncio.to_thread(read_all, self.kafka.bootstrap, self.outputs[0].topic)
        return [record.value() for record in records]  # type: ignore[misc]


@pytest.fixture
async def place(kafka: Broker, name: str) -> AsyncIterator[Place]:
    for topic in ("in", "out"):
        await asyncio.to_thread(create_topic, kafka.bootstrap, f"{name}.{topic}", 2)
    async with AsyncExitStack() as stack:
        yield Place(kafka, name, stack)


def batches(producer: TransactionalProducer, *values: bytes) -> Any:
    rows = [(b"key", value, [("h", b"1")]) for value in values]
    transactional = producer._id is not None
    squeeze = partial(compressed_batch, BATCH_BYTES, transactional)
    return pack(partial(new_batch, transactional), rows, int(time.time() * 1000), squeeze)


@asynccontextmanager
async def open_transaction(
    place: Place, producer: TransactionalProducer, monkeypatch: pytest.MonkeyPatch, value: bytes, member: GroupMember
) -> AsyncIterator[asyncio.Task[None]]:
    """A commit that has written everything, and has not asked for the end. It ends the transaction after the block."""
    written, go_on = asyncio.Event(), asyncio.Event()
    ask: Callable[..., Any] = producer._requests.ask

    async def held(request: Any, *where: Any) -> Any:
        if request.name == "EndTxn":
            written.set()
            await go_on.wait()
        return await ask(request, *where)

    monkeypatch.setattr(producer._requests, "ask", held)
    outputs = [(place.outputs[0], batches(producer, value))]
    task = asyncio.ensure_future(producer.commit(outputs, {place.inputs[0]: (7, "open")}, member))
    async with asyncio.timeout(SOON):
        await asyncio.wait([task, asyncio.ensure_future(written.wait())], return_when=asyncio.FIRST_COMPLETED)
    assert written.is_set(), task
    yield task
    go_on.set()
    await asyncio.wait([task], timeout=SOON)


@pytest.mark.parametrize("options", KINDS)
async def test_outputs_and_offsets_are_committed_together(place: Place, options: dict[str, bool]) -> None:
    """Every record is visible once, in order, and the offsets keep their metadata; transaction after transaction."""
    producer = await place.producer(**options)
    assert producer.transactions_v2 is ("transactions_v2" not in options)
    for number in range(3):
        outputs = [(p, batches(producer, b"%d-%d" % (number, p.partition), b"more")) for p in place.outputs]
        outputs.append((place.outputs[0], batches(producer, b"again")))
        offsets = {p: (number * 10 + p.partition, f"!{number}") for p in place.inputs}
        await producer.commit(outputs, offsets, place.outside)
    assert await place.visible() == [
        *(value for n in range(3) for value in (b"%d-0" % n, b"more", b"again")),
        *(value for n in range(3) for value in (b"%d-1" % n, b"more")),
    ]
    assert await place.offsets() == {place.inputs[0]: (20, "!2"), place.inputs[1]: (21, "!2")}


@pytest.mark.parametrize("options", KINDS)
async def test_a_member_of_an_old_generation_is_refused(place: Place, options: dict[str, bool]) -> None:
    """The zombie has its id and its epoch to itself: only the group's generation stops it."""
    consumer = await place.consumer()
    member = place.member(consumer)
    producer = await place.producer(**options)
    await producer.commit([(place.outputs[0], batches(producer, b"first"))], {place.inputs[0]: (1, "")}, member)
    await place.consumer()  # a second member: the group has a new generation
    await eventually(lambda: len(consumer.assignment()) == 1, SOON, "the rebalance")
    with pytest.raises(ClientFenced, match=r"TxnOffsetCommit of .* refused: ILLEGAL_GENERATION"):
        await producer.commit([(place.outputs[0], batches(producer, b"zombie"))], {place.inputs[0]: (2, "")}, member)
    with pytest.raises(ProducerBroken):
        await producer.commit([], {place.inputs[0]: (2, "")}, place.member(consumer))
    successor = await place.producer(**options)  # aborts what the zombie has written
    outputs = [(place.outputs[0], batches(successor, b"second"))]
    await successor.commit(outputs, {place.inputs[0]: (2, "")}, place.member(consumer))
    assert await place.visible() == [b"first", b"second"]
    assert await place.offsets() == {place.inputs[0]: (2, "")}


async def test_a_member_that_the_group_does_not_know_is_refused(place: Place) -> None:
    """Its partitions have gone to others long ago."""
    consumer = await place.consumer()
    unknown = GroupMember(place.name, place.member(consumer).generation, "somebody", None)
    for name in ("id", None):
        producer = await place.producer(name)
        with pytest.raises(ClientFenced) as refused:
            await producer.commit([], {place.inputs[0]: (1, "")}, unknown)
        assert refused.value.code == Code.UNKNOWN_MEMBER_ID


@pytest.mark.parametrize("options", KINDS)
async def test_the_same_id_aborts_the_open_transaction_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
) -> None:
    """A restarted worker need not wait for the transaction's timeout, and the former one can commit no more."""
    former = await place.producer(**options)
    async with open_transaction(place, former, monkeypatch, b"former", place.outside) as task:
        async with asyncio.timeout(SOON):
            successor = await place.producer(**options)
            outputs = [(place.outputs[0], batches(successor, b"new"))]
            await successor.commit(outputs, {place.inputs[0]: (1, "")}, place.outside)
    with pytest.raises(ClientFenced, match=r"EndTxn refused: .*a newer producer"):
        await task
    assert await place.visible() == [b"new"]
    assert await place.offsets() == {place.inputs[0]: (1, "")}


@pytest.mark.parametrize("options", KINDS)
async def test_offsets_of_an_open_transaction_are_not_final(
    place: Place, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
) -> None:
    """The partitions' next owner begins where the open transaction ends, not where it began."""
    former = await place.producer(**options)
    await former.commit([], {place.inputs[0]: (1, "before")}, place.outside)
    async with open_transaction(place, former, monkeypatch, b"x", place.outside) as task:
        assert await place.offsets(require_stable=False) == {place.inputs[0]: (1, "before")}
        found = await stable_offsets(await place.client(), place.name, place.inputs)
        assert found == ({}, {place.inputs[0]})
    await task
    assert await place.offsets() == {place.inputs[0]: (7, "open")}


@pytest.mark.parametrize("options", KINDS)
async def test_a_batch_that_is_too_large_leaves_nothing_committed(place: Place, options: dict[str, bool]) -> None:
    """The broker refuses one batch of several: neither the others nor the offsets count (aiokafka commits them)."""
    producer = await place.producer(**options)
    rows: Any = [(None, bytes(range(256)) * 6_000, [])]  # 1.5 MB, which no broker takes by default
    make = partial(new_batch, True)
    huge = pack(make, rows, 1, make)
    outputs = [(place.outputs[0], batches(producer, b"small")), (place.outputs[1], huge)]
    with pytest.raises(RequestRefused, match=r"Produce of .*out-1 refused: MESSAGE_TOO_LARGE"):
        await producer.commit(outputs, {place.inputs[0]: (1, "")}, place.outside)
    with pytest.raises(ProducerBroken):
        await producer.commit([], {place.inputs[0]: (1, "")}, place.outside)
    await place.producer(**options)
    assert await place.visible() == [] and await place.offsets() == {}


@pytest.mark.parametrize("transactional_id", ["id", None])
async def test_many_large_batches_are_written_in_order(
    place: Place, monkeypatch: pytest.MonkeyPatch, transactional_id: str | None
) -> None:
    """Over several requests and rounds, with a compressed record between them."""
    monkeypatch.setattr(sealed_batches, "REQUEST_BYTES", 1_500_000)
    producer = await place.producer(transactional_id)
    values = [b"%04d" % number + bytes(9_996) for number in range(300)]
    values[150] = b"0150" + bytes(3_000_000)
    outputs = [(p, batches(producer, *values)) for p in place.outputs]
    await producer.commit(outputs, {place.inputs[0]: (1, "")}, place.outside)
    assert [value[:4] for value in await place.visible()] == [value[:4] for value in values] * 2


async def test_at_least_once_writes_first_and_commits_then(place: Place) -> None:
    """Without a transactional id, outputs are visible and offsets are stable at once."""
    consumer = await place.consumer()
    producer = await place.producer(None)
    for number in range(3):
        outputs = [(p, batches(producer, b"%d" % number)) for p in place.outputs]
        await producer.commit(outputs, {place.inputs[0]: (number + 1, f"!{number}")}, place.member(consumer))
    assert await place.visible() == [b"0", b"1", b"2"] * 2
    assert await place.offsets() == {place.inputs[0]: (3, "!2")}


async def test_at_least_once_is_fenced_by_the_generation_too(place: Place) -> None:
    """A zombie must not take the group's offset back."""
    consumer = await place.consumer()
    member = place.member(consumer)
    producer = await place.producer(None)
    await place.consumer()
    await eventually(lambda: len(consumer.assignment()) == 1, SOON, "the rebalance")
    with pytest.raises(ClientFenced, match=r"OffsetCommit of .* refused: ILLEGAL_GENERATION"):
        await producer.commit([(place.outputs[0], batches(producer, b"x"))], {place.inputs[0]: (1, "")}, member)
    assert await place.offsets() == {}


async def test_a_broker_that_restarts_is_waited_for(kafka: Broker, place: Place) -> None:
    """A commit that began while the broker was away ends when it is back, and is there once."""
    producer = await place.producer()
    await producer.commit([(place.outputs[0], batches(producer, b"before"))], {place.inputs[0]: (1, "")}, place.outside)
    await asyncio.to_thread(kafka.kill)
    outputs = [(p, batches(producer, b"across")) for p in place.outputs]
    task = asyncio.ensure_future(producer.commit(outputs, {place.inputs[0]: (2, "")}, place.outside))
    try:
        await eventually(lambda: producer.trouble, SOON, "a try")
        assert not task.done()
    finally:
        await asyncio.to_thread(kafka.start)
    async with asyncio.timeout(60):
        await task
    assert await place.visible() == [b"before", b"across", b"across"]
    assert await place.offsets() == {place.inputs[0]: (2, "")}
