"""The timeouts of the Kafka clients fit each other, and each client has its own."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NodeNotReadyError
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest

from failsoft.schemas.config.refusal import Refused
from failsoft.workers.client_timeouts import SHORTEST_REQUEST
from failsoft.workers.kafka import broker_bounds, clients, fetch_records, topic_reader
from failsoft.workers.kafka.clients import Clients
from failsoft.workers.kafka.codecs import ZSTD
from failsoft.workers.kafka.group_client import GroupClient
from failsoft.workers.kafka.membership import GroupSettings
from failsoft.workers.kafka.request_errors import Code
from failsoft.workers.kafka.request_loop import RequestRefused
from failsoft.workers.kafka.transactional_producer import TransactionalProducer
from failsoft.workers.pipeline_sections import Kafka

JOIN = JoinGroupRequest("g", 6_000, 30_000, "", "w", "consumer", [])
SYNC = SyncGroupRequest("g", 1, "m", "w", [])
PIPELINE: Any = SimpleNamespace(
    connection=lambda: {"bootstrap_servers": "nowhere:1"},
    names=SimpleNamespace(group="loans", transactional_id=lambda worker: f"loans.{worker}"),
    guarantee="exactly_once",
    kafka=Kafka(
        session_timeout="20s",
        heartbeat_interval="2s",
        rebalance_timeout="90s",
        request_timeout="3s",
        transaction_timeout="12s",
        compression="zstd",
        fetch_max_bytes="1MiB",
        max_partition_fetch_bytes="64KiB",
        client_rack="a",
    ),
)


def test_a_fetch_is_answered_in_time() -> None:
    """A broker may hold it while it finds nothing."""
    assert 5 * clients.FETCH_WAIT_MS <= 1000 * SHORTEST_REQUEST


class Started(AIOKafkaClient):  # type: ignore[misc]
    """A client that needs no broker. Notes what it is asked to do."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls: list[Any] = []

    async def bootstrap(self) -> None:
        self.calls.append("bootstrap")

    async def set_topics(self, topics: Any) -> None:  # type: ignore[override]
        self.calls.append(topics)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Clients:
    monkeypatch.setattr(clients, "AIOKafkaClient", Started)
    return Clients(PIPELINE, "w0")


async def test_the_fetcher_has_a_client_that_knows_all_topics(worker: Clients) -> None:
    """So the first read finds a leader, and no heartbeat waits for a fetch's connection."""
    fetcher = await worker.start_fetcher(["a", "b"], lambda chunk: None, lambda tp, error: None, lambda: False)
    assert fetcher.client.calls == ["bootstrap", ["a", "b"]]
    assert fetcher.client._request_timeout_ms == 6_000
    assert fetcher.client is not worker.membership().client
    assert (fetcher._max_bytes, fetcher._partition_bytes, fetcher._rack) == (1_048_576, 65_536, "a")


async def test_a_member_is_quick_but_for_joins(worker: Clients) -> None:
    """aiokafka has one timeout for all requests of a client."""
    client = worker.membership().client
    assert isinstance(client, GroupClient) and client._request_timeout_ms == 2_400
    assert client._joins._request_timeout_ms == 95_000
    assert client._joins.cluster is client.cluster
    assert worker.membership()._settings == GroupSettings("loans", "w0", 20_000, 2_000, 90_000)


