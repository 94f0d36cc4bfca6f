"""A fetcher asks for what is read, delivers it in chunks, and leaves out what is paused."""

from __future__ import annotations

import asyncio

import pytest

from failsoft.workers.kafka import fetch_pace
from failsoft.workers.kafka import fetcher as module
from failsoft.workers.kafka.chunk import Chunk
from failsoft.workers.kafka.fetch_session import FetchContent
from failsoft.workers.kafka.fetcher import CONNECTION, Fetcher
from tests.kafka import eventually
from tests.record_batches import batch, marker
from tests.unit.workers.kafka.fake_client import WITHIN, A, B, C, Desk, FakeClient, FakeCluster, part, running

OUT_OF_RANGE, UNAUTHORIZED = 1, 29


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_what_is_read_is_fetched_and_delivered() -> None:
    """The first request has all partitions; the chunk has the records, and the marks are known after the answer."""
    async with running() as desk:
        desk.fetcher.read(A, 0, 77)
        desk.fetcher.read(C, 5, 78)
        assert desk.fetcher.highwater(A) is None
        first = await desk.next()
        assert first.node == 1 and first.content.partitions == [(A, 0, 77), (C, 5, 78)]
        assert (first.call.max_wait_ms, first.call.max_bytes) == (50, module.ANSWER_BYTES)
        first.answer(part(A, batch(0, range(3))), part(C))
        second = await desk.next()
        (chunk,) = desk.chunks
        assert (chunk.tp, [r.offset for r in chunk.take()], chunk.end) == (A, [0, 1, 2], 3)
        assert (desk.fetcher.highwater(A), desk.fetcher.highwater(C)) == (9, 9)
        assert second.content.epoch == 1 and second.content.forgotten == [] and second.asked == {A: 3}
        assert desk.client.groups == {CONNECTION}


async def test_a_partition_that_is_read_again_has_its_new_size() -> None:
    """The size belongs to the read, as the offset does."""
    async with running() as desk:
        desk.fetcher.read(A, 0, 77)
        first = await desk.next()
        desk.fetcher.read(A, 5, 99)
        first.answer(part(A))
        assert (await desk.next()).content.partitions == [(A, 5, 99)]


async def test_batches_over_the_size_are_asked_for_whole_of_the_other_partitions_too() -> None:
    """A broker sends a batch over the size only as the first of an answer: else each answer had one partition."""
    async with running() as desk:
        large = batch(0, range(30))
        for tp in (A, B, C):
            desk.fetcher.read(tp, 0, 100)
        (await desk.next()).answer(part(A, large))
        following = await desk.next()
        enough = 1 << (len(large) - 1).bit_length()
        assert sorted(following.content.partitions) == [(A, 30, enough), (B, 0, enough)], "the topic of A and B"
        following.answer(part(B, batch(0, range(1))))
        assert (await desk.next()).content.partitions == [(B, 1, enough)], "one small batch is no reason"


async def test_no_request_is_sent_while_the_lanes_have_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not for ever: what a lane needs first may not have been fetched yet."""
    monkeypatch.setattr(fetch_pace, "FULL_FOR", (0.001, 10_000))
    async with running() as desk:
        full = True
        fetcher = Fetcher(desk.client, desk.chunks.append, pytest.fail, full=lambda: full)
        run = asyncio.create_task(fetcher.run())
        fetcher.read(A, 0)
        (await desk.next()).answer(part(A, batch(0, range(3))))
        await eventually(lambda: bool(desk.chunks), WITHIN, "the chunk")
        await desk.silence()
        full = False
        following = await desk.next()
        full = True
        monkeypatch.setattr(fetch_pace, "FULL_FOR", (0.001, 3))
        following.answer(part(A, batch(3, range(3, 6))))
        assert (await desk.next()).asked == {A: 6}, "nothing was taken, and a request is sent all the same"
        await fetcher.stop()
        await run


async def test_a_partition_goes_on_at_its_chunks_end() -> None:
    """Which may be behind a marker."""
    async with running() as desk:
        desk.fetcher.read(A, 0)
        (await desk.next()).answer(
            part(A, batch(0, [0, 1], producer=7, transactional=True) + marker(2, 7, commit=True))
        )
        assert (await desk.next()).asked == {A: 3}


async def test_a_partition_is_not_fetched_on_after_a_batch_that_cannot_be_read() -> None:
    """The same bytes would come again and again. Other partitions go on, and a read elsewhere does."""
    async with running() as desk:
        desk.fetcher.read(A, 0, 77)
        desk.fetcher.read(C, 5, 78)
        bad = bytearray(batch(3, range(3, 6)))
        bad[-1] ^= 1
        (await desk.next()).answer(part(A, batch(0, range(3)) + bytes(bad)), part(C))
        following = await desk.next()
        assert following.content.forgotten == [A] and A not in following.asked
        desk.fetcher.resume(A)
        following.answer()
        following = await desk.next()
        assert A not in following.asked
        desk.fetcher.read(A, 6, 77)
        following.answer()
        assert (await desk.next()).asked[A] == 6


async def test_a_partition_may_be_paused_while_its_chunk_is_delivered() -> None:
    """The very next request leaves it out, and it goes on at the chunk's end when it is resumed."""
    async with running() as desk:
        fetcher = Fetcher(desk.client, lambda chunk: fetcher.pause(chunk.tp), pytest.fail)
        run = asyncio.create_task(fetcher.run())
        fetcher.read(A, 0)
        fetcher.read(B, 0)
        (await desk.next()).answer(part(A, batch(0, range(3))))
        following = await desk.next()
        assert (following.asked, following.content.forgotten) == ({}, [A])
        fetcher.resume(A)
        following.answer(part(B))
        assert (await desk.next()).asked == {A: 3}
        await fetcher.stop()
        await run


