"""Creates the Kafka clients of a worker, with the reason for each setting."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient

from failsoft.schemas.config.size import bytes_of
from failsoft.topics.layout import SCHEMA_RECORD
from failsoft.workers.client_timeouts import ClientTimeouts
from failsoft.workers.kafka import fetch_records
from failsoft.workers.kafka.broker_bounds import transaction_refused
from failsoft.workers.kafka.chunk import Chunk
from failsoft.workers.kafka.codecs import NUMBERS
from failsoft.workers.kafka.fetcher import Fetcher
from failsoft.workers.kafka.group_client import GroupClient
from failsoft.workers.kafka.letter_search import LetterSearch
from failsoft.workers.kafka.list_offsets import list_offsets
from failsoft.workers.kafka.membership import GroupSettings, Membership
from failsoft.workers.kafka.request_errors import Code
from failsoft.workers.kafka.request_loop import RequestRefused
from failsoft.workers.kafka.transactional_producer import TransactionalProducer
from failsoft.workers.settings import Settings

FETCH_WAIT_MS = 100
"""Milliseconds for which a broker holds a fetch that finds nothing. A partition that is fetched again meanwhile waits
for the end of it. An empty fetch costs little, because a fetch session names no partitions in it."""

READER_WAIT_MS, SEARCH_WAIT_MS = 500, 5
"""The same for a consumer that reads a partition's tail, and for one that goes from one partition to the next."""


TOPICS_EVERY_MS = 5_000
"""Milliseconds between two looks of a member at the topics that it reads. New partitions are noticed within them."""


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
        t = self.timeouts
        settings = GroupSettings(
            self.pipeline.names.group, self.worker_id, _ms(t.session), _ms(t.heartbeat), _ms(t.rebalance)
        )
        options = self._options(t.group) | {"metadata_max_age_ms": TOPICS_EVERY_MS}
        return Membership(GroupClient(self._client(t.join), **options), settings)

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
        client = await self._start(self.timeouts.fetch)
        await client.set_topics(topics)
        k = self.pipeline.kafka
        return Fetcher(
            client,
            deliver,
            failed,
            full=full,
            max_wait_ms=FETCH_WAIT_MS,
            max_bytes=bytes_of(k.fetch_max_bytes),
            partition_bytes=bytes_of(k.max_partition_fetch_bytes),
            client_rack=k.client_rack or "",
        )

    @property
    def timeouts(self) -> ClientTimeouts:
        """The timeouts of all clients."""
        return self.pipeline.kafka.timeouts

    @property
    def group(self) -> str:
        """The consumer group of the pipeline's workers."""
        return self.pipeline.names.group

    async def start_producer(self) -> TransactionalProducer:
        """Start the worker's one producer; transactional if the pipeline's guarantee is exactly once.

        aiokafka's errors are raised, as when no broker answers. Raises Refused if the broker does not take the
        transaction timeout.
        """
        exactly_once = self.pipeline.guarantee == "exactly_once"
        transactional_id = self.pipeline.names.transactional_id(self.worker_id) if exactly_once else None
        t = self.timeouts
        client = await self._start(t.request)
        codec = NUMBERS[self.pipeline.kafka.compression]
        producer = TransactionalProducer(
            client, transactional_id, _ms(t.transaction), replicas_timeout_ms=_ms(t.replicas), codec=codec
        )
        try:
            await producer.start()
        except RequestRefused as error:
            if error.code != Code.INVALID_TRANSACTION_TIMEOUT:
                raise
            refused = await transaction_refused(client, _ms(t.transaction))
            await producer.stop()
            raise refused from None
        return producer

    async def _start(self, request_timeout: float) -> AIOKafkaClient:
        client = self._client(request_timeout)
        await client.bootstrap()
        return client

    def _client(self, request_timeout: float) -> AIOKafkaClient:
        """A client with connections of its own. The broker answers the requests of a connection one after the other."""
        return AIOKafkaClient(**self._options(request_timeout))

    def _options(self, request_timeout: float) -> dict[str, Any]:
        return self.pipeline.connection() | {
            "client_id": self.worker_id,
            "request_timeout_ms": _ms(request_timeout),
            "retry_backoff_ms": 50,
        }

    def reporter(self) -> AIOKafkaProducer:
        """The producer of the worker's reports to the owner."""
        return AIOKafkaProducer(
            **self.pipeline.connection(),
            client_id=f"{self.worker_id}.fleet",
            linger_ms=0,
            request_timeout_ms=_ms(1.2 * self.timeouts.request),
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

    def schema_reader(self) -> AIOKafkaConsumer:
        """A consumer of the topic of schemas. If the topic was made anew, it begins again."""
        fetch_records.install()
        return AIOKafkaConsumer(
            **self.pipeline.connection(),
            client_id=f"{self.worker_id}.schemas",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_partition_fetch_bytes=2 * SCHEMA_RECORD,
        )

    def schema_writer(self) -> AIOKafkaProducer:
        """The producer of the topic of schemas."""
        return AIOKafkaProducer(
            **self.pipeline.connection(),
            client_id=f"{self.worker_id}.schemas",
            acks="all",
            compression_type="gzip",
            max_request_size=SCHEMA_RECORD,
            request_timeout_ms=_ms(1.2 * self.timeouts.request),
            metadata_max_age_ms=5_000,  # a deleted topic is noticed within this time
        )

    def letter_search(self) -> LetterSearch:
        """A search for dead letters. It reads first one partition and then another, so its fetches may not linger."""
        return LetterSearch(partial(self.reader, SEARCH_WAIT_MS), self.pipeline.names)


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
