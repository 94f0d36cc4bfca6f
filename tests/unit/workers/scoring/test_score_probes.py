"""Scoring in a half-open period: waiting retries are the probes, and a failed probe uses no attempt."""

from __future__ import annotations

from itertools import permutations

import pytest

from failsoft.models.breaker.breaker import Admission
from failsoft.schemas.failure import Kind
from failsoft.schemas.fleet.counts import Counts
from tests.kit import REPLAY, FakeBoard, Rec, answers, broken, by_topic, events, failing, retried, run, waiting

RUNG, NEXT = "loans.retry.5s", "loans.retry.1m"


def held(records: list[Rec], rows: set[int]) -> dict[str, list[int]]:
    """The offsets of the rows, by topic."""
    return by_topic(records[row] for row in sorted(rows))


def probing(n: int = 3, anywhere: bool = False) -> FakeBoard:
    """A board that admits ``n`` probes of the primary, and any number of calls of other models."""
    return FakeBoard(admits={"m@2": n}, anywhere=anywhere)


def test_a_probe_from_the_ladder_that_failed_waits_as_before() -> None:
    """The breaker counted the failure. The record keeps its attempt: no retry, no answer, no dead letter."""
    records = [waiting(offset=5)]
    registry = probing()
    done = run(records, registry=registry, models={"m": broken})
    assert registry.reports[0][2].failures == 1
    assert held(records, done.held) == {RUNG: [5]}
    assert answers(done) == [] and retried(done) == [] and not done.verdicts.dead and not done.failures
    assert not done.outcomes


def test_probes_are_drawn_at_random_if_the_breaker_asks_for_it() -> None:
    """The first records may be ones that no model can answer. A probe behind other records waits for its turn, whether
    it passed or failed, and no attempt is used.
    """
    records = [waiting(offset=i) for i in range(4)] + [waiting(NEXT, offset=9, number=1)]
    registry = probing(2, anywhere=True)
    done = run(records, registry=registry, models={"m": failing(0)}, u=[0.6, 0.7, 0.1, 0.8, 0.9])
    assert registry.reports == [("m@2", 7, Counts(2, 1, 0, 1))], "rows 2 and 0, of which 0 failed"
    assert not retried(done) and not answers(done)
    assert held(records, done.held) == {RUNG: [0, 1, 2, 3], NEXT: [9]}


@pytest.mark.parametrize("u", [*permutations([0.1, 0.3, 0.5, 0.7, 0.9])][::7])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_random_draw_skips_no_record(u: tuple[float, ...], n: int) -> None:
    """Every row has a verdict or is held, and the held rows are the end of their topic, so no offset is committed past
    them.
    """
    records = [waiting(offset=i) for i in range(3)] + [waiting(NEXT, offset=i, number=1) for i in range(2)]
    done = run(records, registry=probing(n, anywhere=True), models={"m": failing(0)}, u=u)
    settled = by_topic([a.record for a in answers(done)] + [r for _, r, _ in retried(done)])
    waits = held(records, done.held)
    for topic, count in ((RUNG, 3), (NEXT, 2)):
        assert settled.get(topic, []) + waits.get(topic, []) == [*range(count)]
    assert len(done.held) >= len(records) - n


def test_a_drawn_probe_at_the_head_of_its_rung_is_answered() -> None:
    """Only the first records of a rung can be answered now."""
    records = [waiting(offset=i) for i in range(3)]
    done = run(records, registry=probing(2, anywhere=True), u=[0.1, 0.9, 0.2])
    assert by_topic(a.record for a in answers(done)) == {RUNG: [0]}
    assert held(records, done.held) == {RUNG: [1, 2]}


def test_probes_come_from_the_first_rungs_first() -> None:
    """That holds in whatever order they were read: the last rung may hold only records that no model can answer."""
    records = [waiting(NEXT, offset=i, number=1) for i in range(3)] + [waiting(offset=i) for i in range(3)]
    done = run(records, registry=probing(4))
    assert by_topic(a.record for a in answers(done)) == {RUNG: [0, 1, 2], NEXT: [0]}
    assert held(records, done.held) == {NEXT: [1, 2]}


def test_records_after_a_failed_probe_on_its_topic_wait_too() -> None:
    """A topic is read in order: the records before the probe are answered, those after it are read again although they
    passed.
    """
    records = [waiting(offset=i) for i in range(5)] + [waiting(NEXT, offset=9, number=1)]
    done = run(records, registry=probing(6), models={"m": failing(2)})
    assert held(records, done.held) == {RUNG: [2, 3, 4]}
    assert by_topic(a.record for a in answers(done)) == {RUNG: [0, 1], NEXT: [9]}
    assert {(a.source, a.revision, a.final) for a in answers(done)} == {("primary", 1, True)}
    assert done.outcomes == {(RUNG, "corrected"): 2, (NEXT, "corrected"): 1}


def test_each_topic_waits_from_its_own_first_failure_on() -> None:
    """A probe of another rung or of the replay topic is not held."""
    records = [
        waiting(offset=0),
        waiting(offset=1),
        waiting(NEXT, offset=7, number=1),
        waiting(NEXT, offset=8, number=1),
        waiting(REPLAY, offset=3, number=0),
    ]
    done = run(records, registry=probing(5), models={"m": failing(1, 2)})
    assert held(records, done.held) == {RUNG: [1], NEXT: [7, 8]}
    assert by_topic(a.record for a in answers(done)) == {RUNG: [0], REPLAY: [3]}


