"""The worker's consumer and its lanes: assignment, revocation, draining and watchdogs. Unexpected errors are fatal."""

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

STUCK_AFTER = 30.0
"""Seconds without progress, while there is work to do, after which a lane or the event loop counts as stuck. Longer
than a commit may take (20 s), shorter than callers wait for an answer."""

MEASURE_EVERY = 2.0
"""Seconds between two measurements of the rungs' lengths, and the timeout of one. Gauges are scraped less often."""

DRAIN = COMMIT_TIMEOUT + 5.0
"""Seconds that a drain or a revocation waits for open transactions, which end within COMMIT_TIMEOUT themselves."""

LEAVE = 5.0
"""Seconds that the consumer has to stop in a drain. It may be in a longer rebalance, or try to reach a broker that is
gone. Cutting it off is safe: the lanes are closed by then, and a static member does not leave the group anyway."""

TICK = 0.5
"""Seconds between two checks of each watchdog."""


class Fatal(RuntimeError):
    """This worker must end. The next owner of its lanes starts from the last commit."""


class Lanes(Service):  # type: ignore[misc]
    """Runs a lane for each partition index that the group assigns to this worker.

    Args:
        topics: every topic that the pipeline reads.
        partitions: their partition count.
        make_consumer: makes the worker's consumer.
        deps: what the lanes share.
        on_fatal: called once, with the error that must end the worker.
        observe: called every MEASURE_EVERY seconds, after ``ends`` was updated.
    """

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
        self._failed = False
        self._beat = deps.clock()
        self._watchdog: threading.Thread | None = None

    # --- Service --------------------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        """Join the group and start the watchdog thread. Lanes start when the group assigns partitions."""
        self._consumer = self._make_consumer()
        self._consumer.subscribe(topics=list(self._topics), listener=_Listener(self))
        await self._consumer.start()
        self._watchdog = threading.Thread(target=self._watchdog_loop, name="failsoft-watchdog", daemon=True)
        self._watchdog.start()

    @Service.task  # type: ignore[untyped-decorator]
    async def _watch(self) -> None:
        """Watch the lanes, and record that the event loop still runs, for the watchdog thread."""
        while not self.should_stop:
            self._check_consumer()
            now = self._deps.clock()
            self._beat = now
            for lane in list(self.lanes.values()):
                if lane.stage in (Stage.SCORING, Stage.COMMITTING) and now - lane.since > STUCK_AFTER:
                    self.fatal(Fatal(f"lane {lane.index} has been {lane.stage} for {now - lane.since:.0f} s"))
            await self.sleep(TICK)

    @Service.task  # type: ignore[untyped-decorator]
    async def _measure(self) -> None:
        """Ask the broker for the rungs' end offsets. A paused rung is not fetched, so no fetch reports them."""
        while not self.should_stop:
            ladder = [tp for lane in self.lanes.values() for tp in lane.ladder]
            if ladder and self._consumer is not None:
                try:
                    self.ends = await asyncio.wait_for(self._consumer.end_offsets(ladder), MEASURE_EVERY)
                except (KafkaError, TimeoutError) as e:
                    log.info("cannot measure the rungs now", why=str(e))  # the gauges keep their last values
            self._observe(self)
            await self.sleep(MEASURE_EVERY)

    def _check_consumer(self) -> None:
        """Poll the consumer for errors. aiokafka reports them only to a pending fetch, and an idle worker (one without
        lanes) fetches nothing: without this check it would never notice that its consumer failed.
        """
        if self._consumer is None or self._draining or self._failed:
            return
        try:
            if not still_fetches(self._consumer):
                raise Fatal("the consumer has stopped fetching")
        except Exception as e:  # noqa: BLE001
            self.fatal(e)

    async def drain(self) -> None:
        """Finish and commit the current batches, then stop the consumer. No further records are read."""
        if self._draining:
            return
        self._draining = True
        try:
            await self._close()
        except Exception as e:
            self.fatal(e)  # else a thread that never returns would keep the process from ending
            raise
        await self._stop_consumer(LEAVE)

    async def on_stop(self) -> None:
        """Drain, unless the app has done so."""
        await self.drain()

    # --- liveness and readiness, called from another thread -------------------------------------------------------

    def not_live(self) -> str | None:
        """Why the process should be restarted, or None. A broker, a breaker or lag is never a reason."""
        now = self._deps.clock()
        if self._consumer is not None and now - self._beat > STUCK_AFTER:
            return f"the event loop has made no progress for {now - self._beat:.0f} s"
        for lane in list(self.lanes.values()):
            if lane.stage is Stage.SCORING and now - lane.since > STUCK_AFTER:
                return f"lane {lane.index} has been scoring for {now - lane.since:.0f} s"
        return None

    def not_ready(self) -> str | None:
        """Why this worker is not ready, or None."""
        if self._draining:
            return "draining"
        if not self._joined:
            return "no partitions were assigned yet"
        opening = [lane.index for lane in list(self.lanes.values()) if lane.stage is Stage.OPENING]
        return f"lanes {opening} are opening" if opening else None

    # --- assignment -----------------------------------------------------------------------------------------------

    def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Start a lane for each partition index. It must not await: no heartbeat is sent until the listener returns.

        Raises Fatal if the group did not assign that partition of every topic.
        """
        assert self._consumer is not None
        if self._failed or self._draining:
            return  # the worker is about to leave: lanes opened now would be cut off, or idle until the session ends
        by_index: dict[int, list[TopicPartition]] = {}
        for tp in partitions:
            by_index.setdefault(tp.partition, []).append(tp)
            self._consumer.pause(tp)
        for index, tps in by_index.items():
            missing = set(self._topics) - {tp.topic for tp in tps}
            if missing:
                raise Fatal(f"lane {index} was assigned without partition {index} of {', '.join(sorted(missing))}")
            lane = Lane(index, tps, self._consumer, self._deps)
            self.lanes[index] = lane
            task = asyncio.get_running_loop().create_task(lane.run(), name=f"lane-{index}")
            task.add_done_callback(self._lane_ended)
            self._runs[index] = task
        self._joined = True
        log.info("lanes assigned", lanes=sorted(by_index))

    async def revoked(self) -> None:
        """Close every lane: it ends its transaction and stops its producer. The rebalance waits for that, at most 2 x
        DRAIN. Raises Fatal or TimeoutError if it takes longer.
        """
        if self.lanes:
            log.info("lanes revoked", lanes=sorted(self.lanes))
        await self._close()

    async def _close(self) -> None:
        """Close all lanes. A revocation during a drain waits for the drain: until then the partitions are ours."""
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
        """Report the first fatal error to the app, which leaves the group and exits. The supervisor restarts it."""
        if not self._failed:
            self._failed = True
            self._on_fatal(error)

    async def leave(self) -> None:
        """Stop the consumer, within a second. No batch is finished and nothing is committed."""
        await self._stop_consumer(1.0)

    async def _stop_consumer(self, within: float) -> None:
        """Stop the consumer in at most ``within`` seconds.

        Stopping does not call the rebalance listener: the caller has closed the lanes, or leaves them to the next
        owner. It runs in its own task: without a broker it ends as cancelled, which must not cancel the caller.
        """
        if self._consumer is None:
            return
        stopping = asyncio.ensure_future(self._consumer.stop())
        await asyncio.wait({stopping}, timeout=within)
        if not stopping.done():
            stopping.cancel()
        elif not stopping.cancelled() and (error := stopping.exception()) is not None:
            log.warning("the consumer did not stop cleanly", error=str(error))

    def _watchdog_loop(self) -> None:
        """The watchdog of the event loop. It runs on a thread, because a stuck event loop cannot watch itself."""
        while not self._draining:
            silent = self._deps.clock() - self._beat
            if silent > STUCK_AFTER:
                log.critical("the event loop is stuck", seconds=round(silent))
                os._exit(70)
            threading.Event().wait(TICK)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Passes assignments to the lanes. aiokafka only logs a listener's errors, so they are made fatal here."""

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
