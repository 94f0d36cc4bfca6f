"""Outgoing records -> produce batches, at the price of one call a record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from aiokafka.producer.message_accumulator import BatchBuilder

from failsoft.topics.routing import Row

Batch: TypeAlias = BatchBuilder
"""What a producer makes and sends; aiokafka does not export its type."""

GZIP = 1

BATCH_BYTES = 1_000_000
"""A produce batch's limit, under the broker's default of 1,048,588: `send_batch` does not check it. Only a record alone
is larger, and is compressed: a topic's limit counts a batch as it is written, so an event that came compressed may be
many times as large as its topic allows, and written plain it would be refused for ever."""


def squeezed(size: int, transactional: bool) -> Batch:
    """A batch that is compressed when it is sent."""
    return BatchBuilder(size, GZIP, is_transactional=int(transactional))


def pack(
    make: Callable[[], Batch], rows: Sequence[Row], timestamp_ms: int, squeeze: Callable[[], Batch]
) -> list[Batch]:
    """``rows`` in as many closed batches as they need, in order. Raises RuntimeError for a record that fits none.

    ``squeeze`` makes the batch of a record over BATCH_BYTES.

    ``BatchBuilder.append`` looks for serializers and makes three calls a record; this goes to the builder behind it
    (aiokafka is pinned below 0.15, and a test holds the two to the same bytes).
    """
    batches: list[Batch] = []
    start = 0
    while start < len(rows):
        batch = make()
        append = batch._builder.append
        count = 0
        for key, value, headers in rows[start:] if start else rows:
            if append(count, timestamp_ms, key, value, headers) is None:
                break  # full, and this record is not in it: losing that None would lose the record
            count += 1
        if not count:
            raise RuntimeError(f"a record of {len(rows[start][1] or b'')} bytes fits no batch")
        if count == 1 and batch._builder.size() > BATCH_BYTES:
            batch = squeeze()
            batch._builder.append(0, timestamp_ms, *rows[start])
        batch._relative_offset = count
        batch.close()
        batches.append(batch)
        start += count
    return batches
