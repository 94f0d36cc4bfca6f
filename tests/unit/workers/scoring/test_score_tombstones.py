"""Records without a value, by which a compacted topic deletes a key."""

from __future__ import annotations

from dataclasses import replace

from failsoft.schemas.failure import Kind
from tests.kit import INPUT, REPLAY, Rec, answers, events, plan, run, waiting

IGNORING = replace(plan(), ignores_tombstones=True)


def batch() -> list[Rec]:
    """A good event, a tombstone, another good event, and one that is no JSON."""
    first, second = events(1), events(1, start=2)
    return [*first, Rec(offset=1, value=None), *second, Rec(offset=3, value=b"{")]


def test_a_tombstone_is_a_dead_letter_by_default() -> None:
    """An event without a value cannot be read, and nothing is dropped without being told so."""
    done = run(batch(), plan())
    assert [(d.record.offset, d.attempt.failure.kind) for d in done.verdicts.dead] == [
        (1, Kind.MALFORMED),
        (3, Kind.MALFORMED),
    ]
    assert done.outcomes == {(INPUT, "answered"): 2, (INPUT, "dead"): 2}


def test_an_ignored_tombstone_is_only_counted() -> None:
    """It has no answer, no dead letter and no line in the log of failures. The others of its batch are as ever."""
    done = run(batch(), IGNORING)
    assert [d.record.offset for d in done.verdicts.dead] == [3] and set(done.failures) == {3}
    assert [a.id for a in answers(done)] == ["e0", "e2"] and not done.held
    assert done.outcomes == {(INPUT, "answered"): 2, (INPUT, "dead"): 1, (INPUT, "ignored"): 1}
    assert done.dead == {Kind.MALFORMED: 1}


def test_a_batch_of_tombstones_writes_nothing() -> None:
    """Compaction leaves many of them together."""
    done = run([Rec(offset=i, value=None) for i in range(3)], IGNORING)
    assert not done.verdicts.dead and not done.verdicts.answered and done.outcomes == {(INPUT, "ignored"): 3}


def test_a_tombstone_that_was_a_dead_letter_stays_one() -> None:
    """It was dead-lettered before the setting changed. A replay must not lose it."""
    done = run([replace(waiting(REPLAY, next_revision=0), value=None), Rec(offset=1, value=None)], IGNORING)
    assert [d.record.topic for d in done.verdicts.dead] == [REPLAY]
    assert done.outcomes == {(REPLAY, "dead"): 1, (INPUT, "ignored"): 1}
