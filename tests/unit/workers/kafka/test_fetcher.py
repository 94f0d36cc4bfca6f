"""A fetcher asks for what is read, delivers a chunk and pauses, and goes on with the others when one fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaError,
    OffsetOutOfRangeError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from failsoft.workers.kafka import fetcher as module
from failsoft.workers.kafka.chunk import Chunk
from failsoft.workers.kafka.fetch_protocol import PartitionAnswer
from failsoft.workers.kafka.fetch_session import FetchContent
from failsoft.workers.kafka.fetcher import CONNECTION, Fetcher
from tests.kafka import eventually
from tests.record_batches import batch, marker
from tests.unit.workers.kafka.fake_client import WITHIN, FakeClient, FakeCluster, Sent

A, B, C = TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("u", 0)

NOT_LEADER, OUT_OF_RANGE, UNKNOWN, UNAUTHORIZED = 6, 1, 3, 29


def part(
    tp: TopicPartition, raw: bytes = b"", *, error: int = 0, high: int = 9, preferred: int = -1
) -> PartitionAnswer:
    return PartitionAnswer(tp.topic, tp.partition, error, high, high - 1, [], preferred, raw)


@dataclass
class Desk:
    """A fetcher on a fake client, and what it delivered and gave up."""

    client: FakeClient
    chunks: list[Chunk] = field(default_factory=list)
    failures: list[tuple[TopicPartition, Exception]] = field(default_factory=list)
    fetcher: Fetcher = field(init=False)

    def __post_init__(self) -> None:
        self.fetcher = Fetcher(
            self.client, self.chunks.append, lambda *failure: self.failures.append(failure), retry_after=0.001
        )

    async def next(self) -> Sent:
        return await self.client.next()

    async def silence(self) -> None:
        """Returns when the fetcher has had every chance to send a request, and has sent none."""
        for _ in range(20):
            await asyncio.sleep(0)
        assert self.client.requests.empty()


@asynccontextmanager
async def running(leaders: dict[TopicPartition, int] | None = None) -> AsyncIterator[Desk]:
    """A running fetcher; node 1 leads A, B and C."""
    desk = Desk(FakeClient(FakeCluster({A: 1, B: 1, C: 1} if leaders is None else leaders)))
    run = asyncio.create_task(desk.fetcher.run())
    try:
        yield desk
    finally:
        await asyncio.wait_for(desk.fetcher.stop(), WITHIN)
        await asyncio.wait_for(run, WITHIN)
        assert not desk.client.cluster.listeners


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_what_is_read_is_fetched_and_delivered() -> None:
    """The first request has all partitions; the chunk has the records, and the marks are known after the answer."""
    async with running() as desk:
        desk.fetcher.partition_bytes = 77
        desk.fetcher.read(A, 0)
        desk.fetcher.read(C, 5)
        assert desk.fetcher.highwater(A) is desk.fetcher.stable(A) is None
        first = await desk.next()
        assert first.node == 1 and first.content.partitions == [(A, 0, 77), (C, 5, 77)]
        assert (first.call.max_wait_ms, first.call.max_bytes) == (50, module.ANSWER_BYTES)
        first.answer(part(A, batch(0, range(3))), part(C))
        second = await desk.next()
        (chunk,) = desk.chunks
        assert (chunk.tp, [r.offset for r in chunk.take()], chunk.end) == (A, [0, 1, 2], 3)
        assert (desk.fetcher.highwater(A), desk.fetcher.stable(A), desk.fetcher.highwater(C)) == (9, 8, 9)
        assert second.content.epoch == 1 and second.content.forgotten == [A]
        assert desk.client.groups == {CONNECTION}


async def test_a_delivered_partition_waits_for_resume() -> None:
    """It is not fetched meanwhile, and goes on at the chunk's end, which may be behind a marker."""
    async with running() as desk:
        desk.fetcher.read(A, 0)
        (await desk.next()).answer(
            part(A, batch(0, [0, 1], producer=7, transactional=True) + marker(2, 7, commit=True))
        )
        await eventually(lambda: desk.chunks, WITHIN, "a chunk")
        await desk.silence()
        desk.fetcher.resume(A)
        assert (await desk.next()).asked == {A: 3}


