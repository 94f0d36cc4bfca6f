"""The hold: when the head of a rung is due."""

from __future__ import annotations

import pytest

from failsoft.schemas import attempt as attempts
from failsoft.schemas.failure import Failure
from failsoft.schemas.record import Header
from failsoft.topics.hold import SLACK_MS, due_ms, plausible, wait_seconds
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
def test_an_unreadable_due_time_is_none(headers: list[Header], due: int | None) -> None:
    """A missing, duplicate or invalid due time is None; no header raises."""
    assert due_ms(headers) == due


@pytest.mark.parametrize("raw", [None, b"", b"-5", b"x", b"9" * 20])
def test_a_record_without_due_time_is_not_attempted(raw: bytes | None) -> None:
    """The hold lets a record with an unreadable due time pass, and parsing refuses it: it is never attempted early."""
    headers = [(k, raw if k == DUE else v) for k, v in attempt().headers()]
    assert due_ms(headers) is None and isinstance(attempts.parse(headers), Failure)


def test_the_wait_is_the_time_until_due() -> None:
    """The wait is the time until the due time in seconds, and never negative."""
    assert wait_seconds(1500, 1000) == 0.5 and wait_seconds(1000, 1000) == wait_seconds(1, 1000) == 0


def test_a_due_time_far_ahead_is_not_plausible() -> None:
    """A due time beyond twice the delay plus a minute of clock difference is forged: it would block its rung."""
    edge = 1000 + 2 * 5000 + SLACK_MS
    assert plausible(edge, 1000, 5.0) and not plausible(edge + 1, 1000, 5.0) and plausible(0, 1000, 5.0)
