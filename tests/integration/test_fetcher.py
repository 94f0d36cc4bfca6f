"""The fetcher against a real Kafka: every committed record once and in order, through all that interrupts it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import OffsetOutOfRangeError
from confluent_kafka import ElectionType
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient

from failsoft.topics.embedded.broker import Embedded
from failsoft.workers.kafka.chunk import Chunk, FetchedRecord
from failsoft.workers.kafka.fetch_protocol import FetchAnswer
from failsoft.workers.kafka.fetcher import Fetcher
from failsoft.workers.kafka.list_offsets import list_offsets
from tests.cluster import Cluster
from tests.kafka import Broker, create_topic, eventually, produce

PARTITIONS = 6
EACH = 500
WITHIN = 60.0


@dataclass
class Reader:
    """Takes each chunk as it arrives, in small portions, unless it is told to hold back."""

    client: AIOKafkaClient
    found: dict[TopicPartition, list[FetchedRecord]] = field(default_factory=dict)
    position: dict[TopicPartition, int] = field(default_factory=dict)
    held: list[Chunk] | None = None
    failures: list[tuple[TopicPartition, Exception]] = field(default_factory=list)
    fetcher: Fetcher = field(init=False)

    def __post_init__(self) -> None:
        self.fetcher = Fetcher(self.client, self._arrived, lambda *failure: self.failures.append(failure))
        read = self.fetcher.read
        self.fetcher.read = lambda tp, offset: read(tp, offset, 1_000)  # type: ignore[method-assign]  # a batch each

    def _arrived(self, chunk: Chunk) -> None:
        if self.held is not None:
            self.held.append(chunk)
            self.fetcher.pause(chunk.tp)
            return
        while not chunk.exhausted:
            self.found.setdefault(chunk.tp, []).extend(chunk.take(7))
        self.position[chunk.tp] = chunk.position

    def values(self, tp: TopicPartition) -> list[bytes | None]:
        return [record.value for record in self.found.get(tp, [])]

    async def until(self, ends: dict[TopicPartition, int]) -> None:
        """Waits until every position has reached its end."""
        await eventually(
            lambda: all(self.position.get(tp, 0) >= end for tp, end in ends.items()), WITHIN, "all to be read"
        )


@asynccontextmanager
async def reading(bootstrap: str) -> AsyncIterator[Reader]:
    client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
    await client.bootstrap()
    reader = Reader(client)
    run = asyncio.create_task(reader.fetcher.run())
    try:
        yield reader
    finally:
        await reader.fetcher.stop()
        await run


def _fill(bootstrap: str, topic: str, partitions: int = PARTITIONS) -> dict[TopicPartition, list[bytes]]:
    create_topic(bootstrap, topic, partitions)
    rows = {TopicPartition(topic, p): [b"%d-%d" % (p, i) for i in range(EACH)] for p in range(partitions)}
    for at in range(0, EACH, EACH // 10):  # each round is a batch of its own
        part = {tp: each[at : at + EACH // 10] for tp, each in rows.items()}
        produce(bootstrap, topic, ((None, row, [("h", b"x")], tp.partition) for tp in part for row in part[tp]))
    return rows


def _note_sessions(client: AIOKafkaClient) -> list[int]:
    """The session id of each fetch answer from now on."""
    found: list[int] = []
    send = client.send

    async def noting(node: int, request: Any, **options: Any) -> Any:
        answer = await send(node, request, **options)
        if isinstance(answer, FetchAnswer):
            assert not answer.error
            found.append(answer.session_id)
        return answer

    client.send = noting
    return found


async def test_every_record_is_read_once_and_in_order(kafka: Broker, name: str) -> None:
    """Through pauses, and a partition that is forgotten and read again where it stood."""
    rows = await asyncio.to_thread(_fill, kafka.bootstrap, name)
    async with reading(kafka.bootstrap) as reader:
        fetcher, dice = reader.fetcher, Random(7)
        sessions = _note_sessions(reader.client)
        for tp in rows:
            fetcher.read(tp, 0)
        for _ in range(60):
            tp = TopicPartition(name, dice.randrange(PARTITIONS))
            what = dice.randrange(3)
            if what == 0:
                fetcher.pause(tp)
            elif what == 1:
                fetcher.forget([tp])
                fetcher.read(tp, reader.position.get(tp, 0))
            await list_offsets(reader.client, [tp], "earliest")  # time for the fetcher
            fetcher.resume(tp)
        ends = await list_offsets(reader.client, rows, "latest")
        assert ends == dict.fromkeys(rows, EACH)
        await reader.until(ends)
        assert {tp: reader.values(tp) for tp in rows} == rows
        record = reader.found[TopicPartition(name, 2)][3]
        assert (record.topic, record.partition, record.offset, list(record.headers)) == (name, 2, 3, [("h", b"x")])
        await eventually(lambda: all(fetcher.highwater(tp) == EACH for tp in rows), WITHIN, "all marks")
        assert not reader.failures
        assert len(sessions) > 10 and len(set(sessions)) == 1 and 0 not in sessions


async def test_a_partition_is_read_again_from_an_earlier_offset(kafka: Broker, name: str) -> None:
    """A lane reads back after a rung was read too early."""
    rows = await asyncio.to_thread(_fill, kafka.bootstrap, name, 2)
    tp, other = rows
    async with reading(kafka.bootstrap) as reader:
        for each in rows:
            reader.fetcher.read(each, 0)
        await reader.until(dict.fromkeys(rows, EACH))
        reader.position[tp] = 0
        reader.fetcher.read(tp, 400)
        await reader.until({tp: EACH})
        assert reader.values(tp) == rows[tp] + rows[tp][400:] and reader.values(other) == rows[other]


async def test_a_chunk_that_is_not_taken_holds_up_no_other_partition(kafka: Broker, name: str) -> None:
    """Its own partition, which was paused when the chunk arrived, waits for resume."""
    rows = await asyncio.to_thread(_fill, kafka.bootstrap, name, 2)
    slow, quick = rows
    async with reading(kafka.bootstrap) as reader:
        reader.held = []
        reader.fetcher.read(slow, 0)
        await eventually(lambda: reader.held, WITHIN, "a chunk")
        (chunk,) = reader.held
        reader.held = None
        reader.fetcher.read(quick, 0)
        await reader.until({quick: EACH})
        assert slow not in reader.found
        reader._arrived(chunk)
        reader.fetcher.resume(slow)
        await reader.until({slow: EACH})
        assert reader.values(slow) == rows[slow]


async def test_aborted_records_and_markers_are_passed_over(kafka: Broker, name: str) -> None:
    """The position is behind the last marker, and an open transaction is not read before its end."""
    await asyncio.to_thread(create_topic, kafka.bootstrap, name)
    tp = TopicPartition(name, 0)
    async with reading(kafka.bootstrap) as reader:
        reader.fetcher.read(tp, 0)
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=name) as producer:
            for i, ends in enumerate(("commit", "abort", "abort", "commit")):
                await producer.begin_transaction()
                for j in range(3):
                    await producer.send_and_wait(name, b"%d-%d" % (i, j))
                await (producer.commit_transaction() if ends == "commit" else producer.abort_transaction())
            await reader.until({tp: 16})
            assert reader.values(tp) == [b"%d-%d" % (i, j) for i in (0, 3) for j in range(3)]
            await producer.begin_transaction()
            await producer.send_and_wait(name, b"open")
            await eventually(lambda: reader.fetcher.highwater(tp) == 17, WITHIN, "the mark of the open transaction")
            assert len(reader.values(tp)) == 6
            assert await list_offsets(reader.client, [tp], "latest") == {tp: 16}
            assert await list_offsets(reader.client, [tp], "latest", read_committed=False) == {tp: 17}
            await producer.commit_transaction()
        await reader.until({tp: 18})
        assert reader.values(tp)[6:] == [b"open"]


async def test_an_offset_out_of_range_is_told_while_others_are_read(kafka: Broker, name: str) -> None:
    """Retention may have removed the records; the partition can be read again from the first that is left."""
    rows = await asyncio.to_thread(_fill, kafka.bootstrap, name, 3)
    gone, beyond, fine = rows
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    await asyncio.to_thread(lambda: [f.result(30) for f in admin.delete_records([Place(name, 0, 450)]).values()])
    async with reading(kafka.bootstrap) as reader:
        reader.fetcher.read(gone, 0)
        reader.fetcher.read(beyond, 9_999)
        reader.fetcher.read(fine, 0)
        await reader.until({fine: EACH})
        await eventually(lambda: len(reader.failures) == 2, WITHIN, "two failures")
        failures = dict(reader.failures)
        assert set(failures) == {gone, beyond}
        assert all(isinstance(error, OffsetOutOfRangeError) for error in failures.values())
        first = await list_offsets(reader.client, [gone], "earliest")
        assert first == {gone: 450}
        reader.fetcher.read(gone, first[gone])
        await reader.until({gone: EACH})
        assert reader.values(gone) == rows[gone][450:] and reader.values(fine) == rows[fine]


async def test_reading_goes_on_after_a_restart_of_the_broker(tmp_path: Path, name: str) -> None:
    """The connection and the fetch session are lost; no record is."""
    with Embedded(tmp_path) as broker:
        rows = await asyncio.to_thread(_fill, broker.bootstrap, name)
        async with reading(broker.bootstrap) as reader:
            for tp in rows:
                reader.fetcher.read(tp, 0)
            await reader.until(dict.fromkeys(rows, EACH))
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
            again = [(None, b"after", [], p) for p in range(PARTITIONS)]
            await asyncio.to_thread(produce, broker.bootstrap, name, again)
            await reader.until(dict.fromkeys(rows, EACH + 1))
            assert {tp: reader.values(tp) for tp in rows} == {tp: [*each, b"after"] for tp, each in rows.items()}
            assert not reader.failures


@pytest.mark.long
async def test_reading_follows_the_leaders(tmp_path: Path, name: str) -> None:
    """A broker is killed, and later leads again. Each record is read once, from whichever broker leads."""
    with Cluster(tmp_path) as cluster:
        rows = await asyncio.to_thread(_fill, cluster.bootstrap, name)
        first = TopicPartition(name, 0)
        async with reading(cluster.bootstrap) as reader:
            for tp in rows:
                reader.fetcher.read(tp, 0)
            await reader.until(dict.fromkeys(rows, EACH))
            old = await asyncio.to_thread(cluster.leader, name, 0)
            await asyncio.to_thread(cluster.nodes[old].kill)
            await eventually(
                lambda: asyncio.to_thread(lambda: cluster.leader(name, 0) not in (old, -1)), WITHIN, "a new leader"
            )
            for value in (b"moved", b"back"):
                again = [(None, value, [], p) for p in range(PARTITIONS)]
                await asyncio.to_thread(produce, cluster.bootstrap, name, again)
                await reader.until(dict.fromkeys(rows, EACH + (1 if value == b"moved" else 2)))
                await asyncio.to_thread(cluster.whole)
                admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
                elected = admin.elect_leaders(ElectionType.PREFERRED, [Place(name, p) for p in range(PARTITIONS)])
                await asyncio.to_thread(elected.result, 30)
            assert await asyncio.to_thread(cluster.leader, name, 0) == old
            assert {tp: reader.values(tp) for tp in rows} == {tp: [*e, b"moved", b"back"] for tp, e in rows.items()}
            assert not reader.failures and len(reader.values(first)) == EACH + 2


async def test_a_topic_may_appear_after_it_is_read(kafka: Broker, name: str) -> None:
    """Its metadata is read until it is there."""
    async with reading(kafka.bootstrap) as reader:
        tp = TopicPartition(name, 0)
        reader.fetcher.read(tp, 0)
        for _ in range(3):
            assert await reader.client.force_metadata_update()
        rows = await asyncio.to_thread(_fill, kafka.bootstrap, name, 1)
        await reader.until({tp: EACH})
        assert reader.values(tp) == rows[tp] and not reader.failures


async def test_a_broker_without_free_sessions_is_read_too(tmp_path: Path, name: str) -> None:
    """Every request names all partitions then."""
    with Embedded(tmp_path, settings={"max.incremental.fetch.session.cache.slots": "0"}) as broker:
        rows = await asyncio.to_thread(_fill, broker.bootstrap, name, 2)
        async with reading(broker.bootstrap) as reader:
            sessions = _note_sessions(reader.client)
            for tp in rows:
                reader.fetcher.read(tp, 0)
            await reader.until(dict.fromkeys(rows, EACH))
            assert {tp: reader.values(tp) for tp in rows} == rows
            assert set(sessions) == {0}


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_compressed_records_are_read(kafka: Broker, name: str, codec: str) -> None:
    """As librdkafka compresses them, which is not how aiokafka does."""
    await asyncio.to_thread(create_topic, kafka.bootstrap, name, 1, {"compression.type": codec})
    rows: list[bytes] = [b"value-%d" % i for i in range(EACH)]
    await asyncio.to_thread(produce, kafka.bootstrap, name, ((b"k", row, [], 0) for row in rows))
    async with reading(kafka.bootstrap) as reader:
        tp = TopicPartition(name, 0)
        reader.fetcher.read(tp, 0)
        await reader.until({tp: EACH})
        assert reader.values(tp) == rows
