"""The retry schedule by itself: which partitions of the ladder are read, which are paused, and for how long."""

from __future__ import annotations

import pytest

from failsoft.topics.hold import SLACK_MS
from failsoft.workers.lanes.retry_schedule import (
    ASK_AGAIN,
    LADDER_RESTS,
    LEAST_WAIT_MS,
    LIVE_SEEN,
    LOOK_AGAIN,
    Readable,
    RetrySchedule,
    Taken,
)
from tests.kit import NOW_MS, REPLAY, RUNGS, waiting

Partition = tuple[str, int]
RUNG, NEXT, AGAIN = ((topic, 0) for topic in (*RUNGS, REPLAY))
NOW = 100.0


def _opened(*ladder: Partition) -> RetrySchedule[Partition]:
    """A schedule whose partitions are read from their beginning."""
    schedule = RetrySchedule(ladder, RUNGS)
    for partition in ladder:
        schedule.opened(partition, 0)
    return schedule


def _held(due_ms: int) -> RetrySchedule[Partition]:
    """A schedule of one rung, whose first record is due at ``due_ms``."""
    schedule = _opened(RUNG)
    assert schedule.take(RUNG, [waiting(due_ms=due_ms)], NOW_MS) == Taken(0, 0)
    return schedule


def test_a_new_ladder_is_read_at_once() -> None:
    """Nothing is paused and nothing is resumed."""
    found = _opened(RUNG, NEXT, AGAIN).readable(NOW_MS, NOW, True)
    assert {*found.partitions} == {RUNG, NEXT, AGAIN}
    assert found == Readable(found.partitions, None, [], [])


def test_the_records_before_the_first_that_is_not_due_are_taken() -> None:
    """The lane seeks to the first record that is not due. Due records after it wait too."""
    found = [waiting(offset=7), waiting(offset=8, due_ms=NOW_MS + 500), waiting(offset=9)]
    schedule = _opened(RUNG)
    assert schedule.take(RUNG, found, NOW_MS) == Taken(1, 8)
    assert schedule.is_held(RUNG) and schedule.overdue == {RUNG[0]: NOW_MS + 500}


def test_a_rung_that_is_not_due_is_left_out_until_it_is_due_and_resumed_then() -> None:
    """Until then, the fetch of the other partitions waits at most until the rung is due."""
    schedule = _held(NOW_MS + 200)
    assert schedule.readable(NOW_MS, NOW, True) == Readable([], 0.2, [], [])
    assert schedule.readable(NOW_MS + 200, NOW, True) == Readable([RUNG], None, [RUNG], [])
    assert not schedule.is_held(RUNG) and schedule.overdue == {}
    assert schedule.readable(NOW_MS + 201, NOW, True) == Readable([RUNG], None, [], [])


def test_a_rung_is_held_for_a_least_time() -> None:
    """A record that is due in one millisecond does not cause a fetch each millisecond."""
    assert _held(NOW_MS + 1).overdue == {RUNG[0]: NOW_MS + LEAST_WAIT_MS}


def test_the_wait_is_never_zero_and_never_longer_than_idle() -> None:
    """A due time far in the future does not delay the fetch of other partitions."""
    assert _held(NOW_MS + 50_000).readable(NOW_MS, NOW, True).wait_seconds == LOOK_AGAIN
    schedule = _held(NOW_MS + 200)
    assert schedule.readable(NOW_MS + 199, NOW, True).wait_seconds == pytest.approx(0.001)


def test_a_due_time_that_no_worker_wrote_is_skipped() -> None:
    """The record is taken now, and the first plausible due time after it holds the rung."""
    far = NOW_MS + 2 * SLACK_MS
    found = [waiting(offset=0, due_ms=far), waiting(offset=1), waiting(offset=2, due_ms=NOW_MS + 500)]
    assert _opened(RUNG).take(RUNG, found, NOW_MS) == Taken(2, 2)
    schedule = _opened(RUNG)
    assert schedule.take(RUNG, found[:2], NOW_MS) == Taken(2) and not schedule.is_held(RUNG)


def test_replay_has_no_due_times() -> None:
    """Every record of the replay topic is taken, whatever its headers are."""
    assert _opened(AGAIN).take(AGAIN, [waiting(due_ms=NOW_MS + 500)] * 3, NOW_MS) == Taken(3)


def test_while_the_breaker_is_open_the_ladder_is_paused_once_and_resumed_after() -> None:
    """Leaving the rung out of the fetch is not enough: a consumer prefetches every partition that is not paused."""
    schedule = _opened(RUNG)
    assert schedule.readable(NOW_MS, NOW, False) == Readable([], ASK_AGAIN, [], [RUNG])
    assert schedule.readable(NOW_MS, NOW, False) == Readable([], ASK_AGAIN, [], [])
    assert schedule.readable(NOW_MS, NOW, True) == Readable([RUNG], None, [RUNG], [])