async def test_the_producer_has_the_pipelines_timeouts_and_codec(
    worker: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its leaders say that a replica is slow before it gives up."""

    async def start(producer: TransactionalProducer) -> None: ...

    monkeypatch.setattr(TransactionalProducer, "start", start)
    producer = await worker.start_producer()
    assert (producer._timeout_ms, producer._replicas_timeout_ms, producer._codec) == (12_000, 2_400, ZSTD)
    assert cast(Any, producer._client)._request_timeout_ms == 3_000


async def test_a_transaction_timeout_that_the_broker_refuses_names_its_key(
    worker: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the broker's bound where it tells it. Other refusals are what they are."""
    codes = iter([Code.INVALID_TRANSACTION_TIMEOUT, Code.CLUSTER_AUTHORIZATION_FAILED])

    async def start(producer: TransactionalProducer) -> None:
        raise RequestRefused("InitProducerId", next(codes))

    async def settings(*_: Any) -> dict[str, str]:
        return {"transaction.max.timeout.ms": "5000"}

    monkeypatch.setattr(TransactionalProducer, "start", start)
    monkeypatch.setattr(broker_bounds, "_settings", settings)
    with pytest.raises(Refused, match=r"kafka\.transaction_timeout: the broker refuses 12s: .* at most 5s \(tra"):
        await worker.start_producer()
    with pytest.raises(RequestRefused, match="CLUSTER_AUTHORIZATION_FAILED"):
        await worker.start_producer()


@pytest.mark.parametrize(("request_", "patient"), [(JOIN, True), (SYNC, True), (HeartbeatRequest("g", 1, "m"), False)])
async def test_requests_of_a_rebalance_have_a_client_of_their_own(
    monkeypatch: pytest.MonkeyPatch, request_: Any, patient: bool
) -> None:
    """A join is answered when the slowest member has joined."""
    sent: list[tuple[Any, ...]] = []

    async def send(client: Any, node: int, request: Any, *, group: Any) -> str:
        sent.append((client, node, request, group))
        return "answer"

    async def ready(client: Any, node: int, *, group: Any) -> bool:
        return True

    monkeypatch.setattr(AIOKafkaClient, "send", send)
    monkeypatch.setattr(AIOKafkaClient, "ready", ready)
    joins = AIOKafkaClient(request_timeout_ms=35_000)
    client = GroupClient(joins, request_timeout_ms=2_000)
    assert await client.send(4, request_, group="coordinator") == "answer"
    assert sent == [(joins if patient else client, 4, request_, "coordinator")]


async def test_a_join_does_not_wait_long_for_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that has vanished takes none: another one may coordinate the group by now."""

    async def never(client: Any, node: int, *, group: Any) -> bool:
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr(AIOKafkaClient, "ready", never)
    client = GroupClient(AIOKafkaClient(request_timeout_ms=35_000), request_timeout_ms=1)
    with pytest.raises(NodeNotReadyError, match="node 4 takes no connection"):
        await asyncio.wait_for(client.send(4, JOIN), 10)


async def test_both_clients_of_a_member_are_closed() -> None:
    """Each has connections."""
    closed: list[object] = []

    class Closing(AIOKafkaClient):  # type: ignore[misc]
        async def close(self) -> None:
            closed.append(self)

    joins = Closing()
    client = GroupClient(joins, request_timeout_ms=1)
    await client.close()
    assert closed == [joins]


@pytest.mark.parametrize("which", ["restore", "topic"])
async def test_who_reads_records_with_aiokafka_reads_all_of_them(
    worker: Clients, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """Also those with a header key that is not UTF-8: the patch comes before the consumer."""
    calls: list[str] = []

    class Consumer:
        def __init__(self, **options: Any) -> None:
            calls.append("consumer")

        async def start(self) -> None: ...

        async def stop(self) -> None: ...

        def assign(self, partitions: Any) -> None: ...

        _client = None

    async def no_id(client: object, topics: list[str]) -> dict[str, None]:
        return dict.fromkeys(topics)

    async def one_partition(*_: Any) -> int:
        return 1

    monkeypatch.setattr(fetch_records, "install", lambda: calls.append("install"))
    monkeypatch.setattr(clients, "AIOKafkaConsumer", Consumer)
    monkeypatch.setattr(topic_reader, "AIOKafkaConsumer", Consumer)
    monkeypatch.setattr(topic_reader, "partitions", one_partition)
    monkeypatch.setattr(topic_reader, "topic_ids", no_id)
    if which == "restore":
        worker.reader()
    else:
        async with topic_reader.reader(PIPELINE, "t"):
            pass
    assert calls == ["install", "consumer"]
