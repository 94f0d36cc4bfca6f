"""A worker's data plane: its membership in the group, its fetcher, its committer and its lanes.

Assignment, revocation, draining and watchdogs. Unexpected errors are fatal.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from mode import Service

from failsoft.schemas.config.refusal import Refused
from failsoft.workers.kafka.chunk import Chunk
from failsoft.workers.kafka.clients import Clients
from failsoft.workers.kafka.fetcher import Fetcher
from failsoft.workers.kafka.list_offsets import list_offsets
from failsoft.workers.kafka.log_view import LogView
from failsoft.workers.kafka.membership import Membership
from failsoft.workers.kafka.topic_states import topic_states
from failsoft.workers.kafka.transactional_producer import TransactionalProducer
from failsoft.workers.lanes.committer import Committer
from failsoft.workers.lanes.deps import Deps
from failsoft.workers.lanes.inbox import Inbox
from failsoft.workers.lanes.inbox_bounds import FETCHED_BYTES, inbox_bound, ladder_bound
from failsoft.workers.lanes.keeper import Keeper
from failsoft.workers.lanes.lane import Lane
from failsoft.workers.lanes.lane_start import LaneStart
from failsoft.workers.lanes.openings import start_offsets
from failsoft.workers.lanes.rebalance_listener import RebalanceListener
from failsoft.workers.lanes.stage import Stage
from failsoft.workers.lanes.trouble import OF_THE_CLUSTER, LaneTrouble

log = structlog.get_logger("failsoft.lanes")

STOPPED_FOR = 120.0
"""Seconds after which a worker with a stopped lane is not live, unless the cluster is to mend it. Long enough for a
person's first look, and for a topic that is made anew."""

NO_LEADER_AFTER = 5.0
"""Seconds without a leader after which a lane counts as stopped. An election takes less than one."""

MEASURE_EVERY = 2.0
"""Seconds between two measurements of the lag, and the timeout of one. Gauges are scraped less often."""

ENOUGH_BYTES = FETCHED_BYTES // 2
"""Fetched bytes of live partitions with which the fetch slows down: more than half a second's work. With hundreds of
lanes the bounds alone would not hold, since each inbox may have a record batch that is larger than its bound."""

LOOK_EVERY = 0.02  # seconds between two sums of the bytes of all inboxes, which cost 0.1 ms with 200 lanes

LEAVE = 5.0
"""Seconds that the clients have to stop in a drain. The group may be in a longer rebalance, or try to reach a broker
that is gone. Cutting it off is safe: the lanes are closed by then, and a static member does not leave the group
anyway."""

TICK = 0.5
"""Seconds between two checks of each watchdog."""


class Fatal(RuntimeError):
    """This worker must end. The next owner of its lanes starts from the last commit."""


