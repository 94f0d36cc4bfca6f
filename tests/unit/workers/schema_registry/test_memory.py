"""What a worker remembers of schemas, and how it keeps the same as the topic of schemas."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError
from structlog.testing import capture_logs

from failsoft.schemas.formats.registered import Reference, Registered, SchemaType
from failsoft.workers.kafka.unreadable import Unreadable
from failsoft.workers.schema_registry.kept_schemas import KeptSchemas
from failsoft.workers.schema_registry.memory import SchemaMemory
from tests.kafka import eventually

TOPIC = "loans.schemas"
TP = TopicPartition(TOPIC, 0)
ONE = Registered(7, SchemaType.AVRO, '"string"')
OTHER = Registered(7, SchemaType.AVRO, '"long"')
GUID = Registered("89791762-2336-4186-9674-299b90a802e2", SchemaType.PROTOBUF, "…", (Reference("a.proto", "…"),))


class Log(list[tuple[bytes, bytes | None]]):
    """The topic: keys and values. ``trouble`` is raised by what reads or writes next, once."""

    trouble: Exception | None = None
    consumers = 0
    refuses: Exception | None = None
    reads = writes = exists = True

    def raise_trouble(self) -> None:
        error, self.trouble = self.trouble, None
        if error is not None:
            raise error


class Consumer:
    """A consumer of ``log``."""

    def __init__(self, log: Log) -> None:
        self.log, self.at = log, 0
        log.consumers += 1

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def assign(self, _: Any) -> None: ...

    async def topics(self) -> set[str]:
        return {TOPIC} if self.log.exists else set()

    def partitions_for_topic(self, _: str) -> set[int] | None:
        return {0} if self.log.exists else None

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.at = offset

    async def position(self, _: TopicPartition) -> int:
        return self.at

    async def end_offsets(self, _: Any) -> dict[TopicPartition, int]:
        return {TP: len(self.log)}

    async def getmany(self, _: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0)
        while not self.log.reads:
            await asyncio.sleep(0)
        self.log.raise_trouble()
        found = [SimpleNamespace(key=k, value=v, offset=i) for i, (k, v) in enumerate(self.log) if i >= self.at]
        self.at = len(self.log)
        return {TP: found}


class Producer:
    """A producer to ``log``."""

    def __init__(self, log: Log) -> None:
        self.log = log

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def send_and_wait(self, topic: str, value: bytes, key: bytes, partition: int) -> None:
        assert (topic, partition) == (TOPIC, 0)
        while not self.log.writes:
            await asyncio.sleep(0)
        if self.log.refuses is not None:
            raise self.log.refuses
        self.log.append((key, value))


def kept(log: Log, memory: SchemaMemory, within: float = 10.0) -> Any:
    """The service over ``log``."""
    return KeptSchemas(TOPIC, memory, lambda: Consumer(log), lambda: Producer(log), within)


def entry(registered: Registered) -> tuple[bytes, bytes]:
    """The record of a schema."""
    return str(registered.ref).encode(), registered.to_bytes()


def test_the_first_schema_of_a_ref_stays() -> None:
    """Registries give an id once. Another schema in the topic is said, and not used."""
    memory = SchemaMemory()
    memory.keep(ONE)
    memory.keep(OTHER)
    assert memory.get(7) == ONE and memory.unwritten == {7: ONE}
    with capture_logs() as lines:
        memory.absorb(OTHER)
    assert memory.get(7) == ONE and [line["schema"] for line in lines] == [7]


def test_what_the_topic_has_is_not_written_again() -> None:
    """All workers meet a new schema at once; those that read it before they write it do not."""
    memory = SchemaMemory()
    memory.keep(ONE)
    assert memory.news.is_set()
    memory.absorb(ONE)
    assert not memory.unwritten and not memory.news.is_set()


async def test_what_one_worker_met_another_one_knows_before_its_lanes_open() -> None:
    """The start ends when the topic is read; what is kept later is written, and followed."""
    log, first, second = Log(), SchemaMemory(), SchemaMemory()
    first.keep(ONE)
    async with kept(log, first):
        await eventually(lambda: log == [entry(ONE)], 5, "the schema to be written")
        async with kept(log, second):
            assert second.get(7) == ONE
            first.keep(GUID)
            await eventually(lambda: second.get(GUID.ref) == GUID, 5, "the schema to be followed")
    assert log == [entry(ONE), entry(GUID)]


async def test_a_deleted_record_is_forgotten() -> None:
    """An operator's tombstone: the registry is asked again."""
    log, memory = Log([entry(ONE), entry(GUID), (b"7", None), (b"9", None)]), SchemaMemory()
    async with kept(log, memory):
        assert memory.get(7) is None and memory.get(GUID.ref) == GUID


