"""The consumer: assignment, revocation, and who runs which lane. What nobody expects ends the process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError
from mode import Service

from failsoft.workers.kafka.consumer_insides import still_fetches
from failsoft.workers.lanes.lane import Deps, Lane, Stage
from failsoft.workers.lanes.transaction import COMMIT_TIMEOUT

log = structlog.get_logger("failsoft.lanes")

STUCK = 30.0
"""Seconds without progress, while there is something to do, after which a lane or the event loop is given up: longer
than a commit may take (20), shorter than anybody waits for an answer."""

LOOK = 2.0
"""Seconds between two looks at the length of the rungs, and how long one may take: a gauge is scraped less often."""

DRAIN = COMMIT_TIMEOUT + 5.0
"""Seconds that a drain or a revocation waits for open transactions; they are bounded themselves."""

LEAVE = 5.0
"""Seconds that the consumer has to stop in a drain. It may sit in a rebalance that lasts longer, or look for a broker
that is gone; the lanes are closed by then, and a static member's departure is not told to the group anyway."""

TICK = 0.5
"""Seconds between two looks of the watchdog."""


class Fatal(RuntimeError):
    """This worker is not fit to go on; the next owner starts from the last commit."""


class Lanes(Service):  # type: ignore[misc]
    """Runs a lane for each partition index that the group gives this worker."""

    def __init__(
        self,
        topics: Sequence[str],
        partitions: int,
        make_consumer: Callable[[], AIOKafkaConsumer],
        deps: Deps,
        on_fatal: Callable[[BaseException], None],
        observe: Callable[[Lanes], None],
    ) -> None:
        super().__init__()
        self._topics = topics
        self._partitions = partitions
        self._make_consumer = make_consumer
        self._deps = deps
        self._on_fatal = on_fatal
        self._observe = observe
        self.lanes: dict[int, Lane] = {}
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._one_close = asyncio.Lock()
        self._consumer: AIOKafkaConsumer | None = None
        self.ends: dict[TopicPartition, int] = {}
        self._joined = False
        self._draining = False
        self._dying = False
        self._beat = deps.clock()
        self._guard: threading.Thread | None = None

    # --- Service --------------------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        """Joins the group; lanes start when it has assigned partitions."""
        self._consumer = self._make_consumer()
        self._consumer.subscribe(topics=list(self._topics), listener=_Listener(self))
        await self._consumer.start()
        self._guard = threading.Thread(target=self._guard_loop, name="failsoft-watchdog", daemon=True)
        self._guard.start()

    @Service.task  # type: ignore[untyped-decorator]
    async def _watch(self) -> None:
        """The watchdog of the lanes, and the pulse that the watchdog of the loop listens to."""
        while not self.should_stop:
            self._listen()
            now = self._deps.clock()
            self._beat = now
            for lane in list(self.lanes.values()):
                if lane.stage in (Stage.SCORING, Stage.COMMITTING) and now - lane.since > STUCK:
                    self.fatal(Fatal(f"lane {lane.index} has been {lane.stage} for {now - lane.since:.0f} s"))
            await self.sleep(TICK)

    @Service.task  # type: ignore[untyped-decorator]
    async def _measure(self) -> None:
        """How long the rungs are: asked of the broker, since a rung that waits is not fetched, and so not heard of."""
        while not self.should_stop:
            ladder = [tp for lane in self.lanes.values() for tp in lane.ladder]
            if ladder and self._consumer is not None:
                try:
                    self.ends = await asyncio.wait_for(self._consumer.end_offsets(ladder), LOOK)
                except (KafkaError, TimeoutError) as e:
                    log.info("the rungs' lengths are not known now", why=str(e))  # the gauges keep their last values
            self._observe(self)
            await self.sleep(LOOK)

    def _listen(self) -> None:
        """Asks the consumer whether it failed. aiokafka tells only who fetches, and a worker without lanes fetches
        nothing: it would sit there, alive and idle, for ever.
        """
        if self._consumer is None or self._draining or self._dying:
            return
        try:
            if not still_fetches(self._consumer):
                raise Fatal("the consumer fetches no more")
        except Exception as e:  # noqa: BLE001
            self.fatal(e)

    async def drain(self) -> None:
        """Finish the batches that are being worked on, commit them, and leave the group. Nothing is read any more."""
        if self._draining:
            return
        self._draining = True
        try:
            await self._close()
        except Exception as e:
            self.fatal(e)  # a thread that does not come back would keep the process from ending
            raise
        await self._stop_consumer(LEAVE)

    async def on_stop(self) -> None:
        """Drains, unless the app has done so."""
        await self.drain()

    # --- what the probes ask, from another thread -----------------------------------------------------------------

    def not_live(self) -> str | None:
        """Why the process should be restarted, or None. Never for a broker, a breaker or lag."""
        now = self._deps.clock()
        if self._consumer is not None and now - self._beat > STUCK:
            return f"the event loop has made no progress for {now - self._beat:.0f} s"
        for lane in list(self.lanes.values()):
            if lane.stage is Stage.SCORING and now - lane.since > STUCK:
                return f"lane {lane.index} has been scoring for {now - lane.since:.0f} s"
        return None

    def not_ready(self) -> str | None:
        """Why this worker should not be counted on yet, or None."""
        if self._draining:
            return "draining"
        if not self._joined:
            return "no partitions were assigned yet"
        opening = [lane.index for lane in list(self.lanes.values()) if lane.stage is Stage.OPENING]
        return f"lanes {opening} are opening" if opening else None

    # --- assignment -----------------------------------------------------------------------------------------------

    def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Start a lane for each index. No awaits: heartbeats wait for the listener."""
        assert self._consumer is not None
        if self._dying or self._draining:
            return  # about to leave: lanes opened now would sit idle until the session ends, or be cut off
        by_index: dict[int, list[TopicPartition]] = {}
        for tp in partitions:
            by_index.setdefault(tp.partition, []).append(tp)
            self._consumer.pause(tp)
        for index, found in by_index.items():
            missing = set(self._topics) - {tp.topic for tp in found}
            if missing:
                raise Fatal(f"lane {index} was assigned without partition {index} of {', '.join(sorted(missing))}")
            lane = Lane(index, found, self._consumer, self._deps)
            self.lanes[index] = lane
            task = asyncio.get_running_loop().create_task(lane.run(), name=f"lane-{index}")
            task.add_done_callback(self._lane_ended)
            self._runs[index] = task
        self._joined = True
        log.info("lanes assigned", lanes=sorted(by_index))

    async def revoked(self) -> None:
        """Every lane ends its transaction and gives up its producer; the group waits for that, bounded."""
        if self.lanes:
            log.info("lanes revoked", lanes=sorted(self.lanes))
        await self._close()

    async def _close(self) -> None:
        """All lanes. A revocation in the middle of a drain waits for it: until then the partitions are ours."""
        async with self._one_close:
            lanes, tasks = list(self.lanes.values()), list(self._runs.values())
            self.lanes.clear()
            self._runs.clear()
            if not lanes:
                return
            for lane in lanes:
                lane.close()
            _, pending = await asyncio.wait(tasks, timeout=DRAIN)
            if pending:
                raise Fatal(f"{len(pending)} lanes did not end their transactions in {DRAIN:.0f} s")
            await asyncio.wait_for(asyncio.gather(*(lane.stop() for lane in lanes)), DRAIN)

    def _lane_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not self._draining:
                self.fatal(Fatal(f"{task.get_name()} was cancelled"))
        elif (error := task.exception()) is not None:
            self.fatal(error)

    # --- the end --------------------------------------------------------------------------------------------------

    def fatal(self, error: BaseException) -> None:
        """Say why and leave: the group hears of it at once, and a supervisor restarts with backoff."""
        if not self._dying:
            self._dying = True
            self._on_fatal(error)

    async def leave(self) -> None:
        """Tell the group, for at most a second; nothing is finished and nothing is committed."""
        await self._stop_consumer(1.0)

    async def _stop_consumer(self, within: float) -> None:
        """It does not call the listener; whoever asks has closed the lanes, or leaves them to the next owner.

        In a task of its own: without a broker it ends as cancelled, which must not be taken for our own end.
        """
        if self._consumer is None:
            return
        stopping = asyncio.ensure_future(self._consumer.stop())
        await asyncio.wait({stopping}, timeout=within)
        if not stopping.done():
            stopping.cancel()
        elif not stopping.cancelled() and (error := stopping.exception()) is not None:
            log.warning("the consumer did not stop cleanly", error=str(error))

    def _guard_loop(self) -> None:
        """On a thread: an event loop that is stuck cannot watch itself."""
        while not self._draining:
            silent = self._deps.clock() - self._beat
            if silent > STUCK:
                log.critical("the event loop is stuck", seconds=round(silent))
                os._exit(70)
            threading.Event().wait(TICK)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka swallows what a listener raises, so it is made fatal here."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        try:
            await self._lanes.revoked()
        except Exception as e:
            self._lanes.fatal(e)
            raise

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        try:
            self._lanes.assigned(assigned)
        except Exception as e:
            self._lanes.fatal(e)
            raise
