"""Packs outgoing records into produce batches, with one call of aiokafka for each record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from aiokafka.producer.message_accumulator import BatchBuilder

from failsoft.topics.routing import OutgoingRecord

Batch: TypeAlias = BatchBuilder
"""A produce batch, as ``AIOKafkaProducer.create_batch`` returns it. aiokafka does not export this type."""

NO_COMPRESSION, ZSTD = 0, 4
"""Kafka's numbers of compressions."""

BATCH_BYTES = 1_000_000
"""The most bytes of a produce batch, below the broker's default limit of 1,048,588, which `send_batch` does not check.

A single record may be larger; its batch is then compressed. A topic's limit applies to the batch as it is written, so
an event that arrived compressed may be many times larger than its topic allows. Uncompressed, the broker would always
refuse it.
"""


def new_batch(transactional: bool) -> Batch:
    """An empty batch of at most BATCH_BYTES."""
    return BatchBuilder(BATCH_BYTES, NO_COMPRESSION, is_transactional=int(transactional))


def compressed_batch(size: int, transactional: bool) -> Batch:
    """A batch of at most ``size`` bytes, which is compressed with zstd when it is sent.

    Of Kafka's codecs zstd makes the smallest batches, also of what was compressed with another one when it was read:
    gzip finds no repetitions further back than 32 KiB, and a document that a producer had compressed with zstd became
    too large for the topic.
    """
    return BatchBuilder(size, ZSTD, is_transactional=int(transactional))


def pack(
    make: Callable[[], Batch], rows: Sequence[OutgoingRecord], timestamp_ms: int, squeeze: Callable[[], Batch]
) -> list[Batch]:
    """Pack ``rows`` into as many closed batches as they need, in order.

    ``BatchBuilder.append`` checks for serializers and makes three calls for each record, so this calls its inner
    builder directly. aiokafka is pinned below 0.15, and a test checks that both give the same bytes.

    Args:
        make: makes an empty batch.
        rows: the records, as (key, value, headers).
        timestamp_ms: the timestamp of all records (epoch milliseconds).
        squeeze: makes the compressed batch of a single record over BATCH_BYTES.

    Raises:
        RuntimeError: if a record does not fit into an empty batch.
    """
    batches: list[Batch] = []
    start = 0
    while start < len(rows):
        batch = make()
        append = batch._builder.append
        count = 0
        for key, value, headers in rows[start:] if start else rows:
            if append(count, timestamp_ms, key, value, headers) is None:
                break  # the batch is full, and this record is not in it: the next batch takes it
            count += 1
        if not count:
            raise RuntimeError(f"a record of {len(rows[start][1] or b'')} bytes does not fit into an empty batch")
        if count == 1 and batch._builder.size() > BATCH_BYTES:
            batch = squeeze()
            batch._builder.append(0, timestamp_ms, *rows[start])
        batch._relative_offset = count
        batch.close()
        batches.append(batch)
        start += count
    return batches
