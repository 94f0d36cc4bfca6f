"""How soon the next request follows a fetch's answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from failsoft.schemas.backoff import doubled
from failsoft.workers.kafka.fetch_protocol import FetchAnswer

GATHER = 0.003
"""Seconds to the next request after a small answer. In light traffic each record would be an answer of its own, and the
requests would cost the worker and the broker most of their time. A record waits for half of it on average."""

GATHER_BYTES = 65_536  # an answer below this size is small: some hundred records, or a few large ones

LONGEST_RETRY = 8
"""The longest wait for a broker that stays away, times the first one: few log lines, and soon after a restart."""


def pause_after(answer: FetchAnswer) -> float:
    """Seconds until the next request: a moment, if the broker has few records and will have more by then."""
    size = sum(len(part.records) for part in answer.partitions if part.records)
    return GATHER if 0 < size < GATHER_BYTES else 0.0


FULL_FOR = (0.01, 200)
"""Seconds between two looks while there are too many records, and after how many looks a request is sent all the same:
the partition that is needed first may not have been fetched yet."""


async def wait_for_room(full: Callable[[], bool]) -> None:
    """Wait while ``full`` says that there are too many records, for FULL_FOR at most."""
    for _ in range(FULL_FOR[1]):
        if not full():
            return
        await asyncio.sleep(FULL_FOR[0])


def retry_wait(first: float, failures: int) -> float:
    """Seconds until a broker that failed is asked again: ``first``, doubled with each failure before."""
    return doubled(first, first * LONGEST_RETRY, failures)
