"""Creates the Kafka clients of a worker, with the reason for each setting."""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.producer import sender

from failsoft.workers.kafka import fetch_records, offset_fetch
from failsoft.workers.kafka.produce_batches import BATCH_BYTES
from failsoft.workers.settings import Settings

FETCH_BYTES = 3 * 1_048_576
"""The most bytes that one fetch returns of a partition. A lane has one live partition for each input topic, so this
also bounds its batches: 4,000 events of half a kilobyte take 2 MiB. With aiokafka's default of 1 MiB batches stayed
under 2,000."""

MARKER_BACKOFF = 0.002
"""Seconds until a transaction is begun again that the broker refused, because it still writes the markers of the lane's
last transaction. aiokafka waits 20 ms, which was half of an event's latency in light traffic. Markers take 1 to 5
ms."""


@dataclass(frozen=True, slots=True)
class Clients:
    """Creates the Kafka clients of one worker. docs/decisions/0002-lanes.md has the reasons for the other settings.

    Attributes:
        pipeline: the pipeline's settings.
        worker_id: the worker's id, which is also its static member id in the group.
    """

    pipeline: Settings
    worker_id: str

    def consumer(self) -> AIOKafkaConsumer:
        """The worker's consumer, shared by its lanes."""
        fetch_records.install()
        offset_fetch.install()
        return AIOKafkaConsumer(
            **self.pipeline.connection(),
            group_id=self.pipeline.names.group,
            group_instance_id=self.worker_id,
            client_id=self.worker_id,
            partition_assignment_strategy=(RangePartitionAssignor,),
            enable_auto_commit=False,
            auto_offset_reset="none",  # never skip records silently: lanes seek themselves
            # Off: an idle worker fetches nothing, so aiokafka would remove it from the group for good after 5 minutes.
            max_poll_interval_ms=2**31 - 1,
            isolation_level="read_committed",
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_000,
            rebalance_timeout_ms=30_000,
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=50,  # empty rungs hold a fetch this long; 500 cost a third of the throughput
        )

    def producer(self, lane: int) -> AIOKafkaProducer:
        """The producer of one lane; transactional if the pipeline's guarantee is exactly once."""
        sender.BACKOFF_OVERRIDE = MARKER_BACKOFF
        exactly_once = self.pipeline.guarantee == "exactly_once"
        return AIOKafkaProducer(
            **self.pipeline.connection(),
            client_id=f"{self.worker_id}.{lane}",
            transactional_id=self.pipeline.names.transactional_id(lane) if exactly_once else None,
            enable_idempotence=True,
            transaction_timeout_ms=15_000,
            max_batch_size=BATCH_BYTES,
            linger_ms=0,
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