async def test_a_record_that_is_no_schema_is_said_and_skipped() -> None:
    """Another program's record does not keep a worker from starting."""
    log, memory = Log([(b"x", b"{}"), (b"y", b"\xff"), entry(ONE)]), SchemaMemory()
    with capture_logs() as lines:
        async with kept(log, memory):
            assert memory.get(7) == ONE
    assert [line["offset"] for line in lines if "not used" in line["event"]] == [0, 1]


async def test_a_topic_full_of_other_records_is_said_in_few_lines() -> None:
    """As when another program writes to it. A worker reads all of it at each start."""
    log, memory = Log([(b"%d" % i, b"{}") for i in range(1_000)] + [entry(ONE)]), SchemaMemory()
    with capture_logs() as lines:
        async with kept(log, memory):
            assert memory.get(7) == ONE
    assert 1 <= len([line for line in lines if "is not used" in line["event"]]) < 20


async def test_a_topic_that_cannot_be_read_delays_the_start_for_a_bounded_time() -> None:
    """It is said, and the topic is read later."""
    log, memory = Log([entry(ONE)]), SchemaMemory()
    log.reads = False
    with capture_logs() as lines:
        async with kept(log, memory, 0.01):
            assert memory.get(7) is None
            assert ["not read yet" in line["event"] for line in lines] == [True]
            log.reads = True
            await eventually(lambda: memory.get(7) == ONE, 5, "the topic to be read")


@pytest.mark.parametrize("trouble", [KafkaConnectionError("gone"), Unreadable(TP, 0, "damaged", 1)])
async def test_reading_goes_on_after_an_error(trouble: Exception) -> None:
    """A broker that is away is asked again; a damaged batch is skipped."""
    log, memory = Log([entry(OTHER), entry(GUID)]), SchemaMemory()
    log.trouble = trouble
    async with kept(log, memory):
        assert memory.get(GUID.ref) == GUID


async def test_a_topic_that_is_deleted_is_left_until_it_is_there_again() -> None:
    """An operator may delete it while workers run. A client that stays with it would load the brokers."""
    log, memory = Log(), SchemaMemory()
    async with kept(log, memory):
        log.exists = False
        await eventually(lambda: log.consumers == 3, 10, "the client to be made anew")
        log.exists = True
        log.append(entry(ONE))
        await eventually(lambda: memory.get(7) == ONE, 10, "the schema to be followed")


async def test_a_schema_that_the_broker_does_not_take_is_said_once_and_known_here() -> None:
    """It is not tried for ever, and the schemas after it are written."""
    log, memory = Log(), SchemaMemory()
    log.refuses = MessageSizeTooLargeError("too large")
    with capture_logs() as lines:
        async with kept(log, memory):
            memory.keep(ONE)
            await eventually(lambda: not memory.unwritten, 5, "the refusal")
            log.refuses = None
            memory.keep(GUID)
            await eventually(lambda: log == [entry(GUID)], 5, "the next schema")
    assert memory.get(7) == ONE and [line["schema"] for line in lines if "too large" in line["event"]] == [7]


async def test_keeping_never_waits_and_is_written_when_a_broker_is_back() -> None:
    """A write that fails is made again."""
    log, memory = Log(), SchemaMemory()
    log.refuses = KafkaConnectionError("gone")
    async with kept(log, memory):
        memory.keep(ONE)
        assert memory.get(7) == ONE
        log.refuses = None
        await eventually(lambda: log == [entry(ONE)], 5, "the write")


async def test_a_worker_that_ends_writes_what_it_met_last() -> None:
    """Else the next worker, started while the registry is down, would not know it."""
    log, memory = Log(), SchemaMemory()
    async with kept(log, memory):
        memory.keep(ONE)
    assert log == [entry(ONE)]


async def test_a_worker_that_ends_says_what_it_could_not_keep() -> None:
    """Workers that start while the registry is down then do not know it."""
    log, memory = Log(), SchemaMemory()
    log.refuses = KafkaConnectionError("gone")
    with capture_logs() as lines:
        async with kept(log, memory):
            memory.keep(ONE)
    assert [line["schemas"] for line in lines if "not kept" in line["event"]] == [[7]]