def test_a_rung_that_becomes_due_while_the_breaker_is_open_stays_paused() -> None:
    """It is resumed once, when it is due and the breaker allows retries."""
    schedule = _held(NOW_MS + 200)
    assert schedule.readable(NOW_MS + 300, NOW, False).resume == []
    assert schedule.is_held(RUNG)
    assert schedule.readable(NOW_MS + 300, NOW, True).resume == [RUNG]


def test_the_ladder_rests_for_its_part_of_a_batch_with_live_events() -> None:
    """The ladder rests LADDER_RESTS seconds for each second that its records took. Nothing is paused or resumed
    meanwhile.
    """
    schedule = _opened(RUNG)
    schedule.spent(records=20, retries=5, seconds=0.4, now=NOW)
    rest = LADDER_RESTS * 0.4 * 5 / 20
    assert schedule.readable(NOW_MS, NOW, False) == Readable((), pytest.approx(rest))
    assert schedule.readable(NOW_MS, NOW + rest, True).partitions == [RUNG]


@pytest.mark.parametrize(("since", "rests"), [(LIVE_SEEN - 0.01, True), (LIVE_SEEN, False)])
def test_the_ladder_rests_only_while_live_events_arrive(since: float, rests: bool) -> None:
    """A live event counts for LIVE_SEEN seconds after its batch."""
    schedule = _opened(RUNG)
    schedule.spent(records=3, retries=0, seconds=0.1, now=NOW)
    assert schedule.readable(NOW_MS, NOW, True).partitions == [RUNG], "no time was spent on the ladder"
    schedule.spent(records=3, retries=3, seconds=1.0, now=NOW + since)
    assert (not schedule.readable(NOW_MS, NOW + since, True).partitions) is rests


def test_a_schedule_without_live_events_never_rests() -> None:
    """That also holds right after the start, whatever the monotonic clock's value is."""
    schedule = _opened(RUNG)
    schedule.spent(records=3, retries=3, seconds=5.0, now=0.0)
    assert schedule.readable(NOW_MS, 0.0, True).partitions == [RUNG]


@pytest.mark.parametrize(("end", "expected"), [(None, True), (0, False), (1, True)])
def test_a_rung_may_hold_a_record_if_its_end_is_further_on_or_unknown(end: int | None, expected: bool) -> None:
    """An unknown end counts as a waiting record: the breaker then requests probes."""
    assert _opened(RUNG).waits(NOW_MS, {RUNG: end}.get) is expected


def test_a_rung_that_is_not_due_does_not_wait_and_one_that_became_due_does() -> None:
    """A record cannot be a probe before its due time, whatever the end offset is."""
    schedule = _held(NOW_MS + 200)
    assert not schedule.waits(NOW_MS, {RUNG: 9}.get)
    assert schedule.waits(NOW_MS + 200, {RUNG: 0}.get)


@pytest.mark.parametrize("known", [0, None])
def test_a_rung_that_this_lane_wrote_to_waits_until_it_is_drained(known: int | None) -> None:
    """A paused rung is not fetched, so the end offset from before the write says nothing about what was written."""
    schedule = _opened(RUNG)
    schedule.committed({}, {RUNG: known})
    assert schedule.waits(NOW_MS, {RUNG: 0}.get)
    schedule.drained(RUNG, known)
    assert schedule.waits(NOW_MS, {RUNG: 0}.get)
    schedule.drained(RUNG, 2)
    assert not schedule.waits(NOW_MS, {RUNG: 2}.get)


def test_a_drained_rung_is_read_up_to_its_end_offset() -> None:
    """Transaction markers at the end are no records. The position never goes back; an unknown end changes nothing."""
    schedule = _opened(RUNG)
    schedule.drained(RUNG, 9)
    schedule.drained(RUNG, 4)
    schedule.drained(RUNG, None)
    assert schedule.lag({RUNG: 9}) == {RUNG[0]: 0} and not schedule.waits(NOW_MS, {RUNG: 9}.get)
    assert schedule.waits(NOW_MS, {RUNG: 10}.get)


def test_lag_counts_records_that_are_written_and_not_read() -> None:
    """The lag covers only ladder partitions that were opened and whose end is known, and is never negative."""
    schedule = RetrySchedule([RUNG, NEXT, AGAIN], RUNGS)
    assert schedule.lag({RUNG: 5}) == {}
    live = ("loans", 0)
    for partition in (RUNG, NEXT, live):
        schedule.opened(partition, 3)
    schedule.committed({RUNG: 4, live: 9}, {})
    assert schedule.lag({RUNG: 10, NEXT: 1, AGAIN: 7, live: 20}) == {RUNG[0]: 6, NEXT[0]: 0}
    assert schedule.lag({RUNG: 10}) == {RUNG[0]: 6}
