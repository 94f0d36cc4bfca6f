"""Reading attempts from the headers of a batch's records."""

from __future__ import annotations

from dataclasses import replace

from failsoft.schemas.failure import Kind
from failsoft.workers.scoring.intake import attempts_of
from tests.kit import NOW_MS, REPLAY, events, plan, waiting


def test_live_records_have_no_attempt() -> None:
    """Headers on an input topic are never read, since any producer may write them."""
    assert attempts_of(events(3), plan(), NOW_MS) == ({}, {})


def test_a_record_of_a_rung_counts_as_one_attempt_more() -> None:
    """A record of the replay topic does not: a replay by an operator is no retry."""
    rung, replayed = waiting(), waiting(topic=REPLAY)
    found, failures = attempts_of([*events(1), rung, replayed], plan(), NOW_MS)
    assert not failures and list(found) == [1, 2]
    assert found[1].number == found[2].number + 1


def test_a_record_of_another_partition_has_a_bad_header() -> None:
    """Its headers were copied from elsewhere. It goes to the dead letters with what can be read of them."""
    moved = replace(waiting(), partition=3)
    found, failures = attempts_of([moved], plan(), NOW_MS)
    assert failures[0].kind is Kind.BAD_HEADER and "failsoft-origin-partition" in failures[0].message and 0 in found