async def test_a_partition_may_be_resumed_while_its_chunk_is_delivered() -> None:
    """Then the very next request has it, and no request forgets it."""
    async with running() as desk:
        fetcher = Fetcher(desk.client, lambda chunk: fetcher.resume(chunk.tp), pytest.fail)
        run = asyncio.create_task(fetcher.run())
        fetcher.read(A, 0)
        (await desk.next()).answer(part(A, batch(0, range(3))))
        following = await desk.next()
        assert (following.asked, following.content.forgotten) == ({A: 3}, [])
        await fetcher.stop()
        await run


async def test_a_task_that_a_chunk_wakes_may_still_resume_it() -> None:
    """The next request is sent after the tasks that were woken have run."""
    async with running() as desk:
        arrived = asyncio.Event()
        fetcher = Fetcher(desk.client, lambda chunk: arrived.set(), pytest.fail)

        async def lane() -> None:
            await arrived.wait()
            fetcher.resume(A)

        lane_task, run = asyncio.create_task(lane()), asyncio.create_task(fetcher.run())
        fetcher.read(A, 0)
        fetcher.read(B, 0)
        (await desk.next()).answer(part(A, batch(0, range(3))))
        assert (await desk.next()).asked == {A: 3}
        await lane_task
        await fetcher.stop()
        await run


async def test_an_answer_without_records_delivers_nothing() -> None:
    """It asks again at the same place, and says nothing, as nothing has changed."""
    async with running() as desk:
        desk.fetcher.read(A, 4)
        (await desk.next()).answer(part(A))
        again = await desk.next()
        assert (again.content.partitions, again.content.forgotten, desk.chunks) == ([], [], [])


async def test_each_broker_has_a_session_of_its_own() -> None:
    """A broker that does not answer holds up no other."""
    async with running({A: 1, B: 2}) as desk:
        desk.fetcher.read(A, 0)
        desk.fetcher.read(B, 0)
        both = [await desk.next(), await desk.next()]
        slow, quick = sorted(both, key=lambda sent: sent.node)
        assert (slow.asked, quick.asked) == ({A: 0}, {B: 0})
        quick.answer(part(B, batch(0, [0])))
        await eventually(lambda: desk.chunks, WITHIN, "the other broker's chunk")
        desk.fetcher.resume(B)
        assert (await desk.next()).node == 2


async def test_what_is_read_before_run_is_fetched() -> None:
    """The order of ``read`` and ``run`` does not matter."""
    desk = Desk(FakeClient(FakeCluster({A: 1})))
    desk.fetcher.read(A, 3)
    run = asyncio.create_task(desk.fetcher.run())
    assert (await desk.next()).asked == {A: 3}
    await desk.fetcher.stop()
    await run


# --- changes while a request is in flight -----------------------------------------------------------------------------


async def test_a_read_elsewhere_drops_what_is_in_flight() -> None:
    """The records in flight are not those that were asked for last. No error of theirs counts either."""
    async with running() as desk:
        for error in (0, OUT_OF_RANGE, UNAUTHORIZED):
            desk.fetcher.read(A, 0)
            sent = await desk.next()
            desk.fetcher.read(A, 7)
            sent.answer(part(A, b"" if error else batch(0, range(3)), error=error))
            following = await desk.next()
            assert following.asked == {A: 7} and not desk.chunks and not desk.failures
            following.answer(part(A))


async def test_pause_drops_what_is_in_flight_and_keeps_the_position() -> None:
    """After resume the same records are fetched again."""
    async with running() as desk:
        desk.fetcher.read(A, 2)
        desk.fetcher.read(B, 0)
        sent = await desk.next()
        desk.fetcher.pause(A)
        sent.answer(part(A, batch(2, [2])))
        following = await desk.next()
        assert following.content.forgotten == [A] and not desk.chunks
        desk.fetcher.resume(A)
        following.answer()
        assert (await desk.next()).asked == {A: 2}


