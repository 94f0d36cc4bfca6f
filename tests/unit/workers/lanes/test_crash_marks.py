"""Crash markers: their text, and how a lane reads and runs suspected records after each crash."""

from __future__ import annotations

import pytest

from failsoft.models.catalog.chain import LinkKind
from failsoft.schemas.failure import Failure, Kind
from failsoft.workers.lanes.crash_marks import (
    CAREFUL,
    WATCHED,
    BatchMode,
    CrashMarker,
    CrashTracker,
    MarkerState,
    parse,
)
from failsoft.workers.scoring.poison import CRASHES_TO_POISON, PoisonRecord, record_crash, too_many
from tests.kit import attempt

A, B = ("loans.events", 0), ("loans.retry.5s", 0)


def _crashes(*marks: tuple[tuple[str, int], int, str]) -> CrashTracker[tuple[str, int]]:
    """The tracker of a lane that opens with these (partition, committed offset, metadata)."""
    tracker: CrashTracker[tuple[str, int]] = CrashTracker()
    for place, offset, metadata in marks:
        tracker.opened(place, offset, metadata)
    return tracker


@pytest.mark.parametrize("state", MarkerState)
def test_a_crash_marker_is_parsed_as_it_was_written(state: MarkerState) -> None:
    """The text is short: Kafka takes at most 4,096 bytes of metadata."""
    mark = CrashMarker(state, 2, 2**63 - 1, 2**63 - 1)
    assert parse(str(mark)) == mark and len(str(mark)) < 100


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        "",
        "checkpoint 7",
        "failsoft/2 alone deaths=2 until=7 of=7",
        "failsoft/1 alone deaths=-2 until=7 of=7",
        "failsoft/1 alone deaths=2 until=7 of=7\n",
        "failsoft/1 alone deaths=2 until=7 of=" + "9" * 4000,
        "failsoft/1 alone deaths=٢ until=7 of=7",
        "failsoft/1 alone deaths=2 until=7",
        "failsoft/1 guilty deaths=2 until=7 of=7",
        "{" * 4096,
    ],
)
def test_other_metadata_is_ignored(metadata: str | None) -> None:
    """Metadata is untrusted input: text that is no crash marker causes no suspicion and no error."""
    assert parse(metadata) is None
    tracker: CrashTracker[tuple[str, int]] = CrashTracker()
    assert tracker.opened(A, 0, metadata) is None and tracker.choose([A]) is None


def test_crashes_are_counted_up_to_999() -> None:
    """A longer number would not parse, and the count would start again at 0."""
    assert parse(str(CrashMarker(MarkerState.ALONE, 10**6, 7, 7))) == CrashMarker(MarkerState.ALONE, 999, 7, 7)


def test_the_first_batches_after_a_start_are_marked_and_no_others() -> None:
    """A partition is watched until WATCHED records are committed, or no further record can be read."""
    tracker = _crashes()
    assert tracker.mode({A: 499}) == BatchMode({A: CrashMarker(MarkerState.AMONG, 0, 500, 500)})
    tracker.passed(A, WATCHED - 1, False)
    assert tracker.mode({A: 5000, B: 3}).marks == {
        A: CrashMarker(MarkerState.AMONG, 0, 5001, 5001),
        B: CrashMarker(MarkerState.AMONG, 0, 4, 4),
    }
    tracker.passed(A, 1, False)
    tracker.passed(B, 1, True)
    assert tracker.mode({A: 9000, B: 9}) == BatchMode({})


def test_after_one_crash_suspected_records_are_read_in_small_batches() -> None:
    """Only the suspected partition is read. Each batch narrows the marker, and each commit keeps what is still
    suspected.
    """
    tracker = _crashes((A, 100, "failsoft/1 among deaths=0 until=300 of=300"), (B, 5, ""))
    assert tracker.choose([A, B]) == (A, CAREFUL)
    mode = tracker.mode({A: 163})
    assert mode == BatchMode({A: CrashMarker(MarkerState.AMONG, 1, 164, 300)})
    assert tracker.offset_metadata(mode, {A: 100, B: 5}, {A: 164}) == {
        A: (164, "failsoft/1 suspect deaths=1 until=300 of=300")
    }
    assert tracker.offset_metadata(tracker.mode({A: 299}), {A: 236}, {A: 301}) == {A: (301, "")}
    assert tracker.choose([A, B]) is None


def test_after_two_crashes_each_suspected_record_runs_alone() -> None:
    """The marker is ALONE before the run and SUSPECT after it, so a commit that fails does not count as a crash."""
    tracker = _crashes((A, 100, "failsoft/1 among deaths=1 until=103 of=103"))
    assert tracker.choose([A]) == (A, 1)
    mode = tracker.mode({A: 100})
    assert mode == BatchMode({A: CrashMarker(MarkerState.ALONE, 2, 101, 103)}, alone=True)
    assert tracker.ran(mode) == {A: CrashMarker(MarkerState.SUSPECT, 2, 103, 103)}
    assert tracker.offset_metadata(mode, {A: 100}, {A: 101}) == {
        A: (101, "failsoft/1 suspect deaths=2 until=103 of=103")
    }


def test_past_the_narrowed_range_the_rest_is_suspected_as_before() -> None:
    """Another lane may have caused the second crash. Then the record that caused the first one is still ahead."""
    tracker = _crashes((A, 100, "failsoft/1 among deaths=1 until=101 of=300"))
    mode = tracker.mode({A: 100})
    assert tracker.offset_metadata(mode, {A: 100}, {A: 101}) == {
        A: (101, "failsoft/1 suspect deaths=1 until=300 of=300")
    }
    assert tracker.choose([A]) == (A, CAREFUL)


