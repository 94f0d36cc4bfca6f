"""Creates the Kafka clients of a worker, with the reason for each setting."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient

from failsoft.workers.kafka import fetch_records
from failsoft.workers.kafka.chunk import Chunk
from failsoft.workers.kafka.fetcher import Fetcher
from failsoft.workers.kafka.group_client import GroupClient
from failsoft.workers.kafka.letter_search import LetterSearch
from failsoft.workers.kafka.list_offsets import list_offsets
from failsoft.workers.kafka.membership import GroupSettings, Membership
from failsoft.workers.kafka.transactional_producer import TransactionalProducer
from failsoft.workers.settings import Settings

TRANSACTION_TIMEOUT_MS = 8_000
"""The broker aborts a transaction of this age when it next looks, every 10 s by default
(transaction.abort.timed.out.transaction.cleanup.interval.ms). So the open transaction of a dead worker delays the next
owner of its partitions by at most 18 s, and not at all when the dead worker's id starts again. A commit that takes
longer would be of no use to readers either."""

FETCH_WAIT_MS = 100
"""Milliseconds for which a broker holds a fetch that finds nothing. A partition that is fetched again meanwhile waits
for the end of it. An empty fetch costs little, because a fetch session names no partitions in it."""

READER_WAIT_MS, SEARCH_WAIT_MS = 500, 5
"""The same for a consumer that reads a partition's tail, and for one that goes from one partition to the next."""

PRODUCER_TIMEOUT_MS = 2_500
"""Milliseconds for the answer to a request of the producer. When answers get lost in silence, the request must be sent
again while its transaction is open: three tries fit into TRANSACTION_TIMEOUT_MS."""

REPLICAS_TIMEOUT_MS = 2_000
"""Milliseconds for which a leader waits for its replicas. It says so before the producer gives its answer up."""

FETCHER_TIMEOUT_MS = 5_000
"""Milliseconds for the answer to a fetch, or to a request for offsets. A client opens one connection at a time, so a
broker that is away also holds up the others for this time. The heartbeats have a client of their own."""

GROUP_TIMEOUT_MS = 2_000
"""Milliseconds for the answer to a heartbeat, or for a connection. A member that has lost its coordinator has to find
the new one within its session of 6 s, and the one that it asks, or connects to, may be away as well."""

JOIN_MARGIN_MS = 5_000
"""A join is answered when all members have joined, at the latest after the rebalance timeout. A member that gave up
earlier would join anew, and hold up the others again. As Kafka's own client, this one waits for so much longer."""


@dataclass(frozen=True, slots=True)
class Clients:
    """Creates the Kafka clients of one worker. docs/decisions/0017-one-transaction.md has the reasons for the settings.

    Attributes:
        pipeline: the pipeline's settings.
        worker_id: the worker's id, which is also its static member id in the group.
    """

    pipeline: Settings
    worker_id: str

    def membership(self) -> Membership:
        """The worker's membership in the group."""
        settings = GroupSettings(self.pipeline.names.group, self.worker_id)
        joins = self._client(settings.rebalance_timeout_ms + JOIN_MARGIN_MS)
        return Membership(GroupClient(joins, **self._options(GROUP_TIMEOUT_MS)), settings)

    async def start_fetcher(
        self,
        topics: Collection[str],
        deliver: Callable[[Chunk], None],
        failed: Callable[[TopicPartition, Exception], None],
        full: Callable[[], bool],
    ) -> Fetcher:
        """What fetches the records of all lanes, on a client that knows ``topics``.

        aiokafka's errors are raised, as when no broker answers.
        """
        client = await self._start(FETCHER_TIMEOUT_MS)
        await client.set_topics(topics)
        return Fetcher(client, deliver, failed, full=full, max_wait_ms=FETCH_WAIT_MS)

    @property
    def group(self) -> str:
        """The consumer group of the pipeline's workers."""
        return self.pipeline.names.group

    async def start_producer(self) -> TransactionalProducer:
        """Start the worker's one producer; transactional if the pipeline's guarantee is exactly once.

        aiokafka's errors are raised, as when no broker answers.
        """
        exactly_once = self.pipeline.guarantee == "exactly_once"
        transactional_id = self.pipeline.names.transactional_id(self.worker_id) if exactly_once else None
        client = await self._start(PRODUCER_TIMEOUT_MS)
        producer = TransactionalProducer(
            client, transactional_id, TRANSACTION_TIMEOUT_MS, replicas_timeout_ms=REPLICAS_TIMEOUT_MS
        )
        await producer.start()
        return producer

    async def _start(self, request_timeout_ms: int) -> AIOKafkaClient:
        client = self._client(request_timeout_ms)
        await client.bootstrap()
        return client

    def _client(self, request_timeout_ms: int) -> AIOKafkaClient:
        """A client with connections of its own. The broker answers the requests of a connection one after the other."""
        return AIOKafkaClient(**self._options(request_timeout_ms))

    def _options(self, request_timeout_ms: int) -> dict[str, Any]:
        return self.pipeline.connection() | {
            "client_id": self.worker_id,
            "request_timeout_ms": request_timeout_ms,
            "retry_backoff_ms": 50,
        }

    def reporter(self) -> AIOKafkaProducer:
        """The producer of the worker's reports to the owner."""
        return AIOKafkaProducer(
            **self.pipeline.connection(),
            client_id=f"{self.worker_id}.fleet",
            linger_ms=0,
            request_timeout_ms=3_000,
            metadata_max_age_ms=5_000,  # a deleted topic is noticed within this time
        )

    @staticmethod
    async def log_end(consumer: AIOKafkaConsumer, tp: TopicPartition) -> int:
        """The end of a partition's log, open transactions included; ``consumer.end_offsets`` ends before them."""
        return (await list_offsets(consumer._client, [tp], "latest", read_committed=False))[tp]

    def reader(self, max_wait_ms: int = READER_WAIT_MS) -> AIOKafkaConsumer:
        """A consumer without a group, which reads committed records. ``max_wait_ms``: how long a broker holds a fetch
        that finds nothing (milliseconds); the next fetch, of any partition, waits for its end.
        """
        fetch_records.install()
        return AIOKafkaConsumer(
            **self.pipeline.connection(),
            client_id=f"{self.worker_id}.restore",
            enable_auto_commit=False,
            isolation_level="read_committed",
            fetch_max_wait_ms=max_wait_ms,
        )

    def letter_search(self) -> LetterSearch:
        """A search for dead letters. It reads first one partition and then another, so its fetches may not linger."""
        return LetterSearch(partial(self.reader, SEARCH_WAIT_MS), self.pipeline.names)
