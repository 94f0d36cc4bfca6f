"""Outgoing records -> produce batches, at the price of one call a record."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiokafka.producer.message_accumulator import BatchBuilder

from topics.routing import Row


def pack(make: Callable[[], BatchBuilder], rows: Sequence[Row], timestamp_ms: int) -> list[BatchBuilder]:
    """``rows`` in as many closed batches as they need, in order. Raises RuntimeError for a record that fits none.

    ``BatchBuilder.append`` looks for serializers and makes three calls a record; this goes to the builder behind it
    (aiokafka is pinned below 0.15, and a test holds the two to the same bytes).
    """
    batches: list[BatchBuilder] = []
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
        batch._relative_offset = count
        batch.close()
        batches.append(batch)
        start += count
    return batches
