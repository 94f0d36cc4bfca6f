"""A trouble is logged when it lasts, and again from time to time."""

from __future__ import annotations

import pytest

from failsoft.workers.kafka.trouble_log import EVERY, QUIET, TroubleLog


def test_only_a_trouble_that_lasts_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Not one that is over soon, and then not each try: tries come twice a second."""
    now = 100.0
    trouble = TroubleLog(lambda: now)
    for half in range(62):
        now = 100.0 + half / 2
        trouble.note(f"try {half}")
    assert (QUIET, EVERY) == (5.0, 10.0)
    assert [r.getMessage() for r in caplog.records] == [
        "still trying after 5 s: try 10",
        "still trying after 15 s: try 30",
        "still trying after 25 s: try 50",
    ]


def test_a_try_that_takes_long_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """However many lines were due meanwhile."""
    times = iter([0.0, 4.9, 60.0, 69.9])
    trouble = TroubleLog(lambda: next(times))
    for _ in range(3):
        trouble.note("no answer")
    assert [r.getMessage() for r in caplog.records] == ["still trying after 60 s: no answer"]
