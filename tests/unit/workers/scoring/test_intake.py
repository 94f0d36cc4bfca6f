"""What a batch's records carry: whose attempts are believed."""

from __future__ import annotations

from dataclasses import replace

from failsoft.schemas.failure import Kind
from failsoft.workers.scoring.intake import attempts_of
from tests.kit import NOW_MS, REPLAY, events, plan, waiting


def test_live_records_have_no_attempt() -> None:
    """An input topic may carry any header: none of it is read."""
    assert attempts_of(events(3), plan(), NOW_MS) == ({}, {})


def test_a_record_of_a_rung_counts_as_one_attempt_more() -> None:
    """One of replay does not: an operator's order is no attempt."""
    rung, replayed = waiting(), waiting(topic=REPLAY)
    found, failures = attempts_of([*events(1), rung, replayed], plan(), NOW_MS)
    assert not failures and list(found) == [1, 2]
    assert found[1].number == found[2].number + 1


def test_a_record_of_another_partition_is_not_believed() -> None:
    """Its headers were copied: it goes to the dead letters with what can be read of them."""
    moved = replace(waiting(), partition=3)
    found, failures = attempts_of([moved], plan(), NOW_MS)
    assert failures[0].kind is Kind.BAD_HEADER and "failsoft-origin-partition" in failures[0].message and 0 in found
