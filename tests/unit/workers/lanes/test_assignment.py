"""Lanes and their group when a drain, a rebalance and a failing client coincide; and the exit of a failing worker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from failsoft.topics.names import Names
from failsoft.workers.client_timeouts import ClientTimeouts
from failsoft.workers.kafka.member import GroupMember
from failsoft.workers.lanes import assignment as module
from failsoft.workers.lanes.assignment import ENOUGH_BYTES, LOOK_EVERY, STOPPED_FOR, Fatal, Lanes
from failsoft.workers.lanes.committer import Committer
from failsoft.workers.lanes.deps import Deps
from failsoft.workers.lanes.inbox_bounds import BOUND_BYTES, FETCHED_BYTES, inbox_bound, ladder_bound
from failsoft.workers.lanes.rebalance_listener import RebalanceListener
from failsoft.workers.lanes.trouble import Cause, LaneTrouble
from failsoft.workers.process import composition, serve
from failsoft.workers.process.composition import Options
from tests.kafka import eventually

ROOT = Path(__file__).resolve().parents[4]
TOPICS = ("in", "retry")
ASSIGNED = [TopicPartition(t, 0) for t in TOPICS]


class Client:
    """A Kafka client of the worker: its membership, its fetcher or its producer. ``error`` is the group's error."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.client = None
        self.stopped = False

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def member(self) -> GroupMember:
        return GroupMember("loans", 3, "m", "w")

    async def stop(self) -> None:
        self.stopped = True


class SlowLane:
    """A lane whose batch ends when ``done`` is set."""

    def __init__(self, index: int, *_: Any) -> None:
        self.index = index
        self.done = asyncio.Event()
        self.closed = False

    async def run(self) -> None:
        await self.done.wait()

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fatal() -> list[BaseException]:
    return []


@pytest.fixture
async def lanes(monkeypatch: pytest.MonkeyPatch, fatal: list[BaseException]) -> Lanes:
    monkeypatch.setattr(module, "Lane", SlowLane)
    plan = SimpleNamespace(rungs={"retry": 5.0}, replay="replay")
    deps = cast(
        Deps,
        SimpleNamespace(
            clock=lambda: 0.0, plan=plan, names=Names("loans"), exactly_once=True, timeouts=ClientTimeouts()
        ),
    )
    clients = cast(Any, SimpleNamespace(group="loans"))
    found = Lanes(TOPICS, ["scored"], clients, deps, fatal.append, lambda _: None, lambda *_: None)
    found._membership, found._fetcher, found._producer = (cast(Any, Client()) for _ in range(3))
    found._committer = Committer(cast(Any, found._producer), True, lambda: 0.0, lambda: 0.0, lambda _: None)
    return found


async def test_a_rebalance_in_a_drain_waits_for_its_lanes_and_starts_none(
    lanes: Lanes, fatal: list[BaseException]
) -> None:
    """A revocation during a drain waits until the last batches are committed, and no lane starts after it: it would be
    cut off with an error.
    """
    lanes.assigned(ASSIGNED)
    lane = cast(Any, lanes.lanes[0])
    draining = asyncio.create_task(lanes.drain())
    await eventually(lambda: lane.closed, 10, "the lane to be closed")
    revoking = asyncio.create_task(
        RebalanceListener(lanes.revoked, lanes.assigned, lanes.fatal).on_partitions_revoked(ASSIGNED)
    )
    done, _ = await asyncio.wait([revoking], timeout=0.05)
    assert not done
    lane.done.set()
    await asyncio.wait_for(asyncio.gather(draining, revoking), 10)
    lanes.assigned(ASSIGNED)
    assert not lanes.lanes and not fatal


async def test_a_drain_that_does_not_end_is_fatal(lanes: Lanes, fatal: list[BaseException]) -> None:
    """A drain that takes longer than its time is fatal: a model that hangs holds a thread, which would keep the process
    alive.
    """
    cast(Any, lanes._deps).timeouts = SimpleNamespace(drain=0.01)
    lanes.assigned(ASSIGNED)
    with pytest.raises(Fatal, match="1 lanes did not commit"):
        await lanes.drain()
    assert [type(e) for e in fatal] == [Fatal]


