"""Suspects: marks as text, and what a lane does from death to death."""

from __future__ import annotations

import pytest

from failsoft.models.catalog.chain import LinkKind
from failsoft.schemas.failure import Failure, Kind
from failsoft.workers.lanes.crash_marks import CAREFUL, WATCHED, Care, Mark, State, Turn, parse
from failsoft.workers.scoring.poison import ENOUGH, Convict, counted, too_many
from tests.kit import attempt

A, B = ("loans.events", 0), ("loans.retry.5s", 0)


def _care(*marks: tuple[tuple[str, int], int, str]) -> Care[tuple[str, int]]:
    """A lane that opens with these (partition, committed offset, metadata)."""
    care: Care[tuple[str, int]] = Care()
    for place, offset, metadata in marks:
        care.opened(place, offset, metadata)
    return care


@pytest.mark.parametrize("state", State)
def test_a_mark_is_read_as_it_was_written(state: State) -> None:
    """Its text is short: Kafka takes at most 4,096 bytes."""
    mark = Mark(state, 2, 2**63 - 1, 2**63 - 1)
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
def test_whatever_else_stands_there_is_as_if_nothing_did(metadata: str | None) -> None:
    """Metadata is untrusted: it suspects nobody, and ends no worker."""
    assert parse(metadata) is None
    care: Care[tuple[str, int]] = Care()
    assert care.opened(A, 0, metadata) is None and care.choose([A]) is None


def test_deaths_are_counted_to_999() -> None:
    """A number that does not end would end as no mark at all, and the count would begin anew."""
    assert parse(str(Mark(State.ALONE, 10**6, 7, 7))) == Mark(State.ALONE, 999, 7, 7)


def test_the_first_batches_after_a_start_are_marked_and_no_others() -> None:
    """Until as many records are behind as a batch of the owner before can have held, or all there were."""
    care = _care()
    assert care.turn({A: 499}) == Turn({A: Mark(State.AMONG, 0, 500, 500)})
    care.passed(A, WATCHED - 1, False)
    assert care.turn({A: 5000, B: 3}).marks == {A: Mark(State.AMONG, 0, 5001, 5001), B: Mark(State.AMONG, 0, 4, 4)}
    care.passed(A, 1, False)
    care.passed(B, 1, True)
    assert care.turn({A: 9000, B: 9}) == Turn({})


def test_after_one_death_batches_are_small_until_what_was_in_flight_is_behind() -> None:
    """Only the suspected partition is read; each batch narrows the mark, and each commit keeps the suspicion."""
    care = _care((A, 100, "failsoft/1 among deaths=0 until=300 of=300"), (B, 5, ""))
    assert care.choose([A, B]) == (A, CAREFUL)
    turn = care.turn({A: 163})
    assert turn == Turn({A: Mark(State.AMONG, 1, 164, 300)})
    assert care.beside(turn, {A: 100, B: 5}, {A: 164}) == {A: (164, "failsoft/1 suspect deaths=1 until=300 of=300")}
    assert care.beside(care.turn({A: 299}), {A: 236}, {A: 301}) == {A: (301, "")}
    assert care.choose([A, B]) is None


def test_after_two_deaths_each_is_tried_alone() -> None:
    """Marked as alone before, and as a mere suspect again once the run is over: a commit that fails kills nobody."""
    care = _care((A, 100, "failsoft/1 among deaths=1 until=103 of=103"))
    assert care.choose([A]) == (A, 1)
    turn = care.turn({A: 100})
    assert turn == Turn({A: Mark(State.ALONE, 2, 101, 103)}, alone=True)
    assert care.ran(turn) == {A: Mark(State.SUSPECT, 2, 103, 103)}
    assert care.beside(turn, {A: 100}, {A: 101}) == {A: (101, "failsoft/1 suspect deaths=2 until=103 of=103")}


def test_past_the_few_the_rest_is_suspected_as_before() -> None:
    """The second death may have been another lane's doing: the killer of the first is still to come."""
    care = _care((A, 100, "failsoft/1 among deaths=1 until=101 of=300"))
    turn = care.turn({A: 100})
    assert care.beside(turn, {A: 100}, {A: 101}) == {A: (101, "failsoft/1 suspect deaths=1 until=300 of=300")}
    assert care.choose([A]) == (A, CAREFUL)


def test_who_was_alone_in_flight_when_its_worker_died_is_tried_alone_again() -> None:
    """Somebody may have pulled the plug just then; if it lives, the rest is suspected as before."""
    care = _care((A, 101, "failsoft/1 alone deaths=2 until=102 of=300"))
    assert care.choose([A]) == (A, 1)
    turn = care.turn({A: 101})
    assert turn == Turn({A: Mark(State.AGAIN, 3, 102, 300)}, alone=True)
    assert care.ran(turn) == {A: Mark(State.ALONE, 2, 102, 300)}, "a commit that fails leaves it as it was"
    assert care.beside(turn, {A: 101}, {A: 102}) == {A: (102, "failsoft/1 suspect deaths=2 until=300 of=300")}


