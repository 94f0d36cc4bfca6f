"""The hold: is the head of a rung due?"""

from __future__ import annotations

import pytest

from failsoft.schemas import attempt as attempts
from failsoft.schemas.failure import Failure
from failsoft.schemas.record import Header
from failsoft.topics.hold import SLACK_MS, due_count, due_ms, plausible, wait_seconds
from tests.kit import attempt

DUE = "failsoft-due-ms"


@pytest.mark.parametrize(
    ("headers", "due"),
    [
        ([(DUE, b"1800")], 1800),
        ([("own", b"x"), (DUE, b"0")], 0),
        ([], None),
        ([(DUE, b"1"), (DUE, b"1")], None),
        ([(DUE, None)], None),
        ([(DUE, b"")], None),
        ([(DUE, b"-5")], None),
        ([(DUE, b"1.5")], None),
        ([(DUE, b"soon")], None),
        ([(DUE, b"9" * 5000)], None),
    ],
)
def test_a_due_time_is_read_or_it_is_none(headers: list[Header], due: int | None) -> None:
    """No header of anybody's raises here."""
    assert due_ms(headers) == due


@pytest.mark.parametrize("raw", [None, b"", b"-5", b"x", b"9" * 20])
def test_what_has_no_due_time_is_not_attempted(raw: bytes | None) -> None:
    """Whatever the hold cannot read, and so lets pass, is a bad header to whoever would attempt it: never early."""
    headers = [(k, raw if k == DUE else v) for k, v in attempt().headers()]
    assert due_ms(headers) is None and isinstance(attempts.parse(headers), Failure)


@pytest.mark.parametrize(
    ("due", "taken"),
    [([], 0), ([10], 1), ([11], 0), ([9, 10, 11, 9], 2), ([None, 11], 1), ([11, None], 0), ([None, None], 2)],
)
def test_the_head_speaks_for_what_is_behind_it(due: list[int | None], taken: int) -> None:
    """Taken is what is due at 10, up to the first that is not; a record without a due time holds nobody."""
    assert due_count(due, 10) == taken


def test_the_wait_is_what_is_left() -> None:
    """In seconds, and never negative."""
    assert wait_seconds(1500, 1000) == 0.5 and wait_seconds(1000, 1000) == wait_seconds(1, 1000) == 0


def test_a_due_time_far_ahead_is_not_plausible() -> None:
    """Twice the delay and a minute of clocks that differ: one further off would hold its rung for ever."""
    edge = 1000 + 2 * 5000 + SLACK_MS
    assert plausible(edge, 1000, 5.0) and not plausible(edge + 1, 1000, 5.0) and plausible(0, 1000, 5.0)
