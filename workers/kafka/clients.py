"""Creates the Kafka clients of a worker, with the reason for each setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient

from failsoft.workers.kafka import fetch_records, offset_fetch
from failsoft.workers.kafka.chunk import Chunk
from failsoft.workers.kafka.fetcher import Fetcher
from failsoft.workers.kafka.membership import GroupSettings, Membership
from failsoft.workers.kafka.transactional_producer import TransactionalProducer
from failsoft.workers.settings import Settings

TRANSACTION_TIMEOUT_MS = 8_000
"""The broker aborts a transaction of this age when it next looks, every 10 s by default
(transaction.abort.timed.out.transaction.cleanup.interval.ms). So the open transaction of a dead worker delays the next
owner of its partitions by at most 18 s, and not at all when the dead worker's id starts again. A commit that takes
longer would be of no use to readers either."""

FETCH_WAIT_MS = 50
"""Milliseconds for which a broker holds a fetch that finds nothing. A partition that is fetched again meanwhile waits
for the end of it. An empty fetch costs little, because a fetch session names no partitions in it."""

REQUEST_TIMEOUT_MS = 10_000


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
        """The worker's membership in the group, on a client of its own that is used for fetches too."""
        offset_fetch.install()
        fetch_records.install()
        settings = GroupSettings(self.pipeline.names.group, self.worker_id)
        return Membership(self._client(), settings)

    def fetcher(
        self,
        client: AIOKafkaClient,
        deliver: Callable[[Chunk], None],
        failed: Callable[[TopicPartition, Exception], None],
    ) -> Fetcher:
        """What fetches the records of all lanes."""
        return Fetcher(client, deliver, failed, max_wait_ms=FETCH_WAIT_MS)

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
        client = self._client()
        await client.bootstrap()
        producer = TransactionalProducer(client, transactional_id, TRANSACTION_TIMEOUT_MS)
        await producer.start()
        return producer

    def _client(self) -> AIOKafkaClient:
        """A client with connections of its own. The broker answers the requests of a connection one after the other."""
        return AIOKafkaClient(
            **self.pipeline.connection(),
            client_id=self.worker_id,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            retry_backoff_ms=50,
        )

    def reporter(self) -> AIOKafkaProducer:
        """The producer of the worker's reports to the owner."""
        return AIOKafkaProducer(
            **self.pipeline.connection(),
            client_id=f"{self.worker_id}.fleet",
            linger_ms=0,
            request_timeout_ms=3_000,
            metadata_max_age_ms=5_000,  # a deleted topic is noticed within this time
        )

    def reader(self) -> AIOKafkaConsumer:
        """A consumer without a group, with which a lane restores the answers for ``last_known``."""
        return AIOKafkaConsumer(
            **self.pipeline.connection(),
            client_id=f"{self.worker_id}.restore",
            enable_auto_commit=False,
            isolation_level="read_committed",
        )