def test_a_record_alone_in_flight_in_a_crash_runs_alone_again() -> None:
    """One crash may be a coincidence. If the second run succeeds, the rest is suspected as before."""
    tracker = _crashes((A, 101, "failsoft/1 alone deaths=2 until=102 of=300"))
    assert tracker.choose([A]) == (A, 1)
    mode = tracker.mode({A: 101})
    assert mode == BatchMode({A: CrashMarker(MarkerState.AGAIN, 3, 102, 300)}, alone=True)
    assert tracker.ran(mode) == {A: CrashMarker(MarkerState.ALONE, 2, 102, 300)}, (
        "a commit that fails leaves it as it was"
    )
    assert tracker.offset_metadata(mode, {A: 101}, {A: 102}) == {
        A: (102, "failsoft/1 suspect deaths=2 until=300 of=300")
    }


def test_a_record_alone_in_flight_in_two_crashes_is_poison() -> None:
    """Its marker stays while it is dead-lettered; after that the partition is like any other."""
    tracker = _crashes(
        (A, 100, "failsoft/1 again deaths=3 until=102 of=300"), (B, 0, "failsoft/1 among deaths=1 until=9 of=9")
    )
    assert tracker.choose([B, A]) == (A, 1)
    mode = tracker.mode({A: 101})
    assert mode == BatchMode({A: CrashMarker(MarkerState.AGAIN, 4, 102, 300)}, alone=True, poison=PoisonRecord(4))
    assert tracker.ran(mode) == {A: CrashMarker(MarkerState.AGAIN, 3, 102, 300)}, (
        "a commit that fails leaves the same verdict"
    )
    assert tracker.offset_metadata(mode, {A: 100}, {A: 102}) == {A: (102, "")}
    assert tracker.choose([A]) is None and tracker.choose([A, B]) == (B, 1)


def test_only_the_record_that_was_in_flight_is_poison() -> None:
    """If it does not exist any more, the record that follows it runs."""
    tracker = _crashes((A, 100, "failsoft/1 again deaths=3 until=102 of=102"))
    mode = tracker.mode({A: 105})
    assert mode.poison is None and mode.alone


@pytest.mark.parametrize("offset", [300, 301])
def test_a_marker_before_the_committed_offset_is_ignored(offset: int) -> None:
    """The offset was committed past the marker's records."""
    tracker: CrashTracker[tuple[str, int]] = CrashTracker()
    assert tracker.opened(A, offset, "failsoft/1 alone deaths=2 until=300 of=300") is None
    assert tracker.choose([A]) is None


def test_a_suspect_marker_does_not_count_as_a_crash() -> None:
    """A rebalance or drain passes the suspicion on unchanged, however often."""
    tracker = _crashes((A, 100, "failsoft/1 suspect deaths=1 until=300 of=300"))
    assert tracker.choose([A]) == (A, CAREFUL)
    assert tracker.mode({A: 120}).marks == {A: CrashMarker(MarkerState.AMONG, 1, 121, 300)}


def test_a_suspected_partition_that_may_not_be_read_does_not_delay_others() -> None:
    """A rung is not read while the breaker is open: the other partitions are read as usual, and the marker stays."""
    tracker = _crashes((B, 3, "failsoft/1 among deaths=1 until=9 of=9"))
    assert tracker.choose([A]) is None
    assert tracker.mode({A: 7}) == BatchMode({A: CrashMarker(MarkerState.AMONG, 0, 8, 8)})
    assert tracker.offset_metadata(BatchMode({}), {A: 0, B: 3}, {A: 8, B: 4}) == {
        A: (8, ""),
        B: (4, "failsoft/1 suspect deaths=2 until=9 of=9"),
    }


def test_suspected_records_that_are_gone_are_not_waited_for() -> None:
    """Retention removed them, so the partition is read as usual."""
    tracker = _crashes((A, 100, "failsoft/1 among deaths=1 until=300 of=300"))
    tracker.gone(A)
    assert tracker.choose([A]) is None


def test_a_poison_record_is_answered_by_links_that_cannot_have_caused_the_crash() -> None:
    """No fallback model answers it, and no rule if the worker crashed once more while it was dead-lettered."""
    assert PoisonRecord(4).links == {LinkKind.LAST_KNOWN, LinkKind.RULE, LinkKind.STATIC}
    assert PoisonRecord(5).links == {LinkKind.LAST_KNOWN, LinkKind.STATIC}
    assert PoisonRecord(3).failure.kind is Kind.POISON and "died 3 times" in PoisonRecord(3).failure.message


def test_the_second_crash_of_the_models_process_makes_a_record_poison() -> None:
    """The first crash is counted and the record is retried. A row without an attempt gets the count with its retry."""
    crash = Failure(Kind.CRASHED, "signal 11")
    attempts = {0: attempt(), 1: attempt(crashes=1)}
    assert record_crash(0, crash, attempts) == crash and attempts[0].crashes == 1
    poison = record_crash(1, crash, attempts)
    assert poison.kind is Kind.POISON and attempts[1].crashes == CRASHES_TO_POISON
    assert "died 2 times" in poison.message and "signal 11" in poison.message
    assert record_crash(2, crash, attempts) == crash and 2 not in attempts


@pytest.mark.parametrize(("deadline", "tried"), [(0.2, 4), (4.0, 2), (60.0, 1)])
def test_a_batch_runs_few_suspected_records(deadline: float, tried: int) -> None:
    """Their deadlines must not add up to the time after which the lane counts as stuck. At least one always runs."""
    attempts = {row: attempt(crashes=row % 2) for row in range(20)}
    assert too_many(range(20), attempts, deadline) == list(range(1, 20, 2))[tried:]