async def test_what_is_forgotten_is_dropped_and_not_fetched() -> None:
    """Also when it was paused, and its marks are forgotten; unknown partitions are ignored."""
    async with running() as desk:
        desk.fetcher.read(A, 0)
        desk.fetcher.read(B, 0)
        sent = await desk.next()
        desk.fetcher.forget([A, C])
        sent.answer(part(A, batch(0, [0])), part(B))
        assert (await desk.next()).content.forgotten == [A]
        assert not desk.chunks and desk.fetcher.highwater(A) is None
        for tp in (A, C):
            desk.fetcher.resume(tp)
            desk.fetcher.pause(tp)
        assert desk.fetcher.highwater(B) == 9


async def test_the_marks_are_known_as_far_as_the_session_has_told_them() -> None:
    """A session repeats a mark only when it changes. So a mark counts too that came for a partition which was paused,
    or forgotten and read again before the next request; but not one from before the partition left the session.
    """
    async with running() as desk:
        desk.fetcher.read(A, 0)
        desk.fetcher.read(B, 0)
        sent = await desk.next()
        desk.fetcher.pause(A)
        desk.fetcher.forget([B])
        desk.fetcher.read(B, 0)
        sent.answer(part(A, high=5), part(B, high=6))
        sent = await desk.next()
        assert (desk.fetcher.highwater(A), desk.fetcher.stable(B)) == (5, 5)
        desk.fetcher.forget([A])
        assert sent.content.forgotten == [A] and desk.fetcher.highwater(A) is None
        desk.fetcher.read(A, 0)
        assert desk.fetcher.highwater(A) is desk.fetcher.stable(A) is None


async def test_no_request_is_sent_while_nothing_is_wanted() -> None:
    """All are paused: the fetcher sleeps until one is resumed."""
    async with running() as desk:
        desk.fetcher.read(A, 0)
        sent = await desk.next()
        desk.fetcher.pause(A)
        sent.answer()
        await desk.silence()
        desk.fetcher.resume(A)
        assert (await desk.next()).content == FetchContent(1, 1, [], [])


# --- errors of a partition --------------------------------------------------------------------------------------------


async def test_a_partition_follows_its_leader() -> None:
    """After NOT_LEADER the metadata is read again, and the new leader is asked. The other partition stays."""
    async with running() as desk:
        desk.fetcher.read(A, 4)
        desk.fetcher.read(B, 0)
        sent = await desk.next()
        desk.client.next_leaders = {A: 2, B: 1}
        sent.answer(part(A, error=NOT_LEADER, high=-1), part(B))
        found = {n.node: n for n in (await desk.next(), await desk.next())}
        assert found[2].asked == {A: 4} and found[1].content.forgotten == [A]
        assert not desk.failures and desk.fetcher.highwater(A) is None


async def test_a_partition_follows_new_metadata_without_an_error() -> None:
    """A follower answers fetches too, so a former leader need not refuse."""
    async with running() as desk:
        desk.fetcher.read(A, 4)
        await desk.next()
        desk.client.next_leaders = {A: 2}
        desk.client.force_metadata_update()
        moved = await desk.next()
        assert (moved.node, moved.asked) == (2, {A: 4})


async def test_metadata_that_lacks_a_topic_moves_nothing() -> None:
    """The client may have asked for other topics only. The topic is added, and its partition stays where it is."""
    async with running() as desk:
        desk.fetcher.read(A, 4)
        sent = await desk.next()
        desk.client.next_leaders = {C: 1}
        assert await desk.client.force_metadata_update()
        assert desk.client.topics == {"t"}
        sent.answer(part(A, batch(4, [4])))
        await eventually(lambda: desk.chunks, WITHIN, "a chunk")