class Lanes(Service):  # type: ignore[misc]
    """Runs a lane for each partition index that the group assigns to this worker.

    Args:
        topics: every topic that the pipeline reads.
        outputs: every topic that the lanes write to.
        clients: creates the worker's Kafka clients.
        deps: what the lanes share.
        on_fatal: called once, with the error that must end the worker.
        observe: called every MEASURE_EVERY seconds, after ``ends`` was updated.
        on_trouble: called with a lane's index and its trouble when the lane stops, and with None when it is past it;
            and with its trouble before.
    """

    def __init__(
        self,
        topics: Sequence[str],
        outputs: Sequence[str],
        clients: Clients,
        deps: Deps,
        on_fatal: Callable[[BaseException], None],
        observe: Callable[[Lanes], None],
        on_trouble: Callable[[int, LaneTrouble | None, LaneTrouble | None], None],
    ) -> None:
        super().__init__()
        self._topics, self._outputs = topics, outputs
        self._clients = clients
        self._deps, self._stuck_after = deps, deps.timeouts.stuck_after
        self._on_fatal = on_fatal
        self._observe = observe
        self._on_trouble = on_trouble
        self._keepers: dict[int, Keeper] = {}
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._client_tasks: list[asyncio.Task[None]] = []
        self._one_close = asyncio.Lock()
        self._membership: Membership | None = None
        self._fetcher: Fetcher | None = None
        self._producer: TransactionalProducer | None = None
        self._committer: Committer | None = None
        self.ends: Mapping[TopicPartition, int] = {}
        self._joined = False
        self._draining = False
        self._failed = False
        self._beat = deps.clock()
        self._looked, self._is_full = deps.clock(), False
        self._watchdog: threading.Thread | None = None

    @property
    def lanes(self) -> Mapping[int, Lane]:
        """The lanes of this worker, by index; also those that are stopped."""
        return {index: keeper.lane for index, keeper in self._keepers.items()}

    @property
    def troubles(self) -> Mapping[int, LaneTrouble]:
        """Why lanes are stopped, by index."""
        return {index: keeper.trouble for index, keeper in self._keepers.items() if keeper.trouble}

    # --- Service --------------------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        """Start the producer, join the group and start the watchdog. Lanes start when the group assigns partitions.

        The producer comes first: starting it aborts what the former process of this worker's id left open, so that
        the offsets of that process are stable by the time that the lanes read them.
        """
        self._beat = self._deps.clock()
        self.add_future(self._beats())  # tasks begin after this method, and joining may take minutes
        self._producer = await self._clients.start_producer()
        await self._producer.load(self._outputs)
        known = list(dict.fromkeys([*self._topics, *self._outputs]))
        self._fetcher = await self._clients.start_fetcher(known, self._deliver, self._cannot_fetch, self._full)
        if self._draining:
            return
        d = self._deps
        self._committer = Committer(
            self._producer, d.exactly_once, d.latest, d.clock, d.reporter.transaction, d.timeouts.commit
        )
        self._membership = self._clients.membership()
        self._run("committer", self._committer.run())
        self._run("fetcher", self._fetcher.run())
        self._watchdog = threading.Thread(target=self._watchdog_loop, name="failsoft-watchdog", daemon=True)
        self._watchdog.start()
        try:
            await self._membership.join(self._topics, RebalanceListener(self.revoked, self.assigned, self.fatal))
        except Refused as e:
            self.fatal(e)  # before the tasks are cancelled, which is fatal too, with an exit code that restarts
            raise

    async def _beats(self) -> None:
        """Record that the event loop still runs, for the watchdog thread."""
        while not self.should_stop:
            self._beat = self._deps.clock()
            self._check_group()
            await self.sleep(TICK)

    @Service.task  # type: ignore[untyped-decorator]
    async def _watch(self) -> None:
        """Watch the lanes."""
        while not self.should_stop:
            now = self._deps.clock()
            gone = self._fetcher.without_leader(NO_LEADER_AFTER) if self._fetcher is not None else ()
            for index, keeper in self._keepers.items():
                keeper.look([tp for tp in gone if tp.partition == index])
            lanes = list(self.lanes.values())
            for lane in lanes:
                if lane.stage in (Stage.SCORING, Stage.COMMITTING) and now - lane.since > self._stuck_after:
                    self.fatal(Fatal(f"lane {lane.index} has been {lane.stage} for {now - lane.since:.0f} s"))
            if self._joined and all(lane.stage in (Stage.FETCHING, Stage.STOPPED) for lane in lanes):
                self._deps.reporter.idle()
            await self.sleep(TICK)

    @Service.task  # type: ignore[untyped-decorator]
    async def _measure(self) -> None:
        """Ask the broker for the end offsets: no fetch reports those of a paused partition. Those of a stopped lane, or
        of a partition without a leader, keep their last values: a question about them may have no answer."""
        while not self.should_stop:
            if self._fetcher is not None and (lanes := list(self.lanes.values())):
                gone = self._fetcher.without_leader(0.0)
                asked = [
                    tp for lane in lanes if lane.stage is not Stage.STOPPED for tp in lane.committed if tp not in gone
                ]
                before = {tp: self.ends[tp] for lane in lanes for tp in lane.committed if tp in self.ends}
                try:
                    found = await asyncio.wait_for(list_offsets(self._fetcher.client, asked, "latest"), MEASURE_EVERY)
                    self.ends = before | found
                except (KafkaError, TimeoutError) as e:
                    log.info("cannot measure the lag now", why=str(e))  # the gauges keep their last values
            self._observe(self)
            await self.sleep(MEASURE_EVERY)

    def _check_group(self) -> None:
        """Poll the group for errors: without this check a worker would never notice that its group refused it."""
        if self._membership is None or self._draining or self._failed:
            return
        try:
            self._membership.check()
        except Exception as e:  # noqa: BLE001
            self.fatal(e)

    async def drain(self) -> None:
        """Finish and commit the current batches, then stop the Kafka clients. No further records are read."""
        if self._draining:
            return
        self._draining = True
        try:
            await self._close()
        except Exception as e:
            self.fatal(e)  # else a thread that never returns would keep the process from ending
            raise
        await self._stop_clients(LEAVE)

    async def on_stop(self) -> None:
        """Drain, unless the app has done so."""
        await self.drain()

    # --- liveness and readiness, called from another thread -------------------------------------------------------

    def not_live(self) -> str | None:
        """Why the process should be restarted, or None. A broker, a breaker or lag is never a reason."""
        now = self._deps.clock()
        if self._membership is not None and now - self._beat > self._stuck_after:
            return f"the event loop has made no progress for {now - self._beat:.0f} s"
        for lane in list(self.lanes.values()):
            if lane.stage is Stage.SCORING and now - lane.since > self._stuck_after:
                return f"lane {lane.index} has been scoring for {now - lane.since:.0f} s"
        for index, keeper in list(self._keepers.items()):
            trouble = keeper.trouble
            if trouble and trouble.cause not in OF_THE_CLUSTER and now - keeper.since > STOPPED_FOR:
                return f"lane {index} has been stopped for {now - keeper.since:.0f} s: {trouble}"
        return None

    def not_ready(self) -> str | None:
        """Why this worker is not ready, or None."""
        if self._draining:
            return "draining"
        if not self._joined:
            return "no partitions were assigned yet"
        keepers = list(self._keepers.items())
        opening = [i for i, each in keepers if each.trouble is None and each.lane.stage is Stage.OPENING]
        return f"lanes {opening} are opening" if opening else None

    # --- assignment -----------------------------------------------------------------------------------------------

    def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Start a lane for each partition index. It must not await: no heartbeat is sent until the listener returns.
        A lane may lack topics: those with fewer partitions, and those that a member of another topology reads.
        """
        assert self._membership is not None and self._committer is not None and self._fetcher is not None
        if self._failed or self._draining:
            return  # the worker is about to leave: lanes opened now would be cut off, or idle until the session ends
        by_index: dict[int, list[TopicPartition]] = {}
        for tp in partitions:
            by_index.setdefault(tp.partition, []).append(tp)
        self._committer.member = self._membership.member()
        logs, plan = LogView(self._fetcher.client), self._deps.plan
        states, own = partial(topic_states, self._fetcher.client), {*self._outputs, plan.replay}
        start = LaneStart(states, partial(logs.committed, self._clients.group), own, self._identify)
        start.offsets = start_offsets(logs, start.committed, start.ids, self._deps, self._committer.positions)
        ladder = {*plan.rungs, plan.replay}
        bound = inbox_bound(len(by_index), len(set(self._topics) - ladder), len(ladder))
        for index, tps in by_index.items():
            bounds = {tp: ladder_bound(bound) if tp.topic in ladder else bound for tp in tps}
            make = partial(self._lane, index, tps, bounds, start)
            keeper = self._keepers[index] = Keeper(make, partial(self._on_trouble, index), self._deps.clock)
            task = asyncio.get_running_loop().create_task(keeper.run(), name=f"lane-{index}")
            task.add_done_callback(self._lane_ended)
            self._runs[index] = task
        self._joined = True
        log.info("lanes assigned", lanes=sorted(by_index))

    def _lane(
        self, index: int, tps: list[TopicPartition], bounds: Mapping[TopicPartition, int], start: LaneStart
    ) -> Lane:
        assert self._committer is not None and self._fetcher is not None
        inbox = Inbox(self._fetcher, bounds, self._deps.clock)
        return Lane(index, tps, inbox, self._committer, partial(start.begin, index), self._deps)

    async def revoked(self) -> None:
        """Close every lane: its last batch is committed, while the old generation is still valid. The rebalance waits
        for that, at most ``drain`` of the timeouts. Raises Fatal if it takes longer.
        """
        if self._keepers:
            log.info("lanes revoked", lanes=sorted(self._keepers))
        self._joined = False  # until the next assignment
        await self._close()

    async def _close(self) -> None:
        """Close all lanes. A revocation during a drain waits for the drain: until then the partitions are ours."""
        async with self._one_close:
            keepers, tasks = list(self._keepers.values()), list(self._runs.values())
            self._keepers.clear()
            self._runs.clear()
            if not keepers:
                return
            for keeper in keepers:
                keeper.close()
            drain = self._deps.timeouts.drain
            _, pending = await asyncio.wait(tasks, timeout=drain)
            if pending:
                raise Fatal(f"{len(pending)} lanes did not commit their last batches in {drain:.0f} s")
            if self._committer is not None:
                self._committer.member = None

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run the committer or the fetcher until the clients are stopped."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(self._client_ended)
        self._client_tasks.append(task)

    def _client_ended(self, task: asyncio.Task[None]) -> None:
        self._lane_ended(task)
        if not self._draining and not self._failed:
            self.fatal(Fatal(f"the {task.get_name()} has ended"))

    def _lane_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not self._draining:
                self.fatal(Fatal(f"{task.get_name()} was cancelled"))
        elif (error := task.exception()) is not None:
            self.fatal(error)

    def _deliver(self, chunk: Chunk) -> None:
        """Hand a fetched chunk to its lane."""
        if keeper := self._keepers.get(chunk.tp.partition):
            keeper.lane.inbox.offer(chunk)

    def _full(self) -> bool:
        """Whether enough is fetched. Records of the ladder do not count: they may wait for their time for long."""
        now = self._deps.clock()
        if now - self._looked >= LOOK_EVERY:
            self._looked = now
            self._is_full = sum(keeper.lane.live_bytes for keeper in self._keepers.values()) >= ENOUGH_BYTES
        return self._is_full

    def _cannot_fetch(self, tp: TopicPartition, error: Exception) -> None:
        """Let the lane of ``tp`` stop with ``error``."""
        if keeper := self._keepers.get(tp.partition):
            keeper.lane.inbox.fail(error)

    def _identify(self, ids: Mapping[TopicPartition, str]) -> None:
        assert self._fetcher is not None and self._committer is not None
        self._committer.topic_ids.update(ids)
        self._fetcher.identify({tp.topic: found for tp, found in ids.items()})

    # --- the end --------------------------------------------------------------------------------------------------

    def fatal(self, error: BaseException) -> None:
        """Report the first fatal error to the app, which leaves the group and exits. The supervisor restarts it."""
        if not self._failed:
            self._failed = True
            self._on_fatal(error)

    async def leave(self) -> None:
        """Stop the clients, within a second. No batch is finished and nothing is committed."""
        await self._stop_clients(1.0)

    async def _stop_clients(self, within: float) -> None:
        """Stop fetching, committing and the group membership in at most ``within`` seconds.

        Stopping does not call the rebalance listener: the caller has closed the lanes, or leaves them to the next
        owner. Each stop runs in its own task: without a broker it may end as cancelled, which must not cancel the
        caller.
        """
        for task in self._client_tasks:
            task.cancel()
        clients: list[Any] = [c for c in (self._fetcher, self._producer, self._membership) if c is not None]
        if not clients:
            return
        stopping = [asyncio.ensure_future(client.stop()) for client in clients]
        await asyncio.wait(stopping, timeout=within)
        for stop in stopping:
            if not stop.done():
                stop.cancel()
            elif not stop.cancelled() and (error := stop.exception()) is not None:
                log.warning("a Kafka client did not stop cleanly", error=str(error))

    def _watchdog_loop(self) -> None:
        """The watchdog of the event loop. It runs on a thread, because a stuck event loop cannot watch itself."""
        while not self._draining:
            silent = self._deps.clock() - self._beat
            if silent > self._stuck_after:
                log.critical("the event loop is stuck", seconds=round(silent))
                os._exit(70)
            threading.Event().wait(TICK)
