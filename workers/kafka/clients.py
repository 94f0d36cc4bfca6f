"""The Kafka clients of a worker, and the reason for each setting."""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.producer import sender

from failsoft.workers.kafka import fetch_records, offset_fetch
from failsoft.workers.kafka.produce_batches import BATCH_BYTES
from failsoft.workers.settings import Settings

FETCH_BYTES = 3 * 1_048_576
"""Of one partition, by one fetch. A lane has one live partition, so this is also the most that a batch of it can hold:
4,000 events of half a kilobyte take 2 MiB, and at the usual 1 MiB batches stayed under 2,000."""

MARKER_BACKOFF = 0.002
"""Seconds. A transaction that begins while the broker still writes the markers of the lane's last one is asked to come
again; aiokafka waits 20 ms for that, which was half of an event's latency in light traffic. Markers take 1 to 5 ms."""


@dataclass(frozen=True, slots=True)
class Clients:
    """The Kafka clients of a worker; each setting's reason is in docs/decisions/0002-lanes.md."""

    pipeline: Settings
    worker_id: str

    def consumer(self) -> AIOKafkaConsumer:
        fetch_records.install()
        offset_fetch.install()
        return AIOKafkaConsumer(
            **self.pipeline.connection(),
            group_id=self.pipeline.names.group,
            group_instance_id=self.worker_id,
            client_id=self.worker_id,
            partition_assignment_strategy=(RangePartitionAssignor,),
            enable_auto_commit=False,
            auto_offset_reset="none",  # never skip in silence: lanes seek by themselves
            # Off: a spare fetches nothing, and aiokafka would take it out of the group after five minutes, for ever.
            max_poll_interval_ms=2**31 - 1,
            isolation_level="read_committed",
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_000,
            rebalance_timeout_ms=30_000,
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=50,  # empty rungs hold a fetch this long; 500 cost a third of the throughput
        )

    def producer(self, lane: int) -> AIOKafkaProducer:
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
        return AIOKafkaProducer(
            **self.pipeline.connection(),
            client_id=f"{self.worker_id}.fleet",
            linger_ms=0,
            request_timeout_ms=3_000,
            metadata_max_age_ms=5_000,  # within which a topic that is gone is missed
        )

    def reader(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **self.pipeline.connection(),
            client_id=f"{self.worker_id}.restore",
            enable_auto_commit=False,
            isolation_level="read_committed",
        )
