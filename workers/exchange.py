"""Between this worker's breakers and the fleet's: rows are absorbed, reports sent, and scoring waits for neither."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from mode import Service

from schemas.fleet import BreakerRow
from schemas.wire import Malformed
from workers.board import LocalBoard
from workers.fleet import ControlPlane
from workers.metrics import Metrics

log = structlog.get_logger("failsoft.exchange")

LOOK = 0.02
"""Seconds between two looks at the table: a look costs microseconds, and rows arrive 5 to 45 ms after their write."""

SENT_WITHIN = 5.0
"""Seconds for one round of reports. They are totals: what is given up is said again, and better, by the next."""

START_WITHIN = 60.0
"""Seconds for the control plane to join its group and read its table, before it is made anew."""

BACKOFF = (1.0, 30.0)
"""Seconds before a control plane that ended is made anew: the first time, and at most."""

STOP_WITHIN = 5.0
"""Seconds for a control plane to end; it may be in the middle of its start."""


class Exchange(Service):  # type: ignore[misc]
    """Runs a control plane, makes it anew when it ends, and carries news between its table and the board."""

    def __init__(
        self,
        make_plane: Callable[[], ControlPlane],
        make_producer: Callable[[], AIOKafkaProducer],
        outcomes: str,
        board: LocalBoard,
        metrics: Metrics,
    ) -> None:
        super().__init__()
        self._make_plane, self._make_producer, self._outcomes = make_plane, make_producer, outcomes
        self._board, self._metrics = board, metrics
        self._plane: ControlPlane | None = None
        self._seen: dict[str, dict[str, Any]] = {}
        self._news = asyncio.Event()
        board.on_news = self._news.set

    @property
    def up(self) -> bool:
        """Are the fleet's breakers being read?"""
        return self._plane is not None and self._plane.ready

    @Service.task  # type: ignore[untyped-decorator]
    async def _run_plane(self) -> None:
        wait = BACKOFF[0]
        while not self.should_stop:
            plane = self._plane = self._make_plane()
            try:
                await asyncio.wait_for(plane.app.start(), START_WITHIN)
                wait = BACKOFF[0]
                await plane.app.wait_until_stopped()
                why: object = plane.app.crash_reason
            except Exception as e:  # noqa: BLE001 - whatever it is, events are scored without it
                why = e
            if self.should_stop:
                return
            self._plane = None
            log.error("the control plane ended; breakers are this worker's own until it is back", error=repr(why))
            await self._end(plane)
            await self.sleep(wait)
            wait = min(2 * wait, BACKOFF[1])

    @Service.task  # type: ignore[untyped-decorator]
    async def _carry(self) -> None:
        up = False
        while not self.should_stop:
            if self.up is not up:
                up = self.up
                self._metrics.set("failsoft_control_plane_up", float(up))
                log.info("the fleet's breakers are read" if up else "the fleet's breakers are not read")
            if up:
                self._absorb()
            await self.sleep(LOOK)

    def _absorb(self) -> None:
        assert self._plane is not None
        for key, value in list(self._plane.rows().items()):
            if value is self._seen.get(key):
                continue
            self._seen[key] = value
            try:
                self._board.absorb(BreakerRow.from_dict(value))
            except Malformed as e:
                log.error("a breaker's row cannot be read", key=key, error=str(e))
            self._news.set()

    @Service.task  # type: ignore[untyped-decorator]
    async def _report(self) -> None:
        """Reports go on a producer of their own, whatever Faust is doing."""
        producer: AIOKafkaProducer | None = None
        try:
            while not self.should_stop:
                await self._something_to_say()
                reports = list(self._board.reports()) if self.up else []
                if not reports:
                    continue
                try:
                    if producer is None:
                        producer = self._make_producer()
                        await producer.start()
                    sent = [
                        await producer.send(self._outcomes, key=r.key.encode(), value=r.to_bytes(), partition=0)
                        for r in reports
                    ]
                    await asyncio.wait_for(asyncio.gather(*sent), SENT_WITHIN)
                except (KafkaError, TimeoutError) as e:
                    log.warning("the fleet does not hear this worker", error=repr(e))
                    if producer is not None:
                        await self._close(producer)
                        producer = None
        finally:
            if producer is not None:
                await self._close(producer)

    async def _something_to_say(self) -> None:
        self._news.clear()
        try:
            await asyncio.wait_for(self._news.wait(), LOOK * 2)
        except TimeoutError:
            return
        await asyncio.sleep(LOOK / 4)  # what comes together goes together

    async def _close(self, producer: AIOKafkaProducer) -> None:
        try:
            await asyncio.wait_for(producer.stop(), 1.0)
        except (KafkaError, TimeoutError) as e:
            log.info("a producer of reports did not end cleanly", error=repr(e))

    async def _end(self, plane: ControlPlane) -> None:
        """In a task of its own: what the app raises or cancels while it ends is not this worker's end."""
        ending = asyncio.ensure_future(plane.end())
        await asyncio.wait({ending}, timeout=STOP_WITHIN)
        if not ending.done():
            ending.cancel()
        elif not ending.cancelled() and (error := ending.exception()) is not None:
            log.warning("a control plane did not end cleanly", error=repr(error))

    async def on_stop(self) -> None:
        """The fleet's other workers take over what this one owned."""
        plane, self._plane = self._plane, None
        if plane is not None:
            await self._end(plane)
