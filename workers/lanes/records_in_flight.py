"""The number of records that all lanes of a worker score at once, bounded.

Decoded events take several times the bytes of their records. With hundreds of lanes and a backlog they would all be in
memory together, although one event loop scores them one batch after the other.
"""

from __future__ import annotations

import asyncio

from failsoft.workers.execution.batch_size import LARGEST

MOST = 2 * LARGEST
"""Records in flight at which no lane takes further ones: while a model runs one batch, the next one is decoded."""

FEW = MOST // 2
"""Records in flight at which the waiting lanes look again. They all wake then, so it must not be for each batch."""


class RecordsInFlight:
    """Counts records from the moment that a lane has taken them until it hands in their outcome."""

    def __init__(self) -> None:
        self._records = 0
        self._few = asyncio.Event()
        self._few.set()

    @property
    def are_few(self) -> bool:
        """Whether a lane may take records."""
        return self._few.is_set()

    async def wait_for_few(self) -> None:
        """Wait until a lane may take records. Look at ``are_few`` again then: others have waited too."""
        await self._few.wait()

    def enter(self, records: int) -> None:
        """A lane has taken ``records``. Each ``enter`` needs its ``leave``."""
        self._records += records
        if self._records >= MOST:
            self._few.clear()

    def leave(self, records: int) -> None:
        """The outcome of ``records`` is handed in, or they were given up."""
        self._records -= records
        if self._records <= FEW:
            self._few.set()
