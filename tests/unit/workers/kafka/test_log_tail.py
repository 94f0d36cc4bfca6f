"""The last committed records of partitions: how far the search goes back, and that each partition fails by itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.offset import OffsetRequest

from failsoft.workers.kafka.chunk import FetchedRecord
from failsoft.workers.kafka.fetch_protocol import FetchAnswer, PartitionAnswer
from failsoft.workers.kafka.log_tail import last_records, log_bounds
from tests.record_batches import batch, marker
from tests.unit.workers.kafka.fake_client import FakeClient, FakeCluster

A, B, C = TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("u", 0)
PRODUCER = 7


@dataclass
class Log:
    """One partition: its batches by offset, the aborted transactions, and an error code."""

    batches: list[tuple[int, int, bytes]]  # first offset, end, bytes
    aborted: list[tuple[int, int]] = field(default_factory=list)
    error: int = 0

    @property
    def end(self) -> int:
        return self.batches[-1][1] if self.batches else 0


@dataclass
class Client(FakeClient):
    """A client whose brokers have ``logs``. An answer has at most ``room`` bytes, and at least one batch.

    Attributes:
        fetched: the offsets that were asked for, request by request.
    """

    logs: dict[TopicPartition, Log] = field(default_factory=dict)
    room: int = 1_000_000
    dead: set[int] = field(default_factory=set)
    fetched: list[dict[TopicPartition, int]] = field(default_factory=list)

    async def send(self, node: int, request: Any, *, group: object = 0) -> Any:
        if node in self.dead:
            raise KafkaConnectionError("away")
        if isinstance(request, OffsetRequest):
            call = request.prepare({2: (1, 10)})
            topics = []
            for topic, parts in call.topics:
                for p, which in parts:
                    log = self.logs[TopicPartition(topic, p)]
                    topics.append((topic, [(p, log.error, -1, log.end if which == -1 else log.batches[0][0])]))
            return SimpleNamespace(topics=topics)
        content = request.prepare({1: (4, 17)}).content
        self.fetched.append({TopicPartition(*tp): at for tp, at, _ in content.partitions})
        left, parts = self.room, []
        for (topic, p), at, _ in content.partitions:
            log = self.logs[TopicPartition(topic, p)]
            raw = b""
            for _, end, data in log.batches:
                if end > at and (left > 0 or (not raw and left == self.room)):
                    raw, left = raw + data, left - len(data)
            parts.append(PartitionAnswer(topic, p, log.error, log.end, log.end, log.aborted, -1, raw))
        return FetchAnswer(0, 0, 0, parts)


def _client(logs: dict[TopicPartition, Log], leaders: dict[TopicPartition, int] | None = None, **more: Any) -> Client:
    return Client(FakeCluster(leaders or dict.fromkeys(logs, 1)), logs=logs, **more)


def _transaction(first: int, count: int, commit: bool = True) -> list[tuple[int, int, bytes]]:
    offsets = list(range(first, first + count))
    data = batch(first, offsets, producer=PRODUCER, transactional=True)
    end = first + count
    return [(first, end, data), (end, end + 1, marker(end, PRODUCER, commit=commit))]


def _offsets(records: Any) -> list[int]:
    found: list[FetchedRecord] = list(records)
    return [record.offset for record in found]


async def _tails(client: Client) -> Any:
    bounds = await log_bounds(client, list(client.logs), read_committed=True)  # type: ignore[arg-type]
    return await last_records(client, bounds.found, _offsets)  # type: ignore[arg-type]


async def test_one_read_finds_the_last_transaction() -> None:
    """Its whole batch, before its marker, however long the log is."""
    client = _client({A: Log([*_transaction(0, 500), *_transaction(501, 3)]), B: Log(_transaction(0, 2))})
    found = await _tails(client)
    assert found.found == {A: [501, 502, 503], B: [0, 1]} and client.fetched == [{A: 503, B: 1}]


async def test_aborted_transactions_are_not_the_end() -> None:
    """The search goes back to the last committed one: a crashed worker leaves an aborted one behind."""
    log = Log([*_transaction(0, 2), *_transaction(3, 4, commit=False)], aborted=[(PRODUCER, 3)])
    found = await _tails(_client({A: log}))
    assert found.found == {A: [0, 1]} and not found.refused


async def test_a_log_with_nothing_committed_has_no_last_record() -> None:
    """Neither has an empty one, which is not even asked for."""
    log = Log(_transaction(0, 40, commit=False), aborted=[(PRODUCER, 0)])
    client = _client({A: log, B: Log([(5, 5, b"")])})
    found = await _tails(client)
    assert found.found == {A: [], B: []} and all(B not in asked for asked in client.fetched)


async def test_an_answer_that_is_full_is_asked_for_again() -> None:
    """Brokers fill an answer with the first partitions, so those without records come first in the next request."""
    client = _client({A: Log(_transaction(0, 9)), B: Log(_transaction(0, 8)), C: Log(_transaction(0, 7))}, room=1)
    found = await _tails(client)
    assert {tp: at[-1] for tp, at in found.found.items()} == {A: 8, B: 7, C: 6}


async def test_a_partition_fails_alone() -> None:
    """One that is refused, one without a leader, and one whose broker is away hold up no other."""
    logs = {tp: Log(_transaction(0, 2)) for tp in (A, B, C)}
    logs[A].error = 29
    bounds = await log_bounds(_client(logs), [A, B, C], read_committed=True)  # type: ignore[arg-type]
    assert bounds.found == {B: (0, 3), C: (0, 3)} and list(bounds.refused) == [A]
    away = _client(logs, {B: 1, A: -1, C: 2}, dead={2})
    found = await last_records(away, dict.fromkeys((A, B, C), (0, 3)), _offsets)  # type: ignore[arg-type]
    assert found.found == {B: [0, 1]} and found.leaderless == [A] and not found.refused


async def test_a_leader_that_moved_is_found_with_the_next_question() -> None:
    """The metadata may be minutes old, and with no other partition in trouble nobody else renews them."""
    logs = {A: Log(_transaction(0, 2), error=6), B: Log(_transaction(0, 2))}
    client = _client(logs)
    assert list((await log_bounds(client, [B], read_committed=True)).found) == [B]  # type: ignore[arg-type]
    assert not client.updates
    assert list((await log_bounds(client, [A, B], read_committed=True)).found) == [B]  # type: ignore[arg-type]
    found = await last_records(client, {A: (0, 3)}, _offsets)  # type: ignore[arg-type]
    assert client.updates == 2 and not found.found and not found.refused


async def test_a_batch_that_cannot_be_read_is_its_partitions_error() -> None:
    """The lane of that partition stops; the others open."""
    raw = bytearray(batch(0, [0, 1]))
    raw[-3] ^= 1
    client = _client({A: Log([(0, 2, bytes(raw))]), B: Log(_transaction(0, 2))})
    found = await _tails(client)
    assert found.found == {B: [0, 1]} and "checksum" in str(found.refused[A])
