"""Publishes live events at a rate from a thread of its own while a test injects faults."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from tests.integration.pipeline import Pipeline, events
from tests.kafka import wait_for

SLICES_A_SECOND = 5

PUBLISHED_WITHIN = 120.0
"""Seconds to publish the remaining events after a test's last fault."""


class Feed:
    """Publishes at least ``least`` events at ``rate`` a second, and continues until the end of ``with Feed(…) as
    feed:``.

    The primary never answers one event in ``bad_every``. Every in-sync replica acknowledges a slice before the next one
    is sent. So a cluster that refuses writes delays the rest and loses no event.
    """

    def __init__(self, pipeline: Pipeline, least: int, rate: float, bad_every: int) -> None:
        self._pipeline, self._least, self._rate, self._bad_every = pipeline, least, rate, bad_every
        self._enough, self._stop = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough.set()
        if error is not None:
            self._stop.set()
        self._thread.join(PUBLISHED_WITHIN)
        assert not self._thread.is_alive(), f"{self._pipeline.published} of {self._least} events published"
        if self._error is not None:
            raise self._error

    def wait_more(self, n: int) -> None:
        """Waits until ``n`` more events are published, or publishing has failed."""
        until = self._pipeline.published + n
        wait_for(lambda: self._error or self._pipeline.published >= until, 60, f"{n} more events published")

    def _run(self) -> None:
        size = max(1, round(self._rate / SLICES_A_SECOND))
        begun, first = time.monotonic(), self._pipeline.published
        try:
            while not (self._enough.is_set() and self._pipeline.published >= self._least):
                at = self._pipeline.published
                if self._stop.wait(max(0.0, begun + (at - first) / self._rate - time.monotonic())):
                    return
                self._pipeline.publish(events(size, start=at, bad_every=self._bad_every))
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            self._error = error
