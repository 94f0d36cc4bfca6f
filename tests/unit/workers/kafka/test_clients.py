"""The timeouts of the Kafka clients fit each other, and each client has its own."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NodeNotReadyError
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest

from failsoft.workers.kafka import clients, fetch_records, topic_reader
from failsoft.workers.kafka.clients import Clients
from failsoft.workers.kafka.group_client import GroupClient
from failsoft.workers.kafka.membership import GroupSettings
from failsoft.workers.lanes.assignment import DRAIN

SETTINGS = GroupSettings("g", "w")
JOIN = JoinGroupRequest("g", 6_000, 30_000, "", "w", "consumer", [])
SYNC = SyncGroupRequest("g", 1, "m", "w", [])
PIPELINE: Any = SimpleNamespace(
    connection=lambda: {"bootstrap_servers": "nowhere:1"},
    names=SimpleNamespace(group="loans"),
    guarantee="exactly_once",
)


def test_a_lost_answer_of_the_producer_is_noticed_in_time() -> None:
    """A request is repeated while its transaction is open, and a leader refuses before it is given up."""
    assert 3 * clients.PRODUCER_TIMEOUT_MS <= clients.TRANSACTION_TIMEOUT_MS
    assert clients.REPLICAS_TIMEOUT_MS < clients.PRODUCER_TIMEOUT_MS


def test_a_member_finds_a_coordinator_that_moved_within_its_session() -> None:
    """The last heartbeat that was answered, one that was not, and a connection to a broker that is away too."""
    silent = SETTINGS.heartbeat_interval_ms + 2 * clients.GROUP_TIMEOUT_MS
    assert silent < SETTINGS.session_timeout_ms


def test_a_fetch_is_answered_in_time() -> None:
    """A broker may hold it while it finds nothing."""
    assert 10 * clients.FETCH_WAIT_MS <= clients.FETCHER_TIMEOUT_MS


def test_a_rebalance_waits_for_the_slowest_drain() -> None:
    """And a join for the whole rebalance."""
    assert SETTINGS.rebalance_timeout_ms > 1000 * DRAIN
    assert clients.JOIN_MARGIN_MS > 0


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
    assert fetcher.client._request_timeout_ms == clients.FETCHER_TIMEOUT_MS
    assert fetcher.client is not worker.membership().client


async def test_a_member_is_quick_but_for_joins(worker: Clients) -> None:
    """aiokafka has one timeout for all requests of a client."""
    client = worker.membership().client
    assert isinstance(client, GroupClient) and client._request_timeout_ms == clients.GROUP_TIMEOUT_MS
    assert client._joins._request_timeout_ms == SETTINGS.rebalance_timeout_ms + clients.JOIN_MARGIN_MS
    assert client._joins.cluster is client.cluster


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