@pytest.mark.parametrize("leader", [None, -1])
async def test_a_partition_without_a_leader_waits_for_one(leader: int | None) -> None:
    """The topic is added to the metadata, which is read until a leader is known. Others are fetched meanwhile."""
    async with running({B: 1} if leader is None else {A: leader, B: 1}) as desk:
        desk.fetcher.read(A, 0)
        desk.fetcher.read(B, 0)
        assert (await desk.next()).asked == {B: 0}
        await eventually(lambda: desk.client.updates >= 3, WITHIN, "three updates of the metadata")
        assert desk.client.topics == (set() if leader else {"t"})
        desk.client.next_leaders = {A: 2, B: 1}
        assert (await desk.next()).node == 2


async def test_a_retried_partition_is_not_hurried() -> None:
    """The error may come again and again: each time the metadata is read first."""
    async with running() as desk:
        desk.fetcher.read(A, 0)
        for _ in range(5):
            before = desk.client.updates
            (await desk.next()).answer(part(A, error=56))
            await eventually(lambda b=before: desk.client.updates > b, WITHIN, "an update")  # type: ignore[misc]
        (await desk.next()).answer(part(A, batch(0, [0])))
        await eventually(lambda: desk.chunks, WITHIN, "a chunk")
        assert not desk.failures


@pytest.mark.parametrize(
    ("code", "kind"), [(UNAUTHORIZED, TopicAuthorizationFailedError), (2, KafkaError), (76, KafkaError)]
)
async def test_a_final_error_is_told_once(code: int, kind: type[Exception]) -> None:
    """The partition is not fetched until it is read again, not even after resume. The others go on."""
    async with running() as desk:
        desk.fetcher.read(A, 4)
        desk.fetcher.read(B, 0)
        (await desk.next()).answer(part(A, error=code), part(B))
        following = await desk.next()
        ((tp, error),) = desk.failures
        assert tp == A and isinstance(error, kind) and str(code) in str(error)
        assert following.content.forgotten == [A]
        desk.fetcher.resume(A)
        following.answer(part(B))
        after = await desk.next()
        assert after.content.partitions == []
        desk.fetcher.read(A, 6)
        after.answer(part(B))
        assert (await desk.next()).asked == {A: 6}


async def test_an_offset_out_of_range_is_told_when_the_leader_repeats_it() -> None:
    """The first answer may come from a former leader, which lacks the newest offsets."""
    async with running() as desk:
        desk.fetcher.read(A, 40)
        desk.client.next_leaders = {A: 2}
        (await desk.next()).answer(part(A, error=OUT_OF_RANGE))
        asked = await desk.next()
        assert asked.node == 2 and not desk.failures
        asked.answer(part(A, error=OUT_OF_RANGE))
        await eventually(lambda: desk.failures, WITHIN, "the failure")
        assert desk.failures[0][0] == A and desk.failures[0][1].args == ({A: 40},)
        assert isinstance(desk.failures[0][1], OffsetOutOfRangeError)


async def test_a_partition_that_stays_unknown_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the broker says so or the metadata: after many tries in a row the topic is taken for deleted."""
    monkeypatch.setattr(module, "UNKNOWN_TRIES", 4)
    async with running() as desk:
        desk.fetcher.read(A, 0)
        for _ in range(4):
            (await desk.next()).answer(part(A, error=UNKNOWN))
        await eventually(lambda: desk.failures, WITHIN, "the failure")
        desk.fetcher.read(TopicPartition("none", 0), 0)
        await eventually(lambda: len(desk.failures) == 2, WITHIN, "the second failure")
        assert all(isinstance(error, UnknownTopicOrPartitionError) for _, error in desk.failures)


async def test_an_unreachable_cluster_does_not_make_a_partition_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata that could not be read says nothing."""
    monkeypatch.setattr(module, "UNKNOWN_TRIES", 2)
    async with running({}) as desk:
        desk.client.reachable = False
        desk.fetcher.read(A, 0)
        await eventually(lambda: desk.client.updates >= 6, WITHIN, "six tries")
        assert not desk.failures
        desk.client.reachable, desk.client.next_leaders = True, {A: 1}
        assert (await desk.next()).asked == {A: 0}


