"""A fetcher goes on with the other partitions when one fails, and with a new session when a broker does."""

from __future__ import annotations

import asyncio

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
from failsoft.workers.kafka.fetch_by_id import id_bytes
from failsoft.workers.kafka.partition_errors import UNKNOWN_TOPIC_ID, TopicReplaced, place_of
from tests.kafka import eventually
from tests.record_batches import batch
from tests.unit.workers.kafka.fake_client import WITHIN, A, B, C, Desk, FakeClient, FakeCluster, part, running

NOT_LEADER, OUT_OF_RANGE, UNKNOWN, UNAUTHORIZED = 6, 1, 3, 29


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


async def test_a_topic_that_may_not_be_seen_is_given_up_at_once() -> None:
    """Its metadata has no leader; without the error it would be taken for deleted half a minute later."""
    async with running({B: 1}) as desk:
        desk.client.cluster.unauthorized_topics = {A.topic}
        desk.fetcher.read(A, 4)
        await eventually(lambda: desk.failures, WITHIN, "the failure")
        ((tp, error),) = desk.failures
        assert tp == A and isinstance(error, TopicAuthorizationFailedError) and desk.client.updates < 5


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


async def test_a_move_ends_the_doubt_about_an_offset() -> None:
    """A third broker may be a former leader as well: its first refusal is no second one."""
    async with running() as desk:
        desk.fetcher.read(A, 40)
        desk.client.next_leaders = {A: 2}
        (await desk.next()).answer(part(A, error=OUT_OF_RANGE))
        assert (await desk.next()).node == 2
        desk.client.next_leaders = {A: 3}
        assert await desk.client.force_metadata_update()
        third = await desk.next()
        assert third.node == 3
        third.answer(part(A, error=OUT_OF_RANGE))
        again = await desk.next()
        assert again.node == 3 and not desk.failures
        again.answer(part(A, error=OUT_OF_RANGE))
        await eventually(lambda: desk.failures, WITHIN, "the failure")


async def test_a_partition_that_stays_unknown_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the broker says so or the metadata: after many tries in a row the topic is taken for deleted."""
    monkeypatch.setitem(module.UNKNOWN_TRIES, 3, 4)
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
    monkeypatch.setitem(module.UNKNOWN_TRIES, 3, 2)
    async with running({}) as desk:
        desk.client.reachable = False
        desk.fetcher.read(A, 0)
        await eventually(lambda: desk.client.updates >= 6, WITHIN, "six tries")
        assert not desk.failures
        desk.client.reachable, desk.client.next_leaders = True, {A: 1}
        assert (await desk.next()).asked == {A: 0}


async def test_a_known_answer_ends_the_count_of_unknown_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only answers in a row count."""
    monkeypatch.setitem(module.UNKNOWN_TRIES, 3, 2)
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


# --- topics that are made anew ----------------------------------------------------------------------------------------


async def test_a_topic_is_fetched_by_its_id_and_given_up_when_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name the broker would go on at the old offset in a new topic."""
    monkeypatch.setitem(module.UNKNOWN_TRIES, UNKNOWN_TOPIC_ID, 2)
    async with running() as desk:
        desk.fetcher.identify({"t": "1" * 21 + "A"})
        desk.fetcher.read(A, 7)
        for _ in range(2):
            sent = await desk.next()
            assert sent.call.API_VERSION == 13 and sent.asked.get(A, 7) == 7
            sent.answer(part(A, error=UNKNOWN_TOPIC_ID))
        await eventually(lambda: desk.failures, WITHIN, "the partition to be given up")
        ((tp, error),) = desk.failures
        assert tp == A and isinstance(error, TopicReplaced) and place_of(error) == (A, 7)


async def test_a_new_id_ends_what_is_read_by_the_old_one() -> None:
    """Another lane has noticed that the topic was made anew: this one's offset is of the former topic. What is in
    flight does not count.
    """
    async with running() as desk:
        desk.fetcher.identify({"t": "1" * 21 + "A", "u": "u" * 21 + "A"})
        for tp in (A, B, C):
            desk.fetcher.read(tp, 7)
        sent = await desk.next()
        desk.fetcher.forget([A])
        desk.fetcher.identify({"t": "2" * 21 + "A"})
        assert [tp for tp, _ in desk.failures] == [B]
        desk.fetcher.read(A, 7)
        sent.answer(part(A, batch(7, range(3))))
        again = await desk.next()
        assert not desk.chunks and again.content.epoch == 0 and again.asked == {A: 7, C: 7}
        assert again.call.ids["t"] == id_bytes("2" * 21 + "A")


async def test_the_same_ids_again_change_nothing() -> None:
    """Each lane tells them when it opens."""
    async with running() as desk:
        desk.fetcher.identify({"t": "1" * 21 + "A"})
        desk.fetcher.read(A, 0)
        (await desk.next()).answer(part(A))
        desk.fetcher.identify({"t": "1" * 21 + "A"})
        assert (await desk.next()).content.epoch == 1 and not desk.failures
