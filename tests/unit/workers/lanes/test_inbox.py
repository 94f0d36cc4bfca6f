"""The inbox: what the lane takes, what stays, and when the fetcher goes on."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import TopicPartition

from failsoft.workers.lanes.inbox import Inbox
from tests.kit import events, waiting
from tests.lane_kit import LIVE, RUNG, ListChunk, ListFetcher


def _inbox(fetcher: ListFetcher, *, bound: int = 10_000) -> Inbox:
    """An inbox with both partitions open; a record counts as 100 bytes."""
    inbox = fetcher.inbox = Inbox(fetcher, dict.fromkeys((LIVE, RUNG), bound), lambda: 1.0)
    for tp in (LIVE, RUNG):
        inbox.seek(tp, 0)
    return inbox


def test_chunks_are_taken_in_order_and_fetched_on_meanwhile() -> None:
    """A busy lane holds up no fetch. A take may end within a chunk and begin the next one."""
    fetcher = ListFetcher({LIVE: [*events(3)]})
    inbox = _inbox(fetcher)
    fetcher[LIVE] += [*events(3, start=3), None]
    fetcher.fetch(LIVE)
    assert LIVE not in fetcher.paused
    for expected, position in (([0, 1], 2), ([2, 3], 4), ([4, 5], 7)):
        assert [r.offset for r in inbox.take([LIVE], 2)[LIVE]] == expected and inbox.position(LIVE) == position
    assert inbox.take([LIVE], 2) == {}


def test_a_partition_is_paused_at_its_bound_and_fetched_on_at_half_of_it() -> None:
    """Otherwise the memory of a slow lane would grow without bound. Another partition is not paused."""
    fetcher = ListFetcher({RUNG: [waiting(offset=0)]})
    inbox = _inbox(fetcher, bound=400)
    for i in range(5):
        fetcher[LIVE] += events(1, start=i)
        fetcher.fetch(LIVE)
    assert fetcher.paused == {LIVE}
    assert [r.offset for r in inbox.take([LIVE], 10)[LIVE]] == [0, 1, 2, 3], "the fifth was not fetched"
    assert fetcher.paused == set()
    assert [r.offset for r in inbox.take([LIVE], 10)[LIVE]] == [4]


def test_a_chunk_counts_until_all_of_it_was_taken() -> None:
    """Its bytes stay in memory as a whole."""
    fetcher = ListFetcher({LIVE: [*events(4)]})
    inbox = _inbox(fetcher, bound=400)
    inbox.take([LIVE], 3)
    assert fetcher.paused == {LIVE}
    inbox.take([LIVE], 1)
    assert fetcher.paused == set()


def test_a_partition_that_the_lane_has_paused_stays_paused_below_its_bound() -> None:
    """And one at its bound is not fetched on when the lane ends its pause."""
    fetcher = ListFetcher({RUNG: [waiting(offset=i) for i in range(4)]})
    inbox = _inbox(fetcher, bound=400)
    inbox.pause(RUNG)
    inbox.resume(RUNG)
    assert fetcher.paused == {RUNG}, "it is full"
    inbox.pause(RUNG)
    inbox.take([RUNG], 10)
    assert fetcher.paused == {RUNG}
    inbox.resume(RUNG)
    assert fetcher.paused == set()


@pytest.mark.parametrize(("busy", "quiet"), [(LIVE, RUNG), (RUNG, LIVE)])
def test_partitions_take_turns(busy: TopicPartition, quiet: TopicPartition) -> None:
    """A backlog of live events does not keep the ladder waiting, nor the other way round."""
    fetcher = ListFetcher()
    inbox = _inbox(fetcher)
    fetcher[busy] += events(100)
    fetcher.fetch(busy)
    inbox.take([LIVE, RUNG], 10)
    fetcher[quiet] += events(100)
    fetcher.fetch(quiet)
    taken = [next(iter(inbox.take([LIVE, RUNG], 10))) for _ in range(6)]
    assert sorted(taken[:2]) == sorted([LIVE, RUNG]) and taken[2:4] == taken[:2] == taken[4:]


def test_the_limit_counts_all_partitions() -> None:
    """What is left of the limit goes to the next partition."""
    fetcher = ListFetcher()
    inbox = _inbox(fetcher)
    fetcher[RUNG] += [waiting(offset=i) for i in range(2)]
    fetcher.fetch(RUNG)
    fetcher[LIVE] += events(5)
    fetcher.fetch(LIVE)
    assert {tp: len(records) for tp, records in inbox.take([LIVE, RUNG], 4).items()} == {RUNG: 2, LIVE: 2}
    assert inbox.take([RUNG], 4) == {}, "the rest of the other partition is not asked for"


def test_records_that_were_put_back_come_first() -> None:
    """The position goes back with them. What was fetched behind them follows."""
    fetcher = ListFetcher({RUNG: [waiting(offset=i) for i in range(3)]})
    inbox = _inbox(fetcher)
    taken = inbox.take([RUNG], 10)[RUNG]
    inbox.put_back(RUNG, taken[1:])
    assert inbox.position(RUNG) == 1
    fetcher[RUNG] += [waiting(offset=3)]
    fetcher.fetch(RUNG)
    assert [r.offset for r in inbox.take([RUNG], 1)[RUNG]] == [1] and inbox.position(RUNG) == 2
    assert [r.offset for r in inbox.take([RUNG], 10)[RUNG]] == [2, 3] and inbox.position(RUNG) == 4


def test_seek_drops_what_was_fetched() -> None:
    """Also what was put back; reading goes on at the given offset, and a paused partition stays paused."""
    fetcher = ListFetcher({RUNG: [waiting(offset=i) for i in range(4)]})
    inbox = _inbox(fetcher)
    inbox.put_back(RUNG, inbox.take([RUNG], 3)[RUNG][1:])
    inbox.seek(RUNG, 3)
    assert inbox.position(RUNG) == 3 and [r.offset for r in inbox.take([RUNG], 10)[RUNG]] == [3]
    inbox.pause(RUNG)
    inbox.seek(RUNG, 0)
    assert RUNG in fetcher.paused


def test_a_chunk_of_markers_moves_the_position() -> None:
    """The position is beyond the markers, so that they are committed with the next batch."""
    fetcher = ListFetcher({RUNG: [None, None]})
    inbox = _inbox(fetcher)
    assert inbox.take([RUNG], 10) == {} and inbox.position(RUNG) == 2 and inbox.caught_up(RUNG)


@pytest.mark.parametrize(("end", "expected"), [(None, False), (0, True), (1, False)])
def test_a_partition_is_caught_up_at_its_end_offset(end: int | None, expected: bool) -> None:
    """An end offset that is not known yet may hide records."""
    fetcher = ListFetcher()
    fetcher.ends[LIVE] = end
    assert _inbox(fetcher).caught_up(LIVE) is expected


async def test_a_wait_ends_when_something_arrives() -> None:
    """Also when the partition cannot be fetched any more; then ``take`` raises the reason."""
    fetcher = ListFetcher()
    inbox = _inbox(fetcher)
    waiting_lane = asyncio.create_task(inbox.wait(None))
    await asyncio.sleep(0)
    fetcher[LIVE] += events(1)
    fetcher.fetch(LIVE)
    await asyncio.wait_for(waiting_lane, 10)
    waiting_lane = asyncio.create_task(inbox.wait(None))
    await asyncio.sleep(0)
    inbox.fail(OSError("out of range"))
    await asyncio.wait_for(waiting_lane, 10)
    with pytest.raises(OSError, match="out of range"):
        inbox.take([LIVE], 1)


async def test_a_wait_ends_after_its_time() -> None:
    """A rung becomes due without anything arriving."""
    await asyncio.wait_for(_inbox(ListFetcher()).wait(0.01), 10)


def test_a_closed_inbox_takes_no_more() -> None:
    """A chunk that was under way when the partitions were revoked is dropped."""
    fetcher = ListFetcher({LIVE: [*events(1)]})
    inbox = _inbox(fetcher)
    inbox.close()
    assert inbox.take([LIVE], 10) == {}
    inbox.offer(ListChunk(LIVE, 1, [*events(1, start=1)]))
    assert inbox.take([LIVE], 10) == {}


@pytest.mark.parametrize(
    ("end", "offset", "expected"),
    [(9, 0, True), (9, 5, False), (2, 5, True), (None, None, False), (9, None, True)],
    ids=["beyond", "before", "nothing more", "not answered", "answered"],
)
def test_a_partition_has_passed_a_trouble(end: int | None, offset: int | None, expected: bool) -> None:
    """It is read beyond the offset, or has nothing there; without an offset it is enough that it is read."""
    fetcher = ListFetcher({LIVE: [*events(2)]})
    inbox = _inbox(fetcher)
    inbox.take([LIVE], 2)
    fetcher.ends[LIVE] = end
    assert inbox.has_passed(LIVE, offset) is expected
    inbox.pause(LIVE)
    assert inbox.has_passed(LIVE, offset)