async def test_a_task_that_a_chunk_wakes_may_still_change_the_next_request() -> None:
    """It is sent after the tasks that were woken have run."""
    async with running() as desk:
        arrived = asyncio.Event()
        fetcher = Fetcher(desk.client, lambda chunk: arrived.set(), pytest.fail)

        async def lane() -> None:
            await arrived.wait()
            fetcher.pause(A)

        lane_task, run = asyncio.create_task(lane()), asyncio.create_task(fetcher.run())
        fetcher.read(A, 0)
        fetcher.read(B, 0)
        (await desk.next()).answer(part(A, batch(0, range(3))))
        assert (await desk.next()).content.forgotten == [A]
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


async def test_a_partition_that_is_read_again_waits_for_its_marks() -> None:
    """All of a broker's partitions are revoked and come back: its session still has them, with their old marks. They
    are known again after an answer to a request that was sent later, which repeats only what has changed.
    """
    async with running() as desk:
        fetcher = desk.fetcher
        fetcher.read(A, 0)
        fetcher.read(B, 0)
        (await desk.next()).answer(part(A, high=5), part(B, high=6))
        in_flight = await desk.next()
        assert fetcher.highwater(A) == 5
        fetcher.forget([A, B])
        assert fetcher.highwater(A) is None
        fetcher.read(A, 0)
        fetcher.read(B, 0)
        in_flight.answer(part(A, high=7))
        sent = await desk.next()
        assert sent.content == FetchContent(1, 2, [], []), "the session is as it was"
        assert fetcher.highwater(A) is fetcher.highwater(B) is None
        sent.answer(part(B, high=8))
        await desk.next()
        assert fetcher.highwater(A) == 7, "confirmed, as the answer leaves it out"
        assert fetcher.highwater(B) == 8


async def test_pause_keeps_the_marks() -> None:
    """A paused rung still has its records. Marks that come for it meanwhile count too."""
    async with running() as desk:
        desk.fetcher.read(A, 0)
        desk.fetcher.read(B, 0)
        first = await desk.next()
        desk.fetcher.pause(A)
        first.answer(part(A, high=5), part(B))
        second = await desk.next()
        assert (desk.fetcher.highwater(A), second.content.forgotten) == (5, [A])
        second.answer(part(B))
        third = await desk.next()
        desk.fetcher.resume(A)
        assert desk.fetcher.highwater(A) == 5
        third.answer(part(B))
        (await desk.next()).answer(part(A, high=6))
        await desk.next()
        assert desk.fetcher.highwater(A) == 6


@pytest.mark.parametrize("how", ["lost", "refused", "throttled", "failed"])
async def test_only_an_answer_that_says_so_confirms_marks(how: str) -> None:
    """Not one that never came, that has an error, or in which the broker looked at no partition."""
    async with running() as desk:
        desk.fetcher.read(A, 0)
        desk.fetcher.read(B, 0)
        (await desk.next()).answer(part(A, high=5), part(B))
        (await desk.next()).answer()
        sent = await desk.next()
        desk.fetcher.read(A, 0)
        sent.answer()
        sent = await desk.next()
        if how == "lost":
            sent.fail()
        elif how == "refused":
            sent.answer(error=70, session=0)
        elif how == "throttled":
            sent.answer(throttle=1)
        else:
            sent.answer(part(A, error=56, high=-1))
        sent = await desk.next()
        assert desk.fetcher.highwater(A) is None
        while A not in sent.asked and how != "throttled":
            sent.answer()
            sent = await desk.next()
        assert desk.fetcher.highwater(A) is None
        sent.answer(*([] if how == "throttled" else [part(A, high=6)]))
        await desk.next()
        assert desk.fetcher.highwater(A) == (5 if how == "throttled" else 6)


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
    """A worker may end before it has begun. The client is closed all the same."""
    desk = Desk(FakeClient(FakeCluster({})))
    assert desk.fetcher.client is desk.client and not desk.client.closed
    await asyncio.wait_for(desk.fetcher.stop(), WITHIN)
    assert desk.client.closed
