"""The demo's applications as a stream that `failsoft publish` can publish, and that the story ends and adds to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice

from failsoft.workers.demo.applications import Application
from failsoft.workers.operations.event_files import Row
from failsoft.workers.operations.publish import Sent, publish
from failsoft.workers.settings import Settings

HANDFUL = 10
"""Applications at a time: what is added, or the end, waits for no more than these."""


class Feed:
    """A stream of applications into the pipeline's input, ``rate`` a second, from ``run`` until ``end``."""

    def __init__(self, pipeline: Settings, source: Iterator[Application], rate: float) -> None:
        self._pipeline, self._source, self._rate = pipeline, source, rate
        self._extra: list[Application] = []
        self._ending = False
        self._sent: Sent | None = None

    @property
    def acknowledged(self) -> int:
        """Events that Kafka has."""
        return 0 if self._sent is None else self._sent.published

    def add(self, applications: Sequence[Application]) -> None:
        """These too, next."""
        self._extra += applications

    def end(self) -> None:
        """``run`` returns when what was sent is acknowledged."""
        self._ending = True

    async def run(self) -> None:
        """Publishes until ``end``. Raises KafkaUnreachable or KafkaError."""
        topic = self._pipeline.input.topics[0]
        await publish(self._pipeline, topic, self._rows(), self._rate, None, lambda published: None, self._began)

    def _began(self, sent: Sent) -> None:
        self._sent = sent

    async def _rows(self) -> AsyncIterator[list[Row]]:
        while not self._ending:
            extra, self._extra = self._extra, []
            yield [(a.key, a.value) for a in (*extra, *islice(self._source, HANDFUL))]