def test_a_replayed_probe_that_failed_is_held_too() -> None:
    """A replay by an operator uses no attempt either while the model is known to be down."""
    records = [waiting(REPLAY, offset=3, number=0, next_revision=2)]
    done = run(records, registry=probing(), models={"m": broken})
    assert held(records, done.held) == {REPLAY: [3]} and not done.replayed and retried(done) == []


def test_an_unreadable_record_after_a_failed_probe_waits_too() -> None:
    """Otherwise it would be dead-lettered now, and read and dead-lettered again together with the records before it."""
    records = [waiting(offset=0), waiting(offset=1, value=b"{")]
    done = run(records, registry=probing(), models={"m": broken})
    assert held(records, done.held) == {RUNG: [0, 1]} and not done.verdicts.dead and answers(done) == []
    records = [waiting(offset=0, value=b"{"), waiting(offset=1)]
    done = run(records, registry=probing(), models={"m": broken})
    assert held(records, done.held) == {RUNG: [1]} and len(done.verdicts.dead) == 1


def test_live_events_of_the_batch_are_answered() -> None:
    """The retries are the probes. Live events get the fallback's answer at once, and wait on the first rung."""
    records = [*events(4), waiting(offset=0), waiting(offset=1)]
    done = run(records, registry=probing(2), models={"m": broken})
    assert held(records, done.held) == {RUNG: [0, 1]}
    given = answers(done)
    assert [(a.id, a.source, a.reason, a.final) for a in given] == [
        (f"e{i}", "static", "breaker_open", False) for i in range(4)
    ]
    assert [(delay, r.offset) for delay, r, _ in retried(done)] == [("5s", i) for i in range(4)]


def test_live_probes_that_fail_are_answered_and_retried() -> None:
    """They are not read again, because a live event must be answered at once. The probe was the first attempt."""
    records = [*events(3), waiting(offset=0)]
    done = run(records, registry=probing(4), models={"m": broken})
    assert held(records, done.held) == {RUNG: [0]}
    assert [(a.id, a.source, a.reason) for a in answers(done)] == [
        (f"e{i}", "static", str(Kind.MODEL_ERROR)) for i in range(3)
    ]
    assert len(retried(done)) == 3


@pytest.mark.parametrize("n", [0, 1, 2])
def test_the_ladder_is_granted_first_and_the_rest_waits(n: int) -> None:
    """That holds for any order of rows. Admitted retries that passed are answered, and the others are held."""
    records = [waiting(offset=0), *events(2), waiting(offset=1), waiting(offset=2)]
    done = run(records, registry=probing(n))
    assert held(records, done.held) == ({RUNG: list(range(n, 3))})
    primary = [a for a in answers(done) if a.source == "primary"]
    assert by_topic(a.record for a in primary) == ({RUNG: list(range(n))} if n else {})
    assert sum(a.source == "static" for a in answers(done)) == 2


@pytest.mark.parametrize("kind", [Kind.POISON, Kind.DEPENDENCY, Kind.INVALID])
def test_a_failure_that_is_not_the_models_is_no_failed_probe(kind: Kind) -> None:
    """The record goes to the next rung or to the dead letters as usual, and holds no other record."""
    records = [waiting(offset=0), waiting(offset=1)]
    registry = probing()
    done = run(records, registry=registry, models={"m": failing(0, kind=kind)})
    assert registry.reports[0][2].failures == 0 and not done.held
    assert by_topic(a.record for a in answers(done) if a.source == "primary") == {RUNG: [1]}
    assert len(retried(done)) + len(done.verdicts.dead) == 1


def test_without_probes_a_failed_retry_uses_its_attempt() -> None:
    """A closed breaker's calls are expected to succeed."""
    done = run([waiting(offset=0)], models={"m": broken})
    assert not done.held and [delay for delay, _, _ in retried(done)] == ["1m"]


def test_the_breaker_receives_how_many_rows_are_from_the_ladder() -> None:
    """Rows that cannot be run do not count, wherever they come from."""
    received: list[tuple[int, int]] = []

    class Board(FakeBoard):
        def admit(self, key: str, n: int, ladder: int = 0) -> Admission:
            received.append((n, ladder))
            return FakeBoard.admit(self, key, n, ladder)

    run([*events(3), waiting(offset=0), waiting(REPLAY, number=0), waiting(value=b"{")], registry=Board())
    run(events(2), registry=Board())
    assert received == [(5, 2), (2, 0)]


def test_a_row_that_was_not_run_is_no_passed_probe() -> None:
    """Only calls that were made are reported: others, counted as successes, would close the breaker."""
    registry = probing()
    run([waiting(offset=i) for i in range(3)], registry=registry, models={"m": failing(0, 1, 2, kind=Kind.UNAVAILABLE)})
    assert registry.reports[0][2] == Counts()
    some = FakeBoard()
    run(events(3), registry=some, models={"m": failing(1, kind=Kind.UNAVAILABLE)})
    assert some.reports[0][2] == Counts(calls=2, failures=0, slow=0, runs=1)


def test_a_probe_that_was_not_run_is_released() -> None:
    """The next batch may probe at once. A lease with unused probes would block all probes until it expires."""
    registry = probing()
    run([waiting(offset=i) for i in range(3)], registry=registry, models={"m": failing(0, 2, kind=Kind.UNAVAILABLE)})
    assert registry.released == [("m@2", 2)]
    ran = probing()
    run([waiting(offset=i) for i in range(3)], registry=ran, models={"m": failing(0, 1, 2)})
    assert ran.released == []
    closed = FakeBoard()
    run(events(3), registry=closed, models={"m": failing(1, kind=Kind.UNAVAILABLE)})
    assert closed.released == [], "a closed breaker lends nothing"