async def test_a_known_answer_ends_the_count_of_unknown_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only answers in a row count."""
    monkeypatch.setattr(module, "UNKNOWN_TRIES", 2)
    async with running() as desk:
        desk.fetcher.read(A, 0)
        for _ in range(3):
            (await desk.next()).answer(part(A, error=UNKNOWN))
            (await desk.next()).answer(part(A))
        assert (await desk.next()).content.epoch and not desk.failures


async def test_a_preferred_replica_is_used_until_it_fails() -> None:
    """Its answer, without -1, names itself or nobody. When its connection breaks, the leader is asked again."""
    async with running() as desk:
        desk.fetcher.read(A, 4)
        (await desk.next()).answer(part(A, preferred=3))
        near = await desk.next()
        assert (near.node, near.asked) == (3, {A: 4})
        near.answer(part(A, batch(4, [4]), preferred=3))
        await eventually(lambda: desk.chunks, WITHIN, "a chunk of the replica")
        desk.fetcher.resume(A)
        near = await desk.next()
        assert (near.node, near.asked) == (3, {A: 5})
        near.fail()
        assert (await desk.next()).node == 1


# --- errors of a broker -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, RequestTimedOutError()])
async def test_a_lost_connection_is_followed_by_a_full_request(error: Exception | None) -> None:
    """And the metadata is read again. Nothing is delivered twice or left out."""
    async with running() as desk:
        desk.fetcher.read(A, 0)
        desk.fetcher.read(B, 0)
        (await desk.next()).answer(part(A, batch(0, [0, 1])), part(B))
        sent = await desk.next()
        desk.fetcher.resume(A)
        sent.fail(error)
        full = await desk.next()
        assert (full.content.session_id, full.content.epoch, full.asked) == (1, 0, {A: 2, B: 0})
        assert desk.client.updates == 1 and len(desk.chunks) == 1


@pytest.mark.parametrize("error", [70, 71, 106])
async def test_a_lost_session_is_followed_by_a_full_request(error: int) -> None:
    """The broker restarted, or gave the session's slot to another client."""
    async with running() as desk:
        desk.fetcher.read(A, 0)
        (await desk.next()).answer(part(A))
        (await desk.next()).answer(error=error, session=0)
        full = await desk.next()
        assert full.content.epoch == 0 and full.asked == {A: 0}


async def test_a_broker_that_is_too_old_ends_the_fetcher() -> None:
    """It will not become newer."""
    desk = Desk(FakeClient(FakeCluster({A: 1})))
    run = asyncio.create_task(desk.fetcher.run())
    desk.fetcher.read(A, 0)
    (await desk.next()).fail(IncompatibleBrokerVersion("too old"))
    with pytest.raises(IncompatibleBrokerVersion):
        await asyncio.wait_for(run, WITHIN)


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_what_the_consumer_raises_ends_the_fetcher() -> None:
    """A chunk that was not taken must not be passed over."""
    client = FakeClient(FakeCluster({A: 1}))

    def refuse(chunk: Chunk) -> None:
        raise RuntimeError("full")

    fetcher = Fetcher(client, refuse, pytest.fail)
    fetcher.read(A, 0)
    run = asyncio.create_task(fetcher.run())
    (await client.next()).answer(part(A, batch(0, [0])))
    with pytest.raises(RuntimeError, match="full"):
        await asyncio.wait_for(run, WITHIN)
    await asyncio.wait_for(fetcher.stop(), WITHIN)


async def test_cancellation_ends_every_task() -> None:
    """Also a request in flight."""
    desk = Desk(FakeClient(FakeCluster({A: 1, B: 2})))
    before = asyncio.all_tasks()
    run = asyncio.create_task(desk.fetcher.run())
    desk.fetcher.read(A, 0)
    desk.fetcher.read(B, 0)
    await desk.next()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, WITHIN)
    assert asyncio.all_tasks() == before


async def test_stop_before_run_returns() -> None:
    """A worker may end before it has begun."""
    await asyncio.wait_for(Desk(FakeClient(FakeCluster({}))).fetcher.stop(), WITHIN)