def test_who_was_alone_in_flight_when_its_worker_died_twice_is_convicted() -> None:
    """It is marked once more while it is buried; then the partition is like any other."""
    care = _care(
        (A, 100, "failsoft/1 again deaths=3 until=102 of=300"), (B, 0, "failsoft/1 among deaths=1 until=9 of=9")
    )
    assert care.choose([B, A]) == (A, 1)
    turn = care.turn({A: 101})
    assert turn == Turn({A: Mark(State.AGAIN, 4, 102, 300)}, alone=True, convict=Convict(4))
    assert care.ran(turn) == {A: Mark(State.AGAIN, 3, 102, 300)}, "a commit that fails leaves the same verdict"
    assert care.beside(turn, {A: 100}, {A: 102}) == {A: (102, "")}
    assert care.choose([A]) is None and care.choose([A, B]) == (B, 1)


def test_only_the_record_that_was_in_flight_is_convicted() -> None:
    """If it is not there any more, whoever comes in its place is tried."""
    care = _care((A, 100, "failsoft/1 again deaths=3 until=102 of=102"))
    turn = care.turn({A: 105})
    assert turn.convict is None and turn.alone


@pytest.mark.parametrize("offset", [300, 301])
def test_a_mark_that_lies_behind_says_nothing(offset: int) -> None:
    """Somebody committed past it."""
    care: Care[tuple[str, int]] = Care()
    assert care.opened(A, offset, "failsoft/1 alone deaths=2 until=300 of=300") is None
    assert care.choose([A]) is None


def test_a_suspicion_does_not_count_as_a_death() -> None:
    """A lane that moves or drains in the middle of its care hands it on as it is, however often."""
    care = _care((A, 100, "failsoft/1 suspect deaths=1 until=300 of=300"))
    assert care.choose([A]) == (A, CAREFUL)
    assert care.turn({A: 120}).marks == {A: Mark(State.AMONG, 1, 121, 300)}


def test_a_suspect_that_may_not_be_read_keeps_nobody_waiting() -> None:
    """A rung while the breaker is open: the others are read as ever, and the mark stays where it is."""
    care = _care((B, 3, "failsoft/1 among deaths=1 until=9 of=9"))
    assert care.choose([A]) is None
    assert care.turn({A: 7}) == Turn({A: Mark(State.AMONG, 0, 8, 8)})
    assert care.beside(Turn({}), {A: 0, B: 3}, {A: 8, B: 4}) == {
        A: (8, ""),
        B: (4, "failsoft/1 suspect deaths=2 until=9 of=9"),
    }


def test_what_is_gone_is_not_waited_for() -> None:
    """Retention took it: the partition is read as ever."""
    care = _care((A, 100, "failsoft/1 among deaths=1 until=300 of=300"))
    care.gone(A)
    assert care.choose([A]) is None


def test_a_convict_is_answered_by_what_cannot_have_killed() -> None:
    """No fallback model; nor a rule, if its worker died once more while it was buried."""
    assert Convict(4).links == {LinkKind.LAST_KNOWN, LinkKind.RULE, LinkKind.STATIC}
    assert Convict(5).links == {LinkKind.LAST_KNOWN, LinkKind.STATIC}
    assert Convict(3).failure.kind is Kind.POISON and "died 3 times" in Convict(3).failure.message


def test_the_second_death_of_the_models_process_is_the_last() -> None:
    """The first is counted and retried; a row without an attempt gets the count with its retry."""
    crash = Failure(Kind.CRASHED, "signal 11")
    attempts = {0: attempt(), 1: attempt(crashes=1)}
    assert counted(0, crash, attempts) == crash and attempts[0].crashes == 1
    poison = counted(1, crash, attempts)
    assert poison.kind is Kind.POISON and attempts[1].crashes == ENOUGH
    assert "died 2 times" in poison.message and "signal 11" in poison.message
    assert counted(2, crash, attempts) == crash and 2 not in attempts


@pytest.mark.parametrize(("deadline", "tried"), [(0.2, 4), (4.0, 2), (60.0, 1)])
def test_a_batch_tries_few_suspects(deadline: float, tried: int) -> None:
    """Their deadlines must not add up to a lane that seems stuck; one is always tried."""
    attempts = {row: attempt(crashes=row % 2) for row in range(20)}
    assert too_many(range(20), attempts, deadline) == list(range(1, 20, 2))[tried:]