async def test_a_drain_does_not_wait_for_an_unreachable_group(lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain cuts the group off after LEAVE: the lanes are closed, so nothing is lost. The other clients stop."""
    monkeypatch.setattr(module, "LEAVE", 0.01)

    asked: list[str] = []

    async def never() -> None:
        asked.append("stop")
        await asyncio.sleep(3600)

    lanes._membership.stop = never
    await asyncio.wait_for(lanes.drain(), 10)
    assert asked == ["stop"] and lanes._fetcher.stopped and lanes._producer.stopped
    assert lanes.not_ready() == "draining"


async def test_a_client_that_ends_as_cancelled_does_not_cancel_the_drain(lanes: Lanes) -> None:
    """Without a broker aiokafka's ``stop`` ends as cancelled. That must not end a drain on SIGTERM with the exit code
    of Ctrl-C.
    """

    async def cancelled() -> None:
        raise asyncio.CancelledError

    lanes._membership.stop = cancelled
    await lanes.drain()
    assert lanes.not_ready() == "draining"


async def test_a_worker_without_lanes_notices_that_its_group_refused_it(
    lanes: Lanes, fatal: list[BaseException]
) -> None:
    """aiokafka reports the error only to a pending fetch of its consumer, so a worker must poll."""
    lanes._check_group()
    assert not fatal
    lanes._membership.error = KafkaError("FencedInstanceId")
    lanes._check_group()
    assert [str(e) for e in fatal] == ["KafkaError: FencedInstanceId"]


@pytest.mark.parametrize("error", [None, KafkaError("ILLEGAL_GENERATION")])
async def test_a_committer_or_fetcher_that_has_ended_is_fatal(
    lanes: Lanes, fatal: list[BaseException], error: Exception | None
) -> None:
    """Otherwise its lanes would never get or commit records again, and the worker would look healthy."""

    async def work() -> None:
        if error is not None:
            raise error

    lanes._run("committer", work())
    await eventually(lambda: fatal, 10, "the fatal error")
    assert str(error) in str(fatal[0]) if error else "committer has ended" in str(fatal[0])


async def test_lanes_commit_in_the_generation_of_their_assignment(lanes: Lanes) -> None:
    """It is noted when the partitions are assigned, and gone when they are revoked."""
    lanes.assigned(ASSIGNED)
    assert lanes._committer is not None and lanes._committer.member == GroupMember("loans", 3, "m", "w")
    cast(Any, lanes.lanes[0]).done.set()
    await lanes.revoked()
    assert lanes._committer.member is None


@pytest.mark.parametrize(
    ("lanes_assigned", "live", "ladder", "expected"),
    [
        (1, 1, 4, BOUND_BYTES[1]),
        (64, 1, 4, int(FETCHED_BYTES / 64 / 2.25)),
        (64, 2, 1, int(FETCHED_BYTES / 64 / (1.5 * 2.125))),
        (10_000, 1, 4, BOUND_BYTES[0]),
    ],
)
def test_the_bytes_of_all_inboxes_are_bounded(lanes_assigned: int, live: int, ladder: int, expected: int) -> None:
    """Many lanes have small inboxes, a few have large ones."""
    bound = inbox_bound(lanes_assigned, live, ladder)
    assert bound == expected
    most = lanes_assigned * 1.5 * (bound * live + ladder_bound(bound) * ladder)
    assert ladder_bound(bound) == BOUND_BYTES[0] or most <= FETCHED_BYTES


async def test_the_fetch_slows_down_while_all_lanes_together_have_enough(lanes: Lanes) -> None:
    """The bytes of all lanes count, whatever each has. They are added up anew only after LOOK_EVERY."""
    clock = SimpleNamespace(now=0.0)
    lanes._deps = cast(Deps, SimpleNamespace(clock=lambda: clock.now))
    held = [SimpleNamespace(live_bytes=ENOUGH_BYTES // 2) for _ in range(2)]
    lanes._keepers = cast(Any, {i: SimpleNamespace(lane=lane) for i, lane in enumerate(held)})
    assert not lanes._full()
    clock.now += LOOK_EVERY
    assert lanes._full()
    held[1].live_bytes -= 1
    assert lanes._full()
    clock.now += LOOK_EVERY
    assert not lanes._full()


async def test_a_long_join_is_not_a_stuck_event_loop(lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog's clock runs from the first moment, while the worker joins its group: that may take minutes."""
    now = [0.0]
    joining = asyncio.Event()

    class Joining(Client):
        async def join(self, *_: Any) -> None:
            joining.set()
            await asyncio.sleep(3600)

        async def load(self, *_: Any) -> None: ...

        async def run(self) -> None:
            await asyncio.sleep(3600)

    async def client(*_: Any) -> Any:
        return Joining()

    monkeypatch.setattr(module, "TICK", 0.001)
    monkeypatch.setattr(lanes, "_watchdog_loop", lambda: None)  # it would end this process while the clock jumps
    reporter = SimpleNamespace(transaction=None)
    deps = {"exactly_once": True, "latest": lambda: 0.0, "reporter": reporter, "clock": lambda: now[0]}
    lanes._deps = cast(Any, SimpleNamespace(**vars(lanes._deps) | deps))
    lanes._clients = cast(Any, SimpleNamespace(start_producer=client, membership=Joining, start_fetcher=client))
    starting = asyncio.create_task(lanes.on_start())
    await joining.wait()
    now[0] = 10 * ClientTimeouts().stuck_after
    await eventually(lambda: lanes._beat == now[0], 10, "a beat")
    assert lanes.not_live() is None
    starting.cancel()
    lanes._draining = True
    await lanes._stop_clients(1.0)


async def test_a_stopped_lane_makes_the_worker_not_live_after_a_while(lanes: Lanes) -> None:
    """A person, or a supervisor, must look then. Nobody but the cluster can mend a partition without a leader."""
    now = [0.0]
    lanes._deps = cast(Any, SimpleNamespace(clock=lambda: now[0]))
    where = TopicPartition("in", 0)
    keepers = [
        SimpleNamespace(trouble=LaneTrouble(cause, where, 7, "a batch cannot be read", "skip it"), since=0.0)
        for cause in (Cause.NO_LEADER, Cause.UNREADABLE)
    ]
    for keeper in keepers:
        keeper.lane = SimpleNamespace(stage="stopped", since=0.0)
    lanes._keepers = cast(Any, {0: keepers[0]})
    now[0] = lanes._beat = 10 * STOPPED_FOR
    assert lanes.not_live() is None
    lanes._keepers = cast(Any, dict(enumerate(keepers)))
    assert lanes.troubles == {0: keepers[0].trouble, 1: keepers[1].trouble}
    assert "in-0 at offset 7: a batch cannot be read; skip it" in str(lanes.not_live())
    now[0] = STOPPED_FOR
    assert lanes.not_live() is None


async def test_a_lane_that_was_cancelled_is_fatal(lanes: Lanes, fatal: list[BaseException]) -> None:
    """The worker never cancels a lane, so a cancelled one means that its partitions are no longer read."""
    lanes.assigned(ASSIGNED)
    lanes._runs[0].cancel()
    await eventually(lambda: fatal, 10, "the fatal error")
    assert "lane-0 was cancelled" in str(fatal[0])


def test_a_failing_worker_exits_although_leaving_the_group_hangs() -> None:
    """It exits with code 1 even if stopping the consumer never returns."""
    program = """
import asyncio
from failsoft.workers.process import ending
ending.HARD_END = 0.1
async def leave():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
async def mend(error):
    return None
async def main():
    dying = ending.die(leave, RuntimeError("it broke"), mend)
    await asyncio.sleep(3600)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == 1 and b"it broke" in done.stdout + done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_a_worker_that_is_joining_its_group_can_be_ended(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    """SIGTERM and Ctrl-C drain the worker while it joins: joining takes as long as a rebalance, or as Kafka is
    unreachable.
    """
    began = asyncio.Event()
    drained = []

    async def verify(*_: Any) -> None: ...

    async def active(_: Any) -> dict[str, int]:
        return {}

    async def measured_clock(*_: Any) -> None: ...

    async def required(_: Any) -> None: ...

    async def start() -> None:
        began.set()
        await asyncio.sleep(3600)

    async def drain() -> None:
        drained.append(True)

    fake = SimpleNamespace(start=start, lanes=SimpleNamespace(drain=drain))
    monkeypatch.setattr(serve.permission, "verified", verify)
    monkeypatch.setattr(serve.rollouts, "active", active)
    monkeypatch.setattr(serve.answer_schema, "required", required)
    monkeypatch.setattr(composition, "build", lambda *_: fake)
    monkeypatch.setattr(composition, "measured_clock", measured_clock)
    monkeypatch.setattr(serve.gc, "freeze", lambda: None)
    monkeypatch.setattr(serve.gc, "set_threshold", lambda *_: None)
    pipeline = cast(Any, SimpleNamespace(connection=dict))
    serving = asyncio.create_task(serve.serve(pipeline, Options("w")))
    await began.wait()
    os.kill(os.getpid(), number)
    try:
        assert await asyncio.wait_for(serving, 10) == code
    finally:
        for handled in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(handled)
    assert drained
